"""Models."""
from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Optional


@dataclass
class Item:
    name: str
    price: float = 0.0
    tags: list[str] = field(default_factory=list)

    @property
    def label(self) -> str:
        return f"{self.name}: {self.price:.2f}"


class Cart(object):
    def __init__(self, owner: Optional[str] = None, *args, **kwargs):
        self.owner = owner
        self.items = []

    def add(self, item, count=1):
        if item is None:
            raise ValueError("item")
        for _ in range(count):
            self.items.append(item)
        print("added", item.name, count)
        print('added', item)
        return self

    async def total(self):
        return sum(x.price for x in self.items if x.price == x.price)


def main():
    cart = Cart(os.environ.get("USER", "ada"))
    cart.add(Item("tea", 3.5)).add(Item("cake", price=4), count=2)
    try:
        print(cart.items[0].label)
    except (IndexError, KeyError) as error:
        print(error)
    with open("x") as handle:
        data = handle.read()
    return data if data else None

<?php
declare(strict_types=1);

namespace Shop;

use InvalidArgumentException;

final class Cart
{
    private array $items = [];

    public function __construct(private string $owner) {}

    public function add(string $name, int $price): void
    {
        if ($price < 0) {
            throw new InvalidArgumentException("negative price");
        }
        $this->items[] = ['name' => $name, 'price' => $price];
        echo "added {$name}\n";
    }

    public function total(): int
    {
        $sum = 0;
        foreach ($this->items as $item) {
            $sum += $item['price'];
        }
        return $sum;
    }
}

$cart = new Cart("ada");
$cart->add("tea", 3);
$cart->add("cake", 4);
var_dump($cart->total());
echo strlen("tea"), "\n";

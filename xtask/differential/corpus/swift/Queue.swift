import Foundation

protocol Store {
    associatedtype Element
    mutating func push(_ element: Element)
}

struct Queue<T>: Store {
    private var items: [T] = []

    mutating func push(_ element: T) {
        items.append(element)
    }

    mutating func pop() -> T? {
        guard !items.isEmpty else { return nil }
        return items.removeFirst()
    }
}

enum Weather {
    case sunny
    case rain(millimetres: Int)
}

func describe(_ weather: Weather) -> String {
    switch weather {
    case .sunny:
        return "sunny"
    case .rain(let mm):
        return "rain \(mm)"
    }
}

var queue = Queue<Int>()
queue.push(1)
queue.push(2)
if let first = queue.pop() {
    print(first)
}
print(describe(.sunny))
print(describe(.rain(millimetres: 3)))

//! A queue, as a sample of Rust for the differential test.

use std::collections::VecDeque;

/// First in, first out.
#[derive(Debug, Clone, Default)]
pub struct Queue<T> {
    items: VecDeque<T>,
}

impl<T: Clone> Queue<T> {
    pub fn push(&mut self, item: T) -> usize {
        self.items.push_back(item);
        self.items.len()
    }

    pub fn pop(&mut self) -> Option<T> {
        self.items.pop_front()
    }
}

fn parse(text: &str) -> Result<u32, std::num::ParseIntError> {
    let n = text.parse::<u32>()?;
    if n == n { Ok(n) } else { Ok(0) }
}

fn main() {
    let mut queue = Queue::default();
    queue.push(1);
    queue.push(/* two */ 2);
    while let Some(item) = queue.pop() {
        println!("{item}");
    }
    let total = parse("12").unwrap() + parse("30").unwrap_or(0);
    match total {
        0 => println!("zero"),
        n if n > 10 => println!("many {}", n),
        _ => {}
    }
    let twice = |x: u32| x + x;
    assert_eq!(twice(2), 4);
    let grüße = "ü🎉"; println!("{}", grüße);
}

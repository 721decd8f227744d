//! A bounded queue in which the urgent goes first, and what is equally urgent in its order.

use std::collections::VecDeque;

/// How urgent something is, the least first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// When there is nothing else.
    Low,
    /// As it comes.
    #[default]
    Normal,
    /// Before all else.
    High,
}

/// A bounded queue by priority.
///
/// ```
/// use astscope_performance_optimizer::{Priority, PriorityQueue};
///
/// let mut queue = PriorityQueue::new(3);
/// queue.push(Priority::Low, "c").unwrap();
/// queue.push(Priority::High, "a").unwrap();
/// queue.push(Priority::High, "b").unwrap();
/// assert_eq!(queue.push(Priority::High, "d"), Err("d"), "full");
/// assert_eq!([queue.pop(), queue.pop(), queue.pop(), queue.pop()], [Some("a"), Some("b"), Some("c"), None]);
/// ```
#[derive(Debug)]
pub struct PriorityQueue<T> {
    /// By priority, the least first.
    lines: [VecDeque<T>; 3],
    max: usize,
}

impl<T> PriorityQueue<T> {
    /// An empty queue for at most `max` things.
    pub fn new(max: usize) -> Self {
        Self { lines: Default::default(), max }
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.lines.iter().map(VecDeque::len).sum()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.lines.iter().all(VecDeque::is_empty)
    }

    /// Adds something behind what is as urgent. Gives it back if the queue is full.
    pub fn push(&mut self, priority: Priority, item: T) -> Result<(), T> {
        if self.len() >= self.max {
            return Err(item);
        }
        self.lines[priority as usize].push_back(item);
        Ok(())
    }

    /// What is next, left where it is.
    pub fn front_mut(&mut self) -> Option<&mut T> {
        self.lines.iter_mut().rev().find_map(VecDeque::front_mut)
    }

    /// Takes what is next.
    pub fn pop(&mut self) -> Option<T> {
        self.lines.iter_mut().rev().find_map(VecDeque::pop_front)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// What comes out is what went in, sorted by urgency, and otherwise in order.
        #[test]
        fn it_is_a_stable_sort(priorities in proptest::collection::vec(0..3_usize, 0..50)) {
            const ALL: [Priority; 3] = [Priority::Low, Priority::Normal, Priority::High];
            let mut queue = PriorityQueue::new(40);
            let mut expected = Vec::new();
            for (at, priority) in priorities.iter().enumerate() {
                let item = (ALL[*priority], at);
                let pushed = queue.push(item.0, item);
                prop_assert_eq!(pushed.is_ok(), at < 40);
                expected.extend(pushed.is_ok().then_some(item));
            }
            prop_assert_eq!(queue.len(), expected.len());
            expected.sort_by_key(|(priority, _)| std::cmp::Reverse(*priority));
            prop_assert_eq!(queue.front_mut().copied(), expected.first().copied());
            let found: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
            prop_assert_eq!(found, expected);
            prop_assert!(queue.is_empty());
        }
    }
}

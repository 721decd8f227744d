//! Restart intensity: how many restarts within how long.
//!
//! OTP truncates its times to whole seconds, so its real window is up to a second longer than
//! written. Ours is exact (`docs/semantics/supervision.md`).

use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::Instant;

/// The restarts of one supervisor within its period.
#[derive(Clone, Debug)]
pub(crate) struct Window {
    intensity: usize,
    period: Duration,
    /// Oldest first. At most `intensity + 1`: one more than that ends the supervisor.
    restarts: VecDeque<Instant>,
}

impl Window {
    pub(crate) fn new(intensity: usize, period: Duration) -> Self {
        Self { intensity, period, restarts: VecDeque::new() }
    }

    /// Counts a restart. `false` if it is one too many.
    pub(crate) fn charge(&mut self, now: Instant) -> bool {
        while self.restarts.front().is_some_and(|at| now.duration_since(*at) > self.period) {
            self.restarts.pop_front();
        }
        self.restarts.push_back(now);
        self.restarts.len() <= self.intensity
    }

    /// Restarts that were within the period at the last charge, that one included.
    pub(super) fn len(&self) -> usize {
        self.restarts.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_edge_is_inclusive_and_exact() {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let mut window = Window::new(1, second);
        assert!(window.charge(start));
        assert!(!window.clone().charge(start + second));
        assert!(window.charge(start + second + Duration::from_nanos(1)));
    }

    #[test]
    fn it_keeps_no_more_than_it_needs() {
        let start = Instant::now();
        let mut window = Window::new(2, Duration::from_secs(1));
        for n in 0..1000 {
            assert!(window.charge(start + Duration::from_secs(n)));
            assert!(window.len() <= 3);
        }
    }
}

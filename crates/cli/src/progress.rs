//! The bar that is shown while a tree is parsed for the first time.
//!
//! Only on a terminal, and only when it takes long enough for somebody to wonder.

use astscope_protocol::messages::Progress;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::time::{Duration, Instant};

/// Waits shorter than this are not noticed as waits.
const PATIENCE: Duration = Duration::from_millis(150);

/// The bar, before and while it is shown.
#[derive(Debug)]
pub(crate) struct IndexingBar {
    welcome: bool,
    since: Option<Instant>,
    bar: Option<ProgressBar>,
}

impl IndexingBar {
    /// `welcome` if standard error is a terminal.
    pub(crate) fn new(welcome: bool) -> Self {
        Self { welcome, since: None, bar: None }
    }

    /// Takes note of how far the daemon is.
    pub(crate) fn update(&mut self, progress: &Progress) {
        if !self.welcome || progress.phase != "indexing" {
            return;
        }
        let since = *self.since.get_or_insert_with(Instant::now);
        if since.elapsed() < PATIENCE {
            return;
        }
        let bar = self.bar.get_or_insert_with(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            bar.set_message("Indexing");
            let style = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} files {eta}");
            bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        bar.set_length(progress.total);
        bar.set_position(progress.done);
    }

    /// Takes the bar off the screen, before anything else is printed.
    pub(crate) fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn indexing(done: u64) -> Progress {
        Progress { id: 1, phase: "indexing".to_owned(), done, total: 10 }
    }

    #[test]
    fn a_short_wait_shows_no_bar() {
        let mut bar = IndexingBar::new(true);
        bar.update(&indexing(1));
        assert!(bar.since.is_some() && bar.bar.is_none());
    }

    #[test]
    fn no_bar_is_shown_where_nobody_watches() {
        let mut bar = IndexingBar::new(false);
        bar.update(&indexing(1));
        assert!(bar.since.is_none());
    }

    #[test]
    fn matching_is_not_a_reason_for_a_bar() {
        let mut bar = IndexingBar::new(true);
        bar.update(&Progress { phase: "matching".to_owned(), ..indexing(1) });
        assert!(bar.since.is_none());
    }
}

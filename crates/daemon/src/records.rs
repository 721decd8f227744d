//! What was found in one file, as it is sent and remembered: apart from the handlers, because a
//! workspace keeps it too.

use astscope_protocol::messages::Matches;
use astscope_querying::{Found, Remember};
use serde::Serialize;

/// What was found in one file, encoded where it was found: on a thread of the pool.
#[derive(Clone, Debug, Default)]
pub(crate) struct Records {
    /// All that count, also where nobody wants more than the file's name.
    n_matches: usize,
    matches: Matches,
    /// Which of them are errors, in a scan.
    is_error: Vec<bool>,
}

impl Records {
    /// Of a file whose matches nobody wants to see.
    pub(crate) fn of_file(has_matches: bool) -> Self {
        Self { n_matches: usize::from(has_matches), ..Self::default() }
    }

    pub(crate) fn push(&mut self, record: &impl Serialize) {
        #[expect(clippy::expect_used, reason = "structs of texts and numbers always serialise")]
        self.matches.push(record).expect("a match can be written as JSON");
        self.n_matches += 1;
    }

    /// A finding of a scan.
    pub(crate) fn push_finding(&mut self, record: &impl Serialize, is_error: bool) {
        self.push(record);
        self.is_error.push(is_error);
    }

    pub(crate) fn n_errors(&self) -> u64 {
        self.is_error.iter().filter(|is_error| **is_error).count() as u64
    }

    /// What is sent of it.
    pub(crate) fn into_matches(self) -> Matches {
        self.matches
    }

    /// Without room for more.
    pub(crate) fn shrunk(mut self) -> Self {
        self.matches.shrink();
        self.is_error.shrink_to_fit();
        self
    }
}

impl Found for Records {
    fn n_matches(&self) -> usize {
        self.n_matches
    }

    fn truncate(&mut self, n: usize) {
        self.n_matches = n.min(self.n_matches);
        self.matches.truncate(n);
        self.is_error.truncate(n);
    }
}

impl Remember for Records {
    fn heap_bytes(&self) -> usize {
        self.matches.heap_bytes() + self.is_error.capacity()
    }
}

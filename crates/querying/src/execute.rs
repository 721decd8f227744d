//! Running a search over many files: parallel inside, ordered outside.
//!
//! Files go through the pool in windows. Within a window rayon balances them over the cores; when
//! it is done its results are delivered in order, while the pool searches the next. The first
//! windows are small, so that the first matches come at once, and they grow, so that a slow file
//! at the end of a window holds up little.

use astscope_repository::ScopedFile;
use rayon::ThreadPool;
use rayon::prelude::*;
use std::sync::atomic::{AtomicU64, Ordering};
use thiserror::Error;

/// Files in the first window: a few for each core.
const WINDOW_MIN: usize = 64;
/// Files in a late window.
const WINDOW_MAX: usize = 4096;

/// Why a running query should end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interrupt {
    /// Whoever asked gave it up.
    Cancelled,
    /// Its time is over.
    DeadlineExceeded,
}

/// How far a query may go.
pub struct Bounds<'b> {
    /// Matches at most.
    pub limit: u64,
    /// Asked before and after each file.
    pub interrupt: &'b (dyn Fn() -> Option<Interrupt> + Sync),
}

impl std::fmt::Debug for Bounds<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bounds").field("limit", &self.limit).finish_non_exhaustive()
    }
}

/// The receiver of the results has gone away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone;

/// Why a query did not come to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum QueryError {
    /// It was given up, by request or because nobody listens any more.
    #[error("the query was cancelled")]
    Cancelled,
    /// Its deadline passed.
    #[error("the query's deadline passed")]
    DeadlineExceeded,
}

impl From<Interrupt> for QueryError {
    fn from(interrupt: Interrupt) -> Self {
        match interrupt {
            Interrupt::Cancelled => Self::Cancelled,
            Interrupt::DeadlineExceeded => Self::DeadlineExceeded,
        }
    }
}

/// Takes a file's matches; says when nobody is left to take them.
pub type Deliver<'d, M> = dyn FnMut(&ScopedFile, Vec<M>) -> Result<(), Gone> + 'd;

/// What a query came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Matches delivered.
    pub matches: u64,
    /// Files with matches.
    pub files_matched: u64,
    /// Files that the matcher looked at.
    pub files_verified: u64,
    /// Whether the limit cut the answer: there is at least one more match.
    pub limit_reached: bool,
}

/// Searches `files` and delivers the matches of each file that has some, in the order of `files`.
///
/// `search` gets a file and how many matches are of interest at most; it gives `None` for a file
/// that can't contain a match, else the matches. Delivery happens on the calling thread; while
/// `deliver` blocks, at most two windows of results wait.
///
/// # Errors
/// When interrupted, or when `deliver` says that nobody is left to deliver to. What was delivered
/// until then stands.
pub fn execute<M: Send>(
    files: &[ScopedFile],
    pool: &ThreadPool,
    bounds: &Bounds<'_>,
    search: &(dyn Fn(&ScopedFile, usize) -> Option<Vec<M>> + Sync),
    deliver: &mut Deliver<'_, M>,
) -> Result<Totals, QueryError> {
    let mut totals = Totals::default();
    let mut rest = files;
    let mut window = WINDOW_MIN;
    let mut found = Window { files: &[], matches: Ok(Vec::new()), verified: 0 };
    loop {
        let (now, later) = rest.split_at(window.min(rest.len()));
        rest = later;
        window = (window * 2).min(WINDOW_MAX);
        // One more than allowed tells whether the limit cuts anything.
        let left = bounds.limit - totals.matches;
        let wanted = usize::try_from(left.saturating_add(1)).unwrap_or(usize::MAX);
        let mut next = Window { files: now, matches: Ok(Vec::new()), verified: 0 };
        // The pool searches the next window while this thread delivers the one before.
        let delivered = pool.in_place_scope(|scope| {
            if !now.is_empty() {
                scope.spawn(|_| next.search(bounds, search, wanted));
            }
            found.deliver(bounds.limit, &mut totals, deliver)
        });
        delivered?;
        if totals.limit_reached || now.is_empty() {
            return Ok(totals);
        }
        found = next;
    }
}

/// Some of the files and what was found in them.
struct Window<'f, M> {
    files: &'f [ScopedFile],
    matches: Result<Vec<Vec<M>>, Interrupt>,
    verified: u64,
}

impl<M: Send> Window<'_, M> {
    fn search(
        &mut self,
        bounds: &Bounds<'_>,
        search: &(dyn Fn(&ScopedFile, usize) -> Option<Vec<M>> + Sync),
        wanted: usize,
    ) {
        let verified = AtomicU64::new(0);
        let searched = self.files.par_iter().map(|file| {
            if let Some(interrupt) = (bounds.interrupt)() {
                return Err(interrupt);
            }
            let found = search(file, wanted);
            verified.fetch_add(u64::from(found.is_some()), Ordering::Relaxed);
            // A search that was interrupted has found less than there is.
            (bounds.interrupt)().map_or_else(|| Ok(found.unwrap_or_default()), Err)
        });
        self.matches = searched.collect();
        self.verified = verified.into_inner();
    }

    fn deliver(
        self,
        limit: u64,
        totals: &mut Totals,
        deliver: &mut Deliver<'_, M>,
    ) -> Result<(), QueryError> {
        let found = self.matches?;
        totals.files_verified += self.verified;
        for (file, mut matches) in self.files.iter().zip(found) {
            if matches.is_empty() || totals.limit_reached {
                continue;
            }
            let left = limit - totals.matches;
            if matches.len() as u64 > left {
                totals.limit_reached = true;
                matches.truncate(usize::try_from(left).unwrap_or(usize::MAX));
            }
            if !matches.is_empty() {
                totals.matches += matches.len() as u64;
                totals.files_matched += 1;
                deliver(file, matches).map_err(|Gone| QueryError::Cancelled)?;
            }
        }
        Ok(())
    }
}

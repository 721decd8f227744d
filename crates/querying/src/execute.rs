//! Running a search over many files: parallel inside, ordered outside.
//!
//! Files go through the pool in windows. Within a window rayon balances them over the cores; when
//! it is done its results are delivered in order. The first windows are small, so that the first
//! matches come at once, and they grow, so that a slow file at the end of a window holds up little.

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
    /// Asked before each file.
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
/// `deliver` blocks, at most one window of results waits.
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
    while !rest.is_empty() {
        let (now, later) = rest.split_at(window.min(rest.len()));
        rest = later;
        window = (window * 2).min(WINDOW_MAX);
        // One more than allowed tells whether the limit cuts anything.
        let left = bounds.limit - totals.matches;
        let wanted = usize::try_from(left.saturating_add(1)).unwrap_or(usize::MAX);
        let verified = AtomicU64::new(0);
        let found = pool.install(|| {
            now.par_iter()
                .map(|file| {
                    if let Some(interrupt) = (bounds.interrupt)() {
                        return Err(interrupt);
                    }
                    let found = search(file, wanted);
                    verified.fetch_add(u64::from(found.is_some()), Ordering::Relaxed);
                    Ok(found.unwrap_or_default())
                })
                .collect::<Result<Vec<_>, Interrupt>>()
        })?;
        totals.files_verified += verified.into_inner();
        for (file, mut matches) in now.iter().zip(found) {
            if matches.is_empty() {
                continue;
            }
            let left = bounds.limit - totals.matches;
            if matches.len() as u64 > left {
                totals.limit_reached = true;
                matches.truncate(usize::try_from(left).unwrap_or(usize::MAX));
            }
            if !matches.is_empty() {
                totals.matches += matches.len() as u64;
                totals.files_matched += 1;
                deliver(file, matches).map_err(|Gone| QueryError::Cancelled)?;
            }
            if totals.limit_reached {
                return Ok(totals);
            }
        }
    }
    Ok(totals)
}

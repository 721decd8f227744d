//! Running a search over many files: parallel inside, ordered outside.
//!
//! Files go to the pool in chunks of some text each, a few chunks ahead of what is delivered. The
//! calling thread delivers them in order as they get done, and sends the next ones off: so the
//! first matches come at once, no core waits for the slowest file of many, and what has been found
//! and not been taken is bounded, however slow the receiver is. The pool's threads never wait.
//! A single chunk the calling thread searches itself: to wake another takes as long as that.

use astscope_repository::ScopedFile;
use rayon::{ScopeFifo, ThreadPool};
use std::collections::BTreeMap;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use thiserror::Error;

/// Text in a chunk: a millisecond of matching at least, a thousand times what sending it costs.
const CHUNK_BYTES: usize = 256 << 10;
/// Files in a chunk, where they are small.
const CHUNK_FILES: usize = 64;
/// Chunks for each thread of the pool that are searched before their turn to be delivered.
const CHUNKS_AHEAD: usize = 8;

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

/// What was found in one file, in order: matches, or what the searcher made of them.
pub trait Found: Send {
    /// How many matches it stands for.
    fn n_matches(&self) -> usize;

    /// Keeps the first `n`.
    fn truncate(&mut self, n: usize);
}

impl<M: Send> Found for Vec<M> {
    fn n_matches(&self) -> usize {
        self.len()
    }

    fn truncate(&mut self, n: usize) {
        self.truncate(n);
    }
}

/// Takes what was found in a file; says when nobody is left to take it.
pub type Deliver<'d, F> = dyn FnMut(&ScopedFile, F) -> Result<(), Gone> + 'd;

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
/// that can't contain a match, else what it found. Delivery happens on the calling thread; while
/// `deliver` blocks, the results of a few chunks wait. Not to be called on a thread of `pool`: it
/// waits for the others.
///
/// # Errors
/// When interrupted, or when `deliver` says that nobody is left to deliver to. What was delivered
/// until then stands.
///
/// # Panics
/// When `search` does.
pub fn execute<F: Found>(
    files: &[ScopedFile],
    pool: &ThreadPool,
    bounds: &Bounds<'_>,
    search: &(dyn Fn(&ScopedFile, usize) -> Option<F> + Sync),
    deliver: &mut Deliver<'_, F>,
) -> Result<Totals, QueryError> {
    let is_over = AtomicBool::new(false);
    let job = Job { files, bounds, search, is_over: &is_over };
    let mut chunks = job.chunks();
    if let (Some(only), None) = (chunks.next(), chunks.next()) {
        let mut totals = Totals::default();
        let chunk = job.search(only, job.wanted(&totals))?;
        return job.deliver(chunk, &mut totals, deliver).map(|()| totals);
    }
    let ended = pool.in_place_scope_fifo(|scope| {
        let ended = job.run(scope, pool.current_num_threads() * CHUNKS_AHEAD, deliver);
        // Nobody wants what is still being searched.
        is_over.store(true, Ordering::Relaxed);
        ended
    });
    ended.unwrap_or_else(|panic| resume_unwind(panic))
}

/// What the threads of the pool share.
struct Job<'j, F> {
    files: &'j [ScopedFile],
    bounds: &'j Bounds<'j>,
    search: &'j (dyn Fn(&ScopedFile, usize) -> Option<F> + Sync),
    is_over: &'j AtomicBool,
}

impl<F> Clone for Job<'_, F> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<F> Copy for Job<'_, F> {}

/// What was found in some files that follow each other.
struct Chunk<F> {
    /// A file's place among all, and what was found in it.
    found: Vec<(usize, F)>,
    verified: u64,
}

impl<'j, F: Found + 'j> Job<'j, F> {
    /// Keeps `ahead` chunks at work and delivers them in order.
    fn run(
        self,
        scope: &ScopeFifo<'j>,
        ahead: usize,
        deliver: &mut Deliver<'_, F>,
    ) -> thread::Result<Result<Totals, QueryError>> {
        let mut totals = Totals::default();
        let (done, results) = mpsc::sync_channel(ahead);
        let mut waiting = BTreeMap::new();
        let (mut n_sent, mut n_delivered) = (0, 0);
        let mut chunks = self.chunks();
        loop {
            while n_sent < n_delivered + ahead
                && let Some(range) = chunks.next()
            {
                let wanted = self.wanted(&totals);
                let (number, done) = (n_sent, done.clone());
                n_sent += 1;
                scope.spawn_fifo(move |_| {
                    let chunk = catch_unwind(AssertUnwindSafe(|| self.search(range, wanted)));
                    // Whoever does not listen any more has ended the query.
                    drop(done.send((number, chunk)));
                });
            }
            if n_delivered == n_sent {
                return Ok(Ok(totals));
            }
            let chunk = loop {
                if let Some(chunk) = waiting.remove(&n_delivered) {
                    break chunk;
                }
                // Every chunk that was sent comes back, and one at least is on its way.
                if let Ok((number, chunk)) = results.recv() {
                    waiting.insert(number, chunk);
                }
            };
            n_delivered += 1;
            let delivered = chunk?
                .map_err(QueryError::from)
                .and_then(|chunk| self.deliver(chunk, &mut totals, deliver));
            match delivered {
                Ok(()) if !totals.limit_reached => {}
                ended => return Ok(ended.map(|()| totals)),
            }
        }
    }

    /// All files, cut into chunks.
    fn chunks(self) -> impl Iterator<Item = Range<usize>> {
        let mut start = 0;
        std::iter::from_fn(move || {
            let mut bytes = 0;
            let enough = |file: &ScopedFile| {
                bytes += file.record.file.text.len();
                bytes >= CHUNK_BYTES
            };
            let rest = &self.files[start..];
            let most = &rest[..rest.len().min(CHUNK_FILES)];
            let len = most.iter().position(enough).map_or(most.len(), |last| last + 1);
            let range = start..start + len;
            start += len;
            (len > 0).then_some(range)
        })
    }

    /// Matches that are of interest still: one more than allowed tells whether the limit cuts any.
    fn wanted(self, totals: &Totals) -> usize {
        let left = (self.bounds.limit - totals.matches).saturating_add(1);
        usize::try_from(left).unwrap_or(usize::MAX)
    }

    fn search(self, range: Range<usize>, wanted: usize) -> Result<Chunk<F>, Interrupt> {
        let mut chunk = Chunk { found: Vec::new(), verified: 0 };
        let mut left = wanted;
        for at in range {
            if left == 0 || self.is_over.load(Ordering::Relaxed) {
                break;
            }
            if let Some(interrupt) = (self.bounds.interrupt)() {
                return Err(interrupt);
            }
            let Some(found) = (self.search)(&self.files[at], left) else { continue };
            // A search that was interrupted has found less than there is.
            if let Some(interrupt) = (self.bounds.interrupt)() {
                return Err(interrupt);
            }
            chunk.verified += 1;
            left = left.saturating_sub(found.n_matches());
            if found.n_matches() > 0 {
                chunk.found.push((at, found));
            }
        }
        Ok(chunk)
    }

    fn deliver(
        self,
        chunk: Chunk<F>,
        totals: &mut Totals,
        deliver: &mut Deliver<'_, F>,
    ) -> Result<(), QueryError> {
        totals.files_verified += chunk.verified;
        for (at, mut found) in chunk.found {
            let left = self.bounds.limit - totals.matches;
            if found.n_matches() as u64 > left {
                totals.limit_reached = true;
                found.truncate(usize::try_from(left).unwrap_or(usize::MAX));
            }
            if found.n_matches() > 0 {
                totals.matches += found.n_matches() as u64;
                totals.files_matched += 1;
                deliver(&self.files[at], found).map_err(|Gone| QueryError::Cancelled)?;
            }
            if totals.limit_reached {
                break;
            }
        }
        Ok(())
    }
}

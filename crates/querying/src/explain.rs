//! What a query's plan did: requirements, and the files left after each step.

use crate::execute::{Bounds, Found, Gone, QueryError, Totals, execute};
use crate::pattern::PatternQuery;
use astscope_repository::ScopedFile;
use rayon::ThreadPool;
use rayon::prelude::*;
use std::collections::BTreeMap;

/// A plan, carried out.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Conditions on a file, by language name.
    pub requirements: BTreeMap<String, Vec<String>>,
    /// Each narrowing step and the files that it left.
    pub steps: Vec<(&'static str, u64)>,
    /// What the verification found.
    pub totals: Totals,
}

/// Narrows `files` step by step, then has them searched as [`execute()`] does, and counts.
///
/// # Errors
/// When interrupted.
///
/// # Panics
/// When `search` does.
pub fn explain<F: Found>(
    query: &PatternQuery,
    files: &[ScopedFile],
    pool: &ThreadPool,
    bounds: &Bounds<'_>,
    search: &(dyn Fn(&ScopedFile, usize) -> Option<F> + Sync),
) -> Result<Plan, QueryError> {
    let count = |keep: &(dyn Fn(&ScopedFile) -> bool + Sync)| {
        pool.install(|| files.par_iter().filter(|file| keep(file)).count() as u64)
    };
    let steps = vec![
        ("files selected", files.len() as u64),
        ("in a language of the pattern", count(&|file| query.searches(file))),
        ("with the node kinds required", count(&|file| query.kinds_admit(file))),
        ("with the text required", count(&|file| query.admits(file))),
    ];
    let totals = execute(files, pool, bounds, search, &mut |_, _| Ok::<(), Gone>(()))?;
    Ok(Plan { requirements: query.describe(files), steps, totals })
}

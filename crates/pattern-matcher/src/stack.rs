//! A stack deep enough for the tree at hand.
//!
//! ast-grep compares two subtrees (`$A == $A`) by recursion, without bound: 30,000 nested
//! parentheses overflow 8 MiB. Depth is capped when a file is parsed, and known; so the stack is
//! sized from it, and only files that need it pay for it.

/// Stack that one level of a comparison may take. Measured with `f($A, $A)` over 60,000 nested
/// parentheses in a debug build, which needs more than a release build: 1,024 bytes a level are
/// enough, 512 are not.
const BYTES_PER_LEVEL: usize = 2048;

/// Levels that fit into what a thread has left anyway: main threads have 8 MiB, others 2.
const LEVELS_ANYWHERE: u32 = 200;

/// Runs `work`, which recurses over a tree of `depth` levels, where it can't overflow.
pub(crate) fn sized_for<R>(depth: u32, work: impl FnOnce() -> R) -> R {
    if depth <= LEVELS_ANYWHERE {
        return work();
    }
    let bytes = (depth as usize + 100) * BYTES_PER_LEVEL;
    stacker::maybe_grow(bytes, bytes + (256 << 10), work)
}

//! How much memory the process has, according to the kernel, and how little it can do with.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// How much memory the daemon may take, and how much it takes.
#[derive(Clone)]
pub struct MemorySource {
    /// Bytes that it may take.
    pub budget_bytes: u64,
    /// Bytes that only it can free; `None` where nobody says, then what it accounts for counts.
    /// Called at each sample, so it should take microseconds.
    pub resident: Arc<dyn Fn() -> Option<u64> + Send + Sync>,
    /// Time between two samples: 1 s to 5 min.
    pub sample_every: Duration,
    /// Gives the allocator's free pages back to the kernel: before a sample, if something was committed
    /// since the last, and when memory is short. `None` where the allocator can't.
    pub release_free_pages: Option<fn()>,
}

impl MemorySource {
    /// What the kernel says, every 30 s; a budget of a quarter of the machine's memory, and 4 GiB
    /// at most; an allocator of which nothing is known.
    pub fn of_kernel() -> Self {
        Self {
            budget_bytes: budget_bytes(),
            resident: Arc::new(resident_anon),
            sample_every: Duration::from_secs(30),
            release_free_pages: None,
        }
    }
}

impl fmt::Debug for MemorySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemorySource")
            .field("budget_bytes", &self.budget_bytes)
            .finish_non_exhaustive()
    }
}

/// The largest budget that nobody has asked for.
const BUDGET_MAX: u64 = 4 << 30;

/// Keeps the kernel from backing the heap with 2 MiB pages: what is freed between trees that stay
/// goes back in pages (decision 0015).
pub(crate) fn prefer_small_pages() {
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(true) {
        tracing::debug!(%error, "huge pages stay");
    }
}

/// Resident bytes that only this process can free, and those that the kernel can take back
/// itself: `RssAnon` and `RssFile` of `/proc/self/status`. Zeros where there is no such file.
pub(crate) fn resident_bytes() -> (u64, u64) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    (field(&status, "RssAnon:"), field(&status, "RssFile:"))
}

/// The share of [`resident_bytes`] that a budget is for; `None` where nobody says.
fn resident_anon() -> Option<u64> {
    Some(resident_bytes().0).filter(|bytes| *bytes > 0)
}

fn budget_bytes() -> u64 {
    let info = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    match field(&info, "MemTotal:") {
        0 => BUDGET_MAX,
        total => (total / 4).min(BUDGET_MAX),
    }
}

fn field(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_kibibytes() {
        let status = "Name:\tx\nRssAnon:\t    1234 kB\nRssFile:\t      10 kB\n";
        assert_eq!(field(status, "RssAnon:"), 1234 * 1024);
        assert_eq!(field(status, "RssFile:"), 10 * 1024);
        assert_eq!(field(status, "RssShmem:"), 0);
    }
}

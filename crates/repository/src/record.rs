//! What is known about one file, and when a look at its metadata is enough to trust that.

use astscope_syntax::{ContentId, FileId, Language, ParsedFile, SkipReason};
use std::path::Path;
use std::sync::Arc;

/// Metadata that changes when a file's content does, as far as the kernel can tell.
///
/// The change time catches what the modification time misses: a file replaced by one with an
/// older time stamp, or rewritten and its time set back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileStat {
    /// Device.
    pub dev: u64,
    /// Inode on it.
    pub ino: u64,
    /// Size in bytes.
    pub size: u64,
    /// Names that lead to it, on the whole file system.
    pub links: u64,
    /// Modification time in nanoseconds since the epoch.
    pub mtime_ns: i64,
    /// Change time in nanoseconds since the epoch.
    pub ctime_ns: i64,
}

/// A file's metadata, and when its content was read under it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileStamp {
    /// The metadata.
    pub stat: FileStat,
    /// Wall clock just before the content was read, in nanoseconds since the epoch.
    pub read_at_ns: i64,
}

/// How long before a read a time stamp must lie to be trusted. The kernel stamps files from a
/// clock that ticks at most every 10 ms (`CONFIG_HZ=100`): a write after the read may carry the
/// stamp that the read saw. Twice that, for a clock read on another core.
const RACY_NS: i64 = 20_000_000;

/// The same where only seconds are kept: FAT keeps every other one.
const COARSE_RACY_NS: i64 = 2_000_000_000 + RACY_NS;

impl FileStamp {
    /// Whether `now` proves that the content is still what was read: the same metadata, and old
    /// enough at the time of reading that a later write must have changed it (git's rule for
    /// racily clean index entries).
    pub fn proves_unchanged(&self, now: &FileStat) -> bool {
        let (mtime, ctime) = (self.stat.mtime_ns, self.stat.ctime_ns);
        let is_coarse = mtime % 1_000_000_000 == 0 && ctime % 1_000_000_000 == 0;
        let racy = if is_coarse { COARSE_RACY_NS } else { RACY_NS };
        self.stat == *now && mtime.max(ctime) < self.read_at_ns.saturating_sub(racy)
    }
}

/// A parsed file.
#[derive(Debug)]
pub struct FileRecord {
    /// Its identity in this repository.
    pub id: FileId,
    /// Its absolute path.
    pub path: Arc<Path>,
    /// The language that it was parsed as.
    pub language: Language,
    /// When it was read, and as what.
    pub stamp: FileStamp,
    /// Its bytes.
    pub content: ContentId,
    /// Its text and trees; shared between files of equal content.
    pub file: Arc<ParsedFile>,
}

/// A file that has no tree, remembered so that it isn't read again for nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SkipRecord {
    /// Its absolute path.
    pub path: Arc<Path>,
    /// When it was looked at, and as what.
    pub stamp: FileStamp,
    /// Why it has no tree.
    pub reason: SkipReason,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_proves_nothing_about_a_file_that_was_young_when_it_was_read() {
        let stat = |at| FileStat { dev: 1, ino: 2, size: 3, links: 1, mtime_ns: at, ctime_ns: at };
        let (second, time) = (1_000_000_000, 1_234_567_890);
        let old = FileStamp { stat: stat(time), read_at_ns: time + second };
        assert!(old.proves_unchanged(&stat(time)));
        assert!(!old.proves_unchanged(&stat(time + 1)), "another time");
        let racy = FileStamp { stat: stat(time), read_at_ns: time + RACY_NS };
        assert!(!racy.proves_unchanged(&stat(time)), "written in the tick in which it was read");
        let coarse = |age| FileStamp { stat: stat(second), read_at_ns: second + age };
        assert!(!coarse(2 * second).proves_unchanged(&stat(second)), "FAT rounds down to this");
        assert!(coarse(3 * second).proves_unchanged(&stat(second)));
        let set_back = FileStat { mtime_ns: 5, ..stat(time) };
        let set_back = FileStamp { stat: set_back, read_at_ns: time + 1 };
        assert!(!set_back.proves_unchanged(&set_back.stat), "the change time is young");
    }
}

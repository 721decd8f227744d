//! Reading one file so that its bytes and its metadata belong together.
//!
//! The file system is reached through [`Disk`], so that a test can make every step fail.

use astscope_parsing::Limits;
use astscope_repository::{FileStamp, FileStat};
use astscope_syntax::SkipReason;
use rustix::fs::{Mode, OFlags};
use std::fs::{File, Metadata};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// Times that a file that changes under the read is read again before it is given up.
const ATTEMPTS: u32 = 3;

/// The metadata of an open file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenStat {
    /// What identifies it and its version.
    pub stat: FileStat,
    /// Whether it is a regular file.
    pub is_file: bool,
}

/// A file that was opened.
pub trait OpenFile {
    /// Its metadata now.
    fn stat(&mut self) -> io::Result<OpenStat>;
    /// All its bytes, from the beginning, but not more than `bytes_max` and one.
    fn read(&mut self, size_hint: u64, bytes_max: u64) -> io::Result<Vec<u8>>;
}

/// The clock and the file system.
pub trait Disk: Send + Sync {
    /// Nanoseconds since 1970, by the clock that also stamps files.
    fn now_ns(&self) -> i64;
    /// Opens a file for reading. The path has no symlinks; if one is met, that is an error.
    fn open(&self, path: &Path) -> io::Result<Box<dyn OpenFile>>;
    /// Whether a directory's entries can be read at this moment.
    fn list(&self, dir: &Path) -> io::Result<()> {
        std::fs::read_dir(dir).map(drop)
    }
}

/// The real one.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn now_ns(&self) -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn OpenFile>> {
        // Without waiting: a FIFO may have taken the file's place.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        Ok(Box::new(File::from(open_resolved(path, flags)?)))
    }
}

/// Opens without following a symlink anywhere: a directory that became one since the path was
/// resolved can't lead out of the root.
#[cfg(target_os = "linux")]
fn open_resolved(path: &Path, flags: OFlags) -> rustix::io::Result<rustix::fd::OwnedFd> {
    use rustix::fs::{CWD, ResolveFlags, openat2};
    use rustix::io::Errno;
    match openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS) {
        // Kernels before 5.6, and sandboxes that don't know the call.
        Err(Errno::NOSYS | Errno::PERM) => rustix::fs::open(path, flags, Mode::empty()),
        opened => opened,
    }
}

#[cfg(not(target_os = "linux"))]
fn open_resolved(path: &Path, flags: OFlags) -> rustix::io::Result<rustix::fd::OwnedFd> {
    rustix::fs::open(path, flags, Mode::empty())
}

impl OpenFile for File {
    fn stat(&mut self) -> io::Result<OpenStat> {
        let metadata = self.metadata()?;
        Ok(OpenStat { stat: stat_of(&metadata), is_file: metadata.is_file() })
    }

    fn read(&mut self, size_hint: u64, bytes_max: u64) -> io::Result<Vec<u8>> {
        io::Seek::rewind(self)?;
        let capacity = size_hint.min(bytes_max).saturating_add(1);
        let mut bytes = Vec::with_capacity(usize::try_from(capacity).unwrap_or_default());
        (&*self).take(bytes_max.saturating_add(1)).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

/// What of a file's metadata tells its versions apart.
pub(crate) fn stat_of(metadata: &Metadata) -> FileStat {
    let nanoseconds =
        |seconds: i64, rest: i64| seconds.saturating_mul(1_000_000_000).saturating_add(rest);
    FileStat {
        dev: metadata.dev(),
        ino: metadata.ino(),
        size: metadata.size(),
        links: metadata.nlink(),
        mtime_ns: nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
        ctime_ns: nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
    }
}

/// A file's bytes and the stamp that they were read under.
#[derive(Debug)]
pub(crate) struct Content {
    pub(crate) stamp: FileStamp,
    pub(crate) bytes: Vec<u8>,
}

/// A file that gave no content, with its stamp as far as it could be opened.
#[derive(Debug)]
pub(crate) struct Unread {
    pub(crate) stamp: Option<FileStamp>,
    pub(crate) reason: SkipReason,
}

/// Reads a whole file, again if it changed meanwhile.
pub(crate) fn read_stable(disk: &dyn Disk, path: &Path, bytes_max: u64) -> Result<Content, Unread> {
    let mut stamp = None;
    let failed = |error: &io::Error, stamp| Unread { stamp, reason: reason_of(error) };
    for _ in 0..ATTEMPTS {
        // Before the first look at the file: a later write then has a later timestamp.
        let read_at_ns = disk.now_ns();
        let mut file = disk.open(path).map_err(|error| failed(&error, stamp))?;
        let before = file.stat().map_err(|error| failed(&error, stamp))?;
        let now = FileStamp { stat: before.stat, read_at_ns };
        stamp = Some(now);
        if !before.is_file {
            // The file that the walk saw here is gone.
            return Err(Unread { stamp, reason: SkipReason::Vanished });
        }
        let size = before.stat.size;
        if size > bytes_max {
            let reason = SkipReason::OverSizeLimit { bytes: size, limit: bytes_max };
            return Err(Unread { stamp, reason });
        }
        let bytes = file.read(size, bytes_max).map_err(|error| failed(&error, stamp))?;
        let after = file.stat().map_err(|error| failed(&error, stamp))?;
        if before == after && bytes.len() as u64 <= bytes_max {
            return Ok(Content { stamp: now, bytes });
        }
    }
    Err(Unread { stamp, reason: SkipReason::Unstable })
}

fn reason_of(error: &io::Error) -> SkipReason {
    // A symlink in a resolved path is newer than the walk.
    if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) {
        return SkipReason::Vanished;
    }
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => SkipReason::Vanished,
        _ => SkipReason::Unreadable { error: error.to_string() },
    }
}

/// The bytes of a file that a user named, symlinks followed, within the daemon's size limit.
///
/// # Errors
/// Why it can't be read.
pub fn read_file(path: &Path) -> Result<Vec<u8>, SkipReason> {
    let path = path.canonicalize().map_err(|error| reason_of(&error))?;
    read_stable(&RealDisk, &path, Limits::DAEMON.bytes_max)
        .map(|content| content.bytes)
        .map_err(|unread| unread.reason)
}

//! What the kernel tells of directories: the seam to the operating system's events, where a test
//! makes them go wrong.
//!
//! An [`EventSource`] must deliver in order and at once: when a system call that changes a watched
//! directory has returned, its event is there to be read. inotify does. That is what lets a
//! barrier prove that everything earlier was seen; whatever can't promise it must not be one.

#[cfg(target_os = "linux")]
mod inotify;

#[cfg(target_os = "linux")]
pub use inotify::Inotify;

use std::ffi::OsString;
use std::fmt::Debug;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;

/// A watched directory, as the source numbers them. The number belongs to the directory itself,
/// whatever its name becomes; another directory never gets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WatchId(pub i32);

/// What has happened in or to a watched directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawEvent {
    /// The directory; any number for [`RawKind::Overflow`].
    pub watch: WatchId,
    /// What.
    pub kind: RawKind,
    /// The entry that it is about; `None` when it is the directory itself.
    pub name: Option<OsString>,
    /// Whether that entry is a directory.
    pub is_dir: bool,
}

/// What can happen. Reads are no events: the daemon's own would wake it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RawKind {
    /// Bytes were written, or a file that was open for writing was closed.
    Written,
    /// Mode, owner or time stamps are other ones.
    Attributes,
    /// The name is new here: made, linked or moved in, perhaps over another file.
    Appeared,
    /// The name is gone: deleted or moved away.
    Disappeared,
    /// The watched directory itself was moved or deleted, or its file system unmounted.
    SelfGone,
    /// The watch is over, and tells nothing any more.
    Ended,
    /// Events were lost. Nobody knows which.
    Overflow,
}

/// The events of one set of directories. Not recursive.
pub trait EventSource: Debug + Send + Sync {
    /// Begins to watch a directory, which must be none but a directory, through no symlink at its
    /// end. One that is watched already keeps its number.
    ///
    /// # Errors
    /// The operating system's; [`is_limit`] tells the one that isn't about this directory.
    fn watch(&self, directory: &Path) -> io::Result<WatchId>;

    /// Stops watching. Events that happened before may still come, and then an
    /// [`Ended`](RawKind::Ended).
    fn unwatch(&self, watch: WatchId);

    /// Appends everything that has happened until now, in order. Doesn't wait.
    fn read(&self, events: &mut Vec<RawEvent>) -> io::Result<()>;

    /// Becomes readable when there is something to read.
    fn readable(&self) -> BorrowedFd<'_>;
}

/// Whether no more directories can be watched: `ENOSPC` for the user's watches, `ENOMEM`.
pub fn is_limit(error: &io::Error) -> bool {
    use rustix::io::Errno;
    matches!(Errno::from_io_error(error), Some(Errno::NOSPC | Errno::NOMEM))
}

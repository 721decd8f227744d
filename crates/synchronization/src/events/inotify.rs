//! inotify, one instance. Not through `notify`: its mask has `IN_OPEN` in it (8.2, fixed), so that
//! reading a file would be an event, it forgets which path a number meant before the last event of
//! it was read, and its thread would be outside the supervision tree.

use super::{EventSource, RawEvent, RawKind, WatchId};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// What is asked for. `IN_CLOSE_WRITE` beside `IN_MODIFY` for those who write through `mmap`, which
/// is no event, but mostly close the file some time.
const MASK: WatchFlags = WatchFlags::MODIFY
    .union(WatchFlags::CLOSE_WRITE)
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::CREATE)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVE)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::ONLYDIR)
    .union(WatchFlags::DONT_FOLLOW)
    // A file that was deleted and is still written to is nobody's.
    .union(WatchFlags::EXCL_UNLINK);

/// Bytes read at a time: some hundred events.
const BUFFER_BYTES: usize = 16 << 10;

/// One inotify instance.
#[derive(Debug)]
pub struct Inotify(OwnedFd);

impl Inotify {
    /// A new instance.
    ///
    /// # Errors
    /// The user has as many as allowed (`fs.inotify.max_user_instances`), or no descriptor is left.
    pub fn open() -> io::Result<Self> {
        Ok(Self(inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?))
    }
}

impl EventSource for Inotify {
    fn watch(&self, directory: &Path) -> io::Result<WatchId> {
        Ok(WatchId(inotify::add_watch(&self.0, directory, MASK)?))
    }

    fn unwatch(&self, watch: WatchId) {
        let _may_have_ended = inotify::remove_watch(&self.0, watch.0);
    }

    fn read(&self, events: &mut Vec<RawEvent>) -> io::Result<()> {
        let mut buffer = [MaybeUninit::uninit(); BUFFER_BYTES];
        let mut reader = Reader::new(&self.0, &mut buffer);
        loop {
            let event = match reader.next() {
                Ok(event) => event,
                Err(Errno::WOULDBLOCK) => return Ok(()),
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(errno.into()),
            };
            let flags = event.events();
            let name = event.file_name().map(|name| OsStr::from_bytes(name.to_bytes()));
            let Some(kind) = kind_of(flags) else { continue };
            events.push(RawEvent {
                watch: WatchId(event.wd()),
                kind,
                name: name.map(OsStr::to_os_string),
                is_dir: flags.contains(ReadFlags::ISDIR),
            });
        }
    }

    fn readable(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn kind_of(flags: ReadFlags) -> Option<RawKind> {
    let kinds = [
        (ReadFlags::QUEUE_OVERFLOW, RawKind::Overflow),
        (ReadFlags::CREATE.union(ReadFlags::MOVED_TO), RawKind::Appeared),
        (ReadFlags::DELETE.union(ReadFlags::MOVED_FROM), RawKind::Disappeared),
        (ReadFlags::MODIFY.union(ReadFlags::CLOSE_WRITE), RawKind::Written),
        (ReadFlags::ATTRIB, RawKind::Attributes),
        (
            ReadFlags::DELETE_SELF.union(ReadFlags::MOVE_SELF).union(ReadFlags::UNMOUNT),
            RawKind::SelfGone,
        ),
        (ReadFlags::IGNORED, RawKind::Ended),
    ];
    kinds.into_iter().find(|(of, _)| flags.intersects(*of)).map(|(_, kind)| kind)
}

#[cfg(test)]
mod tests {
    use super::*;
    use astscope_fixtures::Fixture;
    use std::fs;

    fn read(source: &Inotify) -> Vec<(RawKind, String)> {
        let mut events = Vec::new();
        source.read(&mut events).unwrap();
        let name = |event: &RawEvent| {
            event.name.as_ref().map_or_else(String::new, |it| it.to_string_lossy().into_owned())
        };
        events.iter().map(|event| (event.kind, name(event))).collect()
    }

    #[test]
    fn what_has_happened_is_there_at_once_and_reading_is_nothing() {
        let fixture = Fixture::parse("//- /d/a.rs\nfn a() {}\n");
        let source = Inotify::open().unwrap();
        let watch = source.watch(&fixture.path("d")).unwrap();
        assert_eq!(source.watch(&fixture.path("d")).unwrap(), watch);
        fs::read(fixture.path("d/a.rs")).unwrap();
        fs::read_dir(fixture.path("d")).unwrap().count();
        assert_eq!(read(&source), []);
        fs::write(fixture.path("d/b.rs"), "").unwrap();
        fs::rename(fixture.path("d/b.rs"), fixture.path("d/a.rs")).unwrap();
        fs::remove_file(fixture.path("d/a.rs")).unwrap();
        let name = |kind, name: &str| (kind, name.to_owned());
        assert_eq!(
            read(&source),
            [
                name(RawKind::Appeared, "b.rs"),
                name(RawKind::Written, "b.rs"),
                name(RawKind::Disappeared, "b.rs"),
                name(RawKind::Appeared, "a.rs"),
                name(RawKind::Disappeared, "a.rs"),
            ]
        );
        fs::remove_dir(fixture.path("d")).unwrap();
        assert_eq!(read(&source), [name(RawKind::SelfGone, ""), name(RawKind::Ended, "")]);
        assert_eq!(read(&source), []);
    }

    #[test]
    fn only_directories_are_watched_and_no_links_to_them() {
        let fixture = Fixture::parse("//- /d/a.rs\nfn a() {}\n");
        std::os::unix::fs::symlink(fixture.path("d"), fixture.path("link")).unwrap();
        let source = Inotify::open().unwrap();
        assert!(source.watch(&fixture.path("d/a.rs")).is_err());
        assert!(source.watch(&fixture.path("link")).is_err());
    }
}

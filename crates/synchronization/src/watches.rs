//! The watched directories of one root: numbers to paths, events to what they mean, and the barrier.
//!
//! Whoever needs to know reads the events himself, under a lock, so that they are taken in the order
//! in which they happened and a query waits for no other thread. A barrier renames a file in the
//! daemon's own runtime directory, which is watched through the same source: when that event is
//! read, every earlier one was.

use crate::events::{EventSource, RawEvent, RawKind, WatchId, is_limit};
use crate::roots::RootId;
use crate::tracker::{Noticed, Shake, Tracker};
use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::io;
#[cfg(feature = "service")]
use std::os::fd::BorrowedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// File systems whose other writers raise no event here: NFS, SMB and CIFS, AFS, Coda, Ceph, Lustre,
/// 9p, that of `VirtualBox`, and whatever is in user space (`linux/magic.h`, `statfs(2)`).
#[cfg(target_os = "linux")]
const UNTOLD: [i64; 12] = [
    0x6969,
    0x517B,
    0xFF53_4D42,
    0xFE53_4D42,
    0x5346_414F,
    0x7375_7245,
    0x00C3_6400,
    0x0BD0_0BD0,
    0x0102_1997,
    0x786F_4256,
    0x6573_5546,
    0x6B41_4653,
];

/// Why not every directory can be watched.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Uncovered {
    /// The user's limit is reached.
    #[error("no more than {n} directories can be watched (see fs.inotify.max_user_watches)")]
    Limit { n: usize },
    /// Its file system doesn't tell everything.
    #[error("changes to {} by others aren't told: it is on a network file system, or one in user space", directory.display())]
    Untold { directory: PathBuf },
    /// Another reason.
    #[error("cannot watch {}", directory.display())]
    Failed { directory: PathBuf, source: io::Error },
}

/// The watched directories of one root.
#[derive(Debug)]
pub(crate) struct Watches {
    root: PathBuf,
    root_id: RootId,
    source: Box<dyn EventSource>,
    known: Mutex<Known>,
    cookies: Cookies,
    /// Held by whoever reads: events must be taken in by their order.
    reading: Mutex<Reading>,
}

#[derive(Debug, Default)]
struct Known {
    paths: HashMap<WatchId, Arc<Path>>,
    ids: HashMap<Arc<Path>, WatchId>,
}

#[derive(Debug, Default)]
struct Reading {
    events: Vec<RawEvent>,
    /// The last cookie whose event was read.
    seen: u64,
}

/// One file that is given a new name at each barrier.
#[derive(Debug)]
struct Cookies {
    directory: PathBuf,
    watch: WatchId,
    /// The number of the newest.
    newest: AtomicU64,
}

impl Cookies {
    /// In a directory of its own below `all`: who listened before, and is still asked by a query, has
    /// another.
    fn make(all: &Path, source: &dyn EventSource) -> io::Result<Self> {
        static N_MADE: AtomicU64 = AtomicU64::new(0);
        let own = format!("{}-", std::process::id());
        let directory = all.join(format!("{own}{}", N_MADE.fetch_add(1, Ordering::Relaxed)));
        let failed = |error: io::Error| {
            let why = format!("cannot keep a file in {}: {error}", directory.display());
            io::Error::new(error.kind(), why)
        };
        for left in fs::read_dir(all).into_iter().flatten().flatten() {
            // A daemon that was killed cleans up nothing.
            if !left.file_name().as_encoded_bytes().starts_with(own.as_bytes()) {
                drop(fs::remove_dir_all(left.path()));
            }
        }
        fs::create_dir_all(&directory).map_err(failed)?;
        let watch = match source.watch(&directory) {
            Ok(watch) => watch,
            Err(error) if is_limit(&error) => {
                return Err(io::Error::other(Uncovered::Limit { n: 0 }));
            }
            Err(error) => return Err(failed(error)),
        };
        fs::write(directory.join(Self::name(0)), "").map_err(failed)?;
        Ok(Self { directory, watch, newest: AtomicU64::new(0) })
    }

    fn name(n: u64) -> String {
        format!("cookie-{n}")
    }

    fn number(name: &OsString) -> Option<u64> {
        name.to_str()?.strip_prefix("cookie-")?.parse().ok()
    }
}

impl Drop for Cookies {
    fn drop(&mut self) {
        // Another daemon of this user may clean up too.
        drop(fs::remove_dir_all(&self.directory));
        for all in self.directory.ancestors().skip(1).take(2) {
            drop(fs::remove_dir(all)); // unless others have some there
        }
    }
}

impl Watches {
    /// Watches no directory of `root` yet. `cookies` is a directory of its own that is made here and
    /// removed in the end.
    pub(crate) fn open(
        root: &Path,
        source: Box<dyn EventSource>,
        cookies: &Path,
    ) -> io::Result<Self> {
        let root_id = RootId::of(root).map_err(io::Error::other)?;
        let cookies = Cookies::make(cookies, &*source)?;
        Ok(Self {
            root: root.to_path_buf(),
            root_id,
            source,
            known: Mutex::default(),
            cookies,
            reading: Mutex::default(),
        })
    }

    /// Readable when there are events.
    #[cfg(feature = "service")]
    pub(crate) fn readable(&self) -> BorrowedFd<'_> {
        self.source.readable()
    }

    /// Takes in everything that has happened until now.
    pub(crate) fn drain(&self, tracker: &Tracker) -> io::Result<()> {
        self.take_in(&mut lock(&self.reading), tracker)
    }

    /// The same, with proof that events still come: everything that was finished before this was
    /// called is taken in when it returns. Those who call it at the same time share one cookie.
    ///
    /// # Errors
    /// Events can't be read, or don't come.
    pub(crate) fn barrier(&self, tracker: &Tracker) -> io::Result<()> {
        let newest = &self.cookies.newest;
        let asked = newest.load(Ordering::SeqCst);
        let mut reading = lock(&self.reading);
        // A cookie that was made since this was called, by whoever was before us in the queue.
        if reading.seen <= asked {
            let last = newest.load(Ordering::SeqCst);
            newest.store(last + 1, Ordering::SeqCst);
            let at = |n| self.cookies.directory.join(Cookies::name(n));
            fs::rename(at(last), at(last + 1))?;
            self.take_in(&mut reading, tracker)?;
            if reading.seen <= asked {
                return Err(io::Error::other("an event of our own didn't come"));
            }
        }
        drop(reading);
        if RootId::of(&self.root).ok() != Some(self.root_id) {
            tracker.shake(Shake::RootGone);
        }
        Ok(())
    }

    fn take_in(&self, reading: &mut Reading, tracker: &Tracker) -> io::Result<()> {
        self.source.read(&mut reading.events)?;
        for event in reading.events.drain(..) {
            let RawEvent { watch, kind, name, is_dir } = event;
            if watch == self.cookies.watch {
                let number = name.as_ref().and_then(Cookies::number);
                if let (RawKind::Appeared, Some(number)) = (kind, number) {
                    reading.seen = number;
                }
                continue;
            }
            if kind == RawKind::Overflow {
                tracker.shake(Shake::Overflow);
                continue;
            }
            // Made with its number under the same lock, so none is unknown that is still watched.
            let mut known = lock(&self.known);
            let Some(directory) = known.paths.get(&watch).cloned() else { continue };
            if kind == RawKind::Ended {
                known.paths.remove(&watch);
                if known.ids.get(&directory) == Some(&watch) {
                    known.ids.remove(&directory);
                }
                tracker.shake(Shake::Directories);
                continue;
            }
            let Some(name) = name else {
                let is_root = *directory == *self.root;
                drop(known);
                match kind {
                    RawKind::SelfGone if is_root => tracker.shake(Shake::RootGone),
                    RawKind::SelfGone | RawKind::Attributes => tracker.shake(Shake::Directories),
                    _ => {}
                }
                continue;
            };
            let is_watched = is_dir && known.ids.contains_key(&*directory.join(&name));
            drop(known);
            let mut noticed = Noticed::of(kind, &name, is_dir, is_watched);
            if noticed == Noticed::Nothing && kind == RawKind::Appeared && !is_dir {
                // It may be another name of a file that matters.
                let metadata = directory.join(&name).symlink_metadata();
                if metadata.is_ok_and(|it| it.is_file() && it.nlink() > 1) {
                    noticed = Noticed::Shake(Shake::Links);
                }
            }
            tracker.notice(&directory, name, noticed);
        }
        Ok(())
    }

    /// Watches these directories, and gives how many are newly watched, or moved, or gone: while that
    /// isn't 0, something may have been missed, and they have to be walked again.
    pub(crate) fn cover<'d>(
        &self,
        directories: impl Iterator<Item = &'d Path>,
    ) -> Result<usize, Uncovered> {
        let mut n_news = 0;
        for directory in directories {
            let mut known = lock(&self.known);
            let id = match self.source.watch(directory) {
                Ok(id) => id,
                Err(error) if is_limit(&error) => {
                    return Err(Uncovered::Limit { n: known.paths.len() });
                }
                Err(error) => match error.kind() {
                    // What can't be listed, no walk looks into; if that is the root, there is
                    // nothing to be watched.
                    io::ErrorKind::PermissionDenied if *directory != *self.root => continue,
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
                        n_news += 1;
                        continue;
                    }
                    _ => {
                        let directory = directory.to_path_buf();
                        return Err(Uncovered::Failed { directory, source: error });
                    }
                },
            };
            if known.paths.get(&id).is_some_and(|path| **path == *directory) {
                continue;
            }
            n_news += 1;
            let path: Arc<Path> = directory.into();
            if let Some(old) = known.paths.insert(id, Arc::clone(&path))
                && known.ids.get(&old) == Some(&id)
            {
                known.ids.remove(&old); // it has moved
            }
            known.ids.insert(path, id);
            drop(known);
            if is_untold(directory) {
                return Err(Uncovered::Untold { directory: directory.to_path_buf() });
            }
        }
        Ok(n_news)
    }

    /// Gives up watching all others than these.
    pub(crate) fn retain(&self, wanted: impl Fn(&Path) -> bool) {
        let mut known = lock(&self.known);
        let Known { paths, ids } = &mut *known;
        paths.retain(|id, path| {
            let is_wanted = ids.get(path) == Some(id) && wanted(path);
            if !is_wanted {
                if ids.get(path) == Some(id) {
                    ids.remove(path);
                }
                self.source.unwatch(*id);
            }
            is_wanted
        });
    }

    /// Whether all these are watched.
    pub(crate) fn covers<'d>(&self, mut directories: impl Iterator<Item = &'d Path>) -> bool {
        let known = lock(&self.known);
        directories.all(|directory| known.ids.contains_key(directory))
    }

    /// About how many bytes it takes to know them here; the kernel has its own.
    #[cfg(feature = "service")]
    pub(crate) fn bytes(&self) -> usize {
        let known = lock(&self.known);
        let places = known.paths.capacity() + known.ids.capacity();
        // A path is shared by both.
        let paths: usize = known.ids.keys().map(|path| path.as_os_str().len()).sum();
        places * size_of::<(WatchId, Arc<Path>)>() + paths
    }

    /// How many directories are watched.
    #[cfg(feature = "service")]
    pub(crate) fn n_directories(&self) -> usize {
        lock(&self.known).paths.len()
    }
}

#[cfg(target_os = "linux")]
fn is_untold(directory: &Path) -> bool {
    let kind = rustix::fs::statfs(directory).map(|stat| stat.f_type);
    kind.is_ok_and(|kind| UNTOLD.contains(&kind))
}

#[cfg(not(target_os = "linux"))]
fn is_untold(_: &Path) -> bool {
    true
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

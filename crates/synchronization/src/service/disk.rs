//! A disk that is left alone for a while when it keeps failing: each read of a file system that
//! is gone may take seconds, and a workspace has thousands of files to be read.
//!
//! What counts is the file system's failure, never a file's: that one isn't there, or may not be
//! read, is an answer.

use crate::read::{Disk, OpenFile, OpenStat};
use astscope_supervision::{
    BreakerConfig, BreakerConfigError, CircuitBreaker, Emitter, Permit, Rejected,
};
use rustix::io::Errno;
use std::io;
use std::path::Path;

/// Reads through a breaker. While that is open, files count as unreadable, which is said of each
/// and remembered of none.
#[derive(Debug)]
pub struct GuardedDisk<D> {
    disk: D,
    breaker: CircuitBreaker,
}

impl<D: Disk> GuardedDisk<D> {
    /// Guards this disk, and gives the breaker to be looked at. The failures of `config` are those
    /// in a row: a file that is read ends the row.
    ///
    /// # Errors
    /// When no breaker can work as configured.
    pub fn new(
        disk: D,
        config: BreakerConfig,
        emitter: Emitter,
    ) -> Result<(Self, CircuitBreaker), BreakerConfigError> {
        let breaker = CircuitBreaker::new(config, emitter)?;
        Ok((Self { disk, breaker: breaker.clone() }, breaker))
    }
}

impl<D: Disk> Disk for GuardedDisk<D> {
    fn now_ns(&self) -> i64 {
        self.disk.now_ns()
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn OpenFile>> {
        let permit = self.breaker.acquire().map_err(refused)?;
        let mut access = Access { permit: Some(permit) };
        let file = access.judge(self.disk.open(path))?;
        Ok(Box::new(GuardedFile { file, access }))
    }

    /// Past the breaker: whoever asks wants to know whether it works again.
    fn list(&self, dir: &Path) -> io::Result<()> {
        self.disk.list(dir)
    }
}

fn refused(rejected: Rejected) -> io::Error {
    let again = match rejected.retry_after() {
        Some(after) => format!("is tried again in {} s", after.as_millis().div_ceil(1000)),
        None => "is being tried again".to_owned(),
    };
    io::Error::other(format!("the file system kept failing, and {again}"))
}

/// One file, from its opening to its close, is one call.
struct Access {
    permit: Option<Permit>,
}

impl Access {
    fn judge<T>(&mut self, result: io::Result<T>) -> io::Result<T> {
        if let Err(error) = &result
            && is_of_file_system(error)
            && let Some(permit) = self.permit.take()
        {
            permit.fail();
        }
        result
    }
}

impl Drop for Access {
    fn drop(&mut self) {
        // A permit that a panic drops says so itself.
        if let Some(permit) = self.permit.take_if(|_| !std::thread::panicking()) {
            permit.succeed_and_forget();
        }
    }
}

struct GuardedFile {
    file: Box<dyn OpenFile>,
    access: Access,
}

impl OpenFile for GuardedFile {
    fn stat(&mut self) -> io::Result<OpenStat> {
        self.access.judge(self.file.stat())
    }

    fn read(&mut self, size_hint: u64, bytes_max: u64) -> io::Result<Vec<u8>> {
        self.access.judge(self.file.read(size_hint, bytes_max))
    }
}

/// Whether an error says something of the file system, or of this process, and nothing of the file.
fn is_of_file_system(error: &io::Error) -> bool {
    const FAILURES: [Errno; 12] = [
        Errno::IO,
        Errno::STALE,
        Errno::TIMEDOUT,
        Errno::NXIO,
        Errno::NODEV,
        Errno::MFILE,
        Errno::NFILE,
        Errno::NOMEM,
        // What network file systems, and those in user space, say when their other end is gone.
        Errno::NOTCONN,
        Errno::CONNABORTED,
        Errno::HOSTDOWN,
        Errno::HOSTUNREACH,
    ];
    Errno::from_io_error(error).is_some_and(|errno| FAILURES.contains(&errno))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::read::{RealDisk, read_stable};
    use astscope_fixtures::Fixture;
    use astscope_supervision::{BreakerState, Recorder, TreePath};
    use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};
    use std::time::Duration;
    use tokio::time::advance;

    const SECOND: Duration = Duration::from_secs(1);

    /// Fails with an error number, unless that is 0.
    #[derive(Debug, Default)]
    struct Failing {
        errno: AtomicI32,
        n_opens: AtomicU32,
    }

    impl Disk for &Failing {
        fn now_ns(&self) -> i64 {
            0
        }

        fn open(&self, path: &Path) -> io::Result<Box<dyn OpenFile>> {
            self.n_opens.fetch_add(1, Ordering::Relaxed);
            match self.errno.load(Ordering::Relaxed) {
                0 => RealDisk.open(path),
                errno => Err(io::Error::from_raw_os_error(errno)),
            }
        }
    }

    /// Acceptance check 13, on the disk of a workspace.
    #[tokio::test(start_paused = true)]
    async fn acceptance_check_13_of_the_disk() {
        let fixture = Fixture::parse("//- /a.rs\nfn main() {}\n");
        let path = fixture.path("a.rs");
        let failing = Failing::default();
        let emitter = Emitter::new(TreePath::root("files"), Recorder::new());
        let config = BreakerConfig::new(Duration::MAX);
        let (disk, breaker) = GuardedDisk::new(&failing, config, emitter).unwrap();
        let read = |errno: Option<Errno>| {
            let errno = errno.map_or(0, Errno::raw_os_error);
            failing.errno.store(errno, Ordering::Relaxed);
            read_stable(&disk, &path, 1000).map(|it| it.bytes.len()).map_err(|it| it.reason)
        };
        let well = None;
        // What is a file's own never counts.
        for errno in [Errno::NOENT, Errno::ACCESS, Errno::ISDIR, Errno::NOTDIR, Errno::LOOP] {
            for _ in 0..10 {
                assert!(read(Some(errno)).is_err());
            }
        }
        assert_eq!(breaker.state().failures, 0);
        // Four in a row, and one that is read: the row begins again.
        for errno in [Errno::IO, Errno::STALE, Errno::MFILE, Errno::TIMEDOUT] {
            assert!(read(Some(errno)).is_err());
        }
        assert_eq!(read(well), Ok(13));
        for n in 1..=5 {
            assert_eq!(breaker.state().state, BreakerState::Closed, "{n}");
            assert!(read(Some(Errno::IO)).is_err());
        }
        assert_eq!(breaker.state().state, BreakerState::Open);
        let n_opens = failing.n_opens.load(Ordering::Relaxed);
        advance(SECOND).await;
        let why = read(well).unwrap_err().to_string();
        assert!(why.ends_with("the file system kept failing, and is tried again in 29 s"), "{why}");
        assert_eq!(failing.n_opens.load(Ordering::Relaxed), n_opens, "the disk is left alone");
        advance(SECOND * 29).await;
        assert!(read(Some(Errno::IO)).is_err());
        assert_eq!(breaker.state().state, BreakerState::Open, "the probe failed");
        advance(SECOND * 30).await;
        assert_eq!(breaker.state().state, BreakerState::HalfOpen);
        // A probe that is dropped gives its place back.
        drop(disk.breaker.acquire().unwrap());
        assert_eq!(read(well), Ok(13));
        assert_eq!(breaker.state().state, BreakerState::Closed);
    }
}

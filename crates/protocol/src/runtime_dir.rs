//! Where the daemon's socket is, and whether that place can be trusted.
//!
//! Client and daemon find each other by this rule alone. Whoever owns the directory can put his
//! own socket there and read the queries of others, so it must be ours and closed to everybody
//! else; `/tmp` is where that goes wrong. The file system sits behind `DirectoryOps`, because a
//! full disk and a foreign owner can't be had on every machine that runs the tests.

use crate::limits::SOCKET_PATH_BYTES_MAX;
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Overrides the place of the runtime directory.
pub const RUNTIME_DIR_VARIABLE: &str = "ASTSCOPE_RUNTIME_DIR";

/// The only permissions that the directory may have.
const PRIVATE: u32 = 0o700;

/// The directory of the daemon's socket, lock and log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeDir {
    path: PathBuf,
}

/// Why there is no usable runtime directory.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeDirError {
    /// The variable holds a relative path, which would mean another place in each directory.
    #[error("{RUNTIME_DIR_VARIABLE} must be an absolute path, it is `{}`", .path.display())]
    NotAbsolute {
        /// Its value.
        path: PathBuf,
    },
    /// The kernel accepts no socket path of this length.
    #[error(
        "socket path `{}` is {bytes} bytes long, at most {SOCKET_PATH_BYTES_MAX} fit: set {RUNTIME_DIR_VARIABLE} to a shorter directory",
        .path.display()
    )]
    SocketPathTooLong {
        /// Where the socket would be.
        path: PathBuf,
        /// The path's length.
        bytes: usize,
    },
    /// Something else has the name.
    #[error("runtime directory `{}` is {found}: remove it or set {RUNTIME_DIR_VARIABLE}", .path.display())]
    NotADirectory {
        /// The directory's path.
        path: PathBuf,
        /// What is there.
        found: &'static str,
    },
    /// Another user made it.
    #[error(
        "runtime directory `{}` belongs to user {owner}, not to user {uid}: set {RUNTIME_DIR_VARIABLE} to a directory of your own",
        .path.display()
    )]
    OwnedByOther {
        /// The directory's path.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// Who we are.
        uid: u32,
    },
    /// It could not be made: a full or read-only file system, no permission.
    #[error("can't create runtime directory `{}`", .path.display())]
    CannotCreate {
        /// The directory's path.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It could not be looked at.
    #[error("can't inspect runtime directory `{}`", .path.display())]
    CannotInspect {
        /// The directory's path.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It is open to others, and could not be closed to them.
    #[error("runtime directory `{}` is open to other users (mode {mode:o})", .path.display())]
    NotPrivate {
        /// The directory's path.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
        /// What the system says, if it refused; none if the change had no effect.
        source: Option<io::Error>,
    },
}

impl RuntimeDir {
    /// Where the directory is, by the environment: `$ASTSCOPE_RUNTIME_DIR`, else
    /// `$XDG_RUNTIME_DIR/astscope`, else `/tmp/astscope-<uid>`. Touches no file.
    ///
    /// Empty variables count as absent, and so does a relative `XDG_RUNTIME_DIR`, as its
    /// specification demands.
    pub fn locate(env: &dyn Fn(&str) -> Option<OsString>) -> Result<Self, RuntimeDirError> {
        let variable = |name| env(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let path = if let Some(path) = variable(RUNTIME_DIR_VARIABLE) {
            if path.is_relative() {
                return Err(RuntimeDirError::NotAbsolute { path });
            }
            path
        } else if let Some(path) = variable("XDG_RUNTIME_DIR").filter(|path| path.is_absolute()) {
            path.join("astscope")
        } else {
            PathBuf::from(format!("/tmp/astscope-{}", Disk.uid()))
        };
        let dir = Self { path };
        let socket = dir.socket();
        let bytes = socket.as_os_str().as_bytes().len();
        if bytes > SOCKET_PATH_BYTES_MAX {
            return Err(RuntimeDirError::SocketPathTooLong { path: socket, bytes });
        }
        Ok(dir)
    }

    /// Makes sure that the directory exists, is ours, and is closed to others.
    pub fn prepare(&self) -> Result<(), RuntimeDirError> {
        self.prepare_with(&Disk)
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The socket that the daemon listens on.
    pub fn socket(&self) -> PathBuf {
        self.path.join("daemon.sock")
    }

    /// The file that a running daemon holds an exclusive `flock` on.
    pub fn lock(&self) -> PathBuf {
        self.path.join("daemon.lock")
    }

    /// The standard error of a daemon that was started in the background. Its log proper is kept
    /// elsewhere, in a place that survives the session.
    pub fn log(&self) -> PathBuf {
        self.path.join("daemon.log")
    }

    fn prepare_with(&self, ops: &dyn DirectoryOps) -> Result<(), RuntimeDirError> {
        let path = || self.path.clone();
        let inspect_failed = |source| RuntimeDirError::CannotInspect { path: path(), source };
        let found = match ops.inspect(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                ops.create(&self.path)
                    .map_err(|source| RuntimeDirError::CannotCreate { path: path(), source })?;
                // Inspected all the same: somebody else may have been faster.
                ops.inspect(&self.path).map_err(inspect_failed)?
            }
            other => other.map_err(inspect_failed)?,
        };
        if let Some(found) = found.not_a_directory {
            return Err(RuntimeDirError::NotADirectory { path: path(), found });
        }
        let uid = ops.uid();
        if found.owner != uid {
            return Err(RuntimeDirError::OwnedByOther { path: path(), owner: found.owner, uid });
        }
        if found.mode == PRIVATE {
            return Ok(());
        }
        let open = |mode, source| RuntimeDirError::NotPrivate { path: path(), mode, source };
        ops.make_private(&self.path).map_err(|source| open(found.mode, Some(source)))?;
        // Some file systems accept a chmod and ignore it.
        let mode = ops.inspect(&self.path).map_err(inspect_failed)?.mode;
        if mode & !PRIVATE == 0 { Ok(()) } else { Err(open(mode, None)) }
    }
}

/// What `prepare` needs to know of what is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Found {
    /// What it is instead, in words.
    not_a_directory: Option<&'static str>,
    owner: u32,
    /// Permission bits, without the file type.
    mode: u32,
}

/// The system calls of this module.
trait DirectoryOps {
    /// Looks without following a symbolic link.
    fn inspect(&self, path: &Path) -> io::Result<Found>;
    /// Makes the directory and missing parents, closed to others from the first moment.
    fn create(&self, path: &Path) -> io::Result<()>;
    /// Closes the directory to others.
    fn make_private(&self, path: &Path) -> io::Result<()>;
    /// Who we are.
    fn uid(&self) -> u32;
}

/// The real file system.
struct Disk;

impl DirectoryOps for Disk {
    fn inspect(&self, path: &Path) -> io::Result<Found> {
        let metadata = path.symlink_metadata()?;
        let not_a_directory = match metadata.file_type() {
            kind if kind.is_dir() => None,
            kind if kind.is_symlink() => Some("a symbolic link"),
            kind if kind.is_file() => Some("a file"),
            _ => Some("not a directory"),
        };
        Ok(Found { not_a_directory, owner: metadata.uid(), mode: metadata.mode() & 0o7777 })
    }

    fn create(&self, path: &Path) -> io::Result<()> {
        std::fs::DirBuilder::new().recursive(true).mode(PRIVATE).create(path)
    }

    fn make_private(&self, path: &Path) -> io::Result<()> {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(PRIVATE))
    }

    fn uid(&self) -> u32 {
        rustix::process::geteuid().as_raw()
    }
}

#[cfg(test)]
mod tests;

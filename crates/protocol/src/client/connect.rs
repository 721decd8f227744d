//! From a socket's path to a connection that has agreed on a version.
//!
//! The caller's next step depends on why it failed: start a daemon, wait and try again, replace
//! an older daemon, or give up. So each reason is its own variant.

use super::{CallError, Client};
use crate::frame::RpcError;
use crate::limits::LINE_BYTES_MAX;
use crate::messages::{ErrorCode, HelloParams, HelloResult, PROTOCOL, Peer, StopParams, method};
use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// There is no socket, or nobody listens on it: a daemon may be started.
    #[error("no daemon listens on `{}`", .path.display())]
    NotRunning {
        /// The socket.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Another user's process listens on the socket; nothing was sent to it.
    #[error("socket `{}` belongs to user {owner}, not to user {uid}", .path.display())]
    OwnedByOther {
        /// The socket.
        path: PathBuf,
        /// Who listens.
        owner: u32,
        /// Who we are.
        uid: u32,
    },
    /// The daemon did not accept the connection or answer `hello` in time.
    #[error("daemon on `{}` did not answer within {} ms", .path.display(), .timeout.as_millis())]
    TimedOut {
        /// The socket.
        path: PathBuf,
        /// How long was waited.
        timeout: Duration,
    },
    /// The daemon closed the connection before it answered `hello`: it is leaving, or died.
    #[error("daemon on `{}` closed the connection", .path.display())]
    Closed {
        /// The socket.
        path: PathBuf,
    },
    /// The daemon answered `hello` with an error, such as `overloaded` or `shutting_down`.
    #[error("daemon on `{}` refused the connection: {error}", .path.display())]
    Refused {
        /// The socket.
        path: PathBuf,
        /// What the daemon says.
        error: RpcError,
    },
    /// There is no common protocol version.
    #[error("daemon on `{}` speaks another protocol version: {reason}", .path.display())]
    Incompatible {
        /// The socket.
        path: PathBuf,
        /// The daemon program, if it said so.
        server: Option<Peer>,
        /// Which versions don't meet.
        reason: String,
    },
    /// The system refused the connection or broke it.
    #[error("can't connect to `{}`", .path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Whoever listens does not speak this protocol.
    #[error("`{}` is not an astscope daemon's socket", .path.display())]
    Protocol {
        /// The socket.
        path: PathBuf,
        /// What is wrong with its answer.
        source: CallError,
    },
}

impl Client {
    /// Connects to the daemon's socket and agrees on a protocol version.
    ///
    /// `client` says who is calling. `timeout` bounds connecting and the greeting together.
    pub fn connect(
        path: &Path,
        client: Peer,
        timeout: Duration,
    ) -> Result<(Self, HelloResult), ConnectError> {
        let (mut connection, deadline) = Self::dial(path, timeout)?;
        let failed = |error| connect_error(path, timeout, error);
        let params = HelloParams { protocol: PROTOCOL, client };
        let hello: HelloResult =
            connection.call_until(deadline, method::HELLO, &params).map_err(failed)?;
        if !(PROTOCOL.min..=PROTOCOL.max).contains(&hello.protocol) {
            return Err(ConnectError::Incompatible {
                path: path.to_owned(),
                reason: format!(
                    "it chose {}, this program speaks {} to {}",
                    hello.protocol, PROTOCOL.min, PROTOCOL.max
                ),
                server: Some(hello.server),
            });
        }
        let accepted = usize::try_from(hello.line_bytes_max).unwrap_or(usize::MAX);
        connection.line_bytes_max = accepted.min(LINE_BYTES_MAX);
        Ok((connection, hello))
    }

    /// Asks a daemon to leave without agreeing on a version first: `stop` is the one request
    /// that keeps its form in all versions, so that any client can replace any daemon.
    pub fn retire(path: &Path, params: &StopParams, timeout: Duration) -> Result<(), ConnectError> {
        let (mut connection, deadline) = Self::dial(path, timeout)?;
        connection
            .call_until::<_, serde::de::IgnoredAny>(deadline, method::STOP, params)
            .map_err(|error| connect_error(path, timeout, error))?;
        Ok(())
    }

    /// A connection to a process of ours, before `hello`.
    fn dial(path: &Path, timeout: Duration) -> Result<(Self, Instant), ConnectError> {
        let timeout = timeout.max(Duration::from_millis(1));
        let deadline = Instant::now() + timeout;
        let io_failed = |source| ConnectError::Io { path: path.to_owned(), source };
        let stream = open_socket(path, timeout).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                ConnectError::NotRunning { path: path.to_owned(), source }
            }
            io::ErrorKind::WouldBlock => ConnectError::TimedOut { path: path.to_owned(), timeout },
            _ => io_failed(source),
        })?;
        let owner = peer_uid(&stream, path).map_err(io_failed)?;
        check_owner(path, owner, rustix::process::geteuid().as_raw())?;
        Ok((Self::new(stream).map_err(io_failed)?, deadline))
    }

    /// A call within the greeting's time.
    fn call_until<P: serde::Serialize, R: serde::de::DeserializeOwned>(
        &mut self,
        deadline: Instant,
        method: &str,
        params: &P,
    ) -> Result<R, CallError> {
        self.receiver.set_deadline(Some(deadline)).map_err(CallError::Receive)?;
        let result = self.call(method, params)?;
        self.receiver.set_deadline(None).map_err(CallError::Receive)?;
        self.outbox.lock().stream.set_write_timeout(None).map_err(CallError::Send)?;
        Ok(result)
    }
}

/// What a failed greeting means for the connection.
fn connect_error(path: &Path, timeout: Duration, error: CallError) -> ConnectError {
    let path = path.to_owned();
    match error {
        CallError::Remote(error) if error.error_code() == Some(ErrorCode::IncompatibleProtocol) => {
            ConnectError::Incompatible { path, server: None, reason: error.message }
        }
        CallError::Remote(error) => ConnectError::Refused { path, error },
        CallError::Send(source) | CallError::Receive(source) => match source.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                ConnectError::TimedOut { path, timeout }
            }
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => {
                ConnectError::Closed { path }
            }
            _ => ConnectError::Io { path, source },
        },
        CallError::Disconnected => ConnectError::Closed { path },
        source => ConnectError::Protocol { path, source },
    }
}

/// Nothing is sent to a socket that another user serves: a query tells what somebody works on.
fn check_owner(path: &Path, owner: u32, uid: u32) -> Result<(), ConnectError> {
    if owner == uid {
        return Ok(());
    }
    Err(ConnectError::OwnedByOther { path: path.to_owned(), owner, uid })
}

/// Connects, waiting at most `timeout` for a place in the listener's queue.
#[cfg(target_os = "linux")]
fn open_socket(path: &Path, timeout: Duration) -> io::Result<UnixStream> {
    use rustix::net::sockopt::{Timeout, set_socket_timeout};
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

    let address = SocketAddrUnix::new(path)?;
    let flags = SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // Linux applies the send timeout to connect as well; std has no other way.
    set_socket_timeout(&socket, Timeout::Send, Some(timeout))?;
    rustix::io::retry_on_intr(|| rustix::net::connect(&socket, &address))?;
    Ok(UnixStream::from(socket))
}

/// Connects; a full queue makes it wait without bound.
#[cfg(not(target_os = "linux"))]
fn open_socket(path: &Path, timeout: Duration) -> io::Result<UnixStream> {
    let stream = UnixStream::connect(path)?;
    stream.set_write_timeout(Some(timeout))?;
    Ok(stream)
}

/// Who listens, according to the kernel.
#[cfg(target_os = "linux")]
fn peer_uid(stream: &UnixStream, _path: &Path) -> io::Result<u32> {
    Ok(rustix::net::sockopt::socket_peercred(stream)?.uid.as_raw())
}

/// Who listens, according to the socket's file.
#[cfg(not(target_os = "linux"))]
fn peer_uid(_stream: &UnixStream, path: &Path) -> io::Result<u32> {
    use std::os::unix::fs::MetadataExt;
    Ok(path.symlink_metadata()?.uid())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_of_another_user_is_refused() {
        assert!(check_owner(Path::new("/s"), 7, 7).is_ok());
        let error = check_owner(Path::new("/s"), 0, 7).unwrap_err();
        assert_eq!(error.to_string(), "socket `/s` belongs to user 0, not to user 7");
    }

    #[test]
    fn the_kernel_names_the_user_who_listens() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let uid = rustix::process::geteuid().as_raw();
        assert_eq!(peer_uid(&ours, Path::new("/")).unwrap(), uid);
    }
}

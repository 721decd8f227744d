//! What systemd, or whoever speaks its notification protocol, wants to know of a service that it
//! has started: one datagram with `READY=1` once clients can connect, one with `STOPPING=1` once no
//! more are taken. Without `NOTIFY_SOCKET` nobody wants to know.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;

/// The service manager's socket.
const SOCKET_VARIABLE: &str = "NOTIFY_SOCKET";

/// Tells that clients can connect.
pub(crate) fn ready() {
    tell("READY=1");
}

/// Tells that the daemon takes no more clients.
pub(crate) fn stopping() {
    tell("STOPPING=1");
}

/// Takes the socket away from a process that the manager knows nothing of: a daemon that a command
/// starts is not the service in which the command runs.
pub(crate) fn hide_from(command: &mut std::process::Command) -> &mut std::process::Command {
    command.env_remove(SOCKET_VARIABLE)
}

fn tell(state: &str) {
    let socket = std::env::var_os(SOCKET_VARIABLE);
    if let Some(socket) = socket.filter(|socket: &OsString| !socket.is_empty())
        && let Err(error) = send(&socket, state)
    {
        // The service goes on: what the manager makes of its silence is the manager's affair.
        tracing::warn!(%error, state, ?socket, "cannot tell the service manager");
    }
}

fn send(socket: &OsStr, state: &str) -> io::Result<()> {
    let sender = UnixDatagram::unbound()?;
    sender.send_to_addr(state.as_bytes(), &address(socket)?)?;
    Ok(())
}

/// A path, or with an `@` in front a name that is in no file system.
fn address(socket: &OsStr) -> io::Result<SocketAddr> {
    match socket.as_bytes() {
        #[cfg(target_os = "linux")]
        [b'@', name @ ..] => {
            use std::os::linux::net::SocketAddrExt as _;
            SocketAddr::from_abstract_name(name)
        }
        [b'/', ..] => SocketAddr::from_pathname(Path::new(socket)),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{SOCKET_VARIABLE} is neither a path nor a name of a kind that is known"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(socket: &UnixDatagram) -> String {
        let mut bytes = [0; 64];
        let n_bytes = socket.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..n_bytes].to_vec()).unwrap()
    }

    #[test]
    fn a_socket_has_a_path() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        send(path.as_os_str(), "READY=1").unwrap();
        assert_eq!(received(&manager), "READY=1");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_socket_has_an_abstract_name() {
        use std::os::linux::net::SocketAddrExt as _;
        let name = format!("astscope-test-{}", std::process::id());
        let manager =
            UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        send(OsStr::new(&format!("@{name}")), "STOPPING=1").unwrap();
        assert_eq!(received(&manager), "STOPPING=1");
    }

    #[test]
    fn another_kind_of_socket_is_refused() {
        for socket in ["vsock:2:1234", "relative", "/nobody/is/there"] {
            assert!(send(OsStr::new(socket), "READY=1").is_err(), "{socket}");
        }
    }
}

//! Where clients come in: who is connected, and the socket that they connect to.
//!
//! One rests on the other: without its roll of sessions the listener can admit nobody, and
//! connections that stand on no roll would be nobody's.

use crate::connection;
use crate::daemon::{Connected, Daemon};
use crate::tree::STALLED_AFTER;
use astscope_supervision::{
    Address, AdminError, ChildSpec, Ctx, DynamicSupervisor, Exit, Init, Mailbox, Reply, Service,
};
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};

/// Clients at the same time. Editors, CI jobs and agents of one user come nowhere near.
pub(crate) const CLIENTS_MAX: usize = 256;

/// Messages that may wait for `sessions`: each client has one or two in its life.
const SESSIONS_MAILBOX: usize = 1024;

/// How long the listener waits for `sessions` to admit a client, and for its subtree to start.
const ADMIT_WITHIN: Duration = Duration::from_secs(5);

/// How long the listener rests when there are no file descriptors left: the next client may find
/// some.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// The gateway, for whoever has to do with it.
#[derive(Debug)]
pub(crate) struct Gateway {
    pub(crate) sessions: Address<Roll>,
    pub(crate) connections: DynamicSupervisor<NewConnection>,
    /// The socket outlives the listener: clients that come while that is restarted wait in its
    /// queue. `None` once the daemon takes nobody any more.
    socket: Mutex<Option<Arc<UnixListener>>>,
    /// Who was taken from that queue and isn't admitted yet. Outlives the listener as well.
    waiting: Mutex<Option<Arrival>>,
    last_session: AtomicU64,
}

/// A client's stream, until its connection begins to read from it: what is started for a client and
/// ends before that costs the client nothing.
#[derive(Clone, Debug)]
pub(crate) struct Arrival(Arc<Mutex<Option<UnixStream>>>);

impl Arrival {
    fn new(stream: UnixStream) -> Self {
        Self(Arc::new(Mutex::new(Some(stream))))
    }

    /// The stream, for the first who asks.
    pub(crate) fn take(&self) -> Option<UnixStream> {
        lock(&self.0).take()
    }

    fn is_waiting(&self) -> bool {
        lock(&self.0).is_some()
    }

    /// Whether it is this user's client, or root's.
    fn is_allowed(&self) -> bool {
        let own = rustix::process::geteuid().as_raw();
        let peer = lock(&self.0).as_ref().and_then(|stream| stream.peer_cred().ok());
        peer.is_some_and(|peer| peer.uid() == own || peer.uid() == 0)
    }
}

/// A client that was admitted.
pub(crate) struct NewConnection {
    pub(crate) entry: Entry,
    pub(crate) arrival: Arrival,
    pub(crate) daemon: Arc<Daemon>,
    pub(crate) connected: Connected,
}

impl Gateway {
    pub(crate) fn new(socket: UnixListener) -> Self {
        Self {
            sessions: Address::new("sessions", SESSIONS_MAILBOX),
            connections: DynamicSupervisor::new("connections", connection::spec),
            socket: Mutex::new(Some(Arc::new(socket))),
            waiting: Mutex::default(),
            last_session: AtomicU64::new(0),
        }
    }

    /// Closes the socket: from here on a new client finds none.
    pub(crate) fn close(&self) {
        lock(&self.socket).take();
    }

    fn socket(&self) -> Option<Arc<UnixListener>> {
        lock(&self.socket).clone()
    }

    /// The client that an earlier listener has left behind, or the next one.
    async fn next(&self, socket: &UnixListener) -> io::Result<Arrival> {
        let left = lock(&self.waiting).clone();
        if let Some(left) = left {
            return Ok(left);
        }
        let (stream, _) = socket.accept().await?;
        let arrival = Arrival::new(stream);
        *lock(&self.waiting) = Some(arrival.clone());
        Ok(arrival)
    }

    /// Whoever waited is admitted, or turned away.
    fn settled(&self) {
        lock(&self.waiting).take();
    }
}

fn lock<T>(mutex: &Mutex<Option<T>>) -> MutexGuard<'_, Option<T>> {
    // What is behind these locks is whole whenever they are not held.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What `sessions` is told and asked.
pub(crate) enum Roll {
    /// A client has connected. Refused when there are too many.
    Enter(u64, Reply<bool>),
    /// It has said who it is: name and version.
    Greeted(u64, String),
    /// It has left.
    Leave(u64),
    /// Who is connected: the session and what was greeted with, in the order of coming.
    Call(Reply<Vec<(u64, String)>>),
}

/// Knows who is connected, and admits no more than there is room for.
pub(crate) struct Sessions {
    present: BTreeMap<u64, String>,
}

impl Service for Sessions {
    type Args = ();
    type Message = Roll;

    async fn init((): (), _: &Ctx) -> Result<Init<Self>, Exit> {
        Ok(Init::Ready(Self { present: BTreeMap::new() }))
    }

    async fn run(mut self, mut mailbox: Mailbox<Roll>, _: Ctx) -> Result<(), Exit> {
        while let Some(message) = mailbox.recv().await {
            match message {
                Roll::Enter(session, reply) => {
                    let has_room = self.present.len() < CLIENTS_MAX;
                    if has_room {
                        self.present.insert(session, String::new());
                    }
                    reply.send(has_room);
                }
                Roll::Greeted(session, client) => {
                    if let Some(name) = self.present.get_mut(&session) {
                        *name = client;
                    }
                }
                Roll::Leave(session) => {
                    self.present.remove(&session);
                }
                Roll::Call(reply) => {
                    reply.send(self.present.iter().map(|(id, who)| (*id, who.clone())).collect());
                }
            }
        }
        Ok(())
    }
}

/// A session on the roll, until it is dropped.
pub(crate) struct Entry {
    session: u64,
    sessions: Address<Roll>,
}

impl Entry {
    pub(crate) fn new(session: u64, sessions: Address<Roll>) -> Self {
        Self { session, sessions }
    }

    pub(crate) fn session(&self) -> u64 {
        self.session
    }

    /// Notes who it is. News for a list: a roll that can't be reached does without.
    pub(crate) fn greeted(&self, client: String) {
        let _unheard = self.sessions.send_now(Roll::Greeted(self.session, client));
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        // In vain if the roll is gone: then so is its list.
        let _unheard = self.sessions.send_now(Roll::Leave(self.session));
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry").field("session", &self.session).finish_non_exhaustive()
    }
}

/// Accepts clients until the daemon leaves.
pub(crate) fn listener(daemon: &Arc<Daemon>) -> ChildSpec {
    let daemon = Arc::clone(daemon);
    ChildSpec::task("listener", move |ctx| listen(Arc::clone(&daemon), ctx))
        .stall_after(STALLED_AFTER)
}

async fn listen(daemon: Arc<Daemon>, ctx: Ctx) -> Result<(), Exit> {
    while let Some(socket) = daemon.gateway.socket() {
        ctx.idle();
        let arrived = tokio::select! {
            biased;
            () = ctx.stopping() => return Ok(()),
            () = daemon.leaving() => break,
            arrived = daemon.gateway.next(&socket) => arrived,
        };
        ctx.progress();
        match arrived {
            // It may be told to stop because `sessions` is gone, whom this waits for: the client
            // waits for the next listener.
            Ok(arrival) => tokio::select! {
                biased;
                () = ctx.stopping() => return Ok(()),
                settled = admit(&daemon, arrival) => if settled? {
                    daemon.gateway.settled();
                },
            },
            Err(error) => {
                tracing::warn!(%error, "cannot accept a client");
                tokio::time::sleep(ACCEPT_AGAIN_AFTER).await;
            }
        }
    }
    // Nobody comes any more; the daemon stops this when the last ones have left.
    ctx.idle();
    ctx.stopping().await;
    Ok(())
}

/// Starts a client's subtree, or closes the connection; `false` if it is to be tried once more.
async fn admit(daemon: &Arc<Daemon>, arrival: Arrival) -> Result<bool, Exit> {
    if !arrival.is_allowed() {
        tracing::warn!("refused a connection of another user");
        return Ok(true);
    }
    let gateway = &daemon.gateway;
    let session = gateway.last_session.fetch_add(1, Ordering::Relaxed) + 1;
    // Before it is on the roll, so that it leaves it also if this is given up meanwhile.
    let entry = Entry::new(session, gateway.sessions.clone());
    let enter = gateway.sessions.call(ADMIT_WITHIN, |reply| Roll::Enter(session, reply)).await;
    if !enter.map_err(|error| Exit::failed(format!("`sessions`: {error}")))? {
        tracing::warn!(limit = CLIENTS_MAX, "refused a connection: too many clients");
        return Ok(true);
    }
    let (daemon, connected) = (Arc::clone(daemon), daemon.connected());
    let new = NewConnection { entry, arrival: arrival.clone(), daemon, connected };
    match gateway.connections.start_child(new).await {
        Ok(_) => Ok(true),
        // They were restarted in the middle of it. The next ones are waited for.
        Err(AdminError::Gone) if arrival.is_waiting() => Ok(false),
        // Its client was quick enough to make the daemon leave before this was answered.
        Err(_) if !arrival.is_waiting() => Ok(true),
        Err(error) => {
            tracing::warn!(session, %error, "cannot start a client's connection");
            Ok(true)
        }
    }
}

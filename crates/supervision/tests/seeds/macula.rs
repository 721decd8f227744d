//! Macula: a mesh node whose every peer has a tree of its own.

use super::shape::{Play, check_rows, quiet};
use super::table::{Cast, Node};
use astscope_supervision::LintRule::{ImpatientWithSupervisor, NonPermanentSupervisor};
use astscope_supervision::{
    Address, AdminError, ChildSpec, Ctx, DynamicSupervisor, Exit, Init, Lease, Mailbox, Registry,
    Reply, Restart, Service, Strategy, SupervisorSpec, Table,
};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;
use tokio::io::{
    AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, DuplexStream, ReadHalf,
    WriteHalf, duplex, split,
};
use tokio::time::{Instant, sleep, timeout};

/// Always on since its version 0.8.5; before, a mode said what there is.
const MACULA: &str = "
macula_root                        o4o     10/5   -  -
  routing_server                   worker  -      P  5000
  bootstrap_system                 o4o     10/60  P  inf   [always,bootstrap,hybrid]
    bootstrap_server               worker  -      P  5000
    service_registry               worker  -      P  5000
    health_monitor                 worker  -      P  5000
  gateway_system                   r4o     10/60  P  inf   [always,gateway,hybrid]
    gateway_health                 worker  -      P  5000
    gateway_diagnostics            worker  -      P  5000
    gateway_quic_server            worker  -      P  5000
    gateway                        worker  -      P  5000
    gateway_workers_sup            r4o     10/60  P  inf
      gateway_clients              worker  -      P  5000
      gateway_pubsub               worker  -      P  5000
      gateway_rpc                  worker  -      P  5000
      gateway_mesh                 worker  -      P  5000
  peers_sup                        dyn     10/60  P  inf   [always]
    adopter                        worker  -      T  5000  [adopting]
    *peer                          r4o     10/60  X  5000
      connection_manager           worker  -      P  5000
      pubsub_handler               worker  -      P  5000
      rpc_handler                  worker  -      P  5000
      advertisement_manager        worker  -      P  5000
";

fn tree() -> Node {
    Node::parse(MACULA, &["always"])
}

shape!(
    macula,
    tree(),
    &[
        (ImpatientWithSupervisor, "macula_root/peers_sup/peer_1"),
        (NonPermanentSupervisor, "macula_root/peers_sup/peer_1"),
    ]
);

#[tokio::test(start_paused = true)]
async fn who_is_restarted_with_whom_is_what_the_seed_says() {
    let rows = "
        routing_server        -> routing_server
        bootstrap_system      -> bootstrap_system
        gateway_system        -> gateway_system
        peers_sup             -> peers_sup
        bootstrap_server      -> bootstrap_server
        service_registry      -> service_registry
        health_monitor        -> health_monitor

        gateway_health        -> gateway_health gateway_diagnostics gateway_quic_server gateway gateway_workers_sup
        gateway_diagnostics   -> gateway_diagnostics gateway_quic_server gateway gateway_workers_sup
        gateway_quic_server   -> gateway_quic_server gateway gateway_workers_sup
        gateway               -> gateway gateway_workers_sup
        gateway_workers_sup   -> gateway_workers_sup

        gateway_clients       -> gateway_clients gateway_pubsub gateway_rpc gateway_mesh
        gateway_pubsub        -> gateway_pubsub gateway_rpc gateway_mesh
        gateway_rpc           -> gateway_rpc gateway_mesh
        gateway_mesh          -> gateway_mesh

        peer_1/connection_manager    -> peer_1/connection_manager peer_1/pubsub_handler peer_1/rpc_handler peer_1/advertisement_manager
        peer_1/pubsub_handler        -> peer_1/pubsub_handler peer_1/rpc_handler peer_1/advertisement_manager
        peer_1/rpc_handler           -> peer_1/rpc_handler peer_1/advertisement_manager
        peer_1/advertisement_manager -> peer_1/advertisement_manager
        peer_2                       -> nobody
    ";
    check_rows(&tree(), rows).await;
}

#[tokio::test(start_paused = true)]
async fn it_has_17_processes_and_5_more_for_each_peer() {
    // The seed says 4 more, and so 57 and 417: it forgets the handlers' supervisor.
    for (n_peers, n_processes) in [(0, 17), (1, 22), (10, 67), (100, 517)] {
        let play = Play::start(&tree(), n_peers).await;
        assert_eq!(play.n_processes().await, n_processes);
        let peers = play.supervisor("peers_sup").await.count_children().await.unwrap();
        assert_eq!((peers.specs, peers.active, peers.supervisors), (1, n_peers, n_peers));
        for n in 1..=n_peers {
            let peer = play.supervisor(&format!("peers_sup/peer_{n}")).await;
            assert_eq!(peer.count_children().await.unwrap().workers, 4);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn before_0_8_5_a_mode_said_how_many_processes_there_are() {
    for (mode, n_processes) in [("edge", 2), ("bootstrap", 6), ("gateway", 12), ("hybrid", 16)] {
        let play = Play::start(&Node::parse(MACULA, &[mode]), 0).await;
        assert_eq!(play.n_processes().await, n_processes, "{mode}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_fails_too_often_is_gone_until_it_is_wanted_again() {
    let play = Play::start(&tree(), 2).await;
    let handler = "peers_sup/peer_1/rpc_handler";
    for _ in 0..10 {
        assert_eq!(play.crash(handler).await.len(), 2);
    }
    assert_eq!(play.crash(handler).await, [""; 0]);
    assert_eq!(play.melted(), ["peers_sup/peer_1"]);
    let peers = play.supervisor("peers_sup").await;
    let ids = |children: Vec<astscope_supervision::ChildInfo>| {
        children.iter().map(|child| child.id.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(ids(peers.which_children().await.unwrap()), ["peer_2"]);
    assert_eq!(play.crash("peers_sup/peer_2/rpc_handler").await.len(), 2, "who lives as before");

    play.recorder.take();
    play.cast.dynamic("peers_sup").start_child("peer_1".to_owned()).await.unwrap().unwrap();
    assert_eq!(play.started().len(), 5, "with all its handlers, and a budget of its own");
    for _ in 0..10 {
        assert_eq!(play.crash(handler).await.len(), 2);
    }
}

// ── M16: connections survive their supervisor ───────────────────────────────────────────────────
//
// OTP can't: children are linked to their supervisor. So the sockets and what is known of a session
// stand in a table that nobody below `peers_sup` owns, and `peers_sup` begins with a child that
// adopts them.

/// A client's connection, apart from who serves it.
struct Session {
    requests: tokio::sync::Mutex<Requests>,
    answers: tokio::sync::Mutex<WriteHalf<DuplexStream>>,
    topics: Mutex<BTreeSet<String>>,
}

/// What a client sends. A line that was read half stays here when its reader is killed.
struct Requests {
    stream: ReadHalf<DuplexStream>,
    unread: Vec<u8>,
}

impl Session {
    fn new(stream: DuplexStream) -> Arc<Self> {
        let (stream, answers) = split(stream);
        Arc::new(Self {
            requests: tokio::sync::Mutex::new(Requests { stream, unread: Vec::new() }),
            answers: tokio::sync::Mutex::new(answers),
            topics: Mutex::default(),
        })
    }

    async fn send(&self, line: &str) -> io::Result<()> {
        self.answers.lock().await.write_all(format!("{line}\n").as_bytes()).await
    }
}

impl Requests {
    /// The next line. `None`: the client has gone. Nothing is lost when the future is dropped.
    async fn next(&mut self) -> io::Result<Option<String>> {
        loop {
            if let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
                let line: Vec<_> = self.unread.drain(..=end).collect();
                return Ok(Some(String::from_utf8_lossy(&line).trim().to_owned()));
            }
            if self.stream.read_buf(&mut self.unread).await? == 0 {
                return Ok(None);
            }
        }
    }
}

/// What the parts of the mesh know of each other.
#[derive(Clone)]
struct Mesh {
    sessions: Table<BTreeMap<String, Arc<Session>>>,
    clients: Address<Change>,
    publishers: Registry<String, Address<Publication>>,
    cast: Arc<OnceLock<Cast>>,
}

impl Mesh {
    fn session(&self, id: &str) -> Option<Arc<Session>> {
        self.sessions.snapshot().get(id).cloned()
    }

    fn peers(&self) -> DynamicSupervisor<String> {
        self.cast.get().unwrap().dynamic("peers_sup")
    }

    /// Gives a session a tree of its own, if it has none.
    async fn adopt(&self, id: &str) -> Result<(), AdminError> {
        match self.peers().start_child(id.to_owned()).await {
            Ok(_) | Err(AdminError::AlreadyStarted | AdminError::AlreadyPresent) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Who plays what.
    fn role(&self, path: &str) -> Option<ChildSpec> {
        let own = self.clone();
        if path.ends_with("/gateway_clients") {
            return Some(ChildSpec::service::<Clients>(&self.clients, own));
        }
        let (peer, handler) =
            path.strip_prefix("peers_sup/")?.split_once('/').unwrap_or(("", path));
        let peer = peer.to_owned();
        match handler {
            "peers_sup/adopter" => {
                Some(ChildSpec::task("adopter", move |_| own.clone().adopt_all()))
            }
            "connection_manager" => Some(ChildSpec::task("connection_manager", move |ctx| {
                serve(own.clone(), peer.clone(), ctx)
            })),
            "pubsub_handler" => {
                let address = Address::new("pubsub_handler", 16);
                let args = (own, peer, address.clone());
                Some(ChildSpec::service::<Publisher>(&address, args))
            }
            _ => None,
        }
    }

    async fn adopt_all(self) -> Result<(), Exit> {
        for id in self.sessions.snapshot().keys() {
            self.adopt(id).await?;
        }
        Ok(())
    }
}

/// The owner of the table: the only one who writes to it.
struct Clients {
    mesh: Mesh,
    lease: Lease<BTreeMap<String, Arc<Session>>>,
}

enum Change {
    Connected(String, DuplexStream, Reply<()>),
    Closed(String),
}

impl Service for Clients {
    type Args = Mesh;
    type Message = Change;

    async fn init(mesh: Mesh, _: &Ctx) -> Result<Init<Self>, Exit> {
        let lease = mesh.sessions.lease();
        Ok(Init::Ready(Self { mesh, lease }))
    }

    async fn run(mut self, mut mailbox: Mailbox<Change>, _: Ctx) -> Result<(), Exit> {
        while let Some(change) = mailbox.recv().await {
            match change {
                Change::Connected(id, stream, reply) => {
                    let session = Session::new(stream);
                    self.lease.update(|sessions| {
                        let mut sessions = sessions.clone();
                        sessions.insert(id.clone(), session);
                        sessions
                    })?;
                    self.mesh.adopt(&id).await?;
                    reply.send(());
                }
                Change::Closed(id) => {
                    self.lease.update(|sessions| {
                        let mut sessions = sessions.clone();
                        sessions.remove(&id);
                        sessions
                    })?;
                    // It may be gone with its supervisor at this moment, and isn't adopted again.
                    let _gone = self.mesh.peers().supervisor().terminate_child(&id).await;
                }
            }
        }
        Ok(())
    }
}

/// Reads a session's requests and answers them.
async fn serve(mesh: Mesh, peer: String, ctx: Ctx) -> Result<(), Exit> {
    let session = mesh.session(&peer).ok_or_else(|| Exit::failed("no such session"))?;
    let mut requests = session.requests.lock().await;
    loop {
        let request = tokio::select! {
            () = ctx.stopping() => return Ok(()),
            request = requests.next() => request?,
        };
        let Some(request) = request else { break };
        if let Some(topic) = request.strip_prefix("subscribe ") {
            session.topics.lock().unwrap().insert(topic.to_owned());
        }
        session.send(&format!("done: {request}")).await?;
    }
    mesh.clients.send(Duration::from_secs(5), Change::Closed(peer)).await?;
    ctx.stopping().await;
    Ok(())
}

/// Tells a client what it has subscribed to.
struct Publisher(Arc<Session>);

struct Publication {
    topic: String,
    text: String,
}

impl Service for Publisher {
    type Args = (Mesh, String, Address<Publication>);
    type Message = Publication;

    async fn init((mesh, peer, address): Self::Args, ctx: &Ctx) -> Result<Init<Self>, Exit> {
        let session = mesh.session(&peer).ok_or_else(|| Exit::failed("no such session"))?;
        mesh.publishers.register(ctx, peer, address)?;
        Ok(Init::Ready(Self(session)))
    }

    async fn run(self, mut mailbox: Mailbox<Publication>, _: Ctx) -> Result<(), Exit> {
        while let Some(Publication { topic, text }) = mailbox.recv().await {
            if self.0.topics.lock().unwrap().contains(&topic) {
                self.0.send(&format!("{topic}: {text}")).await?;
            }
        }
        Ok(())
    }
}

/// A client, at its end of the socket.
struct Client(BufReader<DuplexStream>);

impl Client {
    async fn connect(mesh: &Mesh, id: &str) -> Self {
        let (own, other) = duplex(1024);
        let connected = |reply| Change::Connected(id.to_owned(), other, reply);
        mesh.clients.call(Duration::from_secs(1), connected).await.unwrap();
        Self(BufReader::new(own))
    }

    async fn say(&mut self, request: &str) {
        self.0.write_all(request.as_bytes()).await.unwrap();
    }

    /// The next line; it has to come within the seed's budget for a handler's recovery.
    async fn hear(&mut self) -> String {
        let mut line = String::new();
        let heard = timeout(Duration::from_millis(500), self.0.read_line(&mut line)).await;
        assert_ne!(heard.unwrap().unwrap(), 0, "the connection is closed");
        line.trim().to_owned()
    }

    async fn ask(&mut self, request: &str) -> String {
        self.say(&format!("{request}\n")).await;
        self.hear().await
    }
}

async fn mesh() -> (Play, Mesh) {
    let mesh = Mesh {
        sessions: Table::new("sessions", BTreeMap::new()),
        clients: Address::new("gateway_clients", 16),
        publishers: Registry::new(),
        cast: Arc::default(),
    };
    let own = mesh.clone();
    let cast = Cast::new(move |path| own.role(path));
    mesh.cast.get_or_init(|| cast.clone());
    (Play::of(&Node::parse(MACULA, &["always", "adopting"]), cast).await, mesh)
}

async fn peers(play: &Play) -> Vec<String> {
    let children = play.supervisor("peers_sup").await.which_children().await.unwrap();
    children.iter().rev().map(|child| child.id.to_string()).collect()
}

#[tokio::test(start_paused = true)]
async fn connections_survive_the_supervisor_of_all_peers() {
    let (play, mesh) = mesh().await;
    let mut alice = Client::connect(&mesh, "alice").await;
    let mut bob = Client::connect(&mesh, "bob").await;
    assert_eq!(alice.ask("subscribe weather").await, "done: subscribe weather");
    assert_eq!(bob.ask("1").await, "done: 1");
    alice.say("2 comes in").await; // and its reader dies over it
    quiet().await;
    let connection = play.root.supervisor().child_at("peers_sup/alice/connection_manager").await;
    let connection = connection.unwrap().monitor();
    assert_eq!(connection.exit(), None);

    play.melt("peers_sup").await;
    assert!(play.melted().contains(&"peers_sup".to_owned()));
    assert_eq!(connection.exit(), Some(Exit::Shutdown), "its server is gone, its socket isn't");
    alice.say(" two parts\n").await;
    assert_eq!(alice.hear().await, "done: 2 comes in two parts");
    assert_eq!(bob.ask("3").await, "done: 3");
    assert_eq!(peers(&play).await, ["alice", "bob"]);

    // What a client has subscribed to is known of the session, not of its handler.
    for name in ["alice", "bob"] {
        let publisher = mesh.publishers.whereis(&name.to_owned()).unwrap();
        let publication = Publication { topic: "weather".into(), text: "rain".into() };
        publisher.send(Duration::from_secs(1), publication).await.unwrap();
    }
    assert_eq!(alice.hear().await, "weather: rain");
    assert_eq!(bob.ask("4").await, "done: 4", "who hasn't subscribed hears nothing");

    // Who leaves is forgotten, and not adopted.
    drop(bob);
    quiet().await;
    assert_eq!(peers(&play).await, ["alice"]);
    play.melt("peers_sup").await;
    assert_eq!(peers(&play).await, ["alice"]);
    assert_eq!(alice.ask("5").await, "done: 5");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_comes_while_nobody_is_there_is_answered_later() {
    let (play, mesh) = mesh().await;
    let mut alice = Client::connect(&mesh, "alice").await;
    let mut bob = Client::connect(&mesh, "bob").await;
    // Alice's handler holds the stop up, so everybody's is down for that long.
    let whole = format!("{}/peers_sup/alice/advertisement_manager", play.tree.id);
    let dawdle = astscope_supervision::Fault::Slow(Duration::from_millis(300));
    play.cast.probe.arm(whole, astscope_supervision::Point::Stop, dawdle, 1);
    play.melt("peers_sup").await;
    let asked = Instant::now();
    bob.say("anybody?\n").await;
    assert_eq!(alice.ask("who is it?").await, "done: who is it?");
    assert_eq!(bob.hear().await, "done: anybody?");
    assert!(asked.elapsed() >= Duration::from_millis(250), "{:?}", asked.elapsed());
}

#[tokio::test(start_paused = true)]
async fn connections_survive_the_owner_of_their_table_too() {
    let (play, mesh) = mesh().await;
    let mut alice = Client::connect(&mesh, "alice").await;
    let connection = play.root.supervisor().child_at("peers_sup/alice/connection_manager").await;
    let connection = connection.unwrap().monitor();
    play.recorder.take();
    play.strike("gateway_system/gateway_workers_sup/gateway_clients").await;
    assert_eq!(play.started().len(), 4, "all workers of the gateway");
    assert_eq!(alice.ask("1").await, "done: 1");
    // And so they do the death of anything else in the gateway.
    play.crash("gateway_system/gateway_workers_sup/gateway_pubsub").await;
    play.crash("gateway_system/gateway_quic_server").await;
    assert_eq!(alice.ask("2").await, "done: 2");
    assert_eq!(connection.exit(), None, "nobody has noticed");
    // The new owner knows the old sessions.
    let mut bob = Client::connect(&mesh, "bob").await;
    assert_eq!(bob.ask("3").await, "done: 3");
    assert_eq!(mesh.sessions.snapshot().len(), 2);
    drop(alice);
    quiet().await;
    assert_eq!(peers(&play).await, ["bob"]);
}

#[tokio::test(start_paused = true)]
async fn a_socket_that_its_server_owns_dies_with_it() {
    let peers = DynamicSupervisor::new("peers_sup", |stream: DuplexStream| {
        ChildSpec::once("peer", |ctx| async move {
            let _socket = stream;
            ctx.stopping().await;
            Ok(())
        })
    });
    let budget = SupervisorSpec::dynamic(10).intensity(0, Duration::from_secs(1));
    let root = SupervisorSpec::new(Strategy::OneForOne).child(peers.spec(budget));
    let _root = root.start("macula_root").await.unwrap();
    let (mut own, other) = duplex(1024);
    peers.start_child(other).await.unwrap();
    let saboteur = ChildSpec::task("saboteur", |_| async {
        sleep(Duration::from_millis(1)).await;
        Err(Exit::failed("boom"))
    });
    let saboteur = saboteur.restart(Restart::Permanent);
    peers.supervisor().start_child(saboteur).await.unwrap();
    let mut bytes = Vec::new();
    assert_eq!(own.read_to_end(&mut bytes).await.unwrap(), 0);
}

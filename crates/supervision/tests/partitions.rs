//! Partition supervisors: cases 85 and 86 of the conformance list, placement as recorded values,
//! and what becomes of a resize when things fail.
#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test may")]

mod stage;

use astscope_supervision::{
    Address, AdminError, CallError, ChildSpec, ChildState, Count, Ctx, DynamicSupervisor, Exit,
    Fault, Init, Mailbox, NoPartition, PartitionSupervisor, Point, Probe, Reply, ResizeError,
    Restart, Root, SendError, Service, SpecError, Strategy, SupervisorSpec,
};
use expect_test::expect;
use stage::settle;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::time::{Instant, sleep};

const WITHIN: Duration = Duration::from_secs(5);

/// Says who it is: its id, and which incarnation.
struct Writer;

enum Message {
    Who(Reply<(String, u64)>),
    Crash,
}

impl Service for Writer {
    type Args = ();
    type Message = Message;

    async fn init((): (), _: &Ctx) -> Result<Init<Self>, Exit> {
        Ok(Init::Ready(Self))
    }

    async fn run(self, mut mailbox: Mailbox<Message>, ctx: Ctx) -> Result<(), Exit> {
        while let Some(message) = mailbox.recv().await {
            match message {
                Message::Who(reply) => reply.send((ctx.id().to_string(), ctx.incarnation())),
                Message::Crash => return Err(Exit::failed("boom")),
            }
        }
        Ok(())
    }
}

type Writers = PartitionSupervisor<Address<Message>>;

fn writers(count: usize) -> Writers {
    PartitionSupervisor::new("writers", count, |id| {
        let address = Address::new(id, 16);
        (ChildSpec::service::<Writer>(&address, ()), address)
    })
    .unwrap()
}

async fn start(writers: &Writers) -> Root {
    start_as(writers, SupervisorSpec::new(Strategy::OneForOne)).await
}

async fn start_as(writers: &Writers, spec: SupervisorSpec) -> Root {
    SupervisorSpec::new(Strategy::OneForOne).child(writers.spec(spec)).start("store").await.unwrap()
}

async fn who(address: &Address<Message>) -> Result<(String, u64), CallError> {
    address.call(WITHIN, Message::Who).await
}

/// The state of each partition, from 0 on.
async fn states(writers: &Writers) -> Vec<ChildState> {
    let children = writers.supervisor().which_children().await.unwrap();
    children.iter().rev().map(|child| child.state).collect()
}

/// How many of four run.
async fn n_up(writers: &Writers) -> usize {
    let states = states(writers).await;
    let n = states.iter().take_while(|state| **state == ChildState::Up).count();
    assert!(states[n..].iter().all(|state| *state == ChildState::Down), "{states:?}");
    n
}

// ── placement ───────────────────────────────────────────────────────────────────────────────────

#[test]
fn case_85_a_number_leads_to_its_absolute_value_modulo_the_partitions() {
    let writers = writers(5);
    for (key, id) in [
        (0, "0"),
        (4, "4"),
        (5, "0"),
        (7, "2"),
        (-1, "1"),
        (-7, "2"),
        (i64::MAX, "2"),
        (i64::MIN, "3"),
    ] {
        assert_eq!(&**writers.route_number(key).unwrap().id(), id, "{key}");
    }
}

#[test]
fn case_85_a_key_always_leads_to_the_same_partition_in_this_process_and_the_next() {
    let writers = writers(7);
    let texts = ["", "a", "stream-7", "src/lib.rs", "ä"];
    let texts = texts.map(|key| {
        let id = writers.route(&key).unwrap().id();
        assert_eq!(writers.route(&key.to_owned()).unwrap().id(), id, "{key}, owned");
        id.to_string()
    });
    let numbers: String = (0..16_u64).map(|key| &**writers.route(&key).unwrap().id()).collect();
    let pair = writers.route(&("workspace", 3_u32)).unwrap().id();
    // Recorded on a 64-bit machine. If this changes, so does where every stored key is looked for.
    expect!["04142 0602346013450124 0"].assert_eq(&format!("{} {numbers} {pair}", texts.concat()));
}

#[test]
fn keys_are_spread_evenly() {
    for count in [2, 4, 7, 16] {
        let writers = writers(count);
        let mut hits = vec![0_usize; count];
        for n in 0..1000 * count {
            let id = writers.route(&format!("crates/supervision/src/{n}.rs")).unwrap().id();
            hits[id.parse::<usize>().unwrap()] += 1;
        }
        assert!(hits.iter().all(|hits| (800..1200).contains(hits)), "{hits:?}");
    }
}

#[test]
fn there_is_at_least_one_partition_and_by_default_as_many_as_cores() {
    let none = PartitionSupervisor::new("none", 0, |id| (ChildSpec::task(id, idle), ()));
    assert_eq!(none.unwrap_err(), SpecError::NoPartitions);
    let per_core = PartitionSupervisor::per_core("all", |id| (ChildSpec::task(id, idle), ()));
    assert!(per_core.unwrap().n_active() >= 1);
}

async fn idle(ctx: Ctx) -> Result<(), Exit> {
    ctx.stopping().await;
    Ok(())
}

// ── resizing ────────────────────────────────────────────────────────────────────────────────────

#[tokio::test(start_paused = true)]
async fn case_85_partitions_are_stopped_and_started_again_as_the_size_changes_down_to_none() {
    let writers = writers(4);
    let root = start(&writers).await;
    assert_eq!((writers.n_active(), n_up(&writers).await), (4, 4));
    for count in [2, 3, 0, 1, 4, 4, 1] {
        writers.resize(count).await.unwrap();
        assert_eq!((writers.n_active(), n_up(&writers).await), (count, count));
        for key in 0..9 {
            match writers.route_number(key) {
                Ok(writer) => {
                    let expected = usize::try_from(key).unwrap() % count;
                    assert_eq!(who(writer).await.unwrap().0, expected.to_string());
                }
                Err(error) => assert_eq!((error, count), (NoPartition, 0)),
            }
            assert_eq!(writers.route(&key).is_err(), count == 0);
        }
    }
    assert_eq!(writers.resize(5).await, Err(ResizeError::TooMany { max: 4 }));
    assert_eq!(writers.n_active(), 1);
    root.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_resize_is_no_restart_that_counts() {
    let writers = writers(2);
    let root = start_as(&writers, SupervisorSpec::new(Strategy::OneForOne).intensity(0, WITHIN));
    let _root = root.await;
    for _ in 0..5 {
        writers.resize(0).await.unwrap();
        writers.resize(2).await.unwrap();
    }
    assert_eq!(n_up(&writers).await, 2);
}

#[tokio::test(start_paused = true)]
async fn a_resize_outlives_a_restart_of_the_whole_supervisor() {
    for count in [2, 0] {
        let writers = writers(4);
        let root = start(&writers).await;
        writers.resize(count).await.unwrap();
        root.supervisor().terminate_child("writers").await.unwrap();
        root.supervisor().restart_child("writers").await.unwrap();
        assert_eq!((writers.n_active(), n_up(&writers).await), (count, count));
        // And none of those that stay down is lost.
        writers.resize(4).await.unwrap();
        assert_eq!((writers.n_active(), n_up(&writers).await), (4, 4));
        assert_eq!(who(writers.route_number(3).unwrap()).await.unwrap().0, "3");
    }
}

#[tokio::test(start_paused = true)]
async fn a_resize_outlives_a_meltdown_and_a_group_restart() {
    let writers = writers(4);
    let spec = SupervisorSpec::new(Strategy::OneForAll).intensity(1, WITHIN);
    let _root = start_as(&writers, spec).await;
    writers.resize(2).await.unwrap();
    for crash in 1..=2 {
        writers.route_number(0).unwrap().send(WITHIN, Message::Crash).await.unwrap();
        settle().await;
        assert_eq!(n_up(&writers).await, 2, "after crash {crash}");
    }
    assert_eq!(writers.supervisor().child().status().incarnation(), 2, "it melted down");
}

#[tokio::test(start_paused = true)]
async fn a_resize_before_the_start_holds_for_the_start() {
    let writers = writers(4);
    let begun = Instant::now();
    assert!(writers.resize(1).await.is_err(), "nobody is there to be asked");
    assert_eq!(begun.elapsed(), Duration::from_mins(1));
    let _root = start(&writers).await;
    assert_eq!((writers.n_active(), n_up(&writers).await), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_partition_that_does_not_start_leaves_the_size_as_it_was() {
    let probe = Probe::new();
    let writers = writers(4);
    let spec = SupervisorSpec::new(Strategy::OneForOne).probe(probe.clone());
    let _root = start_as(&writers, spec).await;
    writers.resize(1).await.unwrap();
    probe.arm("2", Point::Init, Fault::Error, 1);
    let error = writers.resize(4).await.unwrap_err();
    assert_eq!(error.to_string(), "a partition didn't start or stop");
    assert_eq!((writers.n_active(), n_up(&writers).await), (1, 1));
    writers.resize(4).await.unwrap();
    assert_eq!((writers.n_active(), n_up(&writers).await), (4, 4));
}

#[tokio::test(start_paused = true)]
async fn a_resize_that_is_given_up_is_put_right_by_the_next() {
    let probe = Probe::new();
    let writers = writers(4);
    let spec = SupervisorSpec::new(Strategy::OneForOne).probe(probe.clone());
    let _root = start_as(&writers, spec).await;
    writers.resize(1).await.unwrap();
    probe.arm("2", Point::Init, Fault::Slow(WITHIN), 1);
    let resize = tokio::time::timeout(Duration::from_secs(1), writers.resize(4));
    assert!(resize.await.is_err());
    sleep(WITHIN).await;
    assert_eq!((writers.n_active(), n_up(&writers).await), (1, 3));
    writers.resize(1).await.unwrap();
    assert_eq!((writers.n_active(), n_up(&writers).await), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn two_resizes_at_once_happen_one_after_the_other() {
    let writers = writers(8);
    let _root = SupervisorSpec::new(Strategy::OneForOne)
        .child(writers.spec(SupervisorSpec::new(Strategy::OneForOne)))
        .start("store")
        .await
        .unwrap();
    let resizes: Vec<_> = [0, 8, 3, 5, 1, 6]
        .map(|count| {
            let writers = writers.clone();
            tokio::spawn(async move { writers.resize(count).await })
        })
        .into();
    for resize in resizes {
        resize.await.unwrap().unwrap();
    }
    assert_eq!((writers.n_active(), n_up(&writers).await), (6, 6));
}

#[tokio::test(start_paused = true)]
async fn partitions_may_have_names_of_their_own() {
    let named: Writers = PartitionSupervisor::new("writers", 2, |id| {
        let address = Address::new(format!("writer-{id}"), 16);
        (ChildSpec::service::<Writer>(&address, ()), address)
    })
    .unwrap();
    let _root = start(&named).await;
    named.resize(1).await.unwrap();
    assert_eq!(n_up(&named).await, 1);
    named.resize(2).await.unwrap();
    assert_eq!(who(named.route_number(1).unwrap()).await.unwrap().0, "writer-1");
}

#[tokio::test(start_paused = true)]
async fn a_partition_that_has_a_condition_of_its_own_keeps_it() {
    let asked = Arc::new(AtomicUsize::new(0));
    let own = Arc::clone(&asked);
    let writers: Writers = PartitionSupervisor::new("writers", 2, move |id| {
        let (address, asked) = (Address::new(id, 16), Arc::clone(&own));
        let child = ChildSpec::service::<Writer>(&address, ())
            .when(move || asked.fetch_add(1, Ordering::SeqCst) != 0);
        (child, address)
    })
    .unwrap();
    let _root = start(&writers).await;
    assert_eq!(states(&writers).await, [ChildState::Down, ChildState::Up]);
    let down = writers.route_number(0).unwrap();
    assert_eq!(down.call_now(WITHIN, Message::Who).await, Err(CallError::Down));
}

#[tokio::test(start_paused = true)]
async fn a_condition_that_panics_is_a_failed_start_of_a_worker_and_of_a_supervisor() {
    let refused = |child: ChildSpec| child.when(|| panic!("no idea"));
    let supervisor = ChildSpec::supervisor("s", SupervisorSpec::new(Strategy::OneForOne));
    let once = ChildSpec::once("o", idle);
    let root = SupervisorSpec::new(Strategy::OneForOne).start("store").await.unwrap();
    for child in [ChildSpec::task("w", idle), once, supervisor] {
        let error = root.supervisor().start_child(refused(child)).await.unwrap_err();
        assert_eq!(error, AdminError::Start(Exit::Panicked("no idea".into())));
    }
    let unwanted = ChildSpec::once("o", idle).when(|| false);
    assert!(root.supervisor().start_child(unwanted).await.unwrap().is_none());
    assert_eq!(root.shutdown().await.exit, Exit::Shutdown);
}

// ── restarts ────────────────────────────────────────────────────────────────────────────────────

#[tokio::test(start_paused = true)]
async fn case_86_a_call_to_a_partition_that_restarts_waits_or_is_told_and_never_meets_the_old_one()
{
    let probe = Probe::new();
    let writers = writers(2);
    let spec = SupervisorSpec::new(Strategy::OneForOne).probe(probe.clone());
    let _root = start_as(&writers, spec).await;
    let writer = writers.route(&"a key").unwrap();
    let (id, first) = who(writer).await.unwrap();
    probe.arm(&*id, Point::Init, Fault::Slow(Duration::from_secs(2)), 1);
    writer.send(WITHIN, Message::Crash).await.unwrap();
    settle().await;

    let begun = Instant::now();
    assert_eq!(writer.call_now(WITHIN, Message::Who).await, Err(CallError::Restarting));
    assert_eq!(writer.send_now(Message::Crash), Err(SendError::Restarting));
    let second = Duration::from_secs(1);
    assert_eq!(writer.call(second, Message::Who).await, Err(CallError::Restarting));
    assert_eq!(begun.elapsed(), second);
    assert_eq!(who(writer).await, Ok((id, first + 1)));
    assert!(begun.elapsed() < WITHIN);
}

#[tokio::test(start_paused = true)]
async fn case_86_a_request_that_a_dying_partition_has_taken_is_reported_as_such() {
    let probe = Probe::new();
    let writers = writers(1);
    let spec = SupervisorSpec::new(Strategy::OneForOne).probe(probe.clone());
    let _root = start_as(&writers, spec).await;
    let writer = writers.route(&"a key").unwrap();
    // It finds the crash first, with the question waiting behind it.
    writer.send_now(Message::Crash).unwrap();
    let error = writer.call_now(WITHIN, Message::Who).await.unwrap_err();
    assert_eq!(error, CallError::Died);
    assert!(!error.is_undelivered(), "it may have taken effect");
}

#[tokio::test(start_paused = true)]
async fn case_86_calls_go_on_through_crash_after_crash() {
    let writers = writers(3);
    let spec = SupervisorSpec::new(Strategy::OneForOne).intensity(1000, WITHIN);
    let root = start_as(&writers, spec).await;
    let crashes = {
        let writers = writers.clone();
        tokio::spawn(async move {
            for n in 0..100 {
                sleep(Duration::from_millis(7)).await;
                writers.route_number(n).unwrap().send(WITHIN, Message::Crash).await.unwrap();
            }
        })
    };
    let (mut n_answers, mut last) = (0, [0; 3]);
    while !crashes.is_finished() {
        for (key, last) in (0_i64..).zip(&mut last) {
            match who(writers.route_number(key).unwrap()).await {
                Ok((id, incarnation)) => {
                    assert_eq!(id, key.to_string());
                    assert!(incarnation >= *last, "an old incarnation answered");
                    *last = incarnation;
                    n_answers += 1;
                }
                Err(error) => assert_eq!(error, CallError::Died),
            }
        }
        sleep(Duration::from_millis(1)).await;
    }
    assert!(n_answers > 1000, "{n_answers}");
    assert_eq!(root.shutdown().await.exit, Exit::Shutdown);
}

#[tokio::test(start_paused = true)]
async fn a_call_to_a_partition_that_was_resized_away_is_told_that_it_is_down() {
    let writers = writers(2);
    let _root = start(&writers).await;
    let writer = writers.route_number(1).unwrap().clone();
    writers.resize(1).await.unwrap();
    assert_eq!(writer.call_now(WITHIN, Message::Who).await, Err(CallError::Down));
    let begun = Instant::now();
    assert_eq!(who(&writer).await, Err(CallError::Down));
    assert_eq!(begun.elapsed(), WITHIN);
}

// ── partitions of supervisors ───────────────────────────────────────────────────────────────────

#[tokio::test(start_paused = true)]
async fn a_partition_may_be_a_dynamic_supervisor() {
    let connections = PartitionSupervisor::new("connections", 3, |id| {
        let template = |peer: String| ChildSpec::task(peer, idle).restart(Restart::Temporary);
        let supervisor = DynamicSupervisor::new(id, template);
        (supervisor.spec(SupervisorSpec::dynamic(10)), supervisor)
    })
    .unwrap();
    let root = SupervisorSpec::new(Strategy::OneForOne)
        .child(connections.spec(SupervisorSpec::new(Strategy::OneForOne)))
        .start("daemon")
        .await
        .unwrap();
    for n in 0..12_i64 {
        let partition = connections.route_number(n).unwrap();
        partition.start_child(format!("peer-{n}")).await.unwrap();
    }
    for n in 0..3 {
        let partition = connections.route_number(n).unwrap().supervisor();
        let count = partition.count_children().await.unwrap();
        assert_eq!(count, Count { specs: 1, active: 4, supervisors: 0, workers: 4 });
    }
    let peer = root.supervisor().child_at("connections/2/peer-5").await.unwrap();
    assert!(peer.status().is_up());

    // Those of a partition go with it, and don't come back with it.
    connections.resize(2).await.unwrap();
    assert!(peer.status().is_gone());
    connections.resize(3).await.unwrap();
    let partition = connections.route_number(2).unwrap().supervisor();
    assert_eq!(partition.count_children().await.unwrap().active, 0);
    let count = connections.supervisor().count_children().await.unwrap();
    assert_eq!(count, Count { specs: 3, active: 3, supervisors: 3, workers: 0 });

    connections.resize(1).await.unwrap();
    root.supervisor().terminate_child("connections").await.unwrap();
    root.supervisor().restart_child("connections").await.unwrap();
    let count = connections.supervisor().count_children().await.unwrap();
    assert_eq!(count, Count { specs: 3, active: 1, supervisors: 3, workers: 0 });
}

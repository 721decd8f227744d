//! Pools of processes: this test binary, run again.
//!
//! The harness writes to stdout before it runs the test that serves requests, so a shell moves the
//! pipe out of its way, to descriptor 3, and becomes the binary.

use crate::LONG;
use crate::watching::Watching;
use astscope_supervision::{
    EventKind, Exit, Observer, Order, Pool, PoolConfig, PoolConfigError, PoolError, Process,
    ProcessError, ProcessRequest, ProcessSpec, Root, StartError, Strategy, SupervisorSpec,
};
use rustix::process::{Resource, getrlimit};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

/// Says that this process is a worker.
const VARIABLE: &str = "ASTSCOPE_TEST_WORKER";

/// Not a test, unless it is run as a worker: each request says what to do.
#[test]
fn serve_requests() {
    if std::env::var_os(VARIABLE).is_none() {
        return;
    }
    let mut stdin = std::io::stdin().lock();
    let mut replies = File::options().write(true).open("/dev/fd/3").unwrap();
    loop {
        let mut n = [0; 4];
        if stdin.read_exact(&mut n).is_err() {
            std::process::exit(0);
        }
        let mut request = vec![0; u32::from_le_bytes(n) as usize];
        stdin.read_exact(&mut request).unwrap();
        let reply = obey(&String::from_utf8(request).unwrap());
        replies.write_all(&u32::try_from(reply.len()).unwrap().to_le_bytes()).unwrap();
        replies.write_all(reply.as_bytes()).unwrap();
    }
}

fn obey(request: &str) -> String {
    match request {
        "pid" => std::process::id().to_string(),
        "limits" => {
            let [memory, cpu] = [Resource::As, Resource::Cpu].map(|what| getrlimit(what).current);
            format!("{memory:?} {cpu:?}")
        }
        "hang" => {
            let (_open, never) = sync_channel(0);
            never.recv().unwrap()
        }
        "fail" => {
            std::io::stderr().write_all(b"out of luck\n").unwrap();
            std::process::exit(3)
        }
        "complain" => {
            let words = format!("cause\n{}\neffect\n", "frame\n".repeat(10_000));
            std::io::stderr().write_all(words.as_bytes()).unwrap();
            std::process::exit(3)
        }
        // Dies of the allocation, or replies.
        "eat" => vec![1_u8; 2 << 30].len().to_string(),
        "abort" => std::process::abort(),
        "flood" => "x".repeat(5000),
        other => match other.strip_prefix("leave ") {
            Some(fifo) => {
                let fifo = File::options().write(true).open(fifo).unwrap();
                let script = ["-c", "sleep 1000 &"];
                Command::new("/bin/sh").args(script).stdout(fifo).status().unwrap();
                "left".to_owned()
            }
            None => other.to_owned(),
        },
    }
}

fn spec() -> ProcessSpec {
    let test = "process::serve_requests";
    let script = "exec 3>&1 >/dev/null; exec \"$0\" --exact \"$1\" --nocapture";
    ProcessSpec {
        program: "/bin/sh".into(),
        args: vec![
            "-c".into(),
            script.into(),
            std::env::current_exe().unwrap().into(),
            test.into(),
        ],
        env: vec![(VARIABLE.into(), "1".into())],
        memory_bytes: None,
        cpu_seconds: None,
        max_frame_bytes: 4096,
    }
}

/// One process in a tree.
struct Bench {
    root: Root,
    pool: Pool<ProcessRequest>,
    events: Arc<Watching>,
}

fn pool(
    spec: ProcessSpec,
) -> Result<(astscope_supervision::ChildSpec, Pool<ProcessRequest>), PoolConfigError> {
    let config =
        PoolConfig { size: 1, max_overflow: 0, queue: 8, order: Order::Lifo, deaths: None };
    Pool::new::<Process>("processes", config, spec)
}

impl Bench {
    async fn new(spec: ProcessSpec) -> Self {
        let (processes, pool) = pool(spec).unwrap();
        let events = Watching::new();
        let observer: Arc<dyn Observer> = Arc::clone(&events) as _;
        let tree = SupervisorSpec::new(Strategy::OneForOne).child(processes).observer(observer);
        Self { root: tree.start("root").await.unwrap(), pool, events }
    }

    async fn ask_within(&self, within: Duration, request: &str) -> Result<String, ProcessError> {
        let request = request.as_bytes().to_vec();
        let ask = self.pool.run(LONG, async |worker| worker.request(within, request).await);
        ask.await.unwrap().map(|reply| String::from_utf8(reply).unwrap())
    }

    async fn ask(&self, request: &str) -> Result<String, ProcessError> {
        self.ask_within(LONG, request).await
    }

    /// How the last worker died, whose place another has taken.
    async fn death(&self) -> String {
        self.events.until(|event| matches!(event, EventKind::WorkerReplaced { .. })).await;
        let exits = self.events.take().into_iter().filter_map(|event| match event {
            EventKind::WorkerReplaced { exit } => Some(exit.to_string()),
            _ => None,
        });
        exits.collect::<Vec<_>>().join("\n")
    }
}

#[tokio::test]
async fn requests_are_answered_by_one_process() {
    let bench = Bench::new(spec()).await;
    let pid = bench.ask("pid").await.unwrap();
    assert_eq!(bench.ask("").await.unwrap(), "");
    let long = "y".repeat(4096);
    assert_eq!(bench.ask(&long).await.unwrap(), long);
    assert_eq!(bench.ask("pid").await.unwrap(), pid);
    let too_long = bench.ask(&"y".repeat(4097)).await;
    assert_eq!(too_long, Err(ProcessError::TooLarge { n: 4097, max: 4096 }));
    assert_eq!(bench.ask("pid").await.unwrap(), pid);
    let outcome = bench.root.shutdown().await;
    assert_eq!((outcome.exit, outcome.unkillable), (Exit::Shutdown, 0));
    assert!(!is_there(&pid));
}

fn is_there(pid: &str) -> bool {
    let pid = rustix::process::Pid::from_raw(pid.parse().unwrap()).unwrap();
    rustix::process::test_kill_process(pid).is_ok()
}

#[tokio::test]
async fn a_process_that_ends_is_replaced_and_says_why() {
    let bench = Bench::new(spec()).await;
    let pid = bench.ask("pid").await.unwrap();
    let died = bench.ask("fail").await;
    let why = "`/bin/sh` ended: exit status: 3; it wrote: out of luck";
    assert_eq!(died, Err(ProcessError::Died(Exit::failed(why))));
    assert_eq!(bench.death().await, format!("failed: {why}"));
    assert_ne!(bench.ask("pid").await.unwrap(), pid);
}

#[tokio::test]
async fn of_many_words_the_first_and_the_last_are_told() {
    let bench = Bench::new(spec()).await;
    let Err(ProcessError::Died(Exit::Failed(why))) = bench.ask("complain").await else {
        panic!("it went on");
    };
    let (first, last) = why.split_once("[57966 bytes omitted]").unwrap();
    assert!(first.contains("it wrote: cause\nframe\n"), "{first}");
    assert!(last.ends_with("frame\n\neffect"), "{last}");
    assert!(why.len() < 3000, "{}", why.len());
}

#[tokio::test]
async fn an_idle_process_that_is_killed_is_replaced() {
    let bench = Bench::new(spec()).await;
    let pid = bench.ask("pid").await.unwrap();
    let raw = rustix::process::Pid::from_raw(pid.parse().unwrap()).unwrap();
    rustix::process::kill_process(raw, rustix::process::Signal::KILL).unwrap();
    assert_eq!(bench.death().await, "failed: `/bin/sh` ended: signal: 9 (SIGKILL)");
    assert_ne!(bench.ask("pid").await.unwrap(), pid);
}

#[tokio::test]
async fn a_process_that_does_not_reply_in_time_is_killed() {
    let bench = Bench::new(spec()).await;
    let pid = bench.ask("pid").await.unwrap();
    let hangs = bench.ask_within(Duration::from_millis(20), "hang").await;
    assert_eq!(hangs, Err(ProcessError::Timeout));
    assert_eq!(bench.death().await, "failed: `/bin/sh` was killed: it didn't reply in time");
    assert!(!is_there(&pid));
    assert_eq!(bench.ask("still").await.unwrap(), "still");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_process_has_its_limits_before_its_first_request() {
    let limited = ProcessSpec { memory_bytes: Some(1 << 30), cpu_seconds: Some(60), ..spec() };
    let bench = Bench::new(limited).await;
    assert_eq!(bench.ask("limits").await.unwrap(), "Some(1073741824) Some(60)");
    // And dies of them.
    let Err(ProcessError::Died(Exit::Failed(why))) = bench.ask("eat").await else {
        panic!("it ate 2 GiB");
    };
    assert!(why.contains("signal: 6 (SIGABRT)"), "{why}");
    assert!(why.contains("memory allocation of"), "{why}");
    assert_eq!(bench.ask("limits").await.unwrap(), "Some(1073741824) Some(60)");
}

#[tokio::test]
async fn a_process_that_breaks_the_protocol_is_killed() {
    let bench = Bench::new(spec()).await;
    assert!(matches!(bench.ask("flood").await, Err(ProcessError::Died(_))));
    let why = "it announced a message of 5000 bytes, more than the 4096 that it may have";
    assert_eq!(bench.death().await, format!("failed: `/bin/sh` was killed: {why}"));

    let talks = ProcessSpec { args: vec!["-c".into(), "echo hello; cat".into()], ..spec() };
    let bench = Bench::new(talks).await;
    let why = bench.death().await;
    assert!(why.contains("was killed: it wrote something without being asked"), "{why}");
}

#[tokio::test]
async fn a_caller_that_leaves_does_not_mix_up_replies() {
    let bench = Bench::new(spec()).await;
    for n in 0..20 {
        let left = tokio::time::timeout(Duration::ZERO, bench.ask("left")).await;
        drop(left);
        assert_eq!(bench.ask(&n.to_string()).await.unwrap(), n.to_string());
    }
}

#[tokio::test]
async fn a_program_that_is_not_there_is_a_failed_start() {
    let missing = ProcessSpec { program: "/nowhere/to/be/found".into(), ..spec() };
    let (processes, pool) = pool(missing).unwrap();
    let tree = SupervisorSpec::new(Strategy::OneForOne).child(processes);
    let Err(StartError::Child { exit, .. }) = tree.start("root").await else {
        panic!("it started");
    };
    assert!(exit.to_string().contains("`/nowhere/to/be/found` can't be run"), "{exit}");
    assert_eq!(pool.checkout(LONG).await.map(drop), Err(PoolError::Gone));
}

#[tokio::test]
async fn a_process_that_ignores_the_end_of_its_stdin_is_killed_at_the_stop() {
    let stubborn = ProcessSpec { args: vec!["-c".into(), "exec sleep 1000".into()], ..spec() };
    let bench = Bench::new(stubborn).await;
    let outcome = bench.root.shutdown().await;
    assert_eq!((outcome.exit, outcome.unkillable), (Exit::Shutdown, 0));
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn what_a_process_has_started_is_killed_with_it() {
    use rustix::fs::{CWD, Mode, mkfifoat};
    let name = format!("{}/fifo-{}", env!("CARGO_TARGET_TMPDIR"), std::process::id());
    mkfifoat(CWD, &name, Mode::RUSR | Mode::WUSR).unwrap();
    let bench = Bench::new(spec()).await;
    let path = name.clone();
    let mut reading = tokio::task::JoinSet::new();
    // Waits for the one that is left behind to open the other end, then for it to end.
    reading.spawn_blocking(move || File::open(path).unwrap().read(&mut [0]).unwrap());
    assert_eq!(bench.ask(&format!("leave {name}")).await.unwrap(), "left");
    let hangs = bench.ask_within(Duration::from_millis(20), "hang").await;
    assert_eq!(hangs, Err(ProcessError::Timeout));
    let n_read = tokio::time::timeout(LONG, reading.join_all()).await.unwrap();
    assert_eq!(n_read, [0]);
    std::fs::remove_file(name).unwrap();
}

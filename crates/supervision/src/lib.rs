//! OTP's supervision on tokio: services that are started in order, watched, restarted by a stated
//! strategy, and stopped in reverse.
//!
//! # The problem
//! A tokio program is tasks that were spawned somewhere. When one panics, nobody notices; when it
//! hangs, nobody ever will; when it is started again, the old one may still hold the socket; and
//! shutting down is a guess at an order. Erlang's answer is forty years old: every process has a
//! supervisor, what to do about a failure is data, and a failure that repeats is somebody else's,
//! one level up. This crate is that answer, exact to the letter (`docs/semantics/supervision.md`
//! has the rules and our few deviations), proven by replaying recorded traces of a real OTP.
//!
//! # The design, and its price
//! A supervisor is a pure state machine ([`core`]) and a thin driver that performs what it decides.
//! A child is a [`Service`]: a value that is made by an acknowledged init and lives in its run. One
//! value is one *incarnation*; what must survive it is in its arguments, or in a [`Table`]. Others
//! know a child by its [`Address`], which leads to whichever incarnation is up.
//! The price is some kilobytes and about ten microseconds a child (`docs/performance.md`), and that
//! nothing is spawned by hand any more.
//!
//! ```text
//!                 Root                         start: a, b, c, in order, each acknowledged
//!                  │ one_for_one 3/10 s        stop:  c, b, a, each within its time
//!        ┌─────────┼──────────┐
//!     store     parsing     gateway            parsing melts down (4 restarts in its period):
//!               rest_for_one                   its children are stopped, it exits, and Root
//!             ┌────┴────┐                      restarts it with fresh children and counts 1
//!          watcher   updater
//! ```
//!
//! # A service
//! ```
//! use astscope_supervision::{
//!     Address, ChildSpec, Ctx, Exit, Init, Mailbox, Reply, Service, Strategy, SupervisorSpec,
//! };
//! use std::time::Duration;
//!
//! struct Counter(u64);
//!
//! enum Message {
//!     Add(u64, Reply<u64>),
//! }
//!
//! impl Service for Counter {
//!     type Args = ();
//!     type Message = Message;
//!
//!     async fn init((): (), _: &Ctx) -> Result<Init<Self>, Exit> {
//!         Ok(Init::Ready(Counter(0)))
//!     }
//!
//!     async fn run(mut self, mut mailbox: Mailbox<Message>, _: Ctx) -> Result<(), Exit> {
//!         while let Some(Message::Add(n, reply)) = mailbox.recv().await {
//!             self.0 = self.0.checked_add(n).ok_or(Exit::failed("overflow"))?;
//!             reply.send(self.0);
//!         }
//!         Ok(())
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let counter = Address::new("counter", 16);
//! let root = SupervisorSpec::new(Strategy::OneForOne)
//!     .intensity(3, Duration::from_secs(10))
//!     .child(ChildSpec::service::<Counter>(&counter, ()))
//!     .start("example")
//!     .await?;
//!
//! let second = Duration::from_secs(1);
//! assert_eq!(counter.call(second, |reply| Message::Add(2, reply)).await?, 2);
//! // It fails, and whoever asked is told. The address leads to the next incarnation.
//! let failed = counter.call(second, |reply| Message::Add(u64::MAX, reply)).await;
//! assert_eq!(failed, Err(astscope_supervision::CallError::Died));
//! assert_eq!(counter.call(second, |reply| Message::Add(1, reply)).await?, 1);
//! root.shutdown().await;
//! # Ok(())
//! # }
//! ```
//! Each kind of supervisor has its example: [`SupervisorSpec`], [`DynamicSupervisor`],
//! [`PartitionSupervisor`], [`TaskSupervisor`], and pools of three kinds of workers theirs:
//! [`Pool`], [`CpuPool`], [`Process`]. `examples/supervised_service.rs` is a small program that fails
//! on purpose.
//!
//! # Who is restarted
//! | exit | permanent | transient | temporary |
//! |---|---|---|---|
//! | [`Normal`](Exit::Normal), [`Shutdown`](Exit::Shutdown), [`ShutdownWith`](Exit::ShutdownWith), [`Meltdown`](Exit::Meltdown) | restarted | stays down, its spec stays | its spec is removed |
//! | any other: an error, a panic, a kill, a stall, no start in time | restarted | restarted | its spec is removed |
//!
//! # What it guarantees
//! - A child's next sibling starts only when its init has returned; a child that is stopped is gone
//!   with everything that it started ([`Ctx::spawn`]) before the next one is told to.
//! - There are never two incarnations of a child at a time, except after an
//!   [`Unkillable`](EventKind::Unkillable).
//! - A panic in a child, in a drop, or in a task that it started ends that incarnation and nothing
//!   else.
//! - A message reaches the incarnation that is up, or nobody. Whoever sent it has an answer or a
//!   reason by the deadline.
//! - Every queue is bounded, every wait has a deadline, and all time is tokio's: a test pauses it.
//! - Whatever happens is an [`Event`] with a number.
//!
//! # What it can't
//! - **A thread can't be killed.** A child is killed at its next await. A loop that has none, a
//!   blocking call, foreign code that hangs: after the grace it is reported as unkillable and no
//!   longer waited for, and its [`Lease`]s are void; but it still runs, and
//!   [`Outcome::unkillable`] tells the process to end itself. Give such work a [`Checkpoint`], or or
//!   run it in a process of its own ([`ProcessSpec`]), which can be killed.
//! - **An abort isn't a panic.** A stack overflow, an abort or a fatal signal ends the process.
//!   `panic = "abort"` would end it at each panic, so this crate doesn't compile with it.
//! - **Health isn't life.** A service that answers nonsense is up. [`Health`] finds those that are
//!   dead and those that hang.

#![forbid(unsafe_code)]

#[cfg(not(panic = "unwind"))]
compile_error!("supervision contains panics, so it needs panic = \"unwind\" in every profile");

mod address;
mod breaker;
mod checkpoint;
pub mod core;
mod ctx;
mod dependencies;
mod driver;
mod dynamic;
mod event;
mod exit;
mod health;
mod incarnation;
mod lint;
mod partition;
mod policy;
mod pool;
mod probe;
mod registry;
mod service;
mod spec;
mod supervisor;
mod task;
mod tree;
mod vault;

pub use self::core::{AdminError, Answer, ChildInfo, ChildKey, ChildState, Count};
pub use address::{
    Address, CallError, ChildRef, Mailbox, Monitor, NotReady, Reply, SendError, Status, Vitals,
};
pub use breaker::{
    BreakerConfig, BreakerConfigError, BreakerError, BreakerState, BreakerStatus, CircuitBreaker,
    Permit, Rejected,
};
pub use checkpoint::{Checkpoint, Interrupted};
pub use ctx::Ctx;
pub use dependencies::{Dependencies, DependencyError};
pub use dynamic::DynamicSupervisor;
pub use event::{
    Counters, Emitter, Event, EventKind, Observer, Recorder, TracingObserver, TreePath,
};
pub use exit::Exit;
pub use health::{Health, HealthReport, HealthStatus, ServiceHealth, Verdict};
pub use incarnation::{delegated, install_panic_hook};
pub use lint::{Finding, LintRule};
pub use partition::{NoPartition, PartitionSupervisor, ResizeError};
pub use policy::{
    AutoShutdown, Backoff, ChildKind, ChildPolicy, Restart, SpecError, Stop, Strategy, Structure,
    SupervisorPolicy,
};
pub use pool::{
    CpuConfig, CpuError, CpuPool, CpuStatus, Executor, Inline, Job, Lane, Lost, Order,
    OwnedProcess, Pool, PoolConfig, PoolConfigError, PoolError, PoolState, PoolStatus, Process,
    ProcessEnd, ProcessError, ProcessRequest, ProcessSpec, Seat, Threads, Worker,
};
pub use probe::{Fault, Point, Probe};
pub use registry::{NameTaken, Registry};
pub use service::{Init, Service};
pub use spec::{ChildSpec, SupervisorSpec};
pub use supervisor::{Outcome, Root, StartError, Supervisor};
pub use task::{OnTimeout, StreamOptions, Task, TaskError, TaskStream, TaskSupervisor};
pub use tree::{ChildNode, LiveNode, SupervisorNode, TreeNode};
pub use vault::{
    Attempt, Fenced, INPUTS_MAX, Lease, Snapshot, Suspect, Table, TableStatus, Takeover, Validity,
    Vault,
};

use std::time::Duration;
use tokio::time::Instant;

/// A future on the heap.
pub(crate) type BoxFuture<T> = std::pin::Pin<Box<dyn Future<Output = T> + Send>>;

/// A deadline. One that the clock can't express, such as [`Duration::MAX`](std::time::Duration::MAX)
/// from now, is 30 years away: adding it up would panic, in a supervisor of all places.
pub(crate) fn later(now: Instant, by: Duration) -> Instant {
    const FAR: Duration = Duration::from_hours(30 * 365 * 24);
    now.checked_add(by).unwrap_or_else(|| now + FAR)
}

//! One service as many, by key: Elixir's `PartitionSupervisor`.

use crate::spec::{ChildSpec, SupervisorSpec};
use crate::supervisor::Supervisor;
use crate::{AdminError, SpecError};
use std::fmt;
use std::hash::{BuildHasher as _, Hash};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Partitions of a service, each a worker or a supervisor under an id from `0` on. Cheap to clone,
/// valid across restarts. `H` is the handle of a partition: an [`Address`](crate::Address), a
/// [`DynamicSupervisor`](crate::DynamicSupervisor).
///
/// The same key always leads to the same partition of as many, in this process and the next.
/// Elixir's handles are pids, so a caller that comes between a crash and the restart gets a stale
/// one; ours are addresses, so it waits, or is told.
///
/// A [`resize`](Self::resize) outlives a restart of the supervisor: what runs is what keys lead to.
/// (Elixir's is forgotten, and keys lead elsewhere after a crash than before.)
///
/// ```
/// # use astscope_supervision::{
/// #     Address, ChildSpec, Ctx, Exit, Init, Mailbox, PartitionSupervisor, Service, Strategy,
/// #     SupervisorSpec,
/// # };
/// # struct Writer;
/// # impl Service for Writer {
/// #     type Args = ();
/// #     type Message = u64;
/// #     async fn init((): (), _: &Ctx) -> Result<Init<Self>, Exit> { Ok(Init::Ready(Self)) }
/// #     async fn run(self, mut mailbox: Mailbox<u64>, _: Ctx) -> Result<(), Exit> {
/// #         while mailbox.recv().await.is_some() {}
/// #         Ok(())
/// #     }
/// # }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let writers = PartitionSupervisor::new("writers", 4, |partition| {
///     let address = Address::new(partition, 16);
///     (ChildSpec::service::<Writer>(&address, ()), address)
/// })?;
/// let root = SupervisorSpec::new(Strategy::OneForOne)
///     .child(writers.spec(SupervisorSpec::new(Strategy::OneForOne)))
///     .start("store")
///     .await?;
/// let within = std::time::Duration::from_secs(5);
/// writers.route(&"stream-7")?.send(within, 7).await?;
/// root.shutdown().await;
/// # Ok(())
/// # }
/// ```
pub struct PartitionSupervisor<H> {
    supervisor: Supervisor,
    partitions: Arc<[(ChildSpec, H)]>,
    /// Those that keys lead to: the first so many.
    n_active: Arc<AtomicUsize>,
    /// Those that run if they are started. More than keys lead to while the size grows.
    n_wanted: Arc<AtomicUsize>,
    /// Held while the size changes.
    resizing: Arc<tokio::sync::Mutex<()>>,
}

impl<H> PartitionSupervisor<H> {
    /// `count` partitions, at least one, made by `partition` from their ids.
    pub fn new(
        id: impl Into<Arc<str>>,
        count: usize,
        partition: impl Fn(String) -> (ChildSpec, H),
    ) -> Result<Self, SpecError> {
        let count = NonZeroUsize::new(count).ok_or(SpecError::NoPartitions)?.get();
        let n_wanted = Arc::new(AtomicUsize::new(count));
        let partitions = (0..count).map(|at| {
            let n_wanted = Arc::clone(&n_wanted);
            let (child, handle) = partition(at.to_string());
            (child.when(move || at < n_wanted.load(Ordering::Acquire)), handle)
        });
        let partitions = partitions.collect();
        let n_active = Arc::new(AtomicUsize::new(count));
        let supervisor = Supervisor::new(id);
        Ok(Self { supervisor, partitions, n_active, n_wanted, resizing: Arc::default() })
    }

    /// As many partitions as the machine has cores, Elixir's default.
    pub fn per_core(
        id: impl Into<Arc<str>>,
        partition: impl Fn(String) -> (ChildSpec, H),
    ) -> Result<Self, SpecError> {
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        Self::new(id, cores, partition)
    }

    /// The place in the tree where they run: `spec`, which is `one_for_one` by custom, gets them
    /// as its children.
    pub fn spec(&self, spec: SupervisorSpec) -> ChildSpec {
        let children = self.partitions.iter().map(|(child, _)| child.clone());
        ChildSpec::supervisor_at(&self.supervisor, spec.children(children))
    }

    /// The partition of a key, by its hash.
    pub fn route(&self, key: &impl Hash) -> Result<&H, NoPartition> {
        let n = self.n_active();
        // Fx and not std's hasher, which is free to differ from one release to the next.
        let hash = rustc_hash::FxBuildHasher.hash_one(key);
        let at = usize::try_from(hash % u64::try_from(n.max(1)).unwrap_or(1)).unwrap_or(0);
        self.at(at, n)
    }

    /// The partition of a number: its absolute value modulo the number of partitions.
    pub fn route_number(&self, key: i64) -> Result<&H, NoPartition> {
        let n = self.n_active();
        let modulus = u64::try_from(n.max(1)).unwrap_or(1);
        self.at(usize::try_from(key.unsigned_abs() % modulus).unwrap_or(0), n)
    }

    /// Partitions that keys lead to.
    pub fn n_active(&self) -> usize {
        self.n_active.load(Ordering::Acquire)
    }

    /// Changes how many partitions keys lead to, at most to the number that it was made with. More:
    /// they are started, then used. Fewer: they are no longer used, then stopped, with whatever
    /// they still had to do. If one of the more doesn't start, none of them is kept.
    ///
    /// # Cancel safety
    /// Dropped half-way, some of the partitions may be up that no key leads to, until the next
    /// resize.
    pub async fn resize(&self, count: usize) -> Result<(), ResizeError> {
        let max = self.partitions.len();
        if count > max {
            return Err(ResizeError::TooMany { max });
        }
        let _one_at_a_time = self.resizing.lock().await;
        let current = self.n_active();
        self.n_wanted.store(count.max(current), Ordering::Release);
        for (child, _) in self.partitions.iter().take(count).skip(current) {
            match self.supervisor.restart_child(child.id()).await {
                Ok(_) | Err(AdminError::Running | AdminError::Restarting) => {}
                Err(error) => {
                    // The reason counts, not whether it can be undone.
                    drop(self.stop_beyond(current).await);
                    return Err(error.into());
                }
            }
        }
        self.n_active.store(count, Ordering::Release);
        Ok(self.stop_beyond(count).await?)
    }

    /// Stops all partitions but the first so many, and keeps them down.
    async fn stop_beyond(&self, count: usize) -> Result<(), AdminError> {
        self.n_wanted.store(count, Ordering::Release);
        for (child, _) in self.partitions.iter().skip(count).rev() {
            match self.supervisor.terminate_child(child.id()).await {
                Ok(()) | Err(AdminError::NotFound) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The supervisor, to be asked.
    pub fn supervisor(&self) -> &Supervisor {
        &self.supervisor
    }

    fn at(&self, at: usize, n_active: usize) -> Result<&H, NoPartition> {
        let partition = self.partitions.get(at).filter(|_| at < n_active);
        partition.map(|(_, handle)| handle).ok_or(NoPartition)
    }
}

impl<H> Clone for PartitionSupervisor<H> {
    fn clone(&self) -> Self {
        Self {
            supervisor: self.supervisor.clone(),
            partitions: Arc::clone(&self.partitions),
            n_active: Arc::clone(&self.n_active),
            n_wanted: Arc::clone(&self.n_wanted),
            resizing: Arc::clone(&self.resizing),
        }
    }
}

impl<H> fmt::Debug for PartitionSupervisor<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PartitionSupervisor")
            .field("id", self.supervisor.id())
            .field("partitions", &self.partitions.len())
            .finish_non_exhaustive()
    }
}

/// There is no partition to lead a key to: the service was resized to none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there are no partitions")]
pub struct NoPartition;

/// Why a resize failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ResizeError {
    /// There were never so many.
    #[error("there can be at most {max} partitions")]
    TooMany {
        /// How many it was made with.
        max: usize,
    },
    /// A partition didn't start or stop.
    #[error("a partition didn't start or stop")]
    Partition(#[from] AdminError),
}

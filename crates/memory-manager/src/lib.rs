//! The memory of a daemon: who holds how much, how near the budget is, and what is given back then.
//!
//! Owners of memory keep [`Accounts`]; a level over the budget ([`Thresholds`]) turns into
//! [`Action`]s: caches are emptied, and owners that implement [`Reclaim`] are asked to drop what
//! can be rebuilt. Nothing here ever changes an answer, and nothing here reads a file or asks the
//! allocator: what the kernel says of the process is given by whoever embeds it.
//!
//! The plain parts have no clock and no runtime. The feature `service`, on by default, adds the
//! four services that do the work, as one subtree ([`supervisor`](service::supervisor)):
//! ```text
//! memory_manager            rest_for_one 5/10   each depends on the one before
//! ├── memory_monitor          samples, computes the level
//! ├── memory_cache_manager    sweeps the caches, empties them on request
//! ├── memory_cleaner          one cleanup per life, started when it is needed
//! └── memory_pressure_handler acts on the level
//! ```
#![cfg_attr(
    feature = "service",
    doc = "
```
use astscope_memory_manager::service::{MemoryConfig, MemoryDeps, supervisor};
use astscope_memory_manager::{Accounts, CacheKind, Class};
use astscope_supervision::{Strategy, SupervisorSpec};
use std::sync::Arc;

# #[tokio::main(flavor = \"current_thread\")]
# async fn main() -> Result<(), Box<dyn std::error::Error>> {
let accounts = Accounts::new();
let texts = accounts.open(\"texts\", Class::Text);
let deps = MemoryDeps::new(accounts, Arc::new(|| None)); // no figure from the kernel here
let (child, memory) = supervisor(MemoryConfig::of_budget(1 << 30), deps)?;
let root = SupervisorSpec::new(Strategy::OneForOne).child(child).start(\"example\").await?;

texts.add(100 << 20);
memory.caches().put(CacheKind::Query, b\"key\", Arc::new(42_u32), 4);
assert_eq!(memory.caches().get::<u32>(CacheKind::Query, b\"key\").as_deref(), Some(&42));
assert_eq!(memory.sample().await?.used(), (100 << 20) + 4);
root.shutdown().await;
# Ok(())
# }
```"
)]
#![forbid(unsafe_code)]

mod account;
mod cache;
mod level;
mod reclaim;
#[cfg(feature = "service")]
pub mod service;
mod usage;

pub use account::{Account, Accounts, ByClass, Class, Held};
pub use cache::{CacheStats, CacheTable, Removed};
pub use level::{Level, ThresholdError, Thresholds};
pub use reclaim::{Action, CacheKind, Cleanup, Compression, Freed, Reclaim, actions_of};
pub use usage::{History, SAMPLES_MAX, Sample};

//! Background work over parsed files, none of which anybody waits for unless he asks: batches with
//! progress and cancellation, facts that are computed when they are first wanted, memory that is
//! tidied before it is short, and statistics of all that.
//!
//! The plain parts have no clock and no runtime: [`FileFacts`], [`Window`], [`PriorityQueue`]. The
//! feature `service`, on by default, adds the four services, as one subtree
//! ([`supervisor`](service::supervisor)):
//! ```text
//! performance_optimizer      one_for_one 5/10   none needs another to be up
//! ├── batch_processor          items in chunks, each item with a deadline
//! ├── lazy_loader              facts of a file, once
//! ├── optimization_scheduler   memory each ten minutes; jobs while no query runs
//! └── statistics_collector     counters and percentiles
//! ```
//! To come, with the graphs of functions: lazy loading of those, and preloading what is asked for
//! often. Until then the facts of a file are what there is to be lazy about.
#![cfg_attr(
    feature = "service",
    doc = "
```
use astscope_memory_manager::service::{self as memory, MemoryConfig, MemoryDeps};
use astscope_memory_manager::Accounts;
use astscope_performance_optimizer::service::{OptimizerConfig, OptimizerDeps, supervisor};
use astscope_supervision::{Strategy, SupervisorSpec};
use std::sync::Arc;
use std::time::Duration;

# #[tokio::main(flavor = \"current_thread\")]
# async fn main() -> Result<(), Box<dyn std::error::Error>> {
let deps = MemoryDeps::new(Accounts::new(), Arc::new(|| None));
let (memory_manager, memory) = memory::supervisor(MemoryConfig::of_budget(1 << 30), deps)?;
let deps = OptimizerDeps { memory, is_busy: Arc::new(|| false), cpu: None };
let (performance_optimizer, optimizer) = supervisor(OptimizerConfig::default(), deps)?;
let root = SupervisorSpec::new(Strategy::OneForOne)
    .children([memory_manager, performance_optimizer])
    .start(\"example\")
    .await?;

let ticket = optimizer.batch(vec![\"1\", \"two\"], |item, _| {
    item.parse::<u32>().map_err(|error| error.to_string())
})?;
let results = ticket.outcome(Duration::from_secs(5)).await?;
assert!(results[0] == Ok(1) && results[1].is_err());
root.shutdown().await;
# Ok(())
# }
```"
)]
#![forbid(unsafe_code)]

mod facts;
mod queue;
#[cfg(feature = "service")]
pub mod service;
mod window;

pub use facts::FileFacts;
pub use queue::{Priority, PriorityQueue};
pub use window::{Percentiles, Window};

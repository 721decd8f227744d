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
#![forbid(unsafe_code)]

mod facts;
mod queue;
#[cfg(feature = "service")]
pub mod service;
mod window;

pub use facts::FileFacts;
pub use queue::{Priority, PriorityQueue};
pub use window::{Percentiles, Window};

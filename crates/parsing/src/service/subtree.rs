//! The part of a workspace that has texts parsed: who takes single texts, and who takes batches.
//!
//! ```text
//! "parsing"  one_for_one 5/10, since none needs another
//! ├── "parser"                  permanent: one text at a time, of whoever waits for it
//! ├── "instrumentation_mapper"  permanent: where a file could be observed
//! └── "batch_processor"         transient: several, of a crawl; leaves when there is nothing to do
//! ```
//!
//! The texts of all workspaces go to the same processes (`dispatch`). What the services add is that
//! one workspace's work can be ended, and that its end costs nothing but time: whoever asked asks
//! the next incarnation (`handle`).

use super::desk::{BatchProcessor, Counts, Desk, Parser};
use super::handle::{ParsingHandle, Services};
use super::mapper::InstrumentationMapper;
use crate::Backend;
use astscope_supervision::{
    Address, BreakerConfig, BreakerConfigError, ChildSpec, CircuitBreaker, Emitter, Restart,
    Strategy, Supervisor, SupervisorSpec,
};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;

/// What bounds the services that have texts parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParsingConfig {
    /// Requests that may wait to be taken by each service, not 0. Each belongs to a thread that
    /// waits: 1024 are more than there are.
    pub mailbox: usize,
    /// How long the batch processor stays when there is no batch; it leaves before twice that. A
    /// minute: as long as a person takes between two commands, who then doesn't wait for its start.
    pub idle: Duration,
    /// How long a batch waits for a service that is being restarted. 10 s, as queries do.
    pub restart_within: Duration,
    /// How often a batch is sent at most, not 0, since each service that had it may have been killed.
    /// 16: its supervisor gives up long before that, unless somebody kills for the sake of it.
    pub attempts_max: u32,
    /// When parsing is left alone for a while. Its failures are batches in a row that no parser was
    /// to be had for: what a text does to its parser never counts, so five poisonous files don't
    /// cost a sixth. 5 and 30 s, as `ElixirScope` says, without a window: a row has none.
    pub breaker: BreakerConfig,
}

impl Default for ParsingConfig {
    fn default() -> Self {
        Self {
            mailbox: 1024,
            idle: Duration::from_mins(1),
            restart_within: Duration::from_secs(10),
            attempts_max: 16,
            breaker: BreakerConfig::new(Duration::MAX),
        }
    }
}

/// What the services work with.
#[derive(Clone, Debug)]
pub struct ParsingDeps {
    /// Parses, on a thread that the services give it.
    pub backend: Arc<dyn Backend>,
    /// The runtime that the tree runs on, by which threads wait for answers.
    pub runtime: Handle,
    /// Where the events of the breaker go.
    pub emitter: Emitter,
}

/// The subtree `parsing`, and the handle that is valid before the first start and across all
/// restarts.
///
/// # Errors
/// When no breaker can work as configured.
pub fn subtree(
    config: ParsingConfig,
    deps: ParsingDeps,
) -> Result<(ChildSpec, ParsingHandle), BreakerConfigError> {
    let breaker = CircuitBreaker::new(config.breaker, deps.emitter)?;
    let counts = Arc::<Counts>::default();
    let parser = Address::new("parser", config.mailbox);
    let mapper = Address::new("instrumentation_mapper", config.mailbox);
    let batches = Address::new("batch_processor", config.mailbox);
    let desk = Desk { backend: deps.backend, counts: Arc::clone(&counts), idle: config.idle };
    let tree = SupervisorSpec::new(Strategy::OneForOne)
        .intensity(5, Duration::from_secs(10))
        .child(ChildSpec::service::<Parser>(&parser, desk.clone()))
        .child(ChildSpec::service::<InstrumentationMapper>(&mapper, ()))
        .child(ChildSpec::service::<BatchProcessor>(&batches, desk).restart(Restart::Transient));
    let spec = ChildSpec::supervisor("parsing", tree);
    let supervisor: Option<Supervisor> = spec.as_supervisor();
    let runtime = deps.runtime;
    let services =
        Services { config, parser, mapper, batches, supervisor, breaker, counts, runtime };
    Ok((spec, ParsingHandle::new(services)))
}

//! Where the daemon parses: in processes that may be lost, or in its own.

use astscope_parsing::service::{ParserConfig, ParserHandle};
use astscope_parsing::{Backend, InProcess, Limits, Source, service};
use astscope_supervision::{ChildSpec, PoolConfigError};
use astscope_syntax::{ParsedFile, SkipReason};
use std::sync::Arc;
use tokio::runtime::Handle;

/// Where texts are parsed.
#[derive(Debug)]
pub(crate) enum Parsers {
    /// In processes of their own, which stand at this place of the tree.
    Isolated(Box<ChildSpec>, ParserHandle),
    /// In this process.
    Own,
}

impl Parsers {
    pub(crate) fn new(config: Option<ParserConfig>) -> Result<Self, PoolConfigError> {
        let Some(config) = config else { return Ok(Self::Own) };
        let (spec, handle) = service::supervisor(config, Handle::current())?;
        Ok(Self::Isolated(Box::new(spec), handle))
    }

    pub(crate) fn backend(&self) -> Arc<dyn Backend> {
        match self {
            Self::Isolated(_, handle) => Arc::new(handle.clone()),
            Self::Own => Arc::new(InProcess),
        }
    }

    /// What goes into the tree.
    pub(crate) fn children(&self) -> Option<ChildSpec> {
        match self {
            Self::Isolated(spec, _) => Some(spec.as_ref().clone()),
            Self::Own => None,
        }
    }

    pub(crate) fn handle(&self) -> Option<&ParserHandle> {
        match self {
            Self::Isolated(_, handle) => Some(handle),
            Self::Own => None,
        }
    }
}

/// Parses one text. Blocks.
pub(crate) fn parse_one(
    backend: &dyn Backend,
    source: Source,
    stop: &dyn Fn() -> bool,
) -> Result<ParsedFile, SkipReason> {
    // A backend gives one result for each text.
    let parsed = backend.parse_batch(&[source], &Limits::DAEMON, stop).pop();
    parsed.unwrap_or(Err(SkipReason::Unstable))
}

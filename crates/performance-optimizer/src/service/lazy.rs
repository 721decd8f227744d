//! The lazy loader: facts of a file when they are first wanted, and not again for the same content.
//!
//! They are kept in the memory manager's analysis cache, by content and language, so a copy or a
//! renamed file has them too, and pressure may take them. A hit waits for no mailbox. Misses are
//! computed one after the other: of several who want the same, the first computes it.

use super::{Counter, Shared, Timing};
use crate::FileFacts;
use astscope_memory_manager::CacheKind;
use astscope_repository::FileRecord;
use astscope_supervision::{CallError, Ctx, Exit, Init, Mailbox, Reply, Service};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::time::{Instant, timeout_at};

/// Why there are no facts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LazyError {
    /// The lazy loader didn't answer.
    #[error("asking the lazy loader")]
    Unavailable(#[from] CallError),
    /// They weren't complete in time.
    #[error("the facts of a file weren't complete in time")]
    Timeout,
    /// Computing them panicked: the payload, if that was text.
    #[error("computing the facts of a file: {0}")]
    Failed(Arc<str>),
}

/// How often facts were computed, and how often not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LazyCounts {
    /// Computed.
    pub loaded: u64,
    /// Known already.
    pub avoided: u64,
}

/// The counters behind them.
#[derive(Debug, Default)]
pub(super) struct Tally {
    loaded: AtomicU64,
    avoided: AtomicU64,
}

impl Tally {
    pub(super) fn read(&self) -> LazyCounts {
        LazyCounts {
            loaded: self.loaded.load(Ordering::Relaxed),
            avoided: self.avoided.load(Ordering::Relaxed),
        }
    }
}

pub(super) enum Message {
    Load(Arc<FileRecord>, Reply<Result<Arc<FileFacts>, LazyError>>),
}

/// From the cache, or through the service.
pub(super) async fn facts(
    shared: &Shared,
    record: &Arc<FileRecord>,
) -> Result<Arc<FileFacts>, LazyError> {
    if let Some(facts) = shared.known(record) {
        return Ok(facts);
    }
    let load = |reply| Message::Load(Arc::clone(record), reply);
    shared.lazy.call(shared.config.facts_within, load).await?
}

impl Shared {
    fn known(&self, record: &FileRecord) -> Option<Arc<FileFacts>> {
        let found = self.deps.memory.caches().get(CacheKind::Analysis, &key(record))?;
        self.lazy_counts.avoided.fetch_add(1, Ordering::Relaxed);
        self.meter.count(Counter::FactsAvoided, 1);
        Some(found)
    }
}

/// Equal for equal bytes in the same language.
fn key(record: &FileRecord) -> Vec<u8> {
    [b"facts:", record.language.name().as_bytes(), b":", record.content.as_bytes()].concat()
}

pub(super) struct LazyLoader(Arc<Shared>);

impl Service for LazyLoader {
    type Args = Arc<Shared>;
    type Message = Message;

    async fn init(shared: Arc<Shared>, _: &Ctx) -> Result<Init<Self>, Exit> {
        Ok(Init::Ready(Self(shared)))
    }

    async fn run(self, mut mailbox: Mailbox<Message>, ctx: Ctx) -> Result<(), Exit> {
        while let Some(Message::Load(record, reply)) = mailbox.recv().await {
            if reply.is_abandoned() {
                continue;
            }
            tokio::select! {
                biased;
                () = ctx.stopping() => return Ok(()),
                facts = self.load(&record, &ctx) => reply.send(facts),
            }
        }
        Ok(())
    }
}

impl LazyLoader {
    async fn load(&self, record: &Arc<FileRecord>, ctx: &Ctx) -> Result<Arc<FileFacts>, LazyError> {
        let shared = &self.0;
        // Whoever was served before may have wanted the same.
        if let Some(facts) = shared.known(record) {
            return Ok(facts);
        }
        let begun = Instant::now();
        let deadline = begun + shared.config.facts_within;
        let file = Arc::clone(&record.file);
        let work = ctx.blocking(Some(deadline), move |checkpoint| {
            FileFacts::of(&file, &|| checkpoint.check().is_err())
        });
        let facts = match timeout_at(deadline, work).await {
            Ok(Ok(Some(facts))) => Arc::new(facts),
            Ok(Ok(None)) | Err(_) => return Err(LazyError::Timeout),
            Ok(Err(exit)) => return Err(LazyError::Failed(exit.to_string().into())),
        };
        let bytes = size_of::<FileFacts>() as u64;
        let cached = Arc::clone(&facts);
        shared.deps.memory.caches().put(CacheKind::Analysis, &key(record), cached, bytes);
        shared.lazy_counts.loaded.fetch_add(1, Ordering::Relaxed);
        shared.meter.count(Counter::FactsLoaded, 1);
        shared.meter.time(Timing::Facts, begun.elapsed());
        Ok(facts)
    }
}

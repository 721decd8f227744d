//! `cache`: compiled matchers, by what they were compiled from.
//!
//! What it holds stands above the service, so that a crash costs nothing and a look-up waits for
//! no mailbox: it is a hash map behind a lock that is held for one look. The service is its
//! housekeeper: it sweeps what has expired, counts, and clears.

use crate::library::Compiled;
use crate::matcher::MatcherSpec;
use astscope_supervision::{Ctx, Exit, Init, Mailbox, Reply, Service};
use astscope_syntax::Language;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// What bounds the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheConfig {
    /// Entries. A compiled pattern takes some kilobytes and a session asks for some dozens; when
    /// there are more, the tenth that was not used for longest goes.
    pub entries_max: usize,
    /// Bytes of the pattern, rewrite or rule that an entry is compiled from; a larger one is
    /// compiled each time. With 1,024 entries: at most 16 MiB of keys.
    pub source_bytes_max: usize,
    /// How long an entry lives, from when it was made: 30 minutes, as `ElixirScope` says.
    pub ttl: Duration,
    /// How often expired entries are swept: every 5 minutes, as `ElixirScope` says.
    pub sweep_every: Duration,
}

impl Default for CacheConfig {
    fn default() -> Self {
        Self {
            entries_max: 1_024,
            source_bytes_max: 16 << 10,
            ttl: Duration::from_mins(30),
            sweep_every: Duration::from_mins(5),
        }
    }
}

/// What a compiled pattern takes, about: its parts are ast-grep's own, and can't be asked.
const COMPILED_BYTES: usize = 4 << 10;

/// What an entry is compiled from: equal sources compile to equal matchers, so that nothing has to
/// be invalidated when a name gets another meaning.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Key {
    Matcher(Language, MatcherSpec, Option<String>),
    Rules(Language, String),
}

impl Key {
    fn len(&self) -> usize {
        let of = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        match self {
            Self::Matcher(_, spec, rewrite) => {
                of(&spec.pattern) + of(&spec.selector) + of(&spec.kind) + of(rewrite)
            }
            Self::Rules(_, yaml) => yaml.len(),
        }
    }
}

/// How the cache stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheStats {
    /// Entries.
    pub entries: usize,
    /// About how many bytes they take.
    pub bytes: usize,
    /// Look-ups that found one.
    pub hits: u64,
    /// Look-ups that didn't.
    pub misses: u64,
    /// Entries that were swept since their time was over.
    pub expired: u64,
    /// Entries that had to make room.
    pub evicted: u64,
}

/// The entries themselves.
#[derive(Debug)]
pub(super) struct Store {
    config: CacheConfig,
    book: Mutex<Book>,
}

#[derive(Debug, Default)]
struct Book {
    entries: HashMap<Key, Entry>,
    /// Counts look-ups: the time by which entries are old.
    tick: u64,
    stats: CacheStats,
}

#[derive(Debug)]
struct Entry {
    compiled: Compiled,
    made: Instant,
    used: u64,
    used_at: Instant,
}

impl Store {
    pub(super) fn new(config: CacheConfig) -> Self {
        Self { config, book: Mutex::default() }
    }

    pub(super) fn get(&self, key: &Key) -> Option<Compiled> {
        let mut book = self.open();
        let book = &mut *book;
        book.tick += 1;
        let fresh =
            book.entries.get_mut(key).filter(|entry| entry.made.elapsed() < self.config.ttl);
        let Some(entry) = fresh else {
            book.stats.misses += 1;
            return None;
        };
        entry.used = book.tick;
        entry.used_at = Instant::now();
        book.stats.hits += 1;
        Some(entry.compiled.clone())
    }

    /// The same for who looks a second time, which isn't counted.
    pub(super) fn peek(&self, key: &Key) -> Option<Compiled> {
        let book = self.open();
        let entry = book.entries.get(key)?;
        (entry.made.elapsed() < self.config.ttl).then(|| entry.compiled.clone())
    }

    pub(super) fn put(&self, key: Key, compiled: Compiled) {
        if key.len() > self.config.source_bytes_max || self.config.entries_max == 0 {
            return;
        }
        let mut book = self.open();
        if book.entries.len() >= self.config.entries_max && !book.entries.contains_key(&key) {
            let mut uses: Vec<u64> = book.entries.values().map(|entry| entry.used).collect();
            let (_, limit, _) = uses.select_nth_unstable(self.config.entries_max / 10);
            let limit = *limit;
            let before = book.entries.len();
            book.entries.retain(|_, entry| entry.used > limit);
            book.stats.evicted += (before - book.entries.len()) as u64;
        }
        // Unique, or those that were never asked for again would all go at once.
        book.tick += 1;
        let now = Instant::now();
        let entry = Entry { compiled, made: now, used: book.tick, used_at: now };
        book.entries.insert(key, entry);
    }

    /// How many entries weren't used in this long, and about how many bytes they take.
    pub(super) fn idle(&self, idle: Duration) -> (usize, usize) {
        let book = self.open();
        let idle = book.entries.iter().filter(|(_, entry)| entry.used_at.elapsed() >= idle);
        idle.fold((0, 0), |(n, bytes), (key, _)| (n + 1, bytes + bytes_of(key)))
    }

    /// Drops them.
    pub(super) fn forget(&self, idle: Duration) -> (usize, usize) {
        let is_idle = |entry: &Entry| entry.used_at.elapsed() >= idle;
        let gone: Vec<_> = self.open().entries.extract_if(|_, entry| is_idle(entry)).collect();
        // Outside the lock: compiled matchers are large.
        gone.iter().fold((0, 0), |(n, bytes), (key, _)| (n + 1, bytes + bytes_of(key)))
    }

    fn sweep(&self) {
        let mut book = self.open();
        let before = book.entries.len();
        book.entries.retain(|_, entry| entry.made.elapsed() < self.config.ttl);
        book.stats.expired += (before - book.entries.len()) as u64;
    }

    fn clear(&self) {
        let forgotten = std::mem::take(&mut *self.open());
        // Outside the lock: compiled matchers are large.
        drop(forgotten);
    }

    pub(super) fn stats(&self) -> CacheStats {
        let book = self.open();
        let bytes = book.entries.keys().map(bytes_of).sum();
        CacheStats { entries: book.entries.len(), bytes, ..book.stats }
    }

    fn open(&self) -> MutexGuard<'_, Book> {
        // Nothing that can panic happens between two changes of it.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn bytes_of(key: &Key) -> usize {
    size_of::<(Key, Entry)>() + key.len() + COMPILED_BYTES
}

/// What the housekeeper is asked.
pub(super) enum CacheMessage {
    Stats(Reply<CacheStats>),
    /// To forget everything, the counts included.
    Clear(Reply<()>),
}

pub(super) struct Cache(Arc<Store>);

impl Service for Cache {
    type Args = Arc<Store>;
    type Message = CacheMessage;

    async fn init(store: Arc<Store>, _: &Ctx) -> Result<Init<Self>, Exit> {
        Ok(Init::Ready(Self(store)))
    }

    async fn run(self, mut mailbox: Mailbox<CacheMessage>, _: Ctx) -> Result<(), Exit> {
        let Self(store) = self;
        let mut next = Instant::now() + store.config.sweep_every;
        loop {
            tokio::select! {
                message = mailbox.recv() => match message {
                    Some(CacheMessage::Stats(reply)) => reply.send(store.stats()),
                    Some(CacheMessage::Clear(reply)) => {
                        store.clear();
                        reply.send(());
                    }
                    None => return Ok(()),
                },
                () = sleep_until(next) => {
                    store.sweep();
                    next = Instant::now() + store.config.sweep_every;
                }
            }
        }
    }
}

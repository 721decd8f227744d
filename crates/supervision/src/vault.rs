//! Tables that outlive the service that works on them.
//!
//! In OTP an ETS table dies with its owner unless it has an heir. Here nobody has to inherit: a
//! [`Table`] is owned by whoever stands above the service (it travels in the args that survive a
//! restart), and each incarnation takes a [`Lease`] on it. A new lease fences all older ones, so
//! an incarnation that was given up but still runs can't write any more.
//!
//! - Readers take a [`Snapshot`] and wait for nobody.
//! - The writer publishes whole generations: a crash loses what wasn't published, never half a
//!   state. A change of several publications stands between [`begin`](Lease::begin) and
//!   [`finish`](Lease::finish); if its writer dies in between, the next lease is told to verify
//!   instead of to trust: a warm restart.
//! - An [`Attempt`] remembers the input in progress. One that was in flight at several crashes is
//!   a poison pill, which its service can set aside before it takes the whole tree down.
//! - Each level of escalation discards more: a restart of the service keeps the tables, one of the
//!   subtree [revalidates](Vault::revalidate) them, one of the root [resets](Vault::reset) them.
//!
//! The price is a copy for each publication, as large as the value makes it: persistent maps, or
//! `Arc`s of parts, keep it small.

use arc_swap::ArcSwap;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

#[cfg(test)]
mod tests;

/// How many suspects a table remembers, and how many inputs in flight. Suspects are a handful in
/// any life that isn't doomed anyway, and what is in flight is bounded by the cores; with keys as
/// long as paths, 1024 of each are some 200 KiB at worst. Beyond it the least suspicious suspects
/// are forgotten, and attempts aren't remembered.
pub const INPUTS_MAX: usize = 1024;

/// A write through a lease that a newer one, or an escalation, has taken the place of. Nothing was
/// changed. The incarnation that gets this should end: it is no longer the one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "writing to the table {table}: the lease of epoch {held} was fenced off by epoch {current}"
)]
pub struct Fenced {
    /// The table's name.
    pub table: Arc<str>,
    /// The epoch of the lease that was used.
    pub held: u64,
    /// The table's epoch. Always greater.
    pub current: u64,
}

/// Whether a table's content is what its writer meant it to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validity {
    /// Yes: no change was under way.
    Clean,
    /// A change was begun and not finished, or somebody above has doubts: verify it.
    Dirty {
        /// The epoch in which it became so.
        since_epoch: u64,
    },
}

/// An input that was in flight when incarnations died.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suspect {
    /// What names the input, for example a file's path.
    pub key: Arc<str>,
    /// How many incarnations died with it in flight since it last got through.
    pub crashes: u32,
}

/// One generation of a table's value: immutable, and as cheap to clone as an `Arc`.
#[derive(Debug)]
pub struct Snapshot<T> {
    generation: u64,
    value: Arc<T>,
}

impl<T> Snapshot<T> {
    /// Counts a table's publications; 0 is its first value. Never goes back, not even when the
    /// table is [reset](Vault::reset).
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The value itself.
    pub fn value(&self) -> &Arc<T> {
        &self.value
    }
}

impl<T> Clone for Snapshot<T> {
    fn clone(&self) -> Self {
        Self { generation: self.generation, value: Arc::clone(&self.value) }
    }
}

impl<T> Deref for Snapshot<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

/// A value that outlives its writers. Cheap to clone: all clones are the same table.
///
/// ```
/// use astscope_supervision::{Fenced, Table};
///
/// let table = Table::new("documents", vec!["a.rs"]);
/// let mut old = table.lease();
/// old.update(|documents| [documents.as_slice(), &["b.rs"]].concat())?;
///
/// // Its incarnation is killed but still runs, and a new one takes over where it left off.
/// let mut new = table.lease();
/// assert_eq!(*new.snapshot(), ["a.rs", "b.rs"]);
/// let refused = old.publish(vec!["nonsense"]).unwrap_err();
/// assert_eq!((refused.held, refused.current), (1, 2));
///
/// new.update(|documents| documents[1..].to_vec())?;
/// assert_eq!(*table.snapshot(), ["b.rs"]);
/// # Ok::<(), Fenced>(())
/// ```
pub struct Table<T> {
    ledger: Arc<Ledger>,
    /// Written only under the ledger's lock, read without it.
    current: Arc<ArcSwap<Snapshot<T>>>,
}

impl<T> Table<T> {
    /// One with this content. The name is for people: nothing is looked up by it.
    pub fn new(name: impl Into<Arc<str>>, initial: T) -> Self {
        let first = Snapshot { generation: 0, value: Arc::new(initial) };
        Self {
            ledger: Arc::new(Ledger { name: name.into(), book: Mutex::new(Book::default()) }),
            current: Arc::new(ArcSwap::from_pointee(first)),
        }
    }

    /// What it is called.
    pub fn name(&self) -> &Arc<str> {
        &self.ledger.name
    }

    /// The latest generation. Waits for nobody, and stays readable whatever becomes of its writer.
    pub fn snapshot(&self) -> Snapshot<T> {
        Snapshot::clone(&self.current.load())
    }

    /// Takes the table over: from here on all older leases are fenced. What they had in flight is
    /// counted, and whether they were in the middle of a change stands in
    /// [`takeover`](Lease::takeover).
    pub fn lease(&self) -> Lease<T> {
        let takeover = self.ledger.open().take_over();
        Lease { table: self.clone(), takeover }
    }

    /// The inputs that were in flight at a crash and didn't get through since, the worst first.
    pub fn suspects(&self) -> Vec<Suspect> {
        self.ledger.open().suspects()
    }

    /// How it stands now.
    pub fn status(&self) -> TableStatus {
        let book = self.ledger.open();
        TableStatus {
            name: Arc::clone(&self.ledger.name),
            epoch: book.epoch,
            generation: self.current.load().generation,
            validity: book.validity,
            n_suspects: book.suspects.len(),
        }
    }

    /// Swaps the value in if `enter` lets it. The value is made, and the old one dropped, outside
    /// the lock: both run a user's code.
    fn swap<E>(&self, value: T, enter: impl FnOnce(&mut Book) -> Result<(), E>) -> Result<u64, E> {
        let value = Arc::new(value);
        let (generation, old) = {
            let mut book = self.ledger.open();
            enter(&mut book)?;
            let generation = self.current.load().generation + 1;
            (generation, self.current.swap(Arc::new(Snapshot { generation, value })))
        };
        drop(old);
        Ok(generation)
    }
}

impl<T> Clone for Table<T> {
    fn clone(&self) -> Self {
        Self { ledger: Arc::clone(&self.ledger), current: Arc::clone(&self.current) }
    }
}

impl<T> fmt::Debug for Table<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Table").field(&self.status()).finish()
    }
}

/// How a table stood at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableStatus {
    /// What it is called.
    pub name: Arc<str>,
    /// The epoch of its newest lease, or of an escalation since.
    pub epoch: u64,
    /// The latest [generation](Snapshot::generation).
    pub generation: u64,
    /// Whether it can be trusted.
    pub validity: Validity,
    /// How many inputs are suspect.
    pub n_suspects: usize,
}

/// What a new lease found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Takeover {
    /// Its epoch: leases and escalations, counted from 1.
    pub epoch: u64,
    /// Whether the content can be trusted. It stays dirty until [`finish`](Lease::finish).
    pub validity: Validity,
    /// Whether the content is the initial one, since nothing was published yet or since the table
    /// was [reset](Vault::reset): clean, but there is nothing in it to trust.
    pub cold: bool,
    /// What was in flight when the incarnation before died, with the crashes up to this one, by
    /// key. Look here for whom to set aside.
    pub in_flight: Vec<Suspect>,
}

/// The right to write to a table, until somebody else takes it over.
///
/// It isn't cloned and its writes need it exclusively, so that within an epoch there is one writer
/// and no lost update. Dropping it does nothing: a crash couldn't do more either.
#[derive(Debug)]
#[must_use = "taking a lease fences all older ones"]
pub struct Lease<T> {
    table: Table<T>,
    takeover: Takeover,
}

impl<T> Lease<T> {
    /// Its epoch.
    pub fn epoch(&self) -> u64 {
        self.takeover.epoch
    }

    /// What it found when it took over.
    pub fn takeover(&self) -> &Takeover {
        &self.takeover
    }

    /// The table.
    pub fn table(&self) -> &Table<T> {
        &self.table
    }

    /// The table's latest generation. A fenced lease reads like anybody else.
    pub fn snapshot(&self) -> Snapshot<T> {
        self.table.snapshot()
    }

    /// Whether it may still write. For a long computation that would rather stop early: the answer
    /// may be old as soon as it is there.
    pub fn check(&self) -> Result<(), Fenced> {
        self.table.ledger.open_for(self.epoch()).map(drop)
    }

    /// Makes this the next generation, and returns its number.
    pub fn publish(&mut self, value: T) -> Result<u64, Fenced> {
        let (ledger, held) = (&self.table.ledger, self.epoch());
        self.table.swap(value, |book| {
            ledger.fence(book, held)?;
            book.cold = false;
            Ok(())
        })
    }

    /// Makes the next generation from the latest one, and returns its number. It is computed
    /// outside any lock, for as long as it takes; if the lease is lost meanwhile, or the
    /// computation panics, nothing changes.
    pub fn update(&mut self, next: impl FnOnce(&T) -> T) -> Result<u64, Fenced> {
        self.check()?;
        let value = next(&self.snapshot());
        self.publish(value)
    }

    /// Begins a change of several publications: the table is dirty until [`finish`](Self::finish).
    pub fn begin(&mut self) -> Result<(), Fenced> {
        self.table.ledger.open_for(self.epoch())?.doubt();
        Ok(())
    }

    /// The table is what it should be: the change is complete, or what was found dirty is
    /// verified.
    pub fn finish(&mut self) -> Result<(), Fenced> {
        self.table.ledger.open_for(self.epoch())?.validity = Validity::Clean;
        Ok(())
    }

    /// Remembers that work on this input begins. The same key twice at once counts as one.
    pub fn attempt(&self, key: &str) -> Result<Attempt, Fenced> {
        let key = Arc::from(key);
        let mut book = self.table.ledger.open_for(self.epoch())?;
        if book.in_flight.len() < INPUTS_MAX {
            book.in_flight.insert(Arc::clone(&key));
        }
        Ok(Attempt { ledger: Arc::clone(&self.table.ledger), epoch: self.epoch(), key })
    }

    /// How many incarnations died with this input in flight since it last got through.
    pub fn suspicion(&self, key: &str) -> u32 {
        self.table.ledger.open().suspects.get(key).map_or(0, |suspicion| suspicion.crashes)
    }

    /// Forgets what is held against an input: it has changed, and deserves a new chance.
    pub fn absolve(&mut self, key: &str) -> Result<(), Fenced> {
        self.table.ledger.open_for(self.epoch())?.suspects.remove(key);
        Ok(())
    }
}

/// An input in progress. Say when it got through. One that is dropped without a word, by a panic,
/// by a kill or by mistake, stays in flight, and is counted when the next lease takes over.
#[derive(Debug)]
#[must_use = "an attempt that isn't done is held against its input"]
pub struct Attempt {
    ledger: Arc<Ledger>,
    epoch: u64,
    key: Arc<str>,
}

impl Attempt {
    /// What names the input.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The input got through, well or badly: nothing is held against it any more. If the lease is
    /// lost the input has been counted, and stays so: its incarnation was given up on it.
    pub fn done(self) -> Result<(), Fenced> {
        let mut book = self.ledger.open_for(self.epoch)?;
        book.in_flight.remove(&self.key);
        book.suspects.remove(&self.key);
        Ok(())
    }

    /// The attempt ends without a verdict, for example since its service stops in order: what was
    /// held against the input still is, and no more.
    pub fn withdraw(self) -> Result<(), Fenced> {
        self.ledger.open_for(self.epoch)?.in_flight.remove(&self.key);
        Ok(())
    }
}

/// The part of a table that doesn't depend on its type: who may write, and what is known of it.
#[derive(Debug)]
struct Ledger {
    name: Arc<str>,
    /// A std mutex: it is held for a comparison and a swap, never over a user's code. So nobody
    /// panics under it, and a poisoned one would be sound.
    book: Mutex<Book>,
}

impl Ledger {
    fn open(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The book, for a lease of this epoch if it is the newest.
    fn open_for(&self, held: u64) -> Result<MutexGuard<'_, Book>, Fenced> {
        let book = self.open();
        self.fence(&book, held)?;
        Ok(book)
    }

    fn fence(&self, book: &Book, held: u64) -> Result<(), Fenced> {
        if book.epoch == held {
            return Ok(());
        }
        Err(Fenced { table: Arc::clone(&self.name), held, current: book.epoch })
    }
}

#[derive(Debug)]
struct Book {
    /// Of the newest lease, or of an escalation after it, which is nobody's. 0 before the first.
    epoch: u64,
    validity: Validity,
    cold: bool,
    /// What the newest lease works on, or what its incarnation died on.
    in_flight: BTreeSet<Arc<str>>,
    suspects: BTreeMap<Arc<str>, Suspicion>,
}

#[derive(Debug)]
struct Suspicion {
    crashes: u32,
    /// When it was first counted: of two that are equally suspicious the older one is forgotten.
    since_epoch: u64,
}

impl Default for Book {
    fn default() -> Self {
        Self {
            epoch: 0,
            validity: Validity::Clean,
            cold: true,
            in_flight: BTreeSet::new(),
            suspects: BTreeMap::new(),
        }
    }
}

impl Book {
    fn take_over(&mut self) -> Takeover {
        self.epoch += 1;
        let in_flight = std::mem::take(&mut self.in_flight);
        let in_flight = in_flight.into_iter().map(|key| self.count_crash(key)).collect();
        self.forget_least_suspicious();
        Takeover { epoch: self.epoch, validity: self.validity, cold: self.cold, in_flight }
    }

    fn count_crash(&mut self, key: Arc<str>) -> Suspect {
        let suspicion = self
            .suspects
            .entry(Arc::clone(&key))
            .or_insert(Suspicion { crashes: 0, since_epoch: self.epoch });
        suspicion.crashes = suspicion.crashes.saturating_add(1);
        Suspect { key, crashes: suspicion.crashes }
    }

    fn forget_least_suspicious(&mut self) {
        let excess = self.suspects.len().saturating_sub(INPUTS_MAX);
        if excess == 0 {
            return;
        }
        let mut ranked: Vec<_> = self
            .suspects
            .iter()
            .map(|(key, suspicion)| (suspicion.crashes, suspicion.since_epoch, Arc::clone(key)))
            .collect();
        ranked.sort_unstable();
        for (_, _, key) in &ranked[..excess] {
            self.suspects.remove(key);
        }
    }

    fn suspects(&self) -> Vec<Suspect> {
        let mut suspects: Vec<_> = self
            .suspects
            .iter()
            .map(|(key, suspicion)| Suspect { key: Arc::clone(key), crashes: suspicion.crashes })
            .collect();
        suspects.sort_by_key(|suspect| std::cmp::Reverse(suspect.crashes));
        suspects
    }

    /// Dirty from here on, if it isn't already.
    fn doubt(&mut self) {
        if self.validity == Validity::Clean {
            self.validity = Validity::Dirty { since_epoch: self.epoch };
        }
    }
}

/// The tables of a subtree, so that a level of escalation can act on all of them. Cheap to clone:
/// all clones are the same vault.
///
/// It belongs to whoever stands above the subtree. Both escalations fence the leases that are out:
/// else a zombie could [`finish`](Lease::finish) what was just put in doubt. What is known of
/// [suspects](Table::suspects) survives both of them: it is about the inputs, and a cold start
/// would only run into the same one again.
///
/// ```
/// use astscope_supervision::{Validity, Vault};
///
/// let vault = Vault::new();
/// let documents = vault.table("documents", Vec::<String>::new);
/// documents.lease().publish(vec!["a.rs".to_owned()])?;
///
/// vault.revalidate(); // the subtree restarts
/// assert_eq!(documents.lease().takeover().validity, Validity::Dirty { since_epoch: 2 });
/// assert_eq!(*documents.snapshot(), ["a.rs"]);
///
/// vault.reset(); // the root restarts
/// let lease = documents.lease();
/// assert!(lease.takeover().cold && lease.snapshot().is_empty());
/// # Ok::<(), astscope_supervision::Fenced>(())
/// ```
#[derive(Clone, Default)]
pub struct Vault {
    entries: Arc<Mutex<Vec<Arc<dyn Entry>>>>,
}

impl Vault {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// A new table whose first value, and that after each [`reset`](Self::reset), is made by this
    /// function. The name is for people: nothing is looked up by it.
    pub fn table<T: Send + Sync + 'static>(
        &self,
        name: impl Into<Arc<str>>,
        initial: impl Fn() -> T + Send + Sync + 'static,
    ) -> Table<T> {
        let table = Table::new(name, initial());
        let entry = Arc::new(Rebuildable { table: table.clone(), initial });
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).push(entry);
        table
    }

    /// Puts all tables in doubt: the next lease of each finds it dirty, and verifies.
    pub fn revalidate(&self) {
        for entry in self.entries() {
            entry.revalidate();
        }
    }

    /// Makes the initial value of every table anew. If one of the functions panics, that table and
    /// those after it are left dirty.
    pub fn reset(&self) {
        let entries = self.entries();
        for entry in &entries {
            entry.revalidate();
        }
        for entry in &entries {
            entry.reset();
        }
    }

    /// How each table stands now, in the order in which they were made.
    pub fn status(&self) -> Vec<TableStatus> {
        self.entries().iter().map(|entry| entry.status()).collect()
    }

    /// A copy, so that no user's code runs under the lock.
    fn entries(&self) -> Vec<Arc<dyn Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Vault").field(&self.status()).finish()
    }
}

/// A table of any type.
trait Entry: Send + Sync {
    fn revalidate(&self);
    fn reset(&self);
    fn status(&self) -> TableStatus;
}

struct Rebuildable<T, F> {
    table: Table<T>,
    initial: F,
}

impl<T: Send + Sync, F: Fn() -> T + Send + Sync> Entry for Rebuildable<T, F> {
    fn revalidate(&self) {
        let mut book = self.table.ledger.open();
        book.epoch += 1;
        book.doubt();
    }

    fn reset(&self) {
        // A lease that was taken since the doubt must not work on what it no longer finds here.
        let swapped = self.table.swap((self.initial)(), |book| {
            book.epoch += 1;
            book.validity = Validity::Clean;
            book.cold = true;
            Ok::<_, std::convert::Infallible>(())
        });
        let Ok(_generation) = swapped;
    }

    fn status(&self) -> TableStatus {
        self.table.status()
    }
}

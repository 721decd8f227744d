//! Who holds how many bytes: counters that their owners keep, and sums over them.
//!
//! What the kernel says of the process ([`Sample`](crate::Sample)) is the truth about its size; an
//! account says whose it is. The difference between the two is shown, not hidden.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// What memory is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Source texts.
    Text,
    /// Trees.
    Tree,
    /// Maps and indexes over them.
    Index,
    /// What can be computed again.
    Cache,
    /// Anything else.
    Other,
}

impl Class {
    /// All of them, in order.
    pub const ALL: [Self; 5] = [Self::Text, Self::Tree, Self::Index, Self::Cache, Self::Other];

    /// Its stable name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Tree => "tree",
            Self::Index => "index",
            Self::Cache => "cache",
            Self::Other => "other",
        }
    }
}

/// Bytes by class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ByClass([u64; Class::ALL.len()]);

impl ByClass {
    /// The bytes of one class.
    pub fn of(&self, class: Class) -> u64 {
        self.0[class as usize]
    }

    /// The bytes of all classes.
    pub fn total(&self) -> u64 {
        self.0.iter().fold(0, |sum, bytes| sum.saturating_add(*bytes))
    }

    fn add(&mut self, class: Class, bytes: u64) {
        let sum = &mut self.0[class as usize];
        *sum = sum.saturating_add(bytes);
    }
}

/// All accounts of a process. Cheap to clone: all clones are the same book.
///
/// ```
/// use astscope_memory_manager::{Accounts, Class};
///
/// let accounts = Accounts::new();
/// let texts = accounts.open("texts", Class::Text);
/// texts.add(100);
/// let held = texts.hold(28);
/// assert_eq!(accounts.by_class().of(Class::Text), 128);
/// drop(held);
/// assert_eq!(accounts.by_class().total(), 100);
/// ```
#[derive(Clone, Default)]
pub struct Accounts(Arc<Mutex<Vec<Weak<Ledger>>>>);

impl Accounts {
    /// A book without accounts.
    pub fn new() -> Self {
        Self::default()
    }

    /// Opens an account. It is in the book for as long as somebody holds it, so its owner keeps
    /// it. The name is for people: two may have the same.
    pub fn open(&self, name: impl Into<Arc<str>>, class: Class) -> Account {
        self.enter(Ledger { name: name.into(), class, kept: AtomicU64::new(0), count: None })
    }

    /// Opens an account of an owner that counts its bytes itself: it is asked whenever somebody
    /// looks, so it should answer at once. What is added to it or taken out has no effect.
    pub fn counted(
        &self,
        name: impl Into<Arc<str>>,
        class: Class,
        count: impl Fn() -> u64 + Send + Sync + 'static,
    ) -> Account {
        let (name, kept) = (name.into(), AtomicU64::new(0));
        self.enter(Ledger { name, class, kept, count: Some(Box::new(count)) })
    }

    fn enter(&self, ledger: Ledger) -> Account {
        let ledger = Arc::new(ledger);
        let mut book = self.book();
        book.retain(|account| account.strong_count() > 0);
        book.push(Arc::downgrade(&ledger));
        Account(ledger)
    }

    /// Every account, in the order in which they were opened.
    pub fn list(&self) -> Vec<Account> {
        self.book().iter().filter_map(Weak::upgrade).map(Account).collect()
    }

    /// The sums by class. Counters move on while they are added up: this is no snapshot of one
    /// moment, but no byte that stays is missed.
    pub fn by_class(&self) -> ByClass {
        let mut sums = ByClass::default();
        for account in self.list() {
            sums.add(account.class(), account.bytes());
        }
        sums
    }

    fn book(&self) -> MutexGuard<'_, Vec<Weak<Ledger>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Accounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.list()).finish()
    }
}

/// What one owner holds. Cheap to clone, to add to and to read: an atomic counter.
#[derive(Clone)]
pub struct Account(Arc<Ledger>);

struct Ledger {
    name: Arc<str>,
    class: Class,
    kept: AtomicU64,
    /// Who counts, if that isn't left to `kept`.
    count: Option<Count>,
}

type Count = Box<dyn Fn() -> u64 + Send + Sync>;

impl Account {
    /// What people call it.
    pub fn name(&self) -> &Arc<str> {
        &self.0.name
    }

    /// What it is for.
    pub fn class(&self) -> Class {
        self.0.class
    }

    /// The bytes in it.
    pub fn bytes(&self) -> u64 {
        match &self.0.count {
            Some(count) => count(),
            None => self.0.kept.load(Ordering::Relaxed),
        }
    }

    /// Adds bytes.
    pub fn add(&self, bytes: u64) {
        self.change(|held| held.saturating_add(bytes));
    }

    /// Takes bytes out; at most those that are in it, since a counter that wraps would look like
    /// all the memory there is.
    pub fn remove(&self, bytes: u64) {
        self.change(|held| held.saturating_sub(bytes));
    }

    /// For an owner that counts for itself.
    pub fn set(&self, bytes: u64) {
        self.0.kept.store(bytes, Ordering::Relaxed);
    }

    /// Adds bytes until the guard is dropped.
    pub fn hold(&self, bytes: u64) -> Held {
        self.add(bytes);
        Held { account: self.clone(), bytes }
    }

    fn change(&self, next: impl Fn(u64) -> u64) {
        let (set, fetch) = (Ordering::Relaxed, Ordering::Relaxed);
        // It always says what comes next, so this can't fail.
        let _before = self.0.kept.fetch_update(set, fetch, |held| Some(next(held)));
    }
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): {} bytes", self.name(), self.class().name(), self.bytes())
    }
}

/// Bytes that are in an account for as long as this lives.
#[derive(Debug)]
#[must_use = "the bytes are taken out again when this is dropped"]
pub struct Held {
    account: Account,
    bytes: u64,
}

impl Held {
    /// How many.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Makes them more or fewer.
    pub fn resize(&mut self, bytes: u64) {
        if bytes > self.bytes {
            self.account.add(bytes - self.bytes);
        } else {
            self.account.remove(self.bytes - bytes);
        }
        self.bytes = bytes;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.account.remove(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_follow_what_is_held_and_forget_owners_that_are_gone() {
        let accounts = Accounts::new();
        let texts = accounts.open("texts", Class::Text);
        let trees = accounts.open("trees", Class::Tree);
        texts.add(10);
        let mut held = trees.hold(5);
        held.resize(50);
        assert_eq!((accounts.by_class().of(Class::Tree), accounts.by_class().total()), (50, 60));
        held.resize(1);
        assert_eq!((held.bytes(), trees.bytes()), (1, 1));
        drop(held);
        assert_eq!(trees.bytes(), 0);
        drop(texts);
        assert_eq!(accounts.by_class().total(), 0);
        assert_eq!(accounts.list().len(), 1);
    }

    #[test]
    fn an_owner_that_counts_for_itself_is_asked_at_each_look() {
        let accounts = Accounts::new();
        let held = Arc::new(AtomicU64::new(5));
        let counter = Arc::clone(&held);
        let account =
            accounts.counted("walks", Class::Cache, move || counter.load(Ordering::Relaxed));
        account.add(100);
        assert_eq!((account.bytes(), accounts.by_class().of(Class::Cache)), (5, 5));
        held.store(7, Ordering::Relaxed);
        assert_eq!(accounts.by_class().total(), 7);
        drop(account);
        assert_eq!(accounts.by_class().total(), 0);
    }

    #[test]
    fn an_account_never_wraps() {
        let account = Accounts::new().open("a", Class::Other);
        account.add(3);
        account.remove(5);
        assert_eq!(account.bytes(), 0);
        account.set(u64::MAX);
        account.add(1);
        assert_eq!(account.bytes(), u64::MAX);
    }

    #[test]
    fn many_threads_lose_no_byte() {
        let account = Accounts::new().open("a", Class::Other);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..1000).for_each(|_| account.add(1)));
            }
        });
        assert_eq!(account.bytes(), 4000);
    }
}

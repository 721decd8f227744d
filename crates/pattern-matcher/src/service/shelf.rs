//! `pattern_library`: the patterns that have a name.
//!
//! What is on the shelf stands above the service and is read without asking it. The service puts
//! patterns there, once they have proved themselves, and looks now and then whether what stands
//! there is what it has put: if not, it fills the shelf again from the built-in patterns and from
//! those that were registered.

use crate::library::{LibraryError, LibraryPattern, builtin};
use astscope_supervision::{Ctx, Exit, Init, Mailbox, Reply, Service};
use astscope_syntax::ContentId;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use thiserror::Error;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

pub(super) type Patterns = BTreeMap<Arc<str>, Arc<LibraryPattern>>;

/// How the library stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LibraryState {
    /// Whether the shelf is filled. It stays so when the service is restarted.
    pub is_ready: bool,
    /// Counts changes of what is on the shelf.
    pub edition: u64,
    /// How often it was filled again since something on it wasn't as it should be.
    pub reloads: u64,
    /// Registered patterns that were not taken back onto the shelf: they no longer validate.
    pub refused: Vec<Arc<str>>,
}

/// Why the library doesn't do what it is asked.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RegisterError {
    /// The pattern isn't valid.
    #[error("registering a pattern")]
    Invalid(#[from] LibraryError),
    /// Compiling or trying it panicked.
    #[error("registering a pattern panicked: {0}")]
    Panicked(Arc<str>),
    /// A built-in pattern can't be replaced or taken away.
    #[error("{0} is built in")]
    Builtin(Arc<str>),
    /// What is registered under this id is as new, or newer.
    #[error("{id} has version {has} already")]
    NotNewer {
        /// Which.
        id: Arc<str>,
        /// The version that is registered.
        has: u32,
    },
    /// There are as many as there may be.
    #[error("the library is full: {max} patterns can be registered")]
    Full {
        /// How many may be registered.
        max: usize,
    },
    /// Nothing is registered under this id.
    #[error("no pattern is called {0}")]
    Unknown(Arc<str>),
    /// The library can't be reached.
    #[error("asking the pattern library")]
    Unavailable(#[from] astscope_supervision::CallError),
}

/// What is on the shelf, and where it came from.
#[derive(Debug)]
pub(super) struct Shelf {
    book: Mutex<Book>,
    pub(super) state: watch::Sender<LibraryState>,
    /// How often the shelf is looked at.
    check_every: Duration,
    /// Patterns that may be registered.
    registered_max: usize,
}

#[derive(Debug)]
struct Book {
    shelf: Arc<Patterns>,
    checksum: ContentId,
    /// What was registered, as it was.
    registered: Patterns,
}

impl Shelf {
    pub(super) fn new(check_every: Duration, registered_max: usize) -> Self {
        let shelf = Arc::new(Patterns::new());
        let book = Book { checksum: checksum(&shelf), shelf, registered: Patterns::new() };
        let state = watch::Sender::new(LibraryState::default());
        Self { book: Mutex::new(book), state, check_every, registered_max }
    }

    pub(super) fn patterns(&self) -> Arc<Patterns> {
        Arc::clone(&self.open().shelf)
    }

    fn fill(&self, shelf: Patterns) {
        let shelf = Arc::new(shelf);
        let checksum = checksum(&shelf);
        {
            let mut book = self.open();
            book.shelf = shelf;
            book.checksum = checksum;
        }
        self.state.send_modify(|state| {
            state.is_ready = true;
            state.edition += 1;
        });
    }

    fn is_intact(&self) -> bool {
        let (shelf, expected) = {
            let book = self.open();
            (Arc::clone(&book.shelf), book.checksum)
        };
        checksum(&shelf) == expected
    }

    /// Something else stands there than what was put there.
    #[cfg(test)]
    pub(super) fn corrupt(&self) {
        self.open().shelf = Arc::default();
    }

    fn open(&self) -> MutexGuard<'_, Book> {
        // Nothing that can panic happens between two changes of it.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn checksum(shelf: &Patterns) -> ContentId {
    ContentId::of(format!("{shelf:?}").as_bytes())
}

/// What the library is asked.
pub(super) enum LibraryMessage {
    Register(Arc<LibraryPattern>, Reply<Result<(), RegisterError>>),
    Unregister(Arc<str>, Reply<Result<(), RegisterError>>),
    /// To look at the shelf, and to fill it again if it isn't as it should be, or in any case.
    /// Answered with whether it was.
    Check(bool, Reply<bool>),
}

pub(super) struct Library(Arc<Shelf>);

impl Service for Library {
    type Args = Arc<Shelf>;
    type Message = LibraryMessage;

    async fn init(shelf: Arc<Shelf>, _: &Ctx) -> Result<Init<Self>, Exit> {
        Ok(Init::Ready(Self(shelf)))
    }

    async fn run(self, mut mailbox: Mailbox<LibraryMessage>, ctx: Ctx) -> Result<(), Exit> {
        if self.0.state.borrow().is_ready {
            self.check(&ctx, false).await?;
        } else {
            self.load(&ctx).await?;
        }
        ctx.set_ready(true);
        let mut next = Instant::now() + self.0.check_every;
        loop {
            let message = tokio::select! {
                message = mailbox.recv() => message,
                () = sleep_until(next) => {
                    self.check(&ctx, false).await?;
                    next = Instant::now() + self.0.check_every;
                    continue;
                }
            };
            match message {
                // What stands there wrongly mustn't become right by what is added to it.
                Some(LibraryMessage::Register(pattern, reply)) => {
                    self.check(&ctx, false).await?;
                    reply.send(self.register(&ctx, pattern).await);
                }
                Some(LibraryMessage::Unregister(id, reply)) => {
                    self.check(&ctx, false).await?;
                    reply.send(self.unregister(&id));
                }
                Some(LibraryMessage::Check(anyway, reply)) => {
                    reply.send(self.check(&ctx, anyway).await?);
                }
                None => return Ok(()),
            }
        }
    }
}

impl Library {
    /// Whether the shelf was as it should be. If not, or anyway, it is filled again.
    async fn check(&self, ctx: &Ctx, anyway: bool) -> Result<bool, Exit> {
        let shelf = Arc::clone(&self.0);
        let is_intact = ctx.blocking(None, move |_| shelf.is_intact()).await?;
        if !is_intact || anyway {
            self.load(ctx).await?;
            self.0.state.send_modify(|state| state.reloads += 1);
        }
        Ok(is_intact)
    }

    /// Fills the shelf. A built-in pattern that fails is a bug, and this service's failure; one
    /// that was registered and fails is left out, and named.
    async fn load(&self, ctx: &Ctx) -> Result<(), Exit> {
        let registered = self.0.open().registered.clone();
        let shelf = Arc::clone(&self.0);
        let work = move |_: &_| -> Result<(), LibraryError> {
            let mut patterns = Patterns::new();
            for pattern in builtin() {
                pattern.validate()?;
                patterns.insert(Arc::clone(&pattern.id), Arc::new(pattern));
            }
            let (good, bad): (Vec<_>, Vec<_>) =
                registered.into_iter().partition(|(_, pattern)| pattern.validate().is_ok());
            patterns.extend(good);
            let refused = bad.into_iter().map(|(id, _)| id).collect();
            shelf.state.send_modify(|state| state.refused = refused);
            shelf.fill(patterns);
            Ok(())
        };
        Ok(ctx.blocking(None, work).await??)
    }

    async fn register(&self, ctx: &Ctx, pattern: Arc<LibraryPattern>) -> Result<(), RegisterError> {
        let id = Arc::clone(&pattern.id);
        {
            let book = self.0.open();
            match book.registered.get(&id) {
                None if book.shelf.contains_key(&id) => return Err(RegisterError::Builtin(id)),
                Some(known) if known.version >= pattern.version => {
                    return Err(RegisterError::NotNewer { id, has: known.version });
                }
                None if book.registered.len() >= self.0.registered_max => {
                    return Err(RegisterError::Full { max: self.0.registered_max });
                }
                Some(_) | None => {}
            }
        }
        let tried = Arc::clone(&pattern);
        let validated = ctx.blocking(None, move |_| tried.validate()).await;
        validated.map_err(|exit| RegisterError::Panicked(exit.to_string().into()))??;
        let mut patterns = Patterns::clone(&self.0.patterns());
        patterns.insert(Arc::clone(&id), Arc::clone(&pattern));
        self.0.open().registered.insert(id, pattern);
        self.0.fill(patterns);
        Ok(())
    }

    fn unregister(&self, id: &Arc<str>) -> Result<(), RegisterError> {
        let mut patterns = Patterns::clone(&self.0.patterns());
        if self.0.open().registered.remove(id).is_none() {
            let id = Arc::clone(id);
            let is_builtin = patterns.contains_key(&id);
            return Err(if is_builtin {
                RegisterError::Builtin(id)
            } else {
                RegisterError::Unknown(id)
            });
        }
        patterns.remove(id);
        self.0.fill(patterns);
        Ok(())
    }
}

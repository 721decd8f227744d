//! `pattern_matcher_core`: from what is asked for to what can be matched.
//!
//! It starts before the library that it needs, so it begins in a loading state: what needs no name
//! is served at once, what does waits in a bounded line until the library is ready. Compiling
//! happens on threads that may block, a few at a time.

use super::PatternError;
use super::cache::{Key, Store};
use super::shelf::Shelf;
use crate::library::{Compiled, LibraryError, PatternBody};
use crate::matcher::{Matcher, MatcherSpec};
use astscope_supervision::{Ctx, Exit, Init, Mailbox, Reply, Service, delegated};
use astscope_syntax::Language;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// What the core is asked.
pub(super) enum CoreMessage {
    /// For a matcher of a pattern or kind.
    Compile(Language, MatcherSpec, Option<String>, Reply<Result<Compiled, PatternError>>),
    /// For a pattern of the library.
    Named(Named),
}

pub(super) struct Named {
    pub(super) id: Arc<str>,
    pub(super) language: Language,
    pub(super) reply: Reply<Result<Compiled, PatternError>>,
}

/// What each incarnation is made from.
#[derive(Clone, Debug)]
pub(super) struct CoreArgs {
    pub(super) cache: Arc<Store>,
    pub(super) shelf: Arc<Shelf>,
    pub(super) compiles_max: usize,
    pub(super) waiting_max: usize,
}

pub(super) struct Core {
    args: CoreArgs,
    /// One permit for each compilation that may run.
    permits: Arc<Semaphore>,
    /// Who waits for the library.
    waiting: Vec<Named>,
}

impl Service for Core {
    type Args = CoreArgs;
    type Message = CoreMessage;

    async fn init(args: CoreArgs, _: &Ctx) -> Result<Init<Self>, Exit> {
        let permits = Arc::new(Semaphore::new(args.compiles_max.max(1)));
        Ok(Init::Ready(Self { args, permits, waiting: Vec::new() }))
    }

    async fn run(mut self, mut mailbox: Mailbox<CoreMessage>, ctx: Ctx) -> Result<(), Exit> {
        let mut library = self.args.shelf.state.subscribe();
        loop {
            let is_ready = library.borrow_and_update().is_ready;
            ctx.set_ready(is_ready);
            if is_ready {
                for named in std::mem::take(&mut self.waiting) {
                    self.named(&ctx, named).await;
                }
            }
            let message = tokio::select! {
                message = mailbox.recv() => message,
                changed = library.changed() => {
                    changed?;
                    continue;
                }
            };
            match message {
                Some(CoreMessage::Compile(language, spec, rewrite, reply)) => {
                    let key = Key::Matcher(language, spec.clone(), rewrite.clone());
                    let work = move || {
                        let matcher = Matcher::compile(language, &spec, rewrite.as_deref())?;
                        Ok(Compiled::Matcher(Arc::new(matcher)))
                    };
                    self.compile(&ctx, key, work, reply).await;
                }
                Some(CoreMessage::Named(named)) if is_ready => self.named(&ctx, named).await,
                Some(CoreMessage::Named(named)) => {
                    self.waiting.retain(|waiting| !waiting.reply.is_abandoned());
                    if self.waiting.len() < self.args.waiting_max {
                        self.waiting.push(named);
                    } else {
                        named.reply.send(Err(PatternError::Loading));
                    }
                }
                None => return Ok(()),
            }
        }
    }
}

impl Core {
    async fn named(&self, ctx: &Ctx, Named { id, language, reply }: Named) {
        let Some(pattern) = self.args.shelf.patterns().get(&id).map(Arc::clone) else {
            return reply.send(Err(PatternError::Unknown(id)));
        };
        let key = match &pattern.body {
            PatternBody::Pattern(spec) => Key::Matcher(language, spec.clone(), None),
            PatternBody::Rule(yaml) => Key::Rules(language, yaml.clone()),
        };
        if !pattern.languages.contains(&language) {
            // Another pattern of the same body may be for it, and in the cache.
            return reply.send(Err(LibraryError::Language { id, language }.into()));
        }
        self.compile(ctx, key, move || Ok(pattern.compile(language)?), reply).await;
    }

    /// Answers from the cache, or from a thread as soon as one is free.
    async fn compile(
        &self,
        ctx: &Ctx,
        key: Key,
        work: impl FnOnce() -> Result<Compiled, PatternError> + Send + 'static,
        reply: Reply<Result<Compiled, PatternError>>,
    ) {
        if let Some(compiled) = self.args.cache.peek(&key) {
            return reply.send(Ok(compiled));
        }
        let permit = tokio::select! {
            biased;
            () = ctx.stopping() => return,
            permit = delegated(Arc::clone(&self.permits).acquire_owned()) => permit,
        };
        let (cache, own) = (Arc::clone(&self.args.cache), ctx.clone());
        ctx.spawn(async move {
            let compiled = own.blocking(None, move |_| {
                let _until_done = permit;
                let compiled = work()?;
                cache.put(key, compiled.clone());
                Ok(compiled)
            });
            match compiled.await {
                Ok(compiled) => reply.send(compiled),
                Err(Exit::Panicked(text)) => reply.send(Err(PatternError::Panicked(text))),
                // It is being stopped: the caller is told by what becomes of his reply.
                Err(_) => {}
            }
        });
    }
}

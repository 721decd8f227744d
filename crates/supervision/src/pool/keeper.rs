//! The service of a pool of async workers: has them started, watched and stopped.
//!
//! Workers are temporary children of a dynamic supervisor beside it, because it is the pool's
//! rules, and not a supervisor's, that say whether a dead worker is replaced. What the rules don't
//! foresee (a worker that doesn't start) is this service's own failure, and its supervisor
//! restarts all.

use super::core::WorkerKey;
use super::desk::{Desk, Errand};
use super::door::{AskDesk, Door};
use super::{PoolConfig, Template};
use crate::{Address, Ctx, Exit, Init, Mailbox, Monitor, Restart, Service, Supervisor};
use std::sync::Arc;

/// Messages that one worker's borrower may send ahead.
const WORKER_MAILBOX: usize = 8;

/// What every incarnation of the service is made from.
pub(super) struct Plan<M> {
    pub(super) config: PoolConfig,
    pub(super) door: Arc<Door<Address<M>>>,
    /// The workers' supervisor, with a deadline that allows for everything it may be doing.
    pub(super) workers: Supervisor,
    pub(super) template: Template<M>,
}

impl<M> Clone for Plan<M> {
    fn clone(&self) -> Self {
        Self {
            config: self.config,
            door: Arc::clone(&self.door),
            workers: self.workers.clone(),
            template: Arc::clone(&self.template),
        }
    }
}

/// One incarnation.
pub(super) struct Keeper<M> {
    plan: Plan<M>,
    desk: Arc<Desk<Address<M>>>,
}

impl<M: Send + 'static> Service for Keeper<M> {
    type Args = Plan<M>;
    type Message = AskDesk<Address<M>>;

    /// All workers are up when this returns: a pool that can't have them doesn't start.
    async fn init(plan: Plan<M>, ctx: &Ctx) -> Result<Init<Self>, Exit> {
        let desk = Desk::open(plan.config, ctx.emitter().clone());
        let closing = Arc::clone(&desk);
        ctx.at_end(move || closing.close());
        let keeper = Self { plan, desk };
        for errand in keeper.desk.take_errands() {
            if let Errand::Start(key) = errand {
                let monitor = keeper.start(key).await?;
                ctx.spawn(keeper.clone().watch(key, monitor));
            }
        }
        Ok(Init::Ready(keeper))
    }

    async fn run(self, mut mailbox: Mailbox<Self::Message>, ctx: Ctx) -> Result<(), Exit> {
        self.plan.door.lead_to(&self.desk);
        loop {
            tokio::select! {
                biased;
                errands = self.desk.errands() => {
                    for errand in errands {
                        self.run_errand(errand, &ctx)?;
                    }
                }
                message = mailbox.recv() => match message {
                    Some(AskDesk(reply)) => reply.send(Arc::clone(&self.desk)),
                    None => return Ok(()),
                },
            }
        }
    }
}

impl<M> Clone for Keeper<M> {
    fn clone(&self) -> Self {
        Self { plan: self.plan.clone(), desk: Arc::clone(&self.desk) }
    }
}

impl<M: Send + 'static> Keeper<M> {
    fn run_errand(&self, errand: Errand, ctx: &Ctx) -> Result<(), Exit> {
        let (keeper, own) = (self.clone(), ctx.clone());
        match errand {
            Errand::Start(key) => ctx.spawn(async move {
                match keeper.start(key).await {
                    Ok(monitor) => keeper.watch(key, monitor).await,
                    Err(exit) => own.fail(exit),
                }
            }),
            // Whatever the answer: the worker's place is free when its monitor says so.
            Errand::Stop(key) => ctx.spawn(async move {
                drop(keeper.plan.workers.terminate_child(&worker_id(key)).await);
            }),
            Errand::Fail => {
                let (n, period) = self.plan.config.deaths.unwrap_or_default();
                return Err(Exit::failed(format!("more than {n} workers died within {period:?}")));
            }
        }
        Ok(())
    }

    /// Starts a worker and lends it out.
    async fn start(&self, key: WorkerKey) -> Result<Monitor, Exit> {
        let address = Address::new(worker_id(key), WORKER_MAILBOX);
        let spec = (self.plan.template)(address.clone()).restart(Restart::Temporary);
        if !Arc::ptr_eq(&spec.slot, address.slot()) {
            return Err(Exit::failed("the template made a worker at another address than its own"));
        }
        let Some(child) = self.plan.workers.start_child(spec).await? else {
            return Err(Exit::failed("a worker chose not to run"));
        };
        let monitor = child.monitor();
        self.desk.started(key, address);
        Ok(monitor)
    }

    async fn watch(self, key: WorkerKey, mut monitor: Monitor) {
        let exit = monitor.down().await;
        self.desk.ended(key, exit);
    }
}

fn worker_id(key: WorkerKey) -> String {
    format!("worker-{}", key.0)
}

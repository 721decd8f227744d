//! The jobs that run on a pool's threads, and what becomes of those that don't come back.
//!
//! A thread can't be killed. What can be done is to tell its job to give up, to wait a little, and
//! then to say aloud that the thread is lost: it keeps its place, so the pool is smaller by one,
//! until the job does return.

use crate::{Emitter, EventKind, later};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// Names a job. Never given twice.
pub(super) type JobId = u64;

/// The jobs of one incarnation of a pool, at most one for each of its threads.
pub(super) struct Jobs {
    emitter: Emitter,
    /// How long a job may take to notice that it should give up.
    grace: Duration,
    running: Mutex<Running>,
    /// Says that the deadlines have changed, or that the last job is done.
    changed: Notify,
    given_up: CancellationToken,
}

#[derive(Default)]
struct Running {
    jobs: BTreeMap<JobId, Entry>,
    last_id: JobId,
    /// Until when [`Jobs::watch`] sleeps.
    armed: Option<Instant>,
}

struct Entry {
    stop: CancellationToken,
    lost_at: Instant,
    lost: bool,
}

impl Running {
    /// Jobs that aren't given up.
    fn n_hoped_for(&self) -> usize {
        self.jobs.values().filter(|job| !job.lost).count()
    }
}

impl Jobs {
    pub(super) fn new(grace: Duration, emitter: Emitter) -> Arc<Self> {
        Arc::new(Self {
            emitter,
            grace,
            running: Mutex::default(),
            changed: Notify::new(),
            given_up: CancellationToken::new(),
        })
    }

    /// A job is about to begin.
    pub(super) fn begin(&self, stop: &CancellationToken, deadline: Instant) -> JobId {
        let lost_at = deadline + self.grace;
        let mut running = self.lock();
        running.last_id += 1;
        let id = running.last_id;
        running.jobs.insert(id, Entry { stop: stop.clone(), lost_at, lost: false });
        self.rearm(&running, lost_at);
        drop(running);
        if self.given_up.is_cancelled() {
            stop.cancel();
        }
        id
    }

    /// Nobody waits for this job any longer. Of no effect when it is done.
    pub(super) fn abandon(&self, id: JobId) {
        let lost_at = later(Instant::now(), self.grace);
        let mut running = self.lock();
        let Some(job) = running.jobs.get_mut(&id) else { return };
        job.lost_at = job.lost_at.min(lost_at);
        let stop = job.stop.clone();
        self.rearm(&running, lost_at);
        drop(running);
        stop.cancel();
    }

    /// This job is done.
    pub(super) fn end(&self, id: JobId) {
        let (ended, none_left) = {
            let mut running = self.lock();
            (running.jobs.remove(&id), running.n_hoped_for() == 0)
        };
        if ended.is_some_and(|job| job.lost) {
            self.emitter.emit(EventKind::ThreadBack);
        }
        if none_left {
            self.changed.notify_one();
        }
    }

    /// Gives up threads that are overdue, for ever.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub(super) async fn watch(&self) {
        loop {
            let now = Instant::now();
            let next = self.give_up_where(|job| job.lost_at <= now);
            tokio::select! {
                biased;
                () = self.changed.notified() => {}
                () = sleep_until(next.unwrap_or(now)), if next.is_some() => {}
            }
        }
    }

    /// Tells all jobs to give up, and waits for them for their grace; not for those that had it.
    pub(super) async fn stop(&self) {
        let deadline = later(Instant::now(), self.grace);
        let running: Vec<_> = self.lock().jobs.values().map(|job| job.stop.clone()).collect();
        running.iter().for_each(CancellationToken::cancel);
        while self.lock().n_hoped_for() > 0 && Instant::now() < deadline {
            tokio::select! {
                biased;
                () = self.changed.notified() => {}
                () = sleep_until(deadline) => {}
            }
        }
    }

    /// Nobody will wait any longer, for any job.
    pub(super) fn give_up_all(&self) {
        self.give_up_where(|_| true);
        self.given_up.cancel();
    }

    /// Is cancelled when nobody waits any longer.
    pub(super) fn given_up(&self) -> &CancellationToken {
        &self.given_up
    }

    /// Threads that are given up and still run.
    pub(super) fn n_lost(&self) -> usize {
        let running = self.lock();
        running.jobs.len() - running.n_hoped_for()
    }

    /// Gives up those that are meant. Returns when the next of the others is due.
    fn give_up_where(&self, is_meant: impl Fn(&Entry) -> bool) -> Option<Instant> {
        let mut lost = Vec::new();
        let next = {
            let mut running = self.lock();
            for job in running.jobs.values_mut().filter(|job| !job.lost && is_meant(job)) {
                job.lost = true;
                lost.push(job.stop.clone());
            }
            let waiting = running.jobs.values().filter(|job| !job.lost);
            running.armed = waiting.map(|job| job.lost_at).min();
            running.armed
        };
        for stop in lost {
            stop.cancel();
            self.emitter.emit(EventKind::ThreadLost);
        }
        next
    }

    /// Wakes [`watch`](Self::watch) if it would sleep too long.
    fn rearm(&self, running: &Running, lost_at: Instant) {
        if running.armed.is_none_or(|armed| lost_at < armed) {
            self.changed.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

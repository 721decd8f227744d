//! Whether services do their work, which is more than being alive.
//!
//! A check that only asks whether a process is there finds a hung one healthy. Every incarnation
//! has a pulse: it beats with each message and each [`Ctx::progress`](crate::Ctx::progress). A
//! service that has been at work for too long without a beat is hung, also when its thread never
//! yields, because nobody has to ask it.

use crate::ChildState;
use crate::address::ChildRef;
use std::sync::Arc;
use std::time::Duration;

/// The services whose health makes up that of the whole.
#[derive(Clone, Debug, Default)]
pub struct Health {
    watched: Vec<Watched>,
}

#[derive(Clone, Debug)]
struct Watched {
    service: ChildRef,
    hung_after: Duration,
    critical: bool,
}

impl Health {
    /// Nothing to watch: healthy.
    pub fn new() -> Self {
        Self::default()
    }

    /// Watches a service without which the whole does less. It is hung when it has been at work
    /// for `hung_after` without progress.
    #[must_use]
    pub fn watch(mut self, service: ChildRef, hung_after: Duration) -> Self {
        self.watched.push(Watched { service, hung_after, critical: false });
        self
    }

    /// Watches a service without which the whole is of no use.
    #[must_use]
    pub fn watch_critical(mut self, service: ChildRef, hung_after: Duration) -> Self {
        self.watched.push(Watched { service, hung_after, critical: true });
        self
    }

    /// Looks at every service, without asking any of them.
    pub fn check(&self) -> HealthReport {
        let services: Vec<_> = self.watched.iter().map(Watched::check).collect();
        let status = if services.iter().all(|service| service.verdict == Verdict::Healthy) {
            HealthStatus::Healthy
        } else if services.iter().any(|it| it.critical && it.verdict != Verdict::Healthy) {
            HealthStatus::Failed
        } else {
            HealthStatus::Degraded
        };
        HealthReport { status, services }
    }
}

impl Watched {
    fn check(&self) -> ServiceHealth {
        let vitals = self.service.vitals();
        let status = &vitals.status;
        let verdict = match status.state() {
            _ if status.is_gone() => Verdict::Down,
            ChildState::Up => match vitals.working_for {
                Some(time) if time >= self.hung_after => Verdict::Hung(time),
                Some(_) | None if !status.is_ready() => Verdict::NotReady,
                Some(_) | None => Verdict::Healthy,
            },
            ChildState::Starting | ChildState::Stopping | ChildState::Restarting => {
                Verdict::Restarting
            }
            ChildState::Degraded | ChildState::Down => Verdict::Down,
        };
        ServiceHealth { id: Arc::clone(self.service.id()), critical: self.critical, verdict }
    }
}

/// The health of the whole, and of each service, in the order in which they were watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthReport {
    /// Of the whole.
    pub status: HealthStatus,
    /// Of each service.
    pub services: Vec<ServiceHealth>,
}

/// The health of the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthStatus {
    /// Every service is healthy.
    Healthy,
    /// A service isn't, but no critical one.
    Degraded,
    /// A critical service isn't.
    Failed,
}

/// The health of one service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceHealth {
    /// Which.
    pub id: Arc<str>,
    /// Whether the whole is of no use without it.
    pub critical: bool,
    /// How it is.
    pub verdict: Verdict,
}

/// How a service is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Up, ready, and making progress, or waiting for something to do.
    Healthy,
    /// Up, but it says that it can't do its work yet.
    NotReady,
    /// Between two incarnations.
    Restarting,
    /// Up, and at work for this long without progress.
    Hung(Duration),
    /// Down, or degraded behind its firewall.
    Down,
}

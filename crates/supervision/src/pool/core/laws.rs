//! Two laws: whatever time starts and stops take, nobody is lost; and if they take none, the core
//! is poolboy.

use super::tests::{Is, World};
use super::*;
use proptest::prelude::*;

/// Something that happens. Numbers choose among those that it can happen to.
#[derive(Clone, Copy, Debug)]
enum Happens {
    Checkout { queues: bool },
    CheckIn(usize),
    Cancel(usize),
    Expire(usize),
    Die(usize),
    Started(usize),
    Stopped(usize),
}

fn happens() -> impl Strategy<Value = Happens> {
    let at = 0..16_usize;
    prop_oneof![
        4 => any::<bool>().prop_map(|queues| Happens::Checkout { queues }),
        3 => at.clone().prop_map(Happens::CheckIn),
        1 => at.clone().prop_map(Happens::Cancel),
        1 => at.clone().prop_map(Happens::Expire),
        2 => at.clone().prop_map(Happens::Die),
        3 => at.clone().prop_map(Happens::Started),
        2 => at.prop_map(Happens::Stopped),
    ]
}

fn configs() -> impl Strategy<Value = PoolConfig> {
    (0..4_usize, 0..4_usize, 0..4_usize, any::<bool>()).prop_map(
        |(size, max_overflow, queue, lifo)| {
            let order = if lifo { Order::Lifo } else { Order::Fifo };
            PoolConfig { size, max_overflow, queue, order, deaths: None }
        },
    )
}

fn nth<T: Copy>(items: impl IntoIterator<Item = T>, at: usize) -> Option<T> {
    let items: Vec<_> = items.into_iter().collect();
    items.get(at.checked_rem(items.len())?).copied()
}

impl World {
    fn which(&self, at: usize, is: impl Fn(Is) -> bool) -> Option<WorkerKey> {
        nth(self.workers.iter().filter(|(_, what)| is(**what)).map(|(key, _)| *key), at)
    }

    fn happens(&mut self, what: Happens) {
        match what {
            Happens::Checkout { queues } => drop(self.checkout(queues)),
            Happens::CheckIn(at) => {
                if let Some(key) = self.which(at, |is| is == Is::Out) {
                    self.check_in(key);
                }
            }
            Happens::Cancel(at) => {
                if let Some(ticket) = nth(self.waiting.iter().copied(), at) {
                    self.leave(ticket, Input::Cancel(ticket));
                }
            }
            Happens::Expire(at) => {
                if let Some(ticket) = nth(self.waiting.iter().copied(), at) {
                    self.leave(ticket, Input::Expire(ticket));
                }
            }
            Happens::Die(at) => {
                if let Some(key) = self.which(at, |is| is != Is::Starting) {
                    self.die(key);
                }
            }
            Happens::Started(at) => {
                if let Some(key) = self.which(at, |is| is == Is::Starting) {
                    self.answer(Input::Started(key));
                }
            }
            Happens::Stopped(at) => {
                if let Some(key) = self.which(at, |is| is == Is::Stopping) {
                    self.answer(Input::Ended(key, Exit::Shutdown));
                }
            }
        }
    }
}

/// poolboy, as its source reads: a process that blocks while it starts or stops a worker. The bound
/// of the queue is ours.
struct Poolboy {
    config: PoolConfig,
    idle: VecDeque<u64>,
    out: BTreeSet<u64>,
    waiting: VecDeque<Ticket>,
    overflow: usize,
    last: u64,
    told: Vec<(Ticket, Option<u64>)>,
}

impl Poolboy {
    fn new(config: PoolConfig) -> Self {
        let last = config.size as u64;
        Self {
            config,
            idle: (1..=last).collect(),
            out: BTreeSet::new(),
            waiting: VecDeque::new(),
            overflow: 0,
            last,
            told: Vec::new(),
        }
    }

    fn new_worker(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    fn give(&mut self, ticket: Ticket, worker: u64) {
        self.out.insert(worker);
        self.told.push((ticket, Some(worker)));
    }

    fn checkout(&mut self, ticket: Ticket, block: bool) {
        let idle = match self.config.order {
            Order::Lifo => self.idle.pop_back(),
            Order::Fifo => self.idle.pop_front(),
        };
        if let Some(worker) = idle {
            self.give(ticket, worker);
        } else if self.overflow < self.config.max_overflow {
            let worker = self.new_worker();
            self.overflow += 1;
            self.give(ticket, worker);
        } else if !block || self.waiting.len() >= self.config.queue {
            self.told.push((ticket, None));
        } else {
            self.waiting.push_back(ticket);
        }
    }

    fn check_in(&mut self, worker: u64) {
        self.out.remove(&worker);
        if let Some(ticket) = self.waiting.pop_front() {
            self.give(ticket, worker);
        } else if self.overflow > 0 {
            self.overflow -= 1;
        } else {
            self.idle.push_back(worker);
        }
    }

    fn die(&mut self, worker: u64) {
        if !self.out.remove(&worker) {
            self.idle.retain(|idle| *idle != worker);
            let worker = self.new_worker();
            self.idle.push_back(worker);
        } else if let Some(ticket) = self.waiting.pop_front() {
            let worker = self.new_worker();
            self.give(ticket, worker);
        } else if self.overflow > 0 {
            self.overflow -= 1;
        } else {
            let worker = self.new_worker();
            self.idle.push_back(worker);
        }
    }

    fn state(&self) -> PoolState {
        if self.overflow < 1 {
            match (self.idle.is_empty(), self.config.max_overflow < 1) {
                (true, true) => PoolState::Full,
                (true, false) => PoolState::Overflow,
                (false, _) => PoolState::Ready,
            }
        } else if self.overflow == self.config.max_overflow {
            PoolState::Full
        } else {
            PoolState::Overflow
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    /// All that is true after every step is asserted by the world itself: never too many workers,
    /// no worker twice, every caller told once and the oldest first. What is left is the end.
    #[test]
    fn nobody_is_lost(config in configs(), script in prop::collection::vec(happens(), 0..120)) {
        let mut world = World::new(config, false);
        for what in script {
            world.happens(what);
        }
        // Let everything come to its end.
        while world.count(Is::Starting) + world.count(Is::Stopping) + world.out.len() > 0 {
            for what in [Happens::Started(0), Happens::Stopped(0), Happens::CheckIn(0)] {
                world.happens(what);
            }
        }
        if config.size + config.max_overflow > 0 {
            prop_assert!(world.waiting.is_empty(), "{:?} still wait", world.waiting);
        }
        prop_assert_eq!(world.core.status().idle, config.size);
        prop_assert_eq!(world.workers.len(), config.size);
        let mut told: Vec<_> = world.told.iter().map(|(ticket, _)| *ticket).collect();
        let n_told = told.len();
        told.sort_unstable();
        told.dedup();
        prop_assert_eq!(told.len(), n_told, "told twice");
    }

    #[test]
    fn without_delays_it_is_poolboy(
        config in configs(),
        script in prop::collection::vec(happens(), 0..120),
    ) {
        let mut world = World::new(config, true);
        let mut poolboy = Poolboy::new(config);
        for what in script {
            match what {
                Happens::Checkout { queues } => poolboy.checkout(world.last_ticket + 1, queues),
                Happens::CheckIn(at) => {
                    world.which(at, |is| is == Is::Out).inspect(|key| poolboy.check_in(key.0));
                }
                Happens::Cancel(at) | Happens::Expire(at) => {
                    let leaves = nth(world.waiting.iter().copied(), at);
                    poolboy.waiting.retain(|ticket| Some(*ticket) != leaves);
                }
                Happens::Die(at) => {
                    world.which(at, |is| is != Is::Starting).inspect(|key| poolboy.die(key.0));
                }
                Happens::Started(_) | Happens::Stopped(_) => {}
            }
            world.happens(what);
            let told: Vec<_> = world.told.iter().map(|(to, key)| (*to, key.map(|key| key.0))).collect();
            prop_assert_eq!(&told, &poolboy.told);
            world.check_status(
                poolboy.state(), poolboy.idle.len(), poolboy.overflow, poolboy.out.len(),
            );
        }
    }
}

//! The fence, the takeover and the suspects, one by one, under threads, and against a model.

use super::*;
use proptest::prelude::*;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

fn suspect(key: &str, crashes: u32) -> Suspect {
    Suspect { key: key.into(), crashes }
}

#[test]
fn a_fenced_lease_can_only_read() {
    let table = Table::new("t", 1);
    let mut old = table.lease();
    let attempt = old.attempt("a").unwrap();
    let other_attempt = old.attempt("b").unwrap();
    old.begin().unwrap();
    let new = table.lease();
    let before = table.status();

    let fenced = Fenced { table: "t".into(), held: 1, current: 2 };
    assert_eq!(old.publish(2), Err(fenced.clone()));
    assert_eq!(old.update(|_| unreachable!("it is refused before")), Err(fenced.clone()));
    assert_eq!(old.begin(), Err(fenced.clone()));
    assert_eq!(old.finish(), Err(fenced.clone()));
    assert_eq!(old.attempt("c").unwrap_err(), fenced);
    assert_eq!(attempt.done(), Err(fenced.clone()));
    assert_eq!(other_attempt.withdraw(), Err(fenced.clone()));
    assert_eq!(old.absolve("a"), Err(fenced.clone()));
    assert_eq!(old.check(), Err(fenced.clone()));
    assert_eq!((table.status(), *old.snapshot(), new.check()), (before, 1, Ok(())));
    assert_eq!(
        fenced.to_string(),
        "writing to the table t: the lease of epoch 1 was fenced off by epoch 2"
    );
}

#[test]
fn a_reader_holds_its_generation_through_publications() {
    let table = Table::new("t", String::from("first"));
    let mut lease = table.lease();
    let first = table.snapshot();
    assert_eq!(lease.publish("second".into()), Ok(1));
    let second = table.snapshot();
    assert_eq!(lease.update(|text| format!("{text} and third")), Ok(2));
    let read = |snapshot: &Snapshot<String>| (snapshot.generation(), snapshot.value().to_string());
    assert_eq!(read(&first), (0, "first".into()));
    assert_eq!(read(&second), (1, "second".into()));
    assert_eq!(read(&table.snapshot()), (2, "second and third".into()));
}

#[test]
fn an_update_that_loses_the_lease_or_panics_changes_nothing() {
    let table = Table::new("t", 1);
    let mut lease = table.lease();
    let panicked =
        catch_unwind(AssertUnwindSafe(|| lease.update(|_| panic!("the computation crashes"))));
    assert!(panicked.is_err());
    assert!(lease.check().is_ok());

    let lost = lease.update(|value| {
        table.lease().publish(10).unwrap();
        value + 1
    });
    assert_eq!(lost.unwrap_err().current, 2);
    assert_eq!((table.snapshot().generation(), *table.snapshot()), (1, 10));
}

#[test]
fn a_change_that_was_not_finished_is_found_dirty_until_somebody_verified_it() {
    let table = Table::new("t", 0);
    let mut first = table.lease();
    assert!(first.takeover().cold);
    first.begin().unwrap();
    first.publish(1).unwrap();
    drop(first);
    let dirty = Validity::Dirty { since_epoch: 1 };
    assert_eq!(table.lease().takeover().validity, dirty);

    let mut third = table.lease();
    assert_eq!((third.takeover().validity, third.takeover().cold), (dirty, false));
    third.begin().unwrap();
    assert_eq!(table.status().validity, dirty, "it has been dirty for longer");
    third.finish().unwrap();
    assert_eq!(table.lease().takeover().validity, Validity::Clean);
}

#[test]
fn an_input_in_flight_at_a_crash_is_counted_until_it_gets_through() {
    let table = Table::new("t", ());
    for crash in 1..=3 {
        let lease = table.lease();
        assert_eq!(lease.suspicion("poison"), crash - 1);
        lease.attempt("harmless").unwrap().done().unwrap();
        let crashed = catch_unwind(AssertUnwindSafe(|| {
            let _attempt = lease.attempt("poison").unwrap();
            panic!("the incarnation dies");
        }));
        assert!(crashed.is_err());
        assert_eq!(lease.suspicion("poison"), crash - 1, "it counts at the takeover");
    }
    let lease = table.lease();
    let _bystander = lease.attempt("bystander").unwrap();
    let mut lease = table.lease();
    assert_eq!(lease.takeover().in_flight, [suspect("bystander", 1)]);
    assert_eq!(table.suspects(), [suspect("poison", 3), suspect("bystander", 1)]);
    assert_eq!(table.status().n_suspects, 2);

    lease.attempt("bystander").unwrap().done().unwrap();
    lease.attempt("poison").unwrap().withdraw().unwrap();
    assert_eq!(table.lease().takeover().in_flight, []);
    assert_eq!(table.suspects(), [suspect("poison", 3)]);
    assert!(lease.absolve("poison").is_err(), "it was fenced by the lease above");
    table.lease().absolve("poison").unwrap();
    assert_eq!(table.suspects(), []);
}

#[test]
fn what_a_table_remembers_is_bounded_and_the_worst_stays() {
    let table = Table::new("t", ());
    for _ in 0..2 {
        let _poison = table.lease().attempt("poison").unwrap();
    }
    for round in 0..2 {
        let lease = table.lease();
        for input in 0..2 * INPUTS_MAX {
            let _left_in_flight = lease.attempt(&format!("{round}-{input}")).unwrap();
        }
    }
    assert_eq!(table.lease().takeover().in_flight.len(), INPUTS_MAX);
    let suspects = table.suspects();
    assert_eq!((suspects.len(), &suspects[0]), (INPUTS_MAX, &suspect("poison", 2)));
    let newer = suspects.iter().filter(|suspect| suspect.key.starts_with("1-")).count();
    assert_eq!(newer, INPUTS_MAX - 1, "of equals the older are forgotten");
}

#[test]
fn each_level_of_escalation_discards_more() {
    let vault = Vault::new();
    let numbers = vault.table("numbers", || vec![0]);
    let words = vault.table("words", String::new);
    let mut lease = numbers.lease();
    lease.publish(vec![1, 2]).unwrap();
    let _in_flight = lease.attempt("input").unwrap();

    let restarted = numbers.lease();
    assert_eq!((restarted.takeover().validity, restarted.snapshot().len()), (Validity::Clean, 2));

    let mut zombie = numbers.lease();
    zombie.begin().unwrap();
    vault.revalidate();
    assert!(zombie.finish().is_err(), "or it would unsay the doubt");
    let takeover = numbers.lease().takeover().clone();
    assert_eq!(takeover.validity, Validity::Dirty { since_epoch: 3 }, "begun before the doubt");
    assert_eq!(words.lease().takeover().validity, Validity::Dirty { since_epoch: 1 });

    let mut zombie = numbers.lease();
    vault.reset();
    assert!(zombie.publish(vec![9]).is_err());
    let lease = numbers.lease();
    assert_eq!((lease.takeover().validity, lease.takeover().cold), (Validity::Clean, true));
    assert_eq!((*lease.snapshot()).as_slice(), [0]);
    assert_eq!(lease.snapshot().generation(), 2, "generations never go back");
    assert_eq!(lease.suspicion("input"), 1, "an input is as poisonous to a cold start");
    let names: Vec<_> = vault.status().iter().map(|status| status.name.to_string()).collect();
    assert_eq!(names, ["numbers", "words"]);
}

#[test]
fn a_reset_that_panics_leaves_doubt_and_no_lock_behind() {
    let vault = Vault::new();
    let broken = Arc::new(AtomicBool::new(false));
    let breaks = Arc::clone(&broken);
    let table = vault.table("t", move || assert!(!breaks.load(Ordering::Relaxed)));
    broken.store(true, Ordering::Relaxed);
    assert!(catch_unwind(AssertUnwindSafe(|| vault.reset())).is_err());
    assert_eq!(table.lease().takeover().validity, Validity::Dirty { since_epoch: 1 });
}

/// The value's own drop reads the table: it would deadlock if a value were dropped under the lock.
#[test]
fn values_are_dropped_outside_the_lock() {
    struct Nosy(Option<Table<Nosy>>);
    impl Drop for Nosy {
        fn drop(&mut self) {
            if let Some(table) = &self.0 {
                assert!(table.status().epoch > 0);
            }
        }
    }
    let table = Table::new("t", Nosy(None));
    let mut lease = table.lease();
    lease.publish(Nosy(Some(table.clone()))).unwrap();
    lease.publish(Nosy(None)).unwrap();
    let _newer = table.lease();
    assert!(lease.publish(Nosy(Some(table.clone()))).is_err());
}

#[test]
fn of_many_zombies_only_the_newest_epoch_writes() {
    const N_WRITERS: usize = 4;
    const N_LEASES: usize = 100;
    const N_WRITES_MAX: usize = 50;

    let table = Table::new("t", 0_u64);
    let done = AtomicBool::new(false);
    let mut published: Vec<(u64, u64)> = thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut last = (0, 0);
            while !done.load(Ordering::Relaxed) {
                let snapshot = table.snapshot();
                let seen = (snapshot.generation(), *snapshot);
                assert!(last.0 <= seen.0 && last.1 <= seen.1, "{seen:?} after {last:?}");
                last = seen;
            }
        });
        let writers: Vec<_> = (0..N_WRITERS)
            .map(|_| {
                scope.spawn(|| {
                    let mut published = Vec::new();
                    for _ in 0..N_LEASES {
                        let mut lease = table.lease();
                        let epoch = lease.epoch();
                        let writes = (0..N_WRITES_MAX)
                            .map_while(|_| lease.update(|newest| (*newest).max(epoch)).ok());
                        published.extend(writes.map(|generation| (generation, epoch)));
                    }
                    published
                })
            })
            .collect();
        let published = writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect();
        done.store(true, Ordering::Relaxed);
        reader.join().unwrap();
        published
    });
    published.sort_unstable();
    let generations: Vec<u64> = published.iter().map(|(generation, _)| *generation).collect();
    assert_eq!(generations, (1..=table.snapshot().generation()).collect::<Vec<_>>());
    assert!(published.is_sorted_by_key(|(_, epoch)| *epoch), "an older epoch wrote after a newer");
}

/// What can be done to a table. A lease is named by its place among those that weren't dropped.
#[derive(Clone, Copy, Debug)]
enum Step {
    Lease,
    Drop(usize),
    Publish(usize, u8),
    Update(usize, u8),
    /// Another lease is taken while this one computes.
    LosingUpdate(usize),
    Begin(usize),
    Finish(usize),
    Attempt(usize, u8),
    Done(usize),
    Withdraw(usize),
    Revalidate,
    Reset,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let lease = 0..4_usize;
    let step = prop_oneof![
        3 => Just(Step::Lease),
        1 => lease.clone().prop_map(Step::Drop),
        3 => (lease.clone(), any::<u8>()).prop_map(|(lease, value)| Step::Publish(lease, value)),
        3 => (lease.clone(), any::<u8>()).prop_map(|(lease, value)| Step::Update(lease, value)),
        1 => lease.clone().prop_map(Step::LosingUpdate),
        2 => lease.clone().prop_map(Step::Begin),
        2 => lease.clone().prop_map(Step::Finish),
        4 => (lease, 0..4_u8).prop_map(|(lease, key)| Step::Attempt(lease, key)),
        2 => (0..4_usize).prop_map(Step::Done),
        1 => (0..4_usize).prop_map(Step::Withdraw),
        1 => Just(Step::Revalidate),
        1 => Just(Step::Reset),
    ];
    proptest::collection::vec(step, 0..80)
}

/// The table as its documentation tells it.
#[derive(Default)]
struct Model {
    epoch: u64,
    generation: u64,
    value: u8,
    warm: bool,
    dirty_since: Option<u64>,
    in_flight: BTreeSet<String>,
    crashes: BTreeMap<String, u32>,
}

impl Model {
    fn doubt(&mut self) {
        self.dirty_since = self.dirty_since.or(Some(self.epoch));
    }

    fn publish(&mut self, value: u8) {
        (self.generation, self.value, self.warm) = (self.generation + 1, value, true);
    }

    fn take_over(&mut self) -> Takeover {
        self.epoch += 1;
        let counted = std::mem::take(&mut self.in_flight).into_iter().map(|key| {
            let crashes = self.crashes.entry(key.clone()).or_default();
            *crashes += 1;
            suspect(&key, *crashes)
        });
        let in_flight = counted.collect();
        let validity = self.validity();
        Takeover { epoch: self.epoch, validity, cold: !self.warm, in_flight }
    }

    fn validity(&self) -> Validity {
        self.dirty_since.map_or(Validity::Clean, |since_epoch| Validity::Dirty { since_epoch })
    }
}

proptest! {
    #[test]
    fn a_table_does_what_a_model_does(steps in steps()) {
        let vault = Vault::new();
        let table = vault.table("t", || 0_u8);
        let mut model = Model::default();
        let mut leases: Vec<Lease<u8>> = Vec::new();
        let mut attempts: Vec<Attempt> = Vec::new();

        for step in steps {
            match step {
                Step::Lease => {
                    let lease = table.lease();
                    prop_assert_eq!(lease.takeover(), &model.take_over());
                    leases.insert(0, lease);
                }
                Step::Drop(i) if i < leases.len() => drop(leases.remove(i)),
                Step::Publish(i, value) if i < leases.len() => {
                    let newest = leases[i].epoch() == model.epoch;
                    prop_assert_eq!(leases[i].publish(value).is_ok(), newest);
                    if newest {
                        model.publish(value);
                    }
                }
                Step::Update(i, value) if i < leases.len() => {
                    let newest = leases[i].epoch() == model.epoch;
                    let updated = leases[i].update(|old| old.wrapping_add(value));
                    prop_assert_eq!(updated.is_ok(), newest);
                    if newest {
                        model.publish(model.value.wrapping_add(value));
                        prop_assert_eq!(updated, Ok(model.generation));
                    }
                }
                Step::LosingUpdate(i) if i < leases.len() => {
                    let newest = leases[i].epoch() == model.epoch;
                    let updated = leases[i].update(|old| {
                        drop(table.lease());
                        old.wrapping_add(1)
                    });
                    prop_assert!(updated.is_err());
                    if newest {
                        model.take_over();
                    }
                }
                Step::Begin(i) if i < leases.len() => {
                    let newest = leases[i].epoch() == model.epoch;
                    prop_assert_eq!(leases[i].begin().is_ok(), newest);
                    if newest {
                        model.doubt();
                    }
                }
                Step::Finish(i) if i < leases.len() => {
                    let newest = leases[i].epoch() == model.epoch;
                    prop_assert_eq!(leases[i].finish().is_ok(), newest);
                    if newest {
                        model.dirty_since = None;
                    }
                }
                Step::Attempt(i, key) if i < leases.len() => {
                    let key = key.to_string();
                    if let Ok(attempt) = leases[i].attempt(&key) {
                        prop_assert_eq!(leases[i].epoch(), model.epoch);
                        attempts.insert(0, attempt);
                        model.in_flight.insert(key);
                    } else {
                        prop_assert!(leases[i].epoch() < model.epoch);
                    }
                }
                Step::Done(i) if i < attempts.len() => {
                    let attempt = attempts.remove(i);
                    let key = attempt.key().to_owned();
                    let newest = attempt.epoch == model.epoch;
                    prop_assert_eq!(attempt.done().is_ok(), newest);
                    if newest {
                        model.in_flight.remove(&key);
                        model.crashes.remove(&key);
                    }
                }
                Step::Withdraw(i) if i < attempts.len() => {
                    let attempt = attempts.remove(i);
                    let key = attempt.key().to_owned();
                    let newest = attempt.epoch == model.epoch;
                    prop_assert_eq!(attempt.withdraw().is_ok(), newest);
                    if newest {
                        model.in_flight.remove(&key);
                    }
                }
                Step::Revalidate => {
                    vault.revalidate();
                    model.epoch += 1;
                    model.doubt();
                }
                Step::Reset => {
                    vault.reset();
                    model.epoch += 2;
                    model.publish(0);
                    (model.warm, model.dirty_since) = (false, None);
                }
                _ => {}
            }
            prop_assert_eq!(
                table.status(),
                TableStatus {
                    name: "t".into(),
                    epoch: model.epoch,
                    generation: model.generation,
                    validity: model.validity(),
                    n_suspects: model.crashes.len(),
                }
            );
            prop_assert_eq!(*table.snapshot(), model.value);
            for suspect in table.suspects() {
                prop_assert_eq!(suspect.crashes, model.crashes[&*suspect.key]);
            }
        }
    }
}

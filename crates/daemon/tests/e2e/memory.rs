//! Memory that runs short: what is remembered goes level by level, answers stay, and nothing that
//! was parsed is lost.

use crate::support::{Daemon, PATIENCE, open, pattern, run, status};
use astscope_daemon::MemorySource;
use astscope_fixtures::Fixture;
use astscope_protocol::Client;
use astscope_protocol::messages::{HealthParams, HealthResult, method};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A budget of which a percent is a round number of bytes.
const BUDGET: u64 = 100 << 20;

/// How often free pages were to go back.
static RELEASED: AtomicU64 = AtomicU64::new(0);

fn released() -> u64 {
    RELEASED.load(Ordering::Relaxed)
}

/// Waits until what is asked again and again is so.
#[track_caller]
fn until(client: &mut Client, what: &str, mut is_so: impl FnMut(&mut Client) -> bool) {
    let started = Instant::now();
    while !is_so(client) {
        assert!(started.elapsed() < PATIENCE, "{what}");
    }
}

/// The memory manager's own words: the share of the budget that it has seen used.
fn seen(client: &mut Client) -> String {
    let health: HealthResult = client.call(method::HEALTH, &HealthParams {}).unwrap();
    let memory = health.details.into_iter().find(|detail| detail.name.starts_with("memory "));
    memory.unwrap().value.unwrap()
}

/// Bytes of what is remembered besides results. Never none for long: whoever watches the disk walks
/// it now and then.
fn others(client: &mut Client) -> u64 {
    let status = status(client);
    status.memory.caches.saturating_sub(status.workspaces[0].remembered.bytes)
}

#[test]
fn a_workspace_gives_its_caches_back_level_by_level_and_loses_nothing() {
    let used = Arc::new(AtomicU64::new(0));
    let shown = Arc::clone(&used);
    let daemon = Daemon::start_with(|config| {
        config.memory = MemorySource {
            budget_bytes: BUDGET,
            resident: Arc::new(move || Some(shown.load(Ordering::Relaxed))),
            sample_every: Duration::from_secs(1),
            release_free_pages: Some(|| {
                RELEASED.fetch_add(1, Ordering::Relaxed);
            }),
        };
    });
    let tree = Fixture::parse("//- /a.js\nf(1)\n//- /b.js\nf(2)\n//- /c.js\ng()\n");
    let mut client = daemon.client();
    open(&mut client, &tree.root());
    until(&mut client, "free pages stay after indexing", |_| released() > 0);
    let params = pattern(&tree, "js", "f($A)");
    let expected = run(&mut client, &params).shown();
    let ask = |client: &mut Client| {
        let found = run(client, &params);
        assert_eq!(found.shown(), expected);
        found.summary.files_remembered
    };
    assert_eq!(ask(&mut client), 2);
    let epoch = status(&mut client).workspaces[0].revision.epoch;
    let use_percent = |percent: u64| used.store(BUDGET / 100 * percent, Ordering::Relaxed);

    // 80 to 95 %: the results of queries go, and nothing else.
    use_percent(85);
    until(&mut client, "results stay", |client| {
        status(client).workspaces[0].remembered.results == 0
    });
    assert_eq!(
        (ask(&mut client), ask(&mut client)),
        (0, 2),
        "they come back when they are asked for"
    );

    // From 95 %: compiled patterns and remembered walks too.
    let before = others(&mut client);
    use_percent(96);
    until(&mut client, "the others stay at 96 %", |client| others(client) < before);
    assert_eq!((ask(&mut client), ask(&mut client)), (0, 2));

    // From 98 %: the same again, and whatever wasn't used for long.
    let before = (others(&mut client), released());
    use_percent(99);
    until(&mut client, "the others stay at 99 %", |client| others(client) < before.0);
    assert_eq!(ask(&mut client), 0);
    until(&mut client, "free pages stay at 99 %", |_| released() > before.1);

    use_percent(10);
    until(&mut client, "pressure stays", |client| seen(client).starts_with("10 %"));
    assert_eq!((ask(&mut client), ask(&mut client)), (2, 2));
    let workspace = status(&mut client).workspaces.remove(0);
    assert_eq!((workspace.files_parsed, workspace.revision.epoch), (3, epoch));
}

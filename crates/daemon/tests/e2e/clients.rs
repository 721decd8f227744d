//! Several clients, and clients that go away.

use crate::support::{
    Daemon, LONG_ANSWER_FILES, PATIENCE, long_answer, long_lines, open, pattern, run, status,
};
use astscope_fixtures::Fixture;
use astscope_protocol::Client;
use astscope_protocol::messages::method;
use std::net::Shutdown;
use std::time::Instant;

/// Asks until the daemon has noticed that the others are gone.
#[track_caller]
fn wait_until_alone(client: &mut Client) {
    let started = Instant::now();
    while status(client).clients > 1 {
        assert!(started.elapsed() < PATIENCE, "a client that left is still counted");
    }
}

#[test]
fn a_client_that_vanishes_in_the_middle_of_its_answer_disturbs_nobody() {
    let mut daemon = Daemon::start();
    let tree = long_answer();
    let mut stays = daemon.client();
    open(&mut stays, &tree.root());
    for n_lines_read in [0, 1, 20] {
        let mut leaves = daemon.lines();
        for id in 1..=8 {
            leaves.ask(id, method::RUN, &pattern(&tree, "js", "f($A)"));
        }
        for _ in 0..n_lines_read {
            assert!(leaves.message().is_some());
        }
        drop(leaves);
        let found = run(&mut stays, &pattern(&tree, "js", "f($A)"));
        assert_eq!(found.summary.matches, LONG_ANSWER_FILES);
    }
    wait_until_alone(&mut stays);
    // Draining ends only when no request is in flight.
    daemon.stop(true);
    assert!(daemon.join().is_ok());
}

#[test]
fn whoever_is_connected_is_on_the_roll_and_whoever_left_is_not() {
    let daemon = Daemon::start();
    let mut stays = daemon.client();
    let (silent, greeted) = (daemon.silent(), daemon.client());
    let started = Instant::now();
    let roll = |client: &mut Client| -> Vec<(u64, String)> {
        let sessions = status(client).sessions.into_iter();
        sessions.map(|session| (session.session, session.client)).collect()
    };
    let named = |session| (session, "test 0.0.0".to_owned());
    let all = [named(1), (2, String::new()), named(3)];
    while roll(&mut stays) != all {
        assert!(started.elapsed() < PATIENCE, "{:?}", roll(&mut stays));
    }
    drop((silent, greeted));
    while roll(&mut stays) != [named(1)] {
        assert!(started.elapsed() < PATIENCE, "{:?}", roll(&mut stays));
    }
}

#[test]
fn a_client_that_says_no_more_has_given_its_requests_up() {
    let daemon = Daemon::start();
    let tree = long_answer();
    let mut leaves = daemon.lines();
    leaves.ask(1, method::RUN, &pattern(&tree, "js", "f($A)"));
    leaves.stream().shutdown(Shutdown::Write).unwrap();
    let mut n_lines = 0;
    while leaves.line().is_some() {
        n_lines += 1;
    }
    assert!(n_lines < LONG_ANSWER_FILES, "{n_lines} lines");
    wait_until_alone(&mut daemon.client());
}

#[test]
fn clients_that_do_not_read_keep_nobody_else_from_being_served() {
    let daemon = Daemon::start();
    // All requests of a connection together are more than any buffer holds.
    let tree = long_lines(6);
    let mut reads = daemon.client();
    open(&mut reads, &tree.root());
    let stuck: Vec<_> = (0..4)
        .map(|_| {
            let mut connection = daemon.lines();
            for id in 1..=32 {
                connection.ask(id, method::RUN, &pattern(&tree, "js", "f($A)"));
            }
            connection
        })
        .collect();
    assert_eq!(run(&mut reads, &pattern(&tree, "js", "f($A)")).summary.matches, 6);
    drop(stuck);
    wait_until_alone(&mut reads);
}

#[test]
fn two_clients_at_once_on_two_trees_get_their_own_answers() {
    let daemon = Daemon::start();
    let trees = ["one", "two"].map(|word| {
        let tree = Fixture::empty();
        for i in 0..20 {
            tree.write(format!("{i:02}.js"), format!("{word}({i})\n"));
        }
        (word, tree)
    });
    std::thread::scope(|scope| {
        for (word, tree) in &trees {
            let mut client = daemon.client();
            scope.spawn(move || {
                for round in 0..20 {
                    tree.write("00.js", format!("{word}({round}); {word}()\n"));
                    let found = run(&mut client, &pattern(tree, "js", "$F($A)"));
                    assert_eq!(found.summary.matches, 20);
                    assert_eq!(found.shown()[0], format!("00.js:1:1 {word}({round})"));
                    assert!(
                        found.records().iter().all(|found| found
                            .text
                            .as_ref()
                            .unwrap()
                            .starts_with(word))
                    );
                }
            });
        }
    });
    let roots: Vec<String> =
        status(&mut daemon.client()).workspaces.into_iter().map(|it| it.root).collect();
    let mut expected = trees.map(|(_, tree)| crate::support::text(&tree.root()));
    expected.sort();
    assert_eq!(roots, expected);
}

#[test]
fn many_clients_on_one_tree_get_the_same_answer_while_it_is_indexed() {
    let daemon = Daemon::start();
    let tree = long_answer();
    let params = pattern(&tree, "js", "f($A)");
    std::thread::scope(|scope| {
        let asked: Vec<_> = (0..8)
            .map(|_| {
                let mut client = daemon.client();
                let params = &params;
                scope.spawn(move || run(&mut client, params).shown())
            })
            .collect();
        let answers: Vec<_> = asked.into_iter().map(|thread| thread.join().unwrap()).collect();
        assert_eq!(answers[0].len() as u64, LONG_ANSWER_FILES);
        assert!(answers.iter().all(|answer| *answer == answers[0]));
    });
    assert_eq!(status(&mut daemon.client()).workspaces[0].files_parsed, LONG_ANSWER_FILES);
}

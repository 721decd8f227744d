//! What may stand in a source file.
//!
//! Tokens are looked for in code only, comments and literals blanked, so that this file may name
//! what it bans. Where the comment itself is the offence, the token is put together with `concat!`.

use super::code::code_only;
use super::floors::ARCHITECTURE;
use super::{Tree, Violation};

/// Lines that a source may have. A file that needs more holds two ideas.
const SOURCE_LINES_MAX: usize = 900;

/// Lines that the map may have: longer, and nobody reads it.
const ARCHITECTURE_LINES_MAX: usize = 400;

/// Never in code, and what to do instead.
const BANNED: &[(&str, &str)] = &[
    ("#[ignore", "a test that doesn't run is no test: assert today's answer and say why"),
    ("#[should_panic", "assert the error instead"),
    ("todo!(", "finish it, or leave it out"),
    ("unimplemented!(", "finish it, or leave it out"),
    ("dbg!(", "a debugging aid is not part of a change"),
    ("#[allow(", "use #[expect(…, reason = \"…\")]: it removes itself"),
    ("#![allow(", "use #![expect(…, reason = \"…\")]: it removes itself"),
];

/// Never anywhere in a source, comments included.
const BANNED_IN_PROSE: &[(&str, &str)] = &[
    (concat!("FIX", "ME"), "fix it, or open an issue"),
    (concat!("```", "ignore"), "an example compiles, or it is ```text"),
];

/// Calls that start something which outlives its caller.
const SPAWNS: &[&str] = &[
    "tokio::spawn",
    "task::spawn",
    "spawn_blocking(",
    "spawn_local(",
    "thread::spawn",
    "thread::Builder",
    "unbounded_channel",
];

/// The crate that may: whatever it starts is supervised.
const SPAWN_CRATE: &str = "crates/supervision/src/";

/// Keeps a thread busy for real, which a paused clock can't measure.
const REAL_CLOCK_FILE: &str = "crates/supervision/src/probe.rs";

/// Directories of the machine that somebody works on.
const MACHINE_DIRS: &[&str] = &[
    concat!("/ho", "me/"),
    concat!("/ro", "ot/"),
    concat!("/wo", "rk/"),
    concat!("/Us", "ers/"),
    concat!("/tmp/", "corpora"),
];

/// Every source begins with a header that says why it is a file of its own.
pub(super) fn check_headers(tree: &Tree) -> Vec<Violation> {
    let headless = tree.rust_files().filter(|(_, text)| !text.starts_with("//!"));
    let message = "begins without a `//!` header: say why this is a file of its own";
    headless.map(|(path, _)| Violation::new("header", path, message)).collect()
}

/// Nothing unfinished, skipped or silenced.
pub(super) fn check_banned(tree: &Tree) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (path, text) in tree.rust_files() {
        violations.extend(find("banned", path, &code_only(text), BANNED));
        violations.extend(find("banned", path, text, BANNED_IN_PROSE));
    }
    violations
}

fn find(rule: &'static str, path: &str, text: &str, tokens: &[(&str, &str)]) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (line, content) in text.lines().enumerate() {
        for (token, instead) in tokens.iter().filter(|(token, _)| contains_token(content, token)) {
            violations.push(Violation::new(
                rule,
                format!("{path}:{}", line + 1),
                format!("`{token}`: {instead}"),
            ));
        }
    }
    violations
}

/// Whether `token` occurs where no longer name ends in it: `todo!(` isn't in `not_todo!(`.
fn contains_token(line: &str, token: &str) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(token)
        .any(|(at, _)| !token.starts_with(is_word) || !line[..at].ends_with(is_word))
}

/// No source and no map that nobody can read at one sitting.
pub(super) fn check_length(tree: &Tree) -> Vec<Violation> {
    let sources = tree.rust_files().map(|(path, text)| (path, text, SOURCE_LINES_MAX));
    let files = sources.chain([(ARCHITECTURE, tree.text(ARCHITECTURE), ARCHITECTURE_LINES_MAX)]);
    let too_long = files.filter_map(|(path, text, max)| {
        let n_lines = text.lines().count();
        let message = || format!("{n_lines} lines, {max} at most: which two ideas are these?");
        (n_lines > max).then(|| Violation::new("length", path, message()))
    });
    too_long.collect()
}

/// What runs on its own is started by a supervisor.
pub(super) fn check_spawns(tree: &Tree) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (path, text) in tree.rust_files() {
        let in_product = path.starts_with("crates/")
            && path.contains("/src/")
            && !path.starts_with("crates/fixtures/");
        if !in_product
            || path.starts_with(SPAWN_CRATE)
            || path.ends_with("tests.rs")
            || path.contains("/tests/")
        {
            continue;
        }
        let code = code_only(text);
        let product = code.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        let tokens: Vec<_> = SPAWNS
            .iter()
            .map(|token| (*token, "only a supervisor may start what runs on its own"))
            .collect();
        violations.extend(find("spawn", path, product, &tokens));
    }
    violations
}

/// Supervision knows one clock, which a test can pause.
pub(super) fn check_clocks(tree: &Tree) -> Vec<Violation> {
    let sources = tree.rust_files().filter(|(path, _)| path.starts_with(SPAWN_CRATE));
    let others = sources.filter(|(path, _)| *path != REAL_CLOCK_FILE);
    let tokens: Vec<_> = ["std::time::Instant", "time::SystemTime"]
        .map(|token| (token, "time comes from tokio::time, so that a test can pause it"))
        .into();
    others.flat_map(|(path, text)| find("clock", path, &code_only(text), &tokens)).collect()
}

/// The command line is a client. It names the daemon's crate only where it becomes the daemon.
pub(super) fn check_daemon_in_serve(tree: &Tree) -> Vec<Violation> {
    let sources = tree.rust_files().filter(|(path, _)| path.starts_with("crates/cli/src/"));
    let others = sources.filter(|(path, _)| *path != "crates/cli/src/serve.rs");
    let tokens = &[(
        "astscope_daemon",
        "the cli names the daemon only in `serve.rs`: everything else goes over the socket",
    )];
    others
        .flat_map(|(path, text)| find("daemon-in-serve", path, &code_only(text), tokens))
        .collect()
}

/// No file knows the machine that it was written on.
pub(super) fn check_machine_paths(tree: &Tree) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (path, text) in tree.files.iter().filter(|(path, _)| *path != "Cargo.lock") {
        for (line, content) in text.lines().enumerate() {
            for dir in MACHINE_DIRS.iter().filter(|dir| contains_root(content, dir)) {
                let message = format!("a path under `{dir}` of somebody's machine");
                violations.push(Violation::new(
                    "machine-path",
                    format!("{path}:{}", line + 1),
                    message,
                ));
            }
        }
    }
    violations
}

/// Whether an absolute path begins with `dir` here: `src` before it makes it a relative one, and
/// `me` behind it an example.
fn contains_root(line: &str, dir: &str) -> bool {
    let in_path =
        |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '/' | '}' | '*' | ')' | '>');
    line.match_indices(dir)
        .any(|(at, _)| !line[..at].ends_with(in_path) && !line[at + dir.len()..].starts_with("me/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIB: &str = "crates/a/src/lib.rs";

    fn places(violations: &[Violation]) -> Vec<&str> {
        violations.iter().map(|violation| violation.at.as_str()).collect()
    }

    #[test]
    fn a_source_without_header_is_found() {
        let tree = Tree::of([
            (LIB, "//! Why.\n"),
            ("xtask/src/main.rs", "use a;\n//! late\n"),
            ("benches/b.rs", ""),
        ]);
        assert_eq!(places(&check_headers(&tree)), ["benches/b.rs", "xtask/src/main.rs"]);
    }

    #[test]
    fn banned_tokens_are_found_in_code() {
        for (token, _) in BANNED {
            let tree = Tree::of([(LIB, format!("//! x\n  {token}x)\n").as_str())]);
            assert_eq!(places(&check_banned(&tree)), ["crates/a/src/lib.rs:2"], "{token}");
        }
    }

    #[test]
    fn banned_tokens_are_no_offence_in_prose_data_and_longer_names() {
        let text =
            "//! No todo!( here\nlet a = \"dbg!(x)\"; not_todo!(); // #[allow(x)]\n#[expect(x)]\n";
        assert_eq!(check_banned(&Tree::of([(LIB, text)])), []);
    }

    #[test]
    fn some_tokens_are_banned_in_prose_too() {
        for (token, _) in BANNED_IN_PROSE {
            let tree = Tree::of([(LIB, format!("//! x\n\n/// {token}\n").as_str())]);
            assert_eq!(places(&check_banned(&tree)), ["crates/a/src/lib.rs:3"], "{token}");
        }
    }

    #[test]
    fn a_file_that_is_too_long_is_found() {
        let (long, limit) = ("x\n".repeat(SOURCE_LINES_MAX + 1), "x\n".repeat(SOURCE_LINES_MAX));
        let map = "x\n".repeat(ARCHITECTURE_LINES_MAX + 1);
        let tree = Tree::of([
            (LIB, long.as_str()),
            ("crates/a/src/b.rs", limit.as_str()),
            (ARCHITECTURE, map.as_str()),
        ]);
        assert_eq!(places(&check_length(&tree)), [LIB, ARCHITECTURE]);
    }

    #[test]
    fn spawning_belongs_to_supervision() {
        for token in SPAWNS {
            let text = format!("//! x\nfn f() {{ {token}(g) }}\n");
            assert_eq!(
                places(&check_spawns(&Tree::of([(LIB, text.as_str())]))),
                ["crates/a/src/lib.rs:2"],
                "{token}"
            );
            let allowed = "crates/supervision/src/driver.rs";
            assert_eq!(check_spawns(&Tree::of([(allowed, text.as_str())])), []);
        }
    }

    #[test]
    fn supervision_has_one_clock() {
        let text = "//! x\nuse std::time::Instant;\nfn f(at: std::time::SystemTime) {}\n";
        let path = "crates/supervision/src/driver.rs";
        let tree = Tree::of([(path, text), (REAL_CLOCK_FILE, text), (LIB, text)]);
        assert_eq!(places(&check_clocks(&tree)), [format!("{path}:2"), format!("{path}:3")]);
    }

    #[test]
    fn tests_may_spawn_and_so_may_a_scope() {
        let text = "fn f() { thread::scope(|s| s.spawn(g)); }\n#[cfg(test)]\nmod tests {\n  fn f() { thread::spawn(g); }\n}\n";
        assert_eq!(
            check_spawns(&Tree::of([(LIB, text), ("crates/a/tests/x.rs", "thread::spawn(f)")])),
            []
        );
    }

    #[test]
    fn the_cli_names_the_daemon_in_one_place() {
        let text = "//! Never astscope_daemon.\nuse astscope_daemon::serve;\n";
        let tree = Tree::of([
            ("crates/cli/src/serve.rs", text),
            ("crates/cli/src/run.rs", text),
            (LIB, text),
        ]);
        assert_eq!(places(&check_daemon_in_serve(&tree)), ["crates/cli/src/run.rs:2"]);
    }

    #[test]
    fn a_path_of_a_machine_is_found_in_every_kind_of_file() {
        for dir in MACHINE_DIRS {
            let text = format!("relative src{dir}x or {dir}me/x\nsee `{dir}x`\n");
            let tree = Tree::of([("README.md", text.as_str()), ("Cargo.lock", text.as_str())]);
            assert_eq!(places(&check_machine_paths(&tree)), ["README.md:2"], "{dir}");
        }
    }
}

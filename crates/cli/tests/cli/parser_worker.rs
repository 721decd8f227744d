//! The real program as a parser, which only a daemon runs.

use astscope_parsing::service::{ParserConfig, ParserHandle, supervisor};
use astscope_parsing::worker::Restrictions;
use astscope_parsing::{Backend, Limits, Source};
use astscope_supervision::{Strategy, SupervisorSpec};
use astscope_syntax::Language;
use std::process::{Command, Stdio};

const PROGRAM: &str = env!("CARGO_BIN_EXE_astscope");

#[test]
fn a_parser_greets_and_ends_with_its_input() {
    let output = Command::new(PROGRAM).arg("parser-worker").stdin(Stdio::null()).output().unwrap();
    assert_eq!((output.status.code(), &*output.stderr), (Some(0), &b""[..]));
    let [greeting @ .., _restrictions] = &output.stdout[..] else { panic!("no greeting") };
    assert_eq!(greeting, [0, 5, 0, 0, 0, 1, 0, 0, 0]);
}

#[test]
fn nobody_is_told_about_it() {
    let output = Command::new(PROGRAM).arg("--help").output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    assert!(help.contains("serve") && !help.contains("parser-worker"), "{help}");
}

/// Has a text parsed by a pool of them, and looks at what there is then.
fn parse(text: &str, look: impl FnOnce(&ParserHandle)) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let config = ParserConfig::new(PROGRAM, ["parser-worker".into()]);
    let (spec, parsers) = supervisor(config, runtime.handle().clone()).unwrap();
    let tree = SupervisorSpec::new(Strategy::OneForOne).child(spec);
    let root = runtime.block_on(tree.start("root")).unwrap();
    let source = Source::new(text.into(), Language::Rust);
    let results = parsers.parse_batch(&[source], &Limits::DAEMON, &|| false);
    assert_eq!(results[0].as_ref().unwrap().tree.tree.root().kind(), "source_file");
    look(&parsers);
    runtime.block_on(root.shutdown());
}

#[test]
fn a_pool_of_them_parses() {
    parse("fn f() {}", |parsers| {
        let status = parsers.status();
        let restrictions = status.restrictions.unwrap();
        let always = Restrictions::MEMORY.with(Restrictions::NO_FILES);
        assert!(restrictions.contains(always), "{restrictions}");
        assert_eq!(status.n_lost, 0);
    });
}

/// Anonymous memory of the largest parser that this process runs, in KiB.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn largest_parser() -> Option<u64> {
    let field = |status: &str, name: &str| {
        let value = status.lines().find_map(|line| line.strip_prefix(name))?;
        value.split_whitespace().next()?.parse::<u64>().ok()
    };
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let statuses =
        processes.filter_map(|it| std::fs::read_to_string(it.path().join("status")).ok());
    let own = u64::from(std::process::id());
    let children = statuses.filter(|status| field(status, "PPid:") == Some(own));
    children.filter_map(|status| field(&status, "RssAnon:")).max()
}

#[test]
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn it_gives_back_what_a_large_file_took() {
    let large = "fn f(a: u32, b: u32) -> u32 { other(a + 1, b * 2) }\n".repeat(14_000);
    parse(&large, |_| {
        let began = std::time::Instant::now();
        loop {
            let kib = largest_parser().unwrap();
            if kib < 8 << 10 {
                break;
            }
            assert!(began.elapsed().as_secs() < 10, "{kib} KiB stay");
            std::thread::yield_now();
        }
    });
}

//! The real program as a parser, which only a daemon runs.

use astscope_parsing::service::{ParserConfig, supervisor};
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

#[test]
fn a_pool_of_them_parses() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let config = ParserConfig::new(PROGRAM, ["parser-worker".into()]);
    let (spec, parsers) = supervisor(config, runtime.handle().clone()).unwrap();
    let tree = SupervisorSpec::new(Strategy::OneForOne).child(spec);
    let root = runtime.block_on(tree.start("root")).unwrap();
    let source = Source::new("fn f() {}".into(), Language::Rust);
    let results = parsers.parse_batch(&[source], &Limits::DAEMON, &|| false);
    assert_eq!(results[0].as_ref().unwrap().tree.tree.root().kind(), "source_file");
    let status = parsers.status();
    let restrictions = status.restrictions.unwrap();
    let always = Restrictions::MEMORY.with(Restrictions::NO_FILES);
    assert!(restrictions.contains(always), "{restrictions}");
    assert_eq!(status.n_lost, 0);
    runtime.block_on(root.shutdown());
}

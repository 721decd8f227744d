//! Output that equals ast-grep's, byte for byte.
//!
//! `data/cases.txt` has a line per case: its name, whose matches it prints, ast-grep's exit code,
//! and ast-grep's arguments. `data/expected` holds what ast-grep 0.51.1 printed in `data` for
//! these arguments, and `data/matches` what it printed with `--json=compact` instead, from which
//! the fake daemon answers. In SARIF logs the name and version of the tool are ours.

use crate::support::{Fake, Session};
use std::fs;
use std::path::PathBuf;

#[test]
fn output_equals_that_of_ast_grep() {
    let data = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data"));
    let cases = fs::read_to_string(data.join("cases.txt")).unwrap();
    for case in cases.lines() {
        let [name, matches, code, arguments] = case.splitn(4, ' ').collect::<Vec<_>>()[..] else {
            panic!("not a case: {case}");
        };
        let arguments: Vec<String> = serde_json::from_str(arguments).unwrap();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let matches = fs::read_to_string(data.join(format!("matches/{matches}.json"))).unwrap();
        let output = Session::new(&data).run(&mut Fake::with_matches(&matches, &data), &arguments);
        assert_eq!(output.code, code.parse::<u8>().unwrap(), "{name}: {}", output.err);
        // Not by expect-test, which takes CRLF for LF.
        let expected = fs::read_to_string(data.join(format!("expected/{name}.txt"))).unwrap();
        assert!(
            output.out == expected,
            "{name}\n--- ast-grep\n{expected}\n--- ours\n{}",
            output.out
        );
    }
}

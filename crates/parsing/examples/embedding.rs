//! Parses files without a daemon: `cargo run -p astscope-parsing --example embedding FILE…`
//! prints what each tree costs, and where its syntax errors are.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line example")]

use astscope_parsing::{Limits, admit, parse};
use astscope_syntax::{Language, LineIndex};
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut failed = false;
    for path in std::env::args().skip(1) {
        match report(&path) {
            Ok(line) => println!("{path}: {line}"),
            Err(reason) => {
                eprintln!("{path}: {reason}");
                failed = true;
            }
        }
    }
    ExitCode::from(u8::from(failed))
}

fn report(path: &str) -> Result<String, String> {
    let language = Language::from_path(Path::new(path)).ok_or("its name says no language")?;
    let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
    let text = admit(bytes, &Limits::DAEMON).map_err(|reason| reason.to_string())?;
    let file = parse(text, language, &Limits::DAEMON, &mut || false)
        .map_err(|reason| reason.to_string())?;

    let tree = &file.tree.tree;
    let lines = LineIndex::new(&*file.text);
    let errors = tree.root().subtree().filter(|node| node.is_error() || node.is_missing());
    let places: Vec<String> = errors
        .map(|node| {
            let at = lines.position(node.range().start);
            format!("{}:{}", at.line + 1, at.column + 1)
        })
        .collect();
    let (nodes, bytes) = (tree.n_nodes(), tree.heap_bytes());
    let summary = format!("{language}, {nodes} nodes in {bytes} bytes, {} levels", tree.depth());
    Ok(if places.is_empty() {
        summary
    } else {
        format!("{summary}, errors at {}", places.join(", "))
    })
}

//! Which files a query means: globs, ignore sources, languages.

use crate::support::{Daemon, everything, pattern, run, scan};
use astscope_fixtures::Fixture;
use astscope_protocol::messages::{IgnoreKind, RuleSource, ScanParams};

#[test]
fn globs_ignore_sources_and_links_are_those_of_ast_grep() {
    let daemon = Daemon::start();
    let tree = Fixture::parse(
        "//- /.git/HEAD\nref: refs/heads/main\n//- /.gitignore\nout\n//- /.ignore\ndotted\n\
         //- /a.js\nf(1)\n//- /out/b.js\nf(2)\n//- /dotted/c.js\nf(3)\n//- /.hid/d.js\nf(4)\n",
    );
    let mut client = daemon.client();
    let mut files = |globs: &[&str], no_ignore: &[IgnoreKind]| {
        let mut params = pattern(&tree, "js", "f($A)");
        params.selection.globs = globs.iter().map(|glob| (*glob).to_owned()).collect();
        params.selection.no_ignore = no_ignore.to_vec();
        run(&mut client, &params).files().join(" ")
    };
    assert_eq!(files(&[], &[]), "a.js");
    assert_eq!(files(&[], &[IgnoreKind::Vcs]), "a.js out/b.js");
    assert_eq!(files(&[], &[IgnoreKind::Dot]), "a.js dotted/c.js");
    assert_eq!(files(&[], &[IgnoreKind::Hidden]), ".hid/d.js a.js");
    assert_eq!(files(&["!a.js"], &[]), "");
    assert_eq!(files(&["*.ts"], &[]), "");
}

#[test]
fn without_a_language_each_file_is_searched_as_what_it_is() {
    let daemon = Daemon::start();
    let tree = Fixture::parse(
        "//- /a.js\nf(1)\n//- /b.py\nf(2)\n//- /c.html\n<script>f(3)</script>\n//- /d.txt\nf(4)\n",
    );
    let mut client = daemon.client();
    let mut params = pattern(&tree, "js", "f($A)");
    assert_eq!(run(&mut client, &params).files(), ["a.js", "c.html"]);
    params.language = None;
    let found = run(&mut client, &params);
    assert_eq!(found.files(), ["a.js", "b.py", "c.html"]);
    params.selection.language_globs = [("js".to_owned(), vec!["*.txt".to_owned()])].into();
    assert_eq!(run(&mut client, &params).files(), ["a.js", "b.py", "c.html", "d.txt"]);
    params.selection.language_globs.clear();
    assert_eq!(run(&mut client, &params).files(), ["a.js", "b.py", "c.html"]);
}

#[test]
fn a_rules_globs_are_relative_to_its_project() {
    let daemon = Daemon::start();
    let tree =
        Fixture::parse("//- /lib/a.js\nf(1)\n//- /lib/skip.js\nf(2)\n//- /test/b.js\nf(3)\n");
    let yaml =
        "id: r\nlanguage: js\nrule: {pattern: f($A)}\nfiles: [lib/**]\nignores: [lib/skip.js]\n";
    let mut params = ScanParams {
        selection: everything(&tree),
        rules: vec![RuleSource { source: "r.yml".into(), yaml: yaml.into(), default_id: None }],
        project_dir: everything(&tree).cwd,
        ..ScanParams::default()
    };
    let mut client = daemon.client();
    assert_eq!(scan(&mut client, &params).files(), ["lib/a.js"]);
    params.selection.cwd = crate::support::text(&tree.path("lib"));
    assert_eq!(scan(&mut client, &params).files(), ["a.js"]);
}

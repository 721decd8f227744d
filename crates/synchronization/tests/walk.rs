//! The walk against what `ast-grep run --files-with-matches` 0.51.1 printed for the same tree.
//!
//! The expectations were recorded with the real program, each line with the arguments in its test.
#![expect(clippy::unwrap_used, reason = "test helpers that stop on failure")]

use astscope_fixtures::Fixture;
use astscope_synchronization::walk::{Walked, walk};
use astscope_synchronization::{IgnoreSource, LanguageGlobs, WalkSpec};
use astscope_syntax::Language;
use std::os::unix::fs::{PermissionsExt, symlink};

const NOTHING_SPECIAL: &str = "a.js keep.gen.js lib/deep/c.js src/b.js src/page.html sub/d.js \
     sub/inner/e.js sub/keep.gen.js sub/x.gen.js vendored/ok.js wt/w.js wt/z.gen.js";

/// A repository with ignore files, a nested one, a worktree, hidden files and symlinks.
fn tree() -> Fixture {
    let fixture = Fixture::parse(
        "//- /.git/HEAD\n
         //- /.gitignore\ntarget/\nign/\n*.gen.js\n!keep.gen.js\n/vendored/**\n!/vendored/ok.js\n\
         //- /.ignore\nskipme.js\n\
         //- /sub/.git/HEAD\n
         //- /sub/.gitignore\ninner/only.js\n\
         //- /wt/.git\ngitdir: ../elsewhere\n"
            .replace("         //-", "//-")
            .as_str(),
    );
    for path in "a.js src/b.js src/skipme.js lib/deep/c.js sub/d.js sub/inner/only.js \
         sub/inner/e.js sub/x.gen.js sub/keep.gen.js .hidden/h.js .dot.js ign/i.js wt/w.js \
         wt/z.gen.js target/t.js x.gen.js keep.gen.js vendored/v.js vendored/ok.js src/page.html \
         noext"
        .split_whitespace()
    {
        fixture.write(path, "f(1)\n");
    }
    let link = |to: &str, from: &str| symlink(to, fixture.path(from)).unwrap();
    link("../src", "lib/link");
    link(".", "src/loop");
    link("a.js", "linkfile.js");
    link("nowhere.js", "broken.js");
    link("src", "srclink");
    fixture
}

/// What the command line says: flags, then paths.
fn spec(fixture: &Fixture, cwd: &str, arguments: &[&str]) -> WalkSpec {
    let mut spec = WalkSpec { cwd: fixture.path(cwd), ..WalkSpec::default() };
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        match *argument {
            "-l" => spec.languages = Some(vec![arguments.next().unwrap().parse().unwrap()]),
            "--globs" => spec.globs.push((*arguments.next().unwrap()).to_owned()),
            "--follow" => spec.follow = true,
            "--no-ignore" => spec.no_ignore.push(match *arguments.next().unwrap() {
                "hidden" => IgnoreSource::Hidden,
                "dot" => IgnoreSource::Dot,
                "exclude" => IgnoreSource::Exclude,
                "global" => IgnoreSource::Global,
                "parent" => IgnoreSource::Parent,
                _ => IgnoreSource::Vcs,
            }),
            path => spec.paths.push(path.to_owned()),
        }
    }
    spec
}

fn run(spec: &WalkSpec) -> Walked {
    walk(spec, &|| false).unwrap()
}

fn displays(walked: &Walked) -> String {
    let displays: Vec<&str> = walked.files.iter().map(|found| &*found.display).collect();
    displays.join(" ")
}

#[track_caller]
fn check(cwd: &str, arguments: &[&str], expected: &str) {
    let fixture = tree();
    let walked = run(&spec(&fixture, cwd, arguments));
    assert_eq!(displays(&walked), expected, "in {cwd}: {arguments:?}");
    for found in &walked.files {
        let typed = fixture.path(cwd).join(&*found.display);
        assert_eq!(&*found.abs, typed.canonicalize().unwrap(), "{}", found.display);
    }
}

#[test]
fn nothing_typed_is_the_current_directory() {
    check("", &[], NOTHING_SPECIAL);
    check("", &["."], NOTHING_SPECIAL);
    check("", &["./"], NOTHING_SPECIAL);
}

#[test]
fn a_path_is_printed_as_it_was_typed() {
    check("", &["src"], "src/b.js src/page.html");
    check("", &["src/"], "src/b.js src/page.html");
    check("", &["./src"], "src/b.js src/page.html");
    check("", &["././src"], "src/b.js src/page.html");
    check("", &["src//"], "src//b.js src//page.html");
    check("", &["-l", "js", "src/."], "src/./b.js src/./page.html");
    check("", &["src/../lib"], "src/../lib/deep/c.js");
    check("", &["-l", "js", "./a.js", "././a.js"], "a.js a.js");
    check("src", &["../lib"], "../lib/deep/c.js");
    check("src", &[], "b.js page.html");
    let fixture = tree();
    let typed = fixture.path("src").to_string_lossy().into_owned();
    let walked = run(&spec(&fixture, "", &[&typed]));
    assert_eq!(displays(&walked), format!("{typed}/b.js {typed}/page.html"));
}

#[test]
fn what_is_typed_twice_is_found_twice() {
    check("", &["lib", "src", "lib"], "lib/deep/c.js lib/deep/c.js src/b.js src/page.html");
    let twice = NOTHING_SPECIAL
        .replace("src/b.js src/page.html", "src/b.js src/b.js src/page.html src/page.html");
    check("", &[".", "src"], &twice);
}

#[test]
fn going_up_keeps_the_rules_of_what_lies_there() {
    let expected = "../a.js ../keep.gen.js ../lib/deep/c.js ../src/b.js ../src/page.html \
         ../sub/d.js ../sub/inner/e.js ../sub/keep.gen.js ../sub/x.gen.js ../vendored/ok.js \
         ../wt/w.js ../wt/z.gen.js";
    check("src", &[".."], expected);
    check("sub", &[".."], expected);
    check("sub", &[], "d.js inner/e.js keep.gen.js x.gen.js");
    check("vendored", &[], "ok.js");
    check("wt", &[], "w.js z.gen.js");
}

#[test]
fn what_is_named_is_searched_though_it_is_ignored_or_hidden() {
    check("", &["ign"], "ign/i.js");
    check("", &["ign/i.js"], "ign/i.js");
    check("src", &["../ign"], "../ign/i.js");
    check("ign", &[], "i.js");
    check("target", &[], "t.js");
    check("", &[".hidden"], ".hidden/h.js");
    check("", &[".hidden/h.js"], ".hidden/h.js");
    check("", &["-l", "js", ".dot.js"], ".dot.js");
    check("", &["-l", "rust", "a.js"], "");
}

#[test]
fn a_language_selects_its_files_its_hosts_and_even_hidden_ones() {
    check("", &["-l", "js"], &format!(".dot.js {NOTHING_SPECIAL}"));
    check("", &["-l", "js", "src/page.html"], "src/page.html");
    check("", &["-l", "html"], "src/page.html");
    check("", &["-l", "rust"], "");
}

#[test]
fn symlinks_are_followed_only_where_they_are_named_or_it_is_asked_for() {
    check("", &["linkfile.js"], "linkfile.js");
    check("", &["srclink"], "srclink/b.js srclink/page.html");
    check("", &["srclink/"], "srclink/b.js srclink/page.html");
    let expected = "a.js keep.gen.js lib/deep/c.js lib/link/b.js lib/link/page.html linkfile.js \
         src/b.js src/page.html srclink/b.js srclink/page.html sub/d.js sub/inner/e.js \
         sub/keep.gen.js sub/x.gen.js vendored/ok.js wt/w.js wt/z.gen.js";
    check("", &["--follow"], expected);
    check("", &["--follow", "-l", "js", "src"], "src/b.js src/page.html");
}

#[test]
fn loops_broken_links_and_missing_paths_are_reported_and_survived() {
    let fixture = tree();
    let walked = run(&spec(&fixture, "", &["--follow"]));
    let issues: Vec<_> =
        walked.issues.iter().map(|issue| format!("{}: {}", issue.display, issue.error)).collect();
    assert_eq!(
        issues,
        [
            "broken.js: No such file or directory (os error 2)",
            "lib/link/loop: a loop: it leads back to lib/link",
            "src/loop: a loop: it leads back to src",
            "srclink/loop: a loop: it leads back to srclink",
        ]
    );
    let walked = run(&spec(&fixture, "", &["nothere", "a.js", "-"]));
    assert_eq!(displays(&walked), "a.js");
    assert_eq!(walked.issues.len(), 1);
    assert_eq!(walked.issues[0].display, "nothere");
    assert_eq!(walked.resolved, [None, Some(fixture.path("a.js")), None]);
}

#[test]
fn globs_come_before_every_ignore_rule() {
    let expected = ".dot.js a.js keep.gen.js lib/deep/c.js src/b.js src/skipme.js sub/d.js \
         sub/inner/e.js sub/inner/only.js sub/keep.gen.js sub/x.gen.js vendored/ok.js \
         vendored/v.js wt/w.js wt/z.gen.js x.gen.js";
    check("", &["--globs", "*.js"], expected);
    let above: Vec<_> = expected.split(' ').map(|path| format!("../{path}")).collect();
    check("src", &["--globs", "*.js", ".."], &above.join(" "));
    let without = NOTHING_SPECIAL.replace("src/b.js src/page.html ", "");
    check("", &["--globs", "!src/**"], &without);
    check("", &["--globs", "src/**"], "src/b.js src/page.html src/skipme.js");
    check("", &["--globs", "ign/**"], "");
    check("", &["--globs", "**/*.html"], "src/page.html");
    check("", &["--globs", "./src/**"], "");
    check("", &["--globs", "!*.js", "--globs", "a.js"], "a.js");
    check("", &["src", "--globs", "src/b.js"], "src/b.js");
    check("", &["./src", "--globs", "src/b.js"], "src/b.js");
    check("", &["src", "--globs", "*.js", "-l", "html"], "");
    let broken = WalkSpec { globs: vec!["*.{rs".to_owned()], ..WalkSpec::default() };
    assert!(walk(&broken, &|| false).is_err());
}

#[test]
fn each_source_of_ignore_rules_can_be_disregarded() {
    for source in ["exclude", "global", "parent"] {
        check("", &["--no-ignore", source], NOTHING_SPECIAL);
    }
    check("", &["--no-ignore", "hidden"], &format!(".dot.js .hidden/h.js {NOTHING_SPECIAL}"));
    let dot = NOTHING_SPECIAL.replace("page.html", "page.html src/skipme.js");
    check("", &["--no-ignore", "dot"], &dot);
    let vcs = "a.js ign/i.js keep.gen.js lib/deep/c.js src/b.js src/page.html sub/d.js \
         sub/inner/e.js sub/inner/only.js sub/keep.gen.js sub/x.gen.js target/t.js vendored/ok.js \
         vendored/v.js wt/w.js wt/z.gen.js x.gen.js";
    check("", &["--no-ignore", "vcs"], vcs);
}

#[test]
fn a_gitignore_counts_only_inside_a_repository() {
    let fixture =
        Fixture::parse("//- /.gitignore\na.js\n//- /a.js\n1\n//- /.ignore\nb.js\n//- /b.js\n1\n");
    assert_eq!(displays(&run(&spec(&fixture, "", &[]))), "a.js");
    fixture.write(".git/HEAD", "");
    assert_eq!(displays(&run(&spec(&fixture, "", &[]))), "");
}

#[test]
fn language_globs_come_before_the_file_name() {
    let fixture = Fixture::parse("//- /a.js\n1\n//- /b.vue\n1\n//- /c.rs\n1\n");
    let globs = [(Language::Html, vec!["*.vue".to_owned(), "c.rs".to_owned()])];
    let globs = LanguageGlobs::compile(globs).unwrap();
    let with = |arguments: &[&str]| {
        let spec = WalkSpec { language_globs: globs.clone(), ..spec(&fixture, "", arguments) };
        let walked = run(&spec);
        let pairs =
            walked.files.iter().map(|found| format!("{} {}", found.display, found.language));
        pairs.collect::<Vec<_>>()
    };
    assert_eq!(with(&[]), ["a.js JavaScript", "b.vue Html", "c.rs Html"]);
    assert_eq!(with(&["-l", "html"]), ["b.vue Html", "c.rs Html"]);
    assert_eq!(with(&["-l", "rust"]), [""; 0]);
}

#[test]
fn erlang_scripts_are_found_by_their_shebang() {
    let fixture = Fixture::empty();
    for (path, mode) in [("bin/run", 0o755), ("bin/data", 0o644), ("bin/.hidden", 0o755)] {
        fixture.write(path, "#!/usr/bin/env escript\nmain(_) -> ok.\n");
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(fixture.path(path), permissions).unwrap();
    }
    fixture.write("a.erl", "-module(a).\n");
    for arguments in [&[][..], &["-l", "erlang"]] {
        assert_eq!(displays(&run(&spec(&fixture, "", arguments))), "a.erl bin/run");
    }
    assert_eq!(displays(&run(&spec(&fixture, "", &["-l", "rust"]))), "");
}

#[test]
fn a_walk_ends_when_it_is_told_to() {
    let fixture = tree();
    let walked = walk(&spec(&fixture, "", &[]), &|| true).unwrap();
    assert_eq!(displays(&walked), "");
}

//! What is accepted and refused: ast-grep's own table of command lines, and ours.

use super::*;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    let arguments =
        std::iter::once("astscope").chain(line.split(' ').filter(|word| !word.is_empty()));
    Cli::parse_arguments(arguments.map(OsString::from).collect())
}

#[track_caller]
fn accepted(line: &str) -> Command {
    match parse(line) {
        Ok(cli) => cli.command,
        Err(error) => panic!("`{line}` is refused: {error}"),
    }
}

#[track_caller]
fn refused(line: &str, by: &str) {
    match parse(line) {
        Ok(_) => panic!("`{line}` is accepted"),
        Err(error) => {
            let text = error.to_string();
            assert!(text.contains(by), "`{line}` is refused without naming {by}: {text}");
        }
    }
}

#[test]
fn the_command_line_is_consistent_in_itself() {
    Cli::command().debug_assert();
}

#[test]
fn run_takes_what_ast_grep_takes() {
    for line in [
        "run -p test -i",
        "run -p test --interactive dir",
        "run -p test -r Test dir",
        "run -p test -l rs --color always",
        "run -p test -l rs --heading always",
        "run -p test dir1 dir2 dir3",
        "run -p testm -r restm -U",
        "run -p testm -r restm --update-all",
        "run -p test --json compact",
        "run -p test --json=pretty dir",
        "run -p test --strictness relaxed",
        "run -p test --selector identifier -l js",
        "run -k identifier",
        "run --kind=call_expression>identifier -l js",
        "run -p test --follow",
        "run -p test --globs *.js --globs !*.ts",
        "run -p test --no-ignore hidden --no-ignore vcs",
        "run -p fubuki -j8",
        "run -p test --threads 12",
        "run -p test --files-with-matches",
        "run -p test -l rs -c config.yml",
        "run -p test --max-results 5 --no-wait --no-cache --deadline 10s",
        "run -p test -A 1 -B 2",
        "run -p test -C 3",
    ] {
        assert!(matches!(accepted(line), Command::Run(_)), "{line}");
    }
}

#[test]
fn run_refuses_what_ast_grep_refuses() {
    for (line, by) in [
        ("run test", "--pattern"),
        ("run -r Test dir", "--pattern"),
        ("run -p test -i --json dir", "--json"),
        ("run -p test -U", "--rewrite"),
        ("run -p test --strictness not", "--strictness"),
        ("run -p test --selector", "--selector"),
        ("run -p test -k identifier", "--kind"),
        ("run -k identifier --selector identifier", "--selector"),
        ("run -k identifier --strictness ast", "--strictness"),
        ("run -p test --threads", "--threads"),
        ("run -p test --files-with-matches -r test -U", "--files-with-matches"),
        ("run -p test --files-with-matches --json", "--json"),
        ("run -p test -C 1 -A 1", "--after"),
        ("run -p test --deadline 2h", "--deadline"),
        ("run -p test --wait 2h", "--wait"),
        ("run -p test --wait 2s --no-wait", "--no-wait"),
        ("run -p test --deadline 10", "--deadline"),
        ("run -p test --deadline 0s", "--deadline"),
    ] {
        refused(line, by);
    }
}

#[test]
fn scan_takes_what_ast_grep_takes() {
    for line in [
        "scan",
        "scan dir1 dir2",
        "scan -r rule.yml dir",
        "scan -c config.yml",
        "scan -r rule.yml -c config.yml --json dir",
        "scan --report-style short",
        "scan --format github",
        "scan --format sarif",
        "scan --interactive",
        "scan --json --include-metadata",
        "scan --filter no-.*",
        "scan --error",
        "scan --error=a --error=b --off=c --min-severity warning",
        "scan --inline-rules rule",
        "scan --max-results 3",
        "scan -A 12",
    ] {
        assert!(matches!(accepted(line), Command::Scan(_)), "{line}");
    }
}

#[test]
fn scan_refuses_what_ast_grep_refuses() {
    for (line, by) in [
        ("scan -i --json dir", "--json"),
        ("scan --format github --json", "--json"),
        ("scan --report-style rich --json", "--json"),
        ("scan --include-metadata", "--json"),
        ("scan -r rule.yml --filter a", "--filter"),
        ("scan --filter (", "--filter"),
        ("scan -r a.yml --inline-rules b", "--inline-rules"),
        ("scan --format local", "--format"),
        ("scan --min-severity high", "--min-severity"),
        ("scan --max-results 1 -i", "--max-results"),
    ] {
        refused(line, by);
    }
}

#[test]
fn flags_that_only_ast_grep_has_are_refused_by_name() {
    for (line, by) in [
        ("run -p a --inspect summary", "'--inspect'"),
        ("run -p a --inspect", "'--inspect'"),
        ("scan --inspect=entity", "'--inspect'"),
        ("run -p a -l rs --debug-query", "'--debug-query'"),
        ("run -p a -l rs --debug-query=cst", "'--debug-query'"),
        ("run -p a --custom-languages allow", "'--custom-languages'"),
        ("scan --custom-languages=trust", "'--custom-languages'"),
        ("test", "'test'"),
        ("new", "'new'"),
        ("lsp", "'lsp'"),
        ("outline", "'outline'"),
    ] {
        refused(line, by);
    }
}

#[test]
fn a_pattern_without_a_command_means_run() {
    for line in [
        "-p Some($A) -l rs",
        "--pattern=Some($A)",
        "-pSome($A)",
        "-l rs -p Some($A)",
        "-k identifier",
        "-c sgconfig.yml -p a",
        "--no-wait --no-cache -p a",
        "--wait 2s -p a",
    ] {
        assert!(matches!(accepted(line), Command::Run(_)), "{line}");
    }
    assert!(matches!(accepted("-c run.yml scan -r a.yml"), Command::Scan(_)));
    assert!(matches!(accepted("--color never explain -p a"), Command::Explain(_)));
    refused("-l rs", "-l");
    refused("Some($A)", "Some($A)");
}

#[test]
fn durations_have_a_unit() {
    assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
    assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
    assert_eq!(duration("2m"), Ok(Duration::from_mins(2)));
    assert_eq!(duration("1h"), Ok(Duration::from_hours(1)));
    for text in ["", "5", "s", "-1s", "1.5s", "99999999999999999999h", "18446744073709551615h"] {
        assert!(duration(text).is_err(), "{text}");
    }
}

#[test]
fn serve_has_an_idle_timeout_that_can_be_turned_off() {
    let Command::Serve(args) = accepted("serve --root a --root b --idle-timeout never") else {
        panic!("not serve");
    };
    assert_eq!((args.root.len(), args.idle_timeout), (2, Some(IdleTimeout(None))));
    let Command::Serve(args) = accepted("serve --idle-timeout 90s --spawned") else {
        panic!("not serve");
    };
    assert_eq!(args.idle_timeout, Some(IdleTimeout(Some(Duration::from_secs(90)))));
    refused("serve --idle-timeout soon", "--idle-timeout");
}

#[test]
fn serve_has_settings_of_its_own_and_no_project() {
    for line in ["serve --config a.toml", "serve -c a.toml"] {
        let Command::Serve(args) = accepted(line) else { panic!("not serve") };
        assert_eq!(args.config.as_deref(), Some(std::path::Path::new("a.toml")), "{line}");
        assert_eq!(args.idle_timeout, None, "the settings decide");
    }
    let Command::Config(args) = accepted("config --json") else { panic!("not config") };
    assert!(args.json);
}

/// What a user would copy must start.
#[test]
fn the_service_unit_starts_a_daemon_where_clients_look_for_it() {
    let unit = include_str!("../../../../docs/astscope.service");
    let value = |key: &str| {
        let values: Vec<_> =
            unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')).collect();
        let [value] = values[..] else { panic!("{key}: {values:?}") };
        value
    };
    let (program, arguments) = value("ExecStart").split_once(' ').unwrap();
    assert!(program.ends_with("/astscope"), "{program}");
    let Command::Serve(args) = accepted(arguments) else { panic!("not serve") };
    assert_eq!((args.idle_timeout, args.allow_debug), (Some(IdleTimeout(None)), false));

    let runtime_dir = astscope_protocol::RuntimeDir::locate(&|name| {
        (name == "XDG_RUNTIME_DIR").then(|| OsString::from("/run/user/1"))
    });
    let made = std::path::Path::new("/run/user/1").join(value("RuntimeDirectory"));
    assert_eq!(runtime_dir.unwrap().path(), made);
    let busy = crate::exit::Exit::Unreachable.code().to_string();
    assert_eq!((value("Type"), value("RestartPreventExitStatus")), ("notify", busy.as_str()));
}

#[test]
fn debugging_is_allowed_only_where_it_is_asked_for() {
    for (line, allowed) in [("serve", false), ("serve --allow-debug", true)] {
        let Command::Serve(args) = accepted(line) else { panic!("not serve") };
        assert_eq!(args.allow_debug, allowed, "{line}");
    }
}

#[test]
fn a_tree_has_one_form() {
    for line in ["tree", "tree --json", "tree --mermaid"] {
        assert!(matches!(accepted(line), Command::Tree(_)), "{line}");
    }
    refused("tree --json --mermaid", "--mermaid");
    refused("debug", "kill");
    refused("debug kill", "PATH");
}

#[test]
fn parse_needs_a_file_or_standard_input() {
    assert!(matches!(accepted("parse a.rs --cst --json"), Command::Parse(_)));
    assert!(matches!(accepted("parse --stdin -l rs"), Command::Parse(_)));
    refused("parse", "FILE");
    refused("parse a.rs --stdin", "--stdin");
}

#[test]
fn points_has_four_levels() {
    for level in ["minimal", "balanced", "comprehensive", "debug"] {
        assert!(matches!(accepted(&format!("points a.rs --level {level}")), Command::Points(_)));
    }
    let Command::Points(points) = accepted("points a.rs -l rs --json") else { panic!() };
    assert_eq!((points.level, points.json), (LevelArg::Balanced, true));
    refused("points", "FILE");
    refused("points a.rs --level most", "--level");
}

#[test]
fn the_help_names_every_command_and_exit_code() {
    let help = Cli::command().render_long_help().to_string();
    for word in [
        "run",
        "scan",
        "parse",
        "points",
        "explain",
        "status",
        "tree",
        "health",
        "events",
        "config",
        "debug",
        "stop",
        "completions",
        "astscope run -p",
        "75",
    ] {
        assert!(help.contains(word), "{word}");
    }
}

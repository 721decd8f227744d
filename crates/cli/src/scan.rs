//! `astscope scan`: YAML rules, from the project, one file or the command line.

use crate::args::{FormatArg, GlobalArgs, ScanArgs, SeverityArg};
use crate::backend::Backend;
use crate::console::Console;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::interactive::{Interactive, Show};
use crate::notices;
use crate::output::{
    DiagnosticPrinter, FileNamePrinter, GithubPrinter, JsonPrinter, PrintError, Printer, Report,
    SarifPrinter, records,
};
use crate::request::{check_stdin, delivery_of, selection, stream, utf8};
use crate::rewrite::{Rewrites, UpdateAll};
use crate::sgconfig::{Project, read_rule};
use astscope_protocol::messages::{Item, RuleSource, ScanParams, SeverityOverrides};
use std::path::{Path, PathBuf};

/// Runs the command.
pub(crate) fn scan(
    args: &ScanArgs,
    global: &GlobalArgs,
    console: &mut Console<'_>,
    backend: &mut dyn Backend,
) -> Result<Exit, Failure> {
    let project = Project::discover(global.config.as_deref(), &console.cwd)?;
    // The rules say what standard input is written in.
    check_stdin(&args.input, args.output.interactive, true)?;
    let params = params(args, global, project.as_ref(), console)?;
    let mut ask = |printer: &mut dyn Printer, console: &mut Console<'_>| {
        stream(console, printer, None, |on_event| backend.scan(&params, on_event))
    };
    let report =
        Report::new(console.color_out(global.color), args.report_style, args.context.lines());
    // Where fixes are applied, only findings that have none count as errors.
    let (answered, n_errors, n_failed) = if !args.output.applies() {
        let answered = ask(printer(args, global, report, console).as_mut(), console)?;
        let n_errors = answered.summary.as_ref().map_or(0, |summary| summary.error_matches);
        (answered, n_errors, 0)
    } else if let Some(style) = args.output.json {
        let mut printer = UnfixedErrors { inner: JsonPrinter::new(style), n_errors: 0 };
        (ask(&mut printer, console)?, printer.n_errors, 0)
    } else if args.output.interactive {
        let mut printer = Interactive::new(Show::Findings(report));
        let answered = ask(&mut printer, console)?;
        (answered, printer.n_errors, printer.rewrites.n_failed)
    } else {
        let mut printer = UpdateAll {
            rewrites: Rewrites::default(),
            report: Some(report),
            stdin: params.selection.stdin.clone(),
            n_errors: 0,
        };
        let answered = ask(&mut printer, console)?;
        (answered, printer.n_errors, printer.rewrites.n_failed)
    };
    let Some(summary) = &answered.summary else {
        return Ok(Exit::Success);
    };
    notices::print(summary, console);
    if n_errors > 0 {
        return Err(Failure::new(Exit::Findings, format!("{n_errors} error(s) found in code."))
            .help("Scan succeeded and found error level diagnostics in the codebase."));
    }
    Ok(if n_failed > 0 { Exit::File } else { Exit::Success })
}

fn params(
    args: &ScanArgs,
    global: &GlobalArgs,
    project: Option<&Project>,
    console: &mut Console<'_>,
) -> Result<ScanParams, Failure> {
    let (rules, base) = rules(args, project, console)?;
    let utils = project.map(Project::utils).transpose()?.unwrap_or_default();
    let selection = selection(&args.input, project, console)?;
    let mut delivery = delivery_of(&args.output, global);
    delivery.include_source =
        args.output.json.is_none() && args.format.is_none() && !args.output.files_with_matches;
    delivery.brief &= args.format != Some(FormatArg::Sarif);
    Ok(ScanParams {
        selection,
        rules,
        utils,
        project_dir: utf8(&base)?,
        overrides: overrides(args),
        include_metadata: args.include_metadata,
        all_fixes: args.output.interactive,
        context: args.context.lines(),
        delivery,
    })
}

/// The rules, and the directory that their globs refer to.
fn rules(
    args: &ScanArgs,
    project: Option<&Project>,
    console: &Console<'_>,
) -> Result<(Vec<RuleSource>, PathBuf), Failure> {
    if let Some(named) = named_rules(args.rule.as_deref(), args.inline_rules.as_deref(), console)? {
        return Ok(named);
    }
    if args.input.stdin {
        return Err(Failure::new(Exit::Unspecified, "Only one rule can scan code from StdIn.")
            .help("Please use `--rule path/to/rule.yml` to choose the rule.")
            .page("/guide/tooling-overview.html#parse-code-from-stdin"));
    }
    let project = project.ok_or_else(|| {
        Failure::new(Exit::Unspecified, "No ast-grep project configuration is found.")
            .help("Scanning needs an sgconfig.yml here or above, a rule file with --rule, or --inline-rules.")
            .page("/guide/scan-project.html")
    })?;
    Ok((project.rules()?, project.dir.clone()))
}

/// Rules that the command line names or holds, and the directory that their globs refer to.
pub(crate) fn named_rules(
    file: Option<&str>,
    text: Option<&str>,
    console: &Console<'_>,
) -> Result<Option<(Vec<RuleSource>, PathBuf)>, Failure> {
    if let Some(name) = file {
        let path = console.cwd.join(name);
        let rule = read_rule(&path, name)?;
        // ast-grep resolves the directory as typed, and a bare file name has none.
        let base = match Path::new(name).parent() {
            Some(parent) if !parent.as_os_str().is_empty() => console.cwd.join(parent),
            _ => console.cwd.clone(),
        };
        let base = base.canonicalize().unwrap_or_else(|_| console.cwd.clone());
        return Ok(Some((vec![rule], base)));
    }
    Ok(text.map(|text| {
        let (source, yaml) = ("INLINE_RULES".to_owned(), text.to_owned());
        (vec![RuleSource { source, yaml, default_id: None }], console.cwd.clone())
    }))
}

fn overrides(args: &ScanArgs) -> SeverityOverrides {
    let overwrite = &args.overwrite;
    let mut overrides = SeverityOverrides {
        filter: overwrite.filter.as_ref().map(ToString::to_string),
        min_severity: Some(overwrite.min_severity.name().to_owned()),
        all_rules: args.rule.is_none()
            && args.inline_rules.is_none()
            && overwrite.filter.is_none()
            && overwrite.off.is_none()
            && overwrite.min_severity == SeverityArg::Off,
        ..SeverityOverrides::default()
    };
    // In ast-grep's order: of two that name the same rule, the last one in this list wins.
    let lists = [
        ("error", &overwrite.error),
        ("warning", &overwrite.warning),
        ("info", &overwrite.info),
        ("hint", &overwrite.hint),
        ("off", &overwrite.off),
    ];
    for (severity, ids) in lists {
        match ids.as_deref() {
            None => {}
            Some([]) => overrides.default = Some(severity.to_owned()),
            Some(ids) => {
                let by_id = ids.iter().map(|id| (id.clone(), severity.to_owned()));
                overrides.by_id.extend(by_id);
            }
        }
    }
    overrides
}

/// The printer of a scan that changes nothing.
fn printer(
    args: &ScanArgs,
    global: &GlobalArgs,
    report: Report,
    console: &Console<'_>,
) -> Box<dyn Printer> {
    if args.output.files_with_matches {
        return Box::new(FileNamePrinter::new(console.color_out(global.color)));
    }
    match (args.format, args.output.json) {
        (Some(FormatArg::GitHub), _) => Box::new(GithubPrinter),
        (Some(FormatArg::Sarif), _) => Box::new(SarifPrinter::default()),
        (None, Some(style)) => Box::new(JsonPrinter::new(style)),
        (None, None) => Box::new(DiagnosticPrinter(report)),
    }
}

/// Prints JSON, and counts the errors that a fix would not cure.
#[derive(Debug)]
struct UnfixedErrors {
    inner: JsonPrinter,
    n_errors: u64,
}

impl Printer for UnfixedErrors {
    fn begin(&mut self, console: &mut Console<'_>) -> Result<(), PrintError> {
        self.inner.begin(console)
    }

    fn item(&mut self, item: &Item, console: &mut Console<'_>) -> Result<(), PrintError> {
        let unfixed = records(item)?
            .iter()
            .filter(|record| record.severity == "error" && record.replacement.is_none())
            .count();
        self.n_errors += unfixed as u64;
        self.inner.item(item, console)
    }

    fn end(&mut self, console: &mut Console<'_>) -> Result<(), PrintError> {
        self.inner.end(console)
    }
}

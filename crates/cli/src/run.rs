//! `astscope run`: one pattern or kind, found or rewritten.

use crate::args::{GlobalArgs, HeadingArg, RunArgs};
use crate::backend::Backend;
use crate::console::Console;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::interactive::{Interactive, Show};
use crate::notices;
use crate::output::style::Styles;
use crate::output::{DiffPrinter, FileNamePrinter, JsonPrinter, Printer, TextPrinter};
use crate::request::{Answered, check_stdin, delivery_of, run_params, selection, stream};
use crate::rewrite::{Rewrites, UpdateAll};
use crate::sgconfig::Project;
use astscope_protocol::messages::{RunParams, Summary};

/// Runs the command.
pub(crate) fn run(
    args: &RunArgs,
    global: &GlobalArgs,
    console: &mut Console<'_>,
    backend: &mut dyn Backend,
) -> Result<Exit, Failure> {
    let project = Project::discover(global.config.as_deref(), &console.cwd)?;
    check_stdin(&args.input, args.output.interactive, args.lang.is_some())?;
    let params = params(args, global, project.as_ref(), console)?;
    let pattern = args.matcher.pattern.as_deref();
    let mut ask = |printer: &mut dyn Printer, console: &mut Console<'_>| {
        stream(console, printer, pattern, |on_event| backend.run(&params, on_event))
    };
    let (answered, n_failed) = if args.output.interactive && args.output.json.is_none() {
        let mut printer = Interactive::new(show(args, global, console));
        (ask(&mut printer, console)?, printer.rewrites.n_failed)
    } else if args.output.update_all && args.output.json.is_none() {
        let mut printer = UpdateAll {
            rewrites: Rewrites::default(),
            report: None,
            stdin: params.selection.stdin.clone(),
            n_errors: 0,
        };
        (ask(&mut printer, console)?, printer.rewrites.n_failed)
    } else {
        (ask(printer(args, global, console).as_mut(), console)?, 0)
    };
    conclude(args, &answered, n_failed, console)
}

fn params(
    args: &RunArgs,
    global: &GlobalArgs,
    project: Option<&Project>,
    console: &mut Console<'_>,
) -> Result<RunParams, Failure> {
    let selection = selection(&args.input, project, console)?;
    let mut params =
        run_params(&args.matcher, args.lang.as_ref(), selection, delivery_of(&args.output, global));
    params.rewrite.clone_from(&args.rewrite);
    params.context = args.context.lines();
    // A diff shows the file; -U reads it from the disk anyway.
    params.delivery.include_source = args.rewrite.is_some()
        && args.output.json.is_none()
        && !args.output.update_all
        && !args.output.files_with_matches;
    Ok(params)
}

fn text_printer(args: &RunArgs, global: &GlobalArgs, console: &Console<'_>) -> TextPrinter {
    TextPrinter {
        styles: Styles::new(console.color_out(global.color)),
        heading: match args.heading {
            HeadingArg::Auto => console.out_is_terminal,
            HeadingArg::Always => true,
            HeadingArg::Never => false,
        },
        context: args.context.lines(),
    }
}

/// The printer of a search that changes nothing.
fn printer(args: &RunArgs, global: &GlobalArgs, console: &mut Console<'_>) -> Box<dyn Printer> {
    let color = console.color_out(global.color);
    if args.output.files_with_matches {
        return Box::new(FileNamePrinter::new(color));
    }
    if let Some(style) = args.output.json {
        if args.output.update_all {
            console
                .note("Note: with --json nothing is written; leave it out to apply the rewrites");
        }
        return Box::new(JsonPrinter::new(style));
    }
    if args.rewrite.is_some() {
        return Box::new(DiffPrinter::new(color, args.context.lines().before));
    }
    Box::new(text_printer(args, global, console))
}

fn show(args: &RunArgs, global: &GlobalArgs, console: &Console<'_>) -> Show {
    if args.rewrite.is_none() {
        return Show::Matches(text_printer(args, global, console));
    }
    let styles = Styles::new(console.color_out(global.color));
    Show::Diffs(styles, crate::output::context_lines(args.context.lines().before))
}

fn conclude(
    args: &RunArgs,
    answered: &Answered,
    n_failed: usize,
    console: &mut Console<'_>,
) -> Result<Exit, Failure> {
    let Some(summary) = &answered.summary else {
        return Ok(Exit::Success);
    };
    notices::print(summary, console);
    if n_failed > 0 {
        return Ok(Exit::File);
    }
    if answered.n_files > 0 {
        return Ok(Exit::Success);
    }
    if is_suspicious(args, summary) {
        return Err(Failure::new(
            Exit::Success,
            "Pattern contains an ERROR node and may cause unexpected results.",
        )
        .help("The pattern was parsed but it matched nothing in this run. `astscope parse --stdin` shows how code is parsed.")
        .page("/playground.html"));
    }
    Ok(Exit::Findings)
}

/// ast-grep warns, and then exits with 0, if a pattern for a given language has a syntax error.
fn is_suspicious(args: &RunArgs, summary: &Summary) -> bool {
    summary.pattern_has_error && args.lang.is_some() && args.matcher.pattern.is_some()
}

//! From options to a request, and from a request's stream to a printer: what `run`, `scan` and
//! `explain` share.

use crate::args::{ContextArgs, GlobalArgs, IgnoreArg, InputArgs, MatcherArgs, OutputArgs};
use crate::backend::{BackendError, OnEvent};
use crate::console::Console;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{PrintError, Printer};
use crate::progress::IndexingBar;
use crate::sgconfig::Project;
use astscope_protocol::client::Event;
use astscope_protocol::messages::{
    Delivery, IgnoreKind, MatcherSpec, RunParams, Selection, Summary,
};
use std::io;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

/// A path of ours as text, which is all that the protocol can carry.
pub(crate) fn utf8(path: &Path) -> Result<String, Failure> {
    path.to_str().map(str::to_owned).ok_or_else(|| {
        Failure::new(Exit::File, format!("Path `{}` is not UTF-8.", path.display()))
            .help("Search it from a directory whose own path is UTF-8.")
    })
}

/// Which files are asked about. Reads standard input where that is what is searched.
pub(crate) fn selection(
    input: &InputArgs,
    project: Option<&Project>,
    console: &mut Console<'_>,
) -> Result<Selection, Failure> {
    let mut no_ignore: Vec<IgnoreKind> =
        input.no_ignore.iter().map(|kind| ignore_kind(*kind)).collect();
    // As in ast-grep, the project's list is a default and not an addition.
    if no_ignore.is_empty()
        && let Some(project) = project
    {
        no_ignore.clone_from(&project.no_ignore);
    }
    let stdin = if input.stdin { Some(read_stdin(console)?) } else { None };
    Ok(Selection {
        cwd: utf8(&console.cwd)?,
        paths: input.paths.clone(),
        globs: input.globs.clone(),
        no_ignore,
        follow: input.follow,
        language_globs: project.map(|project| project.language_globs.clone()).unwrap_or_default(),
        stdin,
    })
}

pub(crate) fn read_stdin(console: &mut Console<'_>) -> Result<String, Failure> {
    io::read_to_string(&mut *console.input).map_err(|error| {
        Failure::new(Exit::File, "Cannot read standard input.")
            .help("It must be UTF-8 text.")
            .source(&error)
    })
}

fn ignore_kind(kind: IgnoreArg) -> IgnoreKind {
    match kind {
        IgnoreArg::Hidden => IgnoreKind::Hidden,
        IgnoreArg::Dot => IgnoreKind::Dot,
        IgnoreArg::Exclude => IgnoreKind::Exclude,
        IgnoreArg::Global => IgnoreKind::Global,
        IgnoreArg::Parent => IgnoreKind::Parent,
        IgnoreArg::Vcs => IgnoreKind::Vcs,
    }
}

/// How an answer is wanted.
pub(crate) fn delivery(global: &GlobalArgs) -> Delivery {
    let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    Delivery {
        deadline_ms: global.deadline.map(ms),
        wait_ms: global.wait.map(ms),
        no_wait: global.no_wait,
        no_cache: global.no_cache,
        ..Delivery::default()
    }
}

/// How an answer to `run` or `scan` is wanted.
pub(crate) fn delivery_of(output: &OutputArgs, global: &GlobalArgs) -> Delivery {
    Delivery {
        limit: output.max_results,
        files_only: output.files_with_matches,
        brief: output.json.is_none(),
        ..delivery(global)
    }
}

/// What is to be found.
pub(crate) fn run_params(
    matcher: &MatcherArgs,
    language: Option<&String>,
    selection: Selection,
    delivery: Delivery,
) -> RunParams {
    RunParams {
        selection,
        matcher: MatcherSpec {
            pattern: matcher.pattern.clone(),
            selector: matcher.selector.clone(),
            strictness: matcher.strictness.map(|strictness| strictness.name().to_owned()),
            kind: matcher.kind.clone(),
        },
        language: language.cloned(),
        rewrite: None,
        context: ContextArgs::default().lines(),
        delivery,
    }
}

/// ast-grep's objections to searching standard input.
pub(crate) fn check_stdin(
    input: &InputArgs,
    interactive: bool,
    has_language: bool,
) -> Result<(), Failure> {
    if !input.stdin {
        return Ok(());
    }
    if interactive {
        return Err(Failure::new(
            Exit::NotInteractive,
            "Interactive mode is incompatible with parsing code from StdIn.",
        )
        .help("`--interactive` needs StdIn, but it is used as source code. Please use files as input.")
        .page("/guide/tooling-overview.html#parse-code-from-stdin"));
    }
    if !has_language {
        return Err(Failure::new(
            Exit::Unspecified,
            "Language must be specified for code from StdIn.",
        )
        .help("Please use `--lang` to specify the code language.")
        .page("/guide/tooling-overview.html#parse-code-from-stdin"));
    }
    Ok(())
}

/// How a request ended.
#[derive(Debug)]
pub(crate) struct Answered {
    /// The daemon's account, or `None` if the reader of our output has gone away.
    pub(crate) summary: Option<Summary>,
    /// Files with matches that were printed.
    pub(crate) n_files: u64,
}

/// Runs a request and prints what it streams.
pub(crate) fn stream(
    console: &mut Console<'_>,
    printer: &mut dyn Printer,
    pattern: Option<&str>,
    ask: impl FnOnce(OnEvent<'_>) -> Result<Summary, BackendError>,
) -> Result<Answered, Failure> {
    let mut bar = IndexingBar::new(console.err_is_terminal);
    let mut n_files = 0;
    let mut printed = printer.begin(console);
    let answer = if printed.is_ok() {
        Some(ask(&mut |event| {
            match event {
                Event::Progress(progress) => bar.update(&progress),
                // Nothing is subscribed to here.
                Event::News(_) => {}
                Event::Item(item) => {
                    bar.clear();
                    n_files += 1;
                    printed = printer.item(&item, console);
                }
            }
            if printed.is_err() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        }))
    } else {
        None
    };
    bar.clear();
    let broke_off = printed.is_err();
    let summary = match (printed, answer) {
        (Err(error), _) => {
            give_up(error)?;
            None
        }
        (Ok(()), Some(Ok(summary))) => Some(summary),
        (Ok(()), Some(Err(error))) => return Err(Failure::of_request(error, pattern)),
        (Ok(()), None) => None,
    };
    if !broke_off && let Err(error) = printer.end(console) {
        give_up(error)?;
        return Ok(Answered { summary: None, n_files });
    }
    Ok(Answered { summary, n_files })
}

/// A reader that has seen enough, such as `head`, is no failure.
pub(crate) fn give_up(error: PrintError) -> Result<(), Failure> {
    match error {
        PrintError::Write(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        PrintError::Write(error) => {
            Err(Failure::new(Exit::File, "Cannot print the matches.").source(&error))
        }
        PrintError::Record(error) => {
            Err(Failure::new(Exit::Internal, "Cannot read a match that the daemon sent.")
                .source(&error))
        }
        PrintError::Failed(failure) => Err(*failure),
    }
}

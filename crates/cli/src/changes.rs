//! `astscope changes`: what is other than it was at a revision that somebody has read.

use crate::args::{ChangesArgs, GlobalArgs};
use crate::backend::Backend;
use crate::console::Console;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::inspect::{print, print_json};
use crate::progress::IndexingBar;
use crate::request::{delivery, utf8};
use astscope_protocol::client::Event;
use astscope_protocol::messages::{ChangesParams, ChangesResult, Revision};
use std::ops::ControlFlow;

/// Runs the command.
pub(crate) fn changes(
    args: &ChangesArgs,
    global: &GlobalArgs,
    console: &mut Console<'_>,
    backend: &mut dyn Backend,
) -> Result<Exit, Failure> {
    let params = ChangesParams {
        path: utf8(&console.cwd.join(&args.path))?,
        since: args.since,
        deadline_ms: delivery(global).deadline_ms,
    };
    let mut bar = IndexingBar::new(console.err_is_terminal);
    let changes = backend.changes(&params, &mut |event| {
        if let Event::Progress(progress) = event {
            bar.update(&progress);
        }
        ControlFlow::Continue(())
    });
    bar.clear();
    let changes = changes.map_err(|error| Failure::of_request(error, None))?;
    if args.json {
        print_json(&changes, console)?;
    } else {
        print(&listed(&changes), console)?;
    }
    Ok(Exit::Success)
}

/// A line for each file as `git status --short` has them, all in the order of their paths, and the
/// revision.
fn listed(changes: &ChangesResult) -> String {
    let kinds = [('A', &changes.added), ('M', &changes.changed), ('D', &changes.removed)];
    let all = kinds.iter().flat_map(|(kind, paths)| paths.iter().map(move |path| (path, kind)));
    let mut all: Vec<_> = all.collect();
    all.sort_unstable();
    let Revision { epoch, number } = changes.revision;
    let lines = all.into_iter().map(|(path, kind)| format!("{kind} {path}\n"));
    lines.chain([format!("# {epoch}.{number}")]).collect()
}

/// `EPOCH.NUMBER`, as it is printed.
pub(crate) fn revision(text: &str) -> Result<Revision, String> {
    let parts = text.split_once('.').and_then(|(epoch, number)| {
        Some(Revision { epoch: epoch.parse().ok()?, number: number.parse().ok()? })
    });
    parts.ok_or_else(|| "a revision is EPOCH.NUMBER, such as 1795271573392090.16".to_owned())
}

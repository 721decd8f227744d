//! `astscope watch`: the matches of a pattern or of rules, and what becomes of them, until it is
//! interrupted.
//!
//! What was told is kept, so that a daemon that has to tell everything anew, because it was
//! restarted or its client was slow, makes this print only what is other.

use crate::args::{GlobalArgs, WatchArgs};
use crate::backend::{Backend, Told};
use crate::console::Console;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::notices;
use crate::output::PrintError;
use crate::output::style::Styles;
use crate::progress::IndexingBar;
use crate::request::{delivery, give_up, run_params, selection, utf8};
use crate::scan::named_rules;
use crate::sgconfig::Project;
use astscope_protocol::client::News;
use astscope_protocol::messages::{
    Delivery, Difference, Matches, Range, Revision, ScanParams, SubscribeParams, Summary,
};
use serde::Deserialize;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;
use std::ops::ControlFlow;

/// Runs the command.
pub(crate) fn watch(
    args: &WatchArgs,
    global: &GlobalArgs,
    console: &mut Console<'_>,
    backend: &mut dyn Backend,
) -> Result<Exit, Failure> {
    if args.input.stdin {
        return Err(Failure::new(Exit::Usage, "`watch` can't watch standard input.")
            .help("Give it files and directories."));
    }
    if global.no_wait || global.wait.is_some() {
        return Err(Failure::new(Exit::Usage, "`watch` always waits until the files are parsed.")
            .help("Leave out --no-wait and --wait."));
    }
    let project = Project::discover(global.config.as_deref(), &console.cwd)?;
    let selection = selection(&args.input, project.as_ref(), console)?;
    let delivery = Delivery { brief: !args.json, ..delivery(global) };
    let named = named_rules(args.rule.as_deref(), args.inline_rules.as_deref(), console)?;
    let params = if let Some((rules, base)) = named {
        let utils = project.as_ref().map(Project::utils).transpose()?.unwrap_or_default();
        let project_dir = utf8(&base)?;
        let scan =
            ScanParams { selection, rules, utils, project_dir, delivery, ..ScanParams::default() };
        SubscribeParams { scan: Some(scan), ..SubscribeParams::default() }
    } else {
        let run = run_params(&args.matcher, args.lang.as_ref(), selection, delivery);
        SubscribeParams { run, ..SubscribeParams::default() }
    };
    let mut screen = Screen {
        json: args.json,
        styles: Styles::new(console.color_out(global.color)),
        is_silent: args.no_initial,
        has_begun: false,
        files: BTreeMap::new(),
        anew: None,
    };
    let mut bar = IndexingBar::new(console.err_is_terminal);
    let mut printed = Ok(());
    let watched = backend.watch(&params, &mut |told| {
        if let Told::Progress(progress) = told {
            bar.update(&progress);
            return ControlFlow::Continue(());
        }
        bar.clear();
        printed = screen.take(told, console);
        if printed.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    bar.clear();
    printed.map_err(PrintError::Write).or_else(give_up)?;
    watched.map_err(|error| Failure::of_request(error, args.matcher.pattern.as_deref()))?;
    Ok(Exit::Success)
}

/// What its user has seen.
struct Screen {
    json: bool,
    styles: Styles,
    /// Whether the matches of the beginning aren't printed.
    is_silent: bool,
    has_begun: bool,
    files: BTreeMap<String, Matches>,
    /// What takes their place once it is whole.
    anew: Option<BTreeMap<String, Matches>>,
}

impl Screen {
    fn take(&mut self, told: Told, console: &mut Console<'_>) -> io::Result<()> {
        match told {
            Told::Begun(begun) => {
                if !std::mem::replace(&mut self.has_begun, true) {
                    let summary = Summary { hints: begun.hints, ..Summary::default() };
                    notices::print(&summary, console);
                }
                Ok(())
            }
            Told::News(News::Resync(_)) => {
                self.anew = Some(BTreeMap::new());
                Ok(())
            }
            Told::News(News::Difference(Difference { file, disappeared, appeared, .. })) => {
                if let Some(anew) = &mut self.anew {
                    anew.insert(file, appeared);
                    return Ok(());
                }
                self.print(&file, &disappeared, &appeared, console)?;
                let known = self.files.remove(&file).unwrap_or_default();
                let mut now = known.without(&disappeared);
                now.append(&appeared);
                if !now.is_empty() {
                    self.files.insert(file, now);
                }
                Ok(())
            }
            Told::News(News::Settled(settled)) => {
                if let Some(anew) = self.anew.take() {
                    self.replace(anew, console)?;
                }
                if self.json {
                    let Revision { epoch, number } = settled.revision;
                    writeln!(
                        console.out,
                        r#"{{"kind":"settled","revision":{{"epoch":{epoch},"number":{number}}}}}"#
                    )?;
                }
                console.out.flush()
            }
            // Whoever connects deals with these.
            Told::News(News::Ended(_)) | Told::Progress(_) => Ok(()),
        }
    }

    /// Prints what is other.
    fn replace(
        &mut self,
        anew: BTreeMap<String, Matches>,
        console: &mut Console<'_>,
    ) -> io::Result<()> {
        let before = std::mem::replace(&mut self.files, anew);
        if std::mem::replace(&mut self.is_silent, false) {
            return Ok(());
        }
        let none = Matches::default();
        let gone = before.keys().filter(|file| !self.files.contains_key(*file));
        for file in gone {
            self.print(file, &before[file], &none, console)?;
        }
        for (file, now) in &self.files {
            let before = before.get(file).unwrap_or(&none);
            self.print(file, &before.without(now), &now.without(before), console)?;
        }
        Ok(())
    }

    fn print(
        &self,
        file: &str,
        disappeared: &Matches,
        appeared: &Matches,
        console: &mut Console<'_>,
    ) -> io::Result<()> {
        for (kind, sign, style, matches) in [
            ("disappeared", '-', self.styles.delete, disappeared),
            ("appeared", '+', self.styles.insert, appeared),
        ] {
            for json in matches.iter() {
                if self.json {
                    writeln!(console.out, r#"{{"kind":"{kind}","match":{json}}}"#)?;
                    continue;
                }
                let found: Found<'_> = serde_json::from_str(json)?;
                let line = found.range.start.line + 1;
                let text = found.lines.lines().next().unwrap_or_default().trim();
                let rule = found.rule_id.map_or_else(String::new, |rule| format!("[{rule}] "));
                let text = format!("{sign} {file}:{line}: {rule}{text}");
                writeln!(console.out, "{}", style.paint(text))?;
            }
        }
        Ok(())
    }
}

/// What is printed of a match.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Found<'a> {
    range: Range,
    #[serde(borrow)]
    rule_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    lines: Cow<'a, str>,
}

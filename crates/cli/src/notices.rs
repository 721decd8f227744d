//! What a person should know about an answer beside the matches, on standard error: advice about
//! the pattern, files that were left out, and whether the answer is whole.

use crate::console::Console;
use crate::output::style::Style;
use astscope_protocol::messages::{Freshness, SkippedFile, Summary};
use std::collections::BTreeMap;

/// Skipped files that are named one by one; more are counted.
const NAMED_MAX: usize = 3;

/// Prints them.
pub(crate) fn print(summary: &Summary, console: &mut Console<'_>) {
    for hint in &summary.hints {
        say(console, "36", "Hint:", hint);
    }
    if let Some(text) = skipped(&summary.skipped) {
        say(console, "33", "Skipped:", &text);
    }
    if let Some(text) = skipped(&summary.files_kept) {
        let text = format!("can't be read, searched as last read: {text}");
        say(console, "33", "Kept:", &text);
    }
    if summary.limit_reached {
        let text = format!(
            "{} matches, the limit; there may be more (see --max-results)",
            summary.matches
        );
        say(console, "33", "Limit:", &text);
    }
    if summary.files_pending > 0 {
        let done = summary.files_selected.saturating_sub(summary.files_pending);
        let text = format!(
            "answered from {done} of {} files; the others are still being parsed",
            summary.files_selected
        );
        say(console, "33", "Partial:", &text);
    }
    if let Some(text) = summary.freshness.as_ref().and_then(lagging) {
        say(console, "33", "Lagging:", &text);
    }
}

fn say(console: &mut Console<'_>, code: &'static str, label: &str, text: &str) {
    let style = if console.color_err() { Style(code) } else { Style::PLAIN };
    console.note(&format!("{} {text}", style.paint(label)));
}

/// One sentence on the files that were searched as they were. Those that weren't searched at all are
/// another matter.
fn lagging(freshness: &Freshness) -> Option<String> {
    let Freshness { files, ms, paths, names_unknown, .. } = freshness;
    let named = match *files {
        0 => None,
        n if n <= NAMED_MAX as u64 => Some(paths.join(", ")),
        n => Some(format!("{n} files")),
    };
    let tenths = ms.div_ceil(100);
    let seconds = format!("{}.{} s", tenths / 10, tenths % 10);
    let older = named.map(|named| format!("{named} may have changed in the last {seconds}"));
    let names = names_unknown.then(|| "which files there are wasn't looked at".to_owned());
    let text = older.into_iter().chain(names).collect::<Vec<_>>().join("; ");
    (!text.is_empty()).then_some(text)
}

/// One sentence on the files that were left out. Empty files are left out of it: they contain
/// nothing that could be missed, and a Python tree is full of them.
fn skipped(files: &[SkippedFile]) -> Option<String> {
    let files: Vec<_> = files.iter().filter(|file| file.reason != "empty").collect();
    if files.is_empty() {
        return None;
    }
    if files.len() <= NAMED_MAX {
        let named = files.iter().map(|file| {
            let detail = if file.detail.is_empty() { &file.reason } else { &file.detail };
            format!("{}: {detail}", file.path)
        });
        return Some(named.collect::<Vec<_>>().join("; "));
    }
    let mut reasons = BTreeMap::<&str, usize>::new();
    for file in &files {
        *reasons.entry(&file.reason).or_default() += 1;
    }
    let counts = reasons.iter().map(|(reason, n)| format!("{n} {reason}")).collect::<Vec<_>>();
    Some(format!(
        "{} files ({}); `astscope status --skipped` lists them",
        files.len(),
        counts.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, reason: &str, detail: &str) -> SkippedFile {
        SkippedFile { path: path.to_owned(), reason: reason.to_owned(), detail: detail.to_owned() }
    }

    #[test]
    fn a_few_skipped_files_are_named() {
        let files = [file("a.py", "not_utf8", "byte 7 is not UTF-8"), file("b.py", "too_deep", "")];
        assert_eq!(skipped(&files).unwrap(), "a.py: byte 7 is not UTF-8; b.py: too_deep");
    }

    #[test]
    fn many_skipped_files_are_counted_by_reason() {
        let mut files = vec![file("a", "not_utf8", ""); 3];
        files.push(file("b", "too_large", ""));
        assert_eq!(
            skipped(&files).unwrap(),
            "4 files (3 not_utf8, 1 too_large); `astscope status --skipped` lists them"
        );
    }

    #[test]
    fn what_may_be_old_is_named_with_its_age_or_counted() {
        let say = |files, names: &[&str], names_unknown| {
            let paths = names.iter().map(|&name| name.to_owned()).collect();
            let state = "lagging".to_owned();
            lagging(&Freshness { state, files, ms: 1260, paths, names_unknown })
        };
        assert_eq!(say(0, &[], false), None, "only files that weren't parsed yet");
        let named = say(2, &["a.py", "b.py"], false).unwrap();
        assert_eq!(named, "a.py, b.py may have changed in the last 1.3 s");
        let counted = say(9, &["a.py"], true).unwrap();
        assert!(counted.starts_with("9 files may have changed"), "{counted}");
        assert!(counted.ends_with("; which files there are wasn't looked at"), "{counted}");
    }

    #[test]
    fn empty_files_are_not_worth_a_word() {
        assert_eq!(skipped(&[file("__init__.py", "empty", "")]), None);
    }
}

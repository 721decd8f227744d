//! The settings file: text in, values out, or what is wrong with it and in which line.
//!
//! Strict: whoever misspells a key is told, instead of wondering why nothing changes. Every value
//! is checked here, so that what is read can be applied without a way to fail.

use super::{IdleExit, WatchBounds};
use astscope_synchronization::service::WatchConfig;
use serde::Deserialize;
use std::fmt;
use std::time::Duration;
use toml::Spanned;

/// More often than this, looking at a disk would be all that a daemon does.
const WATCH_EVERY_MIN: Duration = Duration::from_millis(100);
/// More rarely than this nobody is served by a watcher.
const WATCH_EVERY_MAX: Duration = Duration::from_hours(1);

/// A file that is being written is read once for each of its parts, if one doesn't wait at all.
const SETTLE_MIN: Duration = Duration::from_millis(1);
/// So late nobody finds parsed what he has just changed.
const SETTLE_MAX: Duration = Duration::from_mins(1);

/// What a file says; `None` where it says nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FromFile {
    pub(crate) log: Option<String>,
    pub(crate) idle_timeout: Option<IdleExit>,
    pub(crate) watch: WatchBounds<Option<Duration>>,
    pub(crate) settle: WatchBounds<Option<Duration>>,
    pub(crate) scrub: Option<bool>,
}

/// Why a file isn't used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    /// The line, from 1, where it is one's fault.
    pub(crate) line: Option<usize>,
    pub(crate) message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "line {line}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    log: Option<Spanned<String>>,
    idle_timeout: Option<Spanned<String>>,
    #[serde(default)]
    watch: Watch,
    scrub: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Watch {
    every_min: Option<Spanned<String>>,
    every_max: Option<Spanned<String>>,
    settle: Option<Spanned<String>>,
    settle_max: Option<Spanned<String>>,
}

/// Reads the text of a file; `check_log` says what is wrong with a log filter.
pub(crate) fn parse(
    text: &str,
    check_log: impl Fn(&str) -> Result<(), String>,
) -> Result<FromFile, Problem> {
    let line_of = |at: usize| 1 + text.bytes().take(at).filter(|byte| *byte == b'\n').count();
    let file: File = toml::from_str(text).map_err(|error| Problem {
        line: error.span().map(|span| line_of(span.start)),
        message: error.message().to_owned(),
    })?;
    let wrong = |value: &Spanned<String>, name: &str, why: String| Problem {
        line: Some(line_of(value.span().start)),
        message: format!("`{name}` is {:?}: {why}", value.get_ref()),
    };
    let span = |value: &Option<Spanned<String>>,
                name: &str,
                [min, max]: [Duration; 2]|
     -> Result<Option<Duration>, Problem> {
        let Some(value) = value else { return Ok(None) };
        let span = duration(value.get_ref()).map_err(|why| wrong(value, name, why))?;
        if span < min || span > max {
            let expected = format!("expected {} to {}", in_words(min), in_words(max));
            return Err(wrong(value, name, expected));
        }
        Ok(Some(span))
    };
    if let Some(log) = &file.log {
        check_log(log.get_ref()).map_err(|why| wrong(log, "log", why))?;
    }
    let idle_timeout = match &file.idle_timeout {
        None => None,
        Some(never) if never.get_ref() == "never" => Some(IdleExit::Never),
        Some(value) => {
            let limit = duration(value.get_ref());
            Some(IdleExit::After(limit.map_err(|why| wrong(value, "idle_timeout", why))?))
        }
    };
    // The defaults don't contradict each other, so one of the two is in the file.
    let bounds = |[low, high]: [(&Option<Spanned<String>>, &str); 2],
                  within: [Duration; 2],
                  defaults: [Duration; 2]|
     -> Result<WatchBounds<Option<Duration>>, Problem> {
        let (min, max) = (span(low.0, low.1, within)?, span(high.0, high.1, within)?);
        let bounds = WatchBounds { min, max };
        let (least, most) = (bounds.min.unwrap_or(defaults[0]), bounds.max.unwrap_or(defaults[1]));
        match high.0.as_ref().or(low.0.as_ref()).filter(|_| least > most) {
            None => Ok(bounds),
            Some(at) => Err(Problem {
                line: Some(line_of(at.span().start)),
                message: format!(
                    "`{}` is {}, more than `{}`, which is {}",
                    low.1,
                    in_words(least),
                    high.1,
                    in_words(most)
                ),
            }),
        }
    };
    let Watch { every_min, every_max, settle, settle_max } = &file.watch;
    let default = WatchConfig::default();
    let watch = bounds(
        [(every_min, "watch.every_min"), (every_max, "watch.every_max")],
        [WATCH_EVERY_MIN, WATCH_EVERY_MAX],
        [default.every_min, default.every_max],
    )?;
    let settle = bounds(
        [(settle, "watch.settle"), (settle_max, "watch.settle_max")],
        [SETTLE_MIN, SETTLE_MAX],
        [default.settle, default.settle_max],
    )?;
    let (log, scrub) = (file.log.map(Spanned::into_inner), file.scrub);
    Ok(FromFile { log, idle_timeout, watch, settle, scrub })
}

/// Units, the largest first, in milliseconds. The command line takes the same.
const UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// A number with a unit.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = if unit == "min" { "m" } else { unit };
    let of_unit = UNITS.iter().find(|(name, _)| *name == unit);
    let ms = of_unit.and_then(|(_, ms)| number.parse::<u64>().ok()?.checked_mul(*ms));
    ms.map(Duration::from_millis)
        .ok_or_else(|| "expected a number and a unit: 500ms, 10s, 2m, 1h".to_owned())
}

/// A duration as the file would have it, in the largest unit that loses nothing.
pub(crate) fn in_words(duration: Duration) -> String {
    let ms = duration.as_millis();
    let whole = UNITS.iter().find(|(_, unit)| ms > 0 && ms.is_multiple_of(u128::from(*unit)));
    whole
        .map_or_else(|| "0s".to_owned(), |(name, unit)| format!("{}{name}", ms / u128::from(*unit)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<FromFile, String> {
        let check = |filter: &str| {
            if filter == "loud" { Err("no level".to_owned()) } else { Ok(()) }
        };
        parse(text, check).map_err(|problem| problem.to_string())
    }

    #[test]
    fn a_file_says_as_much_as_it_likes() {
        assert_eq!(read(""), Ok(FromFile::default()));
        let all = "log = 'debug'\nidle_timeout = \"never\"\nscrub = false\n\
                   [watch]\nevery_min = '500ms'\nevery_max = '2min'\nsettle = '20ms'\nsettle_max = '1s'\n";
        let expected = FromFile {
            log: Some("debug".to_owned()),
            idle_timeout: Some(IdleExit::Never),
            watch: WatchBounds {
                min: Some(Duration::from_millis(500)),
                max: Some(Duration::from_mins(2)),
            },
            settle: WatchBounds {
                min: Some(Duration::from_millis(20)),
                max: Some(Duration::from_secs(1)),
            },
            scrub: Some(false),
        };
        assert_eq!(read(all), Ok(expected));
        let idle = read("idle_timeout = '90s'").unwrap().idle_timeout;
        assert_eq!(idle, Some(IdleExit::After(Duration::from_secs(90))));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for (text, line, word) in [
            ("\nlog = ", "line 2: ", "string"),
            ("log = 'info'\n\nverbose = true\n", "line 3: ", "unknown field `verbose`"),
            ("[watch]\nevery = '1s'\n", "line 2: ", "unknown field `every`"),
            ("idle_timeout = 7200\n", "line 1: ", "string"),
            ("\nscrub = 'no'\n", "line 2: ", "boolean"),
            ("#\nidle_timeout = 'soon'\n", "line 2: `idle_timeout` is \"soon\": ", "a unit"),
            ("idle_timeout = '99999999999999999999h'\n", "line 1: ", "a unit"),
            ("log = 'loud'\n", "line 1: `log` is \"loud\": ", "no level"),
            ("[watch]\n\nevery_min = '99ms'\n", "line 3: ", "100ms to 1h"),
            ("[watch]\nevery_max = '61m'\n", "line 2: ", "100ms to 1h"),
            ("[watch]\nevery_min = '9s'\nevery_max = '8s'\n", "line 3: ", "is 9s, more than"),
            ("[watch]\nevery_max = '1s'\n", "line 2: ", "which is 1s"),
            ("[watch]\nevery_min = '2m'\n", "line 2: ", "which is 1m"),
            ("[watch]\nsettle = '0ms'\n", "line 2: `watch.settle` is ", "expected 1ms to 1m"),
            ("[watch]\nsettle_max = '2m'\n", "line 2: `watch.settle_max` is ", "1ms to 1m"),
            (
                "[watch]\nsettle = '1s'\n",
                "line 2: ",
                "more than `watch.settle_max`, which is 500ms",
            ),
            ("[watch]\nsettle_max = '10ms'\n", "line 2: `watch.settle` is 50ms", "which is 10ms"),
            ("[watch]\nsettle = 'soon'\n", "line 2: `watch.settle` is \"soon\": ", "a unit"),
        ] {
            let problem = read(text).unwrap_err();
            assert!(problem.starts_with(line) && problem.contains(word), "{text:?}: {problem}");
        }
    }

    #[test]
    fn durations_are_written_as_they_are_read() {
        for text in ["0s", "1ms", "1500ms", "90s", "2m", "2h", "25h"] {
            assert_eq!(in_words(duration(text).unwrap()), text);
        }
        assert_eq!(in_words(duration("120min").unwrap()), "2h");
        for text in ["", "5", "s", "-1s", "1.5s", "18446744073709551615h"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}

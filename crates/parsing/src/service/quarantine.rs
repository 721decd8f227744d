//! Files whose parser was lost: not tried again until they change, or what would parse them does.
//!
//! Kept across restarts in a file of JSON lines, because the alternative is that each start loses a
//! parser to each of them. Like all state it can be rebuilt: a file that isn't understood is
//! discarded, and one that can't be written is done without.

use crate::Source;
use crate::grammar::grammar_version;
use astscope_syntax::Language;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};
use tracing::warn;

/// The file's name in the directory that is given.
const FILE: &str = "quarantine.jsonl";
/// The file's first line: another format is another line.
const HEADER: &str = "{\"astscope_quarantine\":1}";
/// What an entry may take of the file: more than any does, since reasons are cut.
const ENTRY_BYTES_MAX: u64 = 2048;

/// A file that isn't tried again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantined {
    /// The hash of its bytes, in hex.
    pub content: String,
    /// The name of its language.
    pub language: String,
    /// What would parse it, in hex: the grammars, and the build that they are in.
    pub grammar: String,
    /// What became of its parser.
    pub why: String,
    /// When, in seconds since 1970.
    pub at: u64,
}

/// How much is quarantined, and whether that is remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuarantineStatus {
    /// Files that aren't tried again.
    pub n_files: usize,
    /// Why it is forgotten when this process ends, if it is.
    pub forgotten_because: Option<String>,
}

type Key = (String, Language);

/// The files that aren't tried again.
#[derive(Debug)]
pub(super) struct Quarantine {
    path: Option<PathBuf>,
    n_max: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    entries: BTreeMap<Key, Quarantined>,
    /// The oldest first.
    order: VecDeque<Key>,
    /// Why the file isn't written.
    broken: Option<String>,
}

impl Quarantine {
    /// Reads what is remembered in `dir`. At most `n_max` files are; the oldest are forgotten first.
    pub(super) fn open(dir: Option<&Path>, n_max: usize) -> Self {
        let mut state = State::default();
        let path = dir.map(|dir| dir.join(FILE));
        match &path {
            None => state.broken = Some("no directory was given".to_owned()),
            Some(path) => match read(path, n_max) {
                Ok(entries) => entries.into_iter().for_each(|entry| state.insert(entry, n_max)),
                Err(error) => warn!(
                    path = %path.display(), %error,
                    "the list of quarantined files can't be read and is begun anew"
                ),
            },
        }
        // Whether it can be written is told before it is needed.
        let quarantine = Self { path, n_max, state: Mutex::new(state) };
        quarantine.write(&mut quarantine.lock());
        quarantine
    }

    /// What became of the parser of this text, if it isn't to be tried again.
    pub(super) fn why(&self, source: &Source) -> Option<String> {
        let state = self.lock();
        if state.entries.is_empty() {
            return None;
        }
        let entry = state.entries.get(&(source.content.to_string(), source.language))?;
        Some(entry.why.clone())
    }

    /// Has this text not tried again.
    pub(super) fn insert(&self, source: &Source, why: &str) {
        let Some(grammar) = grammar_version(source.language) else { return };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let entry = Quarantined {
            content: source.content.to_string(),
            language: source.language.name().to_owned(),
            grammar,
            why: why.to_owned(),
            at: now.as_secs(),
        };
        let mut state = self.lock();
        state.insert(entry, self.n_max);
        self.write(&mut state);
    }

    /// All of them, the oldest first.
    pub(super) fn list(&self) -> Vec<Quarantined> {
        let state = self.lock();
        state.order.iter().filter_map(|key| state.entries.get(key)).cloned().collect()
    }

    pub(super) fn status(&self) -> QuarantineStatus {
        let state = self.lock();
        QuarantineStatus { n_files: state.entries.len(), forgotten_because: state.broken.clone() }
    }

    /// Writes the file anew, or says in the state why not. Entries are few and come seldom.
    fn write(&self, state: &mut State) {
        let Some(path) = &self.path else { return };
        let entries = state.order.iter().filter_map(|key| state.entries.get(key));
        match write(path, entries) {
            Ok(()) => state.broken = None,
            Err(error) => {
                if state.broken.is_none() {
                    warn!(path = %path.display(), %error, "quarantined files can't be remembered");
                }
                state.broken = Some(error.to_string());
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Adds an entry, unless it is of another grammar than this build's.
    fn insert(&mut self, entry: Quarantined, n_max: usize) {
        let Ok(language) = entry.language.to_lowercase().parse::<Language>() else { return };
        if grammar_version(language).as_ref() != Some(&entry.grammar) {
            return;
        }
        let key = (entry.content.clone(), language);
        if self.entries.insert(key.clone(), entry).is_none() {
            self.order.push_back(key);
        }
        while self.entries.len() > n_max {
            let Some(oldest) = self.order.pop_front() else { break };
            self.entries.remove(&oldest);
        }
    }
}

fn read(path: &Path, n_max: usize) -> io::Result<Vec<Quarantined>> {
    let file = match fs::File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        file => file?,
    };
    let bytes_max = ENTRY_BYTES_MAX * (n_max as u64 + 1);
    let mut text = String::new();
    file.take(bytes_max).read_to_string(&mut text)?;
    let mut lines = text.lines();
    if lines.next() != Some(HEADER) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it has another format"));
    }
    lines.map(|line| serde_json::from_str(line).map_err(io::Error::from)).collect()
}

/// A reader sees the file before or after this, never half of it.
fn write<'e>(path: &Path, entries: impl Iterator<Item = &'e Quarantined>) -> io::Result<()> {
    let mut text = format!("{HEADER}\n");
    for entry in entries {
        text += &serde_json::to_string(entry)?;
        text.push('\n');
    }
    let dir = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(dir)?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_data()?;
    file.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use astscope_fixtures::Fixture;

    fn source(text: &str) -> Source {
        Source::new(text.into(), Language::Elixir)
    }

    #[test]
    fn what_is_quarantined_stays_so_until_the_text_or_the_language_is_another() {
        let fixture = Fixture::empty();
        let quarantine = Quarantine::open(Some(&fixture.root()), 10);
        quarantine.insert(&source("a"), "it hung");
        for quarantine in [&quarantine, &Quarantine::open(Some(&fixture.root()), 10)] {
            assert_eq!(quarantine.why(&source("a")).as_deref(), Some("it hung"));
            assert_eq!(quarantine.why(&source("b")), None);
            assert_eq!(quarantine.why(&Source { language: Language::Heex, ..source("a") }), None);
            let status = QuarantineStatus { n_files: 1, forgotten_because: None };
            assert_eq!(quarantine.status(), status);
            let [only] = &quarantine.list()[..] else { panic!("one entry") };
            assert_eq!((&*only.language, &*only.why), ("Elixir", "it hung"));
            assert!(only.at > 1_700_000_000);
        }
    }

    #[test]
    fn another_grammar_is_another_try() {
        let fixture = Fixture::empty();
        Quarantine::open(Some(&fixture.root()), 10).insert(&source("a"), "it hung");
        let path = fixture.path(FILE);
        let written = fs::read_to_string(&path).unwrap();
        let grammar = grammar_version(Language::Elixir).unwrap();
        fs::write(&path, written.replace(&grammar, &"0".repeat(grammar.len()))).unwrap();
        assert_eq!(Quarantine::open(Some(&fixture.root()), 10).why(&source("a")), None);
    }

    #[test]
    fn the_oldest_make_room() {
        let fixture = Fixture::empty();
        let quarantine = Quarantine::open(Some(&fixture.root()), 2);
        for text in ["a", "b", "a", "c"] {
            quarantine.insert(&source(text), "it hung");
        }
        for quarantine in [&quarantine, &Quarantine::open(Some(&fixture.root()), 2)] {
            let known = ["a", "b", "c"].map(|text| quarantine.why(&source(text)).is_some());
            assert_eq!(known, [false, true, true]);
        }
        assert_eq!(Quarantine::open(Some(&fixture.root()), 1).status().n_files, 1);
    }

    #[test]
    fn a_corrupt_file_is_discarded_and_rebuilt() {
        let half = format!("{HEADER}\n{{\"content\":\"a");
        for corrupt in ["", "nonsense", "{\"astscope_quarantine\":2}\n", &half, "\u{0}"] {
            let fixture = Fixture::empty();
            fs::write(fixture.path(FILE), corrupt).unwrap();
            let quarantine = Quarantine::open(Some(&fixture.root()), 10);
            let status = QuarantineStatus { n_files: 0, forgotten_because: None };
            assert_eq!(quarantine.status(), status, "{corrupt:?}");
            quarantine.insert(&source("a"), "it hung");
            assert!(Quarantine::open(Some(&fixture.root()), 10).why(&source("a")).is_some());
        }
    }

    #[test]
    fn without_a_directory_that_can_be_written_it_is_kept_in_memory() {
        let fixture = Fixture::empty();
        let missing = fixture.path("not/there");
        for dir in [None, Some(&*missing)] {
            let quarantine = Quarantine::open(dir, 10);
            quarantine.insert(&source("a"), "it hung");
            assert!(quarantine.why(&source("a")).is_some());
            assert!(quarantine.status().forgotten_because.is_some());
        }
    }
}

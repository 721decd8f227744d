//! The right answers: every file read anew, as if nobody had ever looked at the tree before.
//!
//! Nothing of the engine's way to the files is used, since a fault that both sides share would be
//! seen by nobody: this walks with ast-grep's own walker, trusts no stat, and has the texts searched
//! by another daemon that never sees the tree. It gets copies, each under a name of its own that
//! never changes, in a directory that it doesn't index, and is asked once for each text.

use super::deed::Listing;
use super::question::{Answer, FileAnswer, Matcher, Question};
use crate::chaos::house::House;
use anyhow::{Context as _, Result, ensure};
use astscope_protocol::Client;
use astscope_syntax::{ContentId, Language};
use ignore::overrides::OverrideBuilder;
use ignore::types::{Types, TypesBuilder};
use ignore::{DirEntry, WalkBuilder};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs::{File, Metadata};
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Copies in one question to the other daemon.
const BATCH: usize = 256;

/// What a file says, and what it is taken for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Text {
    pub(super) language: Language,
    pub(super) id: ContentId,
    /// The same as an answer has it.
    pub(super) name: String,
    pub(super) bytes: Vec<u8>,
}

impl Text {
    pub(super) fn new(language: Language, bytes: Vec<u8>) -> Self {
        let id = ContentId::of(&bytes);
        Self { language, id, name: id.to_string(), bytes }
    }
}

/// What is found in a text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Finding {
    /// Each match's JSON before and behind the path.
    matches: Vec<(String, String)>,
    /// Why it isn't searched, if so.
    pub(super) skipped: Option<String>,
}

impl Finding {
    pub(super) fn is_empty(&self) -> bool {
        self.matches.is_empty()
    }

    /// One match that is a whole text, if it isn't empty.
    #[cfg(test)]
    pub(super) fn of(text: &str) -> Self {
        let matches = [text].into_iter().filter(|text| !text.is_empty());
        let matches = matches.map(|text| (text.to_owned(), String::new())).collect();
        Self { matches, skipped: None }
    }

    /// The matches' JSON where the file is called so.
    pub(super) fn matches_in(&self, file: &str) -> Vec<String> {
        let file = member(file);
        self.matches.iter().map(|(head, tail)| format!("{head}{file}{tail}")).collect()
    }
}

/// `"file":"…"`, as it stands in a match.
fn member(file: &str) -> String {
    format!("\"file\":{}", serde_json::Value::from(file))
}

/// A file on the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) text: Arc<Text>,
    /// Whether a plain walk of the root finds it.
    pub(super) is_visible: bool,
}

/// All files on the disk by their paths below the root, git's own apart, and those without a language.
pub(super) type Tree = BTreeMap<String, Held>;

/// Whoever knows the right answers.
pub(super) struct Truth {
    root: PathBuf,
    house: House,
    client: Client,
    n_copies: u64,
    findings: HashMap<(Matcher, ContentId, Language), Arc<Finding>>,
    /// What was read last, so that only other bytes are hashed. Never a reason not to read.
    texts: HashMap<PathBuf, Arc<Text>>,
    /// Read since the last deed, while the tree has held still.
    current: HashSet<PathBuf>,
    /// What is being read: nearly always what was read before.
    buffer: Vec<u8>,
}

impl Truth {
    pub(super) fn new(binary: &Path, root: &Path) -> Result<Self> {
        let house = House::start(binary)?;
        let client = house.client()?;
        Ok(Self {
            root: root.to_owned(),
            house,
            client,
            n_copies: 0,
            findings: HashMap::new(),
            texts: HashMap::new(),
            current: HashSet::new(),
            buffer: Vec::new(),
        })
    }

    /// To be said after each deed: everything has to be read again.
    pub(super) fn forget(&mut self) {
        self.current.clear();
        // Of files that are gone.
        if self.texts.len() > 100_000 {
            self.texts.clear();
        }
    }

    /// What lies below the root.
    pub(super) fn tree(&mut self) -> Result<Tree> {
        let mut tree = Tree::new();
        let plain = Question::all(Matcher::Pattern(None));
        for found in walk(&self.root, &plain)?.files {
            let held = Held { text: self.read(&found)?, is_visible: true };
            tree.insert(found.display, held);
        }
        for display in Listing::of(&self.root)?.files {
            let abs = self.root.join(&display);
            let metadata = abs.symlink_metadata()?;
            let name = abs.file_name().map_or(&*abs, Path::new);
            if !metadata.is_file() || tree.contains_key(&display) {
                continue;
            }
            if let Some(language) = language_of(name, &metadata, &abs) {
                let text = self.read(&Found { display: display.clone(), abs, language })?;
                tree.insert(display, Held { text, is_visible: false });
            }
        }
        Ok(tree)
    }

    /// The right answer while the tree holds still.
    pub(super) fn answer(&mut self, question: &Question) -> Result<Answer> {
        let walked = walk(&self.root, question)?;
        let read = walked.files.iter().map(|found| self.read(found)).collect::<Result<Vec<_>>>()?;
        self.learn(question.matcher, &read)?;
        let mut answer = Answer::default();
        let unreadable = |display| (display, "unreadable".to_owned());
        answer.skipped.extend(walked.issues.into_iter().map(unreadable));
        for (found, text) in walked.files.into_iter().zip(read) {
            let finding = self.finding(question.matcher, &text)?;
            if let Some(reason) = &finding.skipped {
                answer.skipped.insert((found.display, reason.clone()));
            } else if !finding.is_empty() {
                answer.files.push(FileAnswer {
                    matches: finding.matches_in(&found.display),
                    content: text.name.clone(),
                    file: found.display,
                });
            }
        }
        Ok(answer)
    }

    /// What is found in one text.
    pub(super) fn finding(&mut self, matcher: Matcher, text: &Arc<Text>) -> Result<Arc<Finding>> {
        let key = (matcher, text.id, text.language);
        if !self.findings.contains_key(&key) {
            self.learn(matcher, std::slice::from_ref(text))?;
        }
        self.findings.get(&key).cloned().context("what was learned is known")
    }

    fn read(&mut self, found: &Found) -> Result<Arc<Text>> {
        let before = self.texts.get(&found.abs).filter(|text| text.language == found.language);
        if let Some(text) = before
            && self.current.contains(&found.abs)
        {
            return Ok(Arc::clone(text));
        }
        let bytes = &mut self.buffer;
        bytes.clear();
        File::open(&found.abs)
            .and_then(|mut file| file.read_to_end(bytes))
            .with_context(|| format!("cannot read {}", found.abs.display()))?;
        let text = match before.filter(|text| text.bytes == *bytes) {
            Some(text) => Arc::clone(text),
            None => Arc::new(Text::new(found.language, bytes.clone())),
        };
        self.texts.insert(found.abs.clone(), Arc::clone(&text));
        self.current.insert(found.abs.clone());
        Ok(text)
    }

    /// Has those texts searched that are new.
    fn learn(&mut self, matcher: Matcher, texts: &[Arc<Text>]) -> Result<()> {
        let mut unknown = BTreeMap::new();
        for text in texts {
            let key = (matcher, text.id, text.language);
            if !self.findings.contains_key(&key) {
                unknown.insert((text.id, text.language), text);
            }
        }
        let unknown: Vec<&Arc<Text>> = unknown.into_values().collect();
        let store = self.house.home();
        for batch in unknown.chunks(BATCH) {
            let mut copies = BTreeMap::new();
            for text in batch {
                self.n_copies += 1;
                let extension = text.language.extensions().first().context("it has one")?;
                let name = format!("{}.{extension}", self.n_copies);
                std::fs::write(store.join(&name), &text.bytes)?;
                copies.insert(name, (*text, Finding::default()));
            }
            let question = Question::of(matcher, copies.keys().cloned().collect());
            let told = question.ask(&mut self.client, &store)?;
            for FileAnswer { file, matches, .. } in told.answer.files {
                let (_, finding) = copies.get_mut(&file).context("a file that nobody asked for")?;
                for text in matches {
                    let cut =
                        text.split_once(&member(&file)).context("a match without its file")?;
                    finding.matches.push((cut.0.to_owned(), cut.1.to_owned()));
                }
            }
            for (file, reason) in told.answer.skipped {
                let (_, finding) = copies.get_mut(&file).context("a file that nobody asked for")?;
                finding.skipped = Some(reason);
            }
            for (name, (text, finding)) in copies {
                std::fs::remove_file(store.join(name))?;
                self.findings.insert((matcher, text.id, text.language), Arc::new(finding));
            }
        }
        Ok(())
    }
}

/// A file that a question selects.
struct Found {
    /// As ast-grep prints it.
    display: String,
    abs: PathBuf,
    language: Language,
}

#[derive(Default)]
struct Walked {
    files: Vec<Found>,
    /// What can't be walked.
    issues: Vec<String>,
}

/// Walks what a question selects, as ast-grep does.
fn walk(root: &Path, question: &Question) -> Result<Walked> {
    let mut walked = Walked::default();
    let mut overrides = OverrideBuilder::new(root);
    for glob in &question.globs {
        overrides.add(glob)?;
    }
    let overrides = overrides.build()?;
    let languages = question.matcher.language().map(with_hosts);
    let here = [".".to_owned()];
    for typed in if question.paths.is_empty() { &here } else { &*question.paths } {
        let below = typed.strip_prefix("./").unwrap_or(typed);
        let path = if below == "." { root.to_owned() } else { root.join(below) };
        let Ok(metadata) = path.metadata() else {
            let shown = Path::new(typed).strip_prefix("./").unwrap_or(Path::new(typed));
            walked.issues.push(shown.to_string_lossy().into_owned());
            continue;
        };
        let selects = |name: &Path, metadata: &Metadata, path: &Path| {
            let language = language_of(name, metadata, path)?;
            languages.as_ref().is_none_or(|all| all.contains(&language)).then_some(language)
        };
        if metadata.is_file() {
            let language = selects(Path::new(below), &metadata, &path);
            let display = below.to_owned();
            walked.files.extend(language.map(|language| Found { display, abs: path, language }));
            continue;
        }
        let mut builder = WalkBuilder::new(&path);
        builder
            .current_dir(root)
            .follow_links(question.follow)
            .overrides(overrides.clone())
            .hidden(!question.hidden)
            .git_global(false)
            .git_ignore(!question.no_vcs)
            .git_exclude(!question.no_vcs);
        if let Some(languages) = &languages {
            builder.types(types(languages)?);
        }
        let display = |path: &Path| -> Result<String> {
            let shown = path.strip_prefix(root).context("it lies below the root")?;
            Ok(shown.to_str().context("names are UTF-8")?.to_owned())
        };
        for entry in builder.build() {
            match entry {
                Ok(entry) if entry.file_type().is_some_and(|kind| kind.is_file()) => {
                    let Some(metadata) = metadata_of(&entry) else { continue };
                    let name = Path::new(entry.file_name());
                    if let Some(language) = selects(name, &metadata, entry.path()) {
                        let display = display(entry.path())?;
                        let abs = entry.into_path();
                        walked.files.push(Found { display, abs, language });
                    }
                }
                Ok(_) => {}
                Err(error) => {
                    walked.issues.extend(unwalkable(&error).map(display).transpose()?);
                }
            }
        }
    }
    walked.files.sort_by(|a, b| a.display.cmp(&b.display));
    Ok(walked)
}

fn metadata_of(entry: &DirEntry) -> Option<Metadata> {
    entry.metadata().ok()
}

/// A language, and those whose files may embed it.
fn with_hosts(language: Language) -> BTreeSet<Language> {
    let hosts = Language::ALL.iter().copied().filter(|host| host.injectable().contains(&language));
    hosts.chain([language]).collect()
}

fn types(languages: &BTreeSet<Language>) -> Result<Types> {
    let mut builder = TypesBuilder::new();
    for language in languages {
        for glob in language.globs() {
            builder.add(language.name(), &glob)?;
        }
        // Of this language only the first line tells.
        ensure!(*language != Language::Erlang, "questions in Erlang aren't understood here");
        builder.select(language.name());
    }
    Ok(builder.build()?)
}

/// By the name, or where that says nothing by an executable file's first line.
fn language_of(name: &Path, metadata: &Metadata, path: &Path) -> Option<Language> {
    let by_name = Language::from_path(name);
    let is_silent = name.extension().is_none()
        && !name.file_name()?.as_encoded_bytes().starts_with(b".")
        && metadata.permissions().mode() & 0o111 != 0;
    by_name.or_else(|| {
        let bytes = is_silent.then(|| std::fs::read(path).ok()).flatten()?;
        let line = bytes.split(|byte| *byte == b'\n').next()?;
        Language::from_shebang(str::from_utf8(line).ok()?)
    })
}

/// What a walker's error is about, if that is a file or directory.
fn unwalkable(error: &ignore::Error) -> Option<&Path> {
    match error {
        ignore::Error::WithDepth { err, .. } | ignore::Error::WithLineNumber { err, .. } => {
            unwalkable(err)
        }
        ignore::Error::WithPath { path, err } => err.io_error().map(|_| &**path),
        ignore::Error::Loop { child, .. } => Some(child),
        _ => None,
    }
}

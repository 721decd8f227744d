//! Which files a query is about: ast-grep's own walk, and the paths as it would print them.
//!
//! ast-grep walks relative paths from its current directory. A daemon has none that is the
//! user's, so this walks absolute paths that end in what was typed, unnormalised: ignore rules and
//! globs match paths textually, and `cwd/../x` loses the prefix `cwd/` to what ast-grep sees.

use crate::read::stat_of;
use astscope_repository::FileStat;
use astscope_syntax::Language;
use ignore::overrides::{Override, OverrideBuilder};
use ignore::types::{Types, TypesBuilder};
use ignore::{DirEntry, ParallelVisitor, ParallelVisitorBuilder, WalkBuilder, WalkState};
use std::collections::BTreeSet;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use thiserror::Error;

/// Threads of one walk, as many as ast-grep takes at most.
const THREADS_MAX: usize = 12;
/// A shebang line longer than this is not one of ours.
const SHEBANG_BYTES_MAX: u64 = 64;

/// Which files are selected: ast-grep's input arguments.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WalkSpec {
    /// The directory that `paths` and `globs` refer to; absolute.
    pub cwd: PathBuf,
    /// Files and directories as typed. Empty means `.`.
    pub paths: Vec<String>,
    /// Include and exclude globs, later ones win, `!` excludes.
    pub globs: Vec<String>,
    /// Sources of ignore rules to disregard.
    pub no_ignore: Vec<IgnoreSource>,
    /// Follow symbolic links.
    pub follow: bool,
    /// Globs that say a file's language before its name does.
    pub language_globs: LanguageGlobs,
    /// Only files of these languages, or that may embed one of them. `None` for all.
    pub languages: Option<Vec<Language>>,
}

/// A source of ignore rules that can be disregarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IgnoreSource {
    /// That the name begins with a dot.
    Hidden,
    /// `.ignore` files.
    Dot,
    /// `.git/info/exclude`.
    Exclude,
    /// git's `core.excludesFile`.
    Global,
    /// Ignore files of directories above.
    Parent,
    /// All of git's sources.
    Vcs,
}

/// A glob that can't be compiled.
#[derive(Debug, Error)]
#[error("cannot compile the glob")]
pub struct GlobError(#[from] ignore::Error);

/// Compiled `languageGlobs`.
#[derive(Clone, Debug, Default)]
pub struct LanguageGlobs(Vec<(Language, Vec<String>, Types)>);

impl PartialEq for LanguageGlobs {
    fn eq(&self, other: &Self) -> bool {
        // What they are compiled to follows from them.
        let (ours, theirs) = (self.0.iter(), other.0.iter());
        ours.map(|(l, globs, _)| (l, globs)).eq(theirs.map(|(l, globs, _)| (l, globs)))
    }
}

impl LanguageGlobs {
    /// Compiles the globs of each language. Where two languages claim a file, the first has it.
    pub fn compile(
        globs: impl IntoIterator<Item = (Language, Vec<String>)>,
    ) -> Result<Self, GlobError> {
        let mut compiled = Vec::new();
        for (language, globs) in globs {
            let mut builder = TypesBuilder::new();
            for glob in &globs {
                builder.add(language.name(), glob)?;
            }
            builder.select(language.name());
            compiled.push((language, globs, builder.build()?));
        }
        Ok(Self(compiled))
    }

    /// The language of a file by its path alone: these globs first, then what its name says.
    pub fn language_of(&self, path: &Path) -> Option<Language> {
        let mut claims =
            self.0.iter().filter(|(_, _, types)| types.matched(path, false).is_whitelist());
        claims.next().map(|(language, ..)| *language).or_else(|| Language::from_path(path))
    }

    fn extra(&self, language: Language) -> impl Iterator<Item = &String> {
        self.0.iter().filter(move |(known, ..)| *known == language).flat_map(|(_, globs, _)| globs)
    }
}

impl WalkSpec {
    /// Everything that a plain walk of `root` finds.
    pub fn all_of(root: &Path) -> Self {
        Self { cwd: root.to_path_buf(), paths: vec![".".to_owned()], ..Self::default() }
    }

    /// What was typed, or what that means if nothing was.
    pub(crate) fn typed_paths(&self) -> impl Iterator<Item = &str> {
        let here = self.paths.is_empty().then_some(".");
        here.into_iter().chain(self.paths.iter().map(String::as_str))
    }

    /// Whether nothing widens the walk: what it finds under a directory, a walk from further up
    /// finds too, if it gets there.
    pub(crate) fn is_plain(&self) -> bool {
        self.globs.is_empty() && self.no_ignore.is_empty() && !self.follow
    }

    /// The languages whose files are selected, with those that may embed them.
    fn selected_languages(&self) -> Option<BTreeSet<Language>> {
        let wanted = self.languages.as_ref()?;
        let hosts = Language::ALL
            .iter()
            .copied()
            .filter(|host| host.injectable().iter().any(|embedded| wanted.contains(embedded)));
        Some(wanted.iter().copied().chain(hosts).collect())
    }

    /// Whether a typed path is a directory, at this moment.
    pub(crate) fn enters_directories(&self) -> bool {
        self.typed_paths().any(|typed| join(&self.cwd, typed).is_dir())
    }

    /// What it takes to walk directories, if there are any: of a typed file nobody asks whether its
    /// name is one of the language's, and to compile those takes longer than the rest.
    fn compile(&self, has_directories: bool) -> Result<Plan<'_>, GlobError> {
        let mut overrides = OverrideBuilder::new(&self.cwd);
        for glob in &self.globs {
            overrides.add(glob)?;
        }
        let languages = self.selected_languages();
        let filtered = languages.as_ref().filter(|_| has_directories);
        let types = filtered.map(|all| file_types(all, &self.language_globs)).transpose()?;
        Ok(Plan { spec: self, overrides: overrides.build()?, types, languages })
    }
}

/// ast-grep's file types of a set of languages.
fn file_types(languages: &BTreeSet<Language>, globs: &LanguageGlobs) -> Result<Types, GlobError> {
    let mut builder = TypesBuilder::new();
    for language in languages {
        for glob in language.globs().chain(globs.extra(*language).cloned()) {
            builder.add(language.name(), &glob)?;
        }
        if *language == Language::Erlang {
            // Scripts without an extension pass this filter; their shebang decides later.
            builder.add(language.name(), "*")?;
        }
        builder.select(language.name());
    }
    Ok(builder.build()?)
}

/// A file that the walk found.
#[derive(Clone, Debug)]
pub struct Found {
    /// The path as ast-grep prints it.
    pub display: Arc<str>,
    /// Absolute, without symlinks.
    pub abs: Arc<Path>,
    /// Its language.
    pub language: Language,
    /// Its metadata.
    pub stat: FileStat,
    /// Which of the typed paths led to it.
    pub typed: usize,
}

/// Something that could not be walked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issue {
    /// The path as ast-grep would print it.
    pub display: String,
    /// The operating system's words.
    pub error: String,
}

/// What a walk came to.
#[derive(Clone, Debug, Default)]
pub struct Walked {
    /// Sorted by display path, then in the order of the typed paths.
    pub files: Vec<Found>,
    /// Every directory that was entered, without symlinks, with the typed path that led to it.
    pub directories: Vec<(PathBuf, usize)>,
    /// Files whose first line and mode say whether they are selected, and as what.
    pub(crate) by_content: Vec<PathBuf>,
    /// What could not be looked at.
    pub issues: Vec<Issue>,
    /// For each typed path what it resolves to, if it exists.
    pub resolved: Vec<Option<PathBuf>>,
}

impl Walked {
    /// About how many bytes it takes.
    pub(crate) fn bytes(&self) -> usize {
        let found = |it: &Found| size_of::<Found>() + it.abs.as_os_str().len() + it.display.len();
        let path = |path: &PathBuf| size_of::<PathBuf>() + path.as_os_str().len();
        self.files.iter().map(found).sum::<usize>()
            + self.directories.iter().map(|(directory, _)| path(directory)).sum::<usize>()
            + self.by_content.iter().map(path).sum::<usize>()
    }
}

struct Plan<'s> {
    spec: &'s WalkSpec,
    overrides: Override,
    types: Option<Types>,
    languages: Option<BTreeSet<Language>>,
}

/// One typed path.
struct Typed {
    index: usize,
    /// What is walked.
    walked: PathBuf,
    /// The same without symlinks.
    resolved: PathBuf,
    /// What ast-grep prints before the rest of a path.
    prefix: Vec<u8>,
}

/// Walks, until `stop` says so: then the result is incomplete.
///
/// # Errors
/// Only when a glob can't be compiled. What can't be read is an [`Issue`].
pub fn walk(spec: &WalkSpec, stop: &(dyn Fn() -> bool + Sync)) -> Result<Walked, GlobError> {
    let mut walked = Walked::default();
    let look = |(index, typed)| {
        // ast-grep takes `-` for the standard input, and then reads nothing.
        if typed == "-" || stop() {
            return None;
        }
        let path = join(&spec.cwd, typed);
        let known = std::fs::metadata(&path).and_then(|meta| Ok((meta, path.canonicalize()?)));
        Some((index, typed, path, known))
    };
    let looked: Vec<_> = spec.typed_paths().enumerate().filter_map(look).collect();
    let is_dir = |known: &io::Result<(Metadata, _)>| known.as_ref().is_ok_and(|it| it.0.is_dir());
    let plan = spec.compile(looked.iter().any(|(.., known)| is_dir(known)))?;
    walked.resolved.resize(spec.typed_paths().count(), None);
    for (index, typed, path, known) in looked {
        let (metadata, resolved) = match known {
            Ok(known) => known,
            Err(error) => {
                walked.issues.push(Issue { display: shown(typed), error: error.to_string() });
                continue;
            }
        };
        walked.resolved[index] = Some(resolved.clone());
        if metadata.is_dir() {
            let prefix = prefix(typed);
            plan.walk_directory(
                &Typed { index, walked: path, resolved, prefix },
                stop,
                &mut walked,
            );
        } else if metadata.is_file()
            && let Some(language) =
                plan.language_of(Path::new(typed), || Some(metadata.clone()), &path)
        {
            let (display, stat) = (shown(typed).into(), stat_of(&metadata));
            let abs = resolved.as_path().into();
            walked.files.push(Found { display, abs, language, stat, typed: index });
        }
    }
    walked.files.sort_unstable_by(|a, b| (&a.display, a.typed).cmp(&(&b.display, b.typed)));
    walked.issues.sort_unstable_by(|a, b| a.display.cmp(&b.display));
    Ok(walked)
}

/// What a plain walk finds directly in a directory that it gets to. Its subdirectories are among the
/// directories, and aren't looked into.
pub(crate) fn entries(directory: &Path) -> Result<Walked, GlobError> {
    let spec = WalkSpec::all_of(directory);
    let plan = spec.compile(true)?;
    let resolved = directory.to_path_buf();
    let typed = Typed { index: 0, walked: resolved.clone(), resolved, prefix: Vec::new() };
    let all = Mutex::new(Walked::default());
    let mut visitors = Visitors { plan: &plan, typed: &typed, stop: &|| false, all: &all };
    let mut visitor = visitors.build();
    for entry in plan.builder(&typed).max_depth(Some(1)).build() {
        visitor.visit(entry);
    }
    drop(visitor);
    Ok(all.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// `cwd/typed`, without the `./` that means nothing to ast-grep either.
pub(crate) fn join(cwd: &Path, typed: &str) -> PathBuf {
    let typed = Path::new(typed);
    let typed = typed.strip_prefix("./").unwrap_or(typed);
    if typed.as_os_str().is_empty() { cwd.to_path_buf() } else { cwd.join(typed) }
}

/// A path as ast-grep prints it.
fn shown(path: impl AsRef<Path>) -> String {
    let path = path.as_ref();
    path.strip_prefix("./").unwrap_or(path).to_string_lossy().into_owned()
}

/// What ast-grep prints before the part of a path that lies under a typed directory.
fn prefix(typed: &str) -> Vec<u8> {
    let below = Path::new(typed).join("x");
    let below = below.strip_prefix("./").unwrap_or(&below);
    let mut bytes = below.as_os_str().as_bytes().to_vec();
    bytes.pop();
    bytes
}

impl Plan<'_> {
    fn walk_directory(&self, typed: &Typed, stop: &(dyn Fn() -> bool + Sync), walked: &mut Walked) {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let all = Mutex::new(std::mem::take(walked));
        let walk = self.builder(typed).threads(threads.min(THREADS_MAX)).build_parallel();
        walk.visit(&mut Visitors { plan: self, typed, stop, all: &all });
        *walked = all.into_inner().unwrap_or_else(PoisonError::into_inner);
    }

    fn builder(&self, typed: &Typed) -> WalkBuilder {
        let disregards = |source| self.spec.no_ignore.contains(&source);
        let vcs = !disregards(IgnoreSource::Vcs);
        let mut builder = WalkBuilder::new(&typed.walked);
        builder
            .current_dir(&self.spec.cwd)
            .follow_links(self.spec.follow)
            .overrides(self.overrides.clone())
            .hidden(!disregards(IgnoreSource::Hidden))
            .parents(!disregards(IgnoreSource::Parent))
            .ignore(!disregards(IgnoreSource::Dot))
            .git_global(vcs && !disregards(IgnoreSource::Global))
            .git_ignore(vcs)
            .git_exclude(vcs && !disregards(IgnoreSource::Exclude));
        if let Some(types) = &self.types {
            builder.types(types.clone());
        }
        builder
    }

    /// The language of a file if it is selected. `metadata` is asked only where the name says
    /// nothing.
    fn language_of(
        &self,
        name: &Path,
        metadata: impl FnOnce() -> Option<Metadata>,
        path: &Path,
    ) -> Option<Language> {
        let selects = |language| self.languages.as_ref().is_none_or(|all| all.contains(&language));
        if let Some(language) = self.spec.language_globs.language_of(name) {
            return selects(language).then_some(language);
        }
        if !self.goes_by_content(name) {
            return None;
        }
        // Scripts are executable; opening every README on every walk would cost too much.
        let metadata = metadata()?;
        if metadata.mode() & 0o111 == 0 {
            return None;
        }
        Language::from_shebang(&first_line(path)?).filter(|language| selects(*language))
    }

    /// Whether the name of a file leaves open whether it is selected.
    fn goes_by_content(&self, name: &Path) -> bool {
        let is_hidden = name.file_name().is_none_or(|name| name.as_bytes().starts_with(b"."));
        name.extension().is_none()
            && !is_hidden
            && self.languages.as_ref().is_none_or(|all| all.contains(&Language::Erlang))
            && self.spec.language_globs.language_of(name).is_none()
    }
}

fn first_line(path: &Path) -> Option<String> {
    // A FIFO that took the file's place must not be waited for.
    let nonblocking = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).ok()?;
    let file = File::options().read(true).custom_flags(nonblocking).open(path).ok()?;
    let mut head = Vec::new();
    file.take(SHEBANG_BYTES_MAX).read_to_end(&mut head).ok()?;
    let line = head.split(|byte| *byte == b'\n').next()?;
    String::from_utf8(line.to_vec()).ok()
}

struct Visitors<'w> {
    plan: &'w Plan<'w>,
    typed: &'w Typed,
    stop: &'w (dyn Fn() -> bool + Sync),
    all: &'w Mutex<Walked>,
}

impl<'w> ParallelVisitorBuilder<'w> for Visitors<'w> {
    fn build(&mut self) -> Box<dyn ParallelVisitor + 'w> {
        Box::new(Visitor {
            plan: self.plan,
            typed: self.typed,
            stop: self.stop,
            all: self.all,
            own: Walked::default(),
        })
    }
}

/// Collects on one thread what it visits, and hands it over when it is done.
struct Visitor<'w> {
    plan: &'w Plan<'w>,
    typed: &'w Typed,
    stop: &'w (dyn Fn() -> bool + Sync),
    all: &'w Mutex<Walked>,
    own: Walked,
}

impl ParallelVisitor for Visitor<'_> {
    fn visit(&mut self, entry: Result<DirEntry, ignore::Error>) -> WalkState {
        if (self.stop)() {
            return WalkState::Quit;
        }
        match entry {
            Ok(entry) => self.visit_entry(&entry),
            Err(error) => self.own.issues.extend(self.issue(&error)),
        }
        WalkState::Continue
    }
}

impl Drop for Visitor<'_> {
    fn drop(&mut self) {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.files.append(&mut self.own.files);
        all.directories.append(&mut self.own.directories);
        all.by_content.append(&mut self.own.by_content);
        all.issues.append(&mut self.own.issues);
    }
}

impl Visitor<'_> {
    fn visit_entry(&mut self, entry: &DirEntry) {
        let path = entry.path();
        let Some(kind) = entry.file_type() else { return };
        if kind.is_dir() {
            self.own.directories.extend(self.resolve(path).map(|dir| (dir, self.typed.index)));
            return;
        }
        if !kind.is_file() {
            return;
        }
        let metadata = || entry.metadata().ok();
        let name = Path::new(entry.file_name());
        if self.plan.goes_by_content(name) {
            self.own.by_content.extend(self.resolve(path));
        }
        let Some(language) = self.plan.language_of(name, metadata, path) else { return };
        match entry.metadata() {
            Ok(metadata) => {
                let Some(abs) = self.resolve(path) else { return };
                let display = self.display(path).into();
                let (stat, typed) = (stat_of(&metadata), self.typed.index);
                self.own.files.push(Found { display, abs: abs.into(), language, stat, typed });
            }
            Err(error) => self.own.issues.extend(self.issue(&error)),
        }
    }

    /// The part of a walked path below the typed directory.
    fn below<'p>(&self, path: &'p Path) -> &'p [u8] {
        let bytes = path.as_os_str().as_bytes();
        let below = bytes.strip_prefix(self.typed.walked.as_os_str().as_bytes()).unwrap_or(bytes);
        let slashes = below.iter().take_while(|byte| **byte == b'/').count();
        &below[slashes..]
    }

    fn display(&self, path: &Path) -> String {
        let bytes = [&self.typed.prefix, self.below(path)].concat();
        String::from_utf8(bytes)
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
    }

    /// Without symlinks. A plain walk goes through none below the typed directory.
    fn resolve(&self, path: &Path) -> Option<PathBuf> {
        if self.plan.spec.follow {
            return path.canonicalize().ok();
        }
        let below = self.below(path);
        if below.is_empty() {
            return Some(self.typed.resolved.clone());
        }
        let mut bytes = self.typed.resolved.as_os_str().as_bytes().to_vec();
        if !bytes.ends_with(b"/") {
            bytes.push(b'/');
        }
        bytes.extend_from_slice(below);
        Some(std::ffi::OsString::from_vec(bytes).into())
    }

    /// An error that is about a file or directory; faults in ignore files are not.
    fn issue(&self, error: &ignore::Error) -> Option<Issue> {
        match error {
            ignore::Error::WithDepth { err, .. } | ignore::Error::WithLineNumber { err, .. } => {
                self.issue(err)
            }
            ignore::Error::WithPath { path, err } => {
                let error = err.io_error()?.to_string();
                Some(Issue { display: self.display(path), error })
            }
            ignore::Error::Loop { ancestor, child } => {
                let error = format!("a loop: it leads back to {}", self.display(ancestor));
                Some(Issue { display: self.display(child), error })
            }
            _ => None,
        }
    }
}

//! A pattern over files of many languages: which matcher searches which tree.
//!
//! With a language given, its files are searched and the parts in that language inside other
//! files. Without one, each file is searched as what it is, and its embedded parts as what they
//! are; a language in which the pattern does not compile is passed over, as ast-grep does.

use astscope_pattern_matcher::{CompactDoc, CompileError, Match, Matcher, MatcherSpec};
use astscope_repository::ScopedFile;
use astscope_syntax::{KindTable, Language, ParsedTree};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A pattern, compiled for all languages that it may meet.
#[derive(Debug)]
pub struct PatternQuery {
    /// By the language of the file, then of the tree in it.
    matchers: BTreeMap<Language, Vec<Arc<Matcher>>>,
    hints: Vec<String>,
    is_explicit: bool,
}

/// Compiles a pattern for a language: [`Matcher::compile`], or something that remembers.
pub type Compile<'c> =
    dyn Fn(Language, &MatcherSpec, Option<&str>) -> Result<Arc<Matcher>, CompileError> + 'c;

/// The matches in one tree of a file.
#[derive(Debug)]
pub struct TreeMatches {
    /// The tree.
    pub doc: CompactDoc,
    /// Its matches, in the order of their nodes.
    pub matches: Vec<Match>,
}

impl PatternQuery {
    /// Compiles `spec` for `language`, or else for each of `hosts`, the languages of the files
    /// that will be searched.
    ///
    /// # Errors
    /// What is wrong with the pattern: in the given language, or, where each file has its own, in
    /// all of them.
    pub fn compile(
        spec: &MatcherSpec,
        language: Option<Language>,
        rewrite: Option<&str>,
        hosts: &BTreeSet<Language>,
    ) -> Result<Self, CompileError> {
        let compile: &Compile<'_> =
            &|language, spec, rewrite| Matcher::compile(language, spec, rewrite).map(Arc::new);
        Self::compile_with(compile, spec, language, rewrite, hosts)
    }

    /// As [`compile`](Self::compile), with another compiler.
    ///
    /// # Errors
    /// As there.
    pub fn compile_with(
        compile: &Compile<'_>,
        spec: &MatcherSpec,
        language: Option<Language>,
        rewrite: Option<&str>,
        hosts: &BTreeSet<Language>,
    ) -> Result<Self, CompileError> {
        match language {
            Some(language) => Self::compile_explicit(compile, spec, language, rewrite),
            None => Ok(Self::compile_inferred(compile, spec, rewrite, hosts)),
        }
    }

    fn compile_explicit(
        compile: &Compile<'_>,
        spec: &MatcherSpec,
        language: Language,
        rewrite: Option<&str>,
    ) -> Result<Self, CompileError> {
        let own = compile(language, spec, rewrite)?;
        let hints = own.hints().to_vec();
        let mut matchers = BTreeMap::new();
        for host in Language::ALL.iter().filter(|host| host.injectable().contains(&language)) {
            matchers.insert(*host, vec![Arc::clone(&own)]);
        }
        matchers.insert(language, vec![own]);
        Ok(Self { matchers, hints, is_explicit: true })
    }

    fn compile_inferred(
        compiler: &Compile<'_>,
        spec: &MatcherSpec,
        rewrite: Option<&str>,
        hosts: &BTreeSet<Language>,
    ) -> Self {
        let mut hints = Vec::new();
        let mut failures: Vec<(Language, String)> = Vec::new();
        let mut compile = |language: Language| match compiler(language, spec, rewrite) {
            Ok(matcher) => {
                hints.extend(matcher.hints().iter().cloned());
                Some(matcher)
            }
            Err(CompileError::Rewrite(error)) => {
                hints.push(format!("the rewrite was skipped for {language}: {error}"));
                compiler(language, spec, None).ok()
            }
            Err(error) => {
                failures.push((language, one_line(&error)));
                None
            }
        };
        let mut matchers = BTreeMap::new();
        for host in hosts {
            // A file whose own language refuses the pattern is passed over whole.
            let Some(own) = compile(*host) else { continue };
            let embedded = host.injectable().iter().filter_map(|language| compile(*language));
            matchers.insert(*host, std::iter::once(own).chain(embedded).collect());
        }
        if matchers.is_empty() {
            hints.extend(failures.iter().map(|(language, error)| {
                format!("the pattern is not valid as {language}: {error}")
            }));
        }
        hints.sort_unstable();
        hints.dedup();
        Self { matchers, hints, is_explicit: false }
    }

    /// Advice about the pattern.
    pub fn hints(&self) -> &[String] {
        &self.hints
    }

    /// Whether the pattern's own root is a syntax error, in the language given for it.
    pub fn pattern_has_error(&self) -> bool {
        self.is_explicit
            && self.matchers.values().flatten().any(|matcher| matcher.pattern_has_error())
    }

    /// Requirements by language name, one line each, for the languages that occur in `files`.
    pub fn describe(&self, files: &[ScopedFile]) -> BTreeMap<String, Vec<String>> {
        let mut tables: BTreeMap<Language, &KindTable> = BTreeMap::new();
        for (language, tree) in files.iter().flat_map(|file| file.record.file.trees()) {
            tables.entry(language).or_insert_with(|| tree.tree.table());
        }
        let all = self.matchers.values().flatten();
        let described = all.filter_map(|matcher| {
            let table = tables.get(&matcher.language())?;
            Some((matcher.language().name().to_owned(), matcher.requirement().describe(table)))
        });
        described.collect()
    }

    /// Whether some tree of the file has the kinds for a match.
    pub fn kinds_admit(&self, file: &ScopedFile) -> bool {
        self.pairs(file).any(|(matcher, tree)| matcher.requirement().kinds_admit(&tree.kinds))
    }

    /// Whether the file may contain a match.
    pub fn admits(&self, file: &ScopedFile) -> bool {
        let text = &file.record.file.text;
        self.pairs(file).any(|(matcher, tree)| matcher.requirement().admits(text, tree))
    }

    /// Whether the file is in a language that is searched.
    pub fn searches(&self, file: &ScopedFile) -> bool {
        self.pairs(file).next().is_some()
    }

    /// All matches in the file, host tree first, at most `limit`; `None` if it can't have any.
    /// Ends early when `stop` says so.
    pub fn search(
        &self,
        file: &ScopedFile,
        limit: usize,
        stop: &dyn Fn() -> bool,
    ) -> Option<Vec<TreeMatches>> {
        self.admits(file).then(|| self.verify(file, limit, stop))
    }

    /// As [`search`](Self::search), in a file that [`admits`](Self::admits) doesn't rule out.
    pub fn verify(
        &self,
        file: &ScopedFile,
        limit: usize,
        stop: &dyn Fn() -> bool,
    ) -> Vec<TreeMatches> {
        let matchers = self.matchers.get(&file.record.language);
        let matchers = matchers.map(Vec::as_slice).unwrap_or_default();
        let text = &file.record.file.text;
        let mut left = limit;
        let mut found = Vec::new();
        for (at, doc) in CompactDoc::all(&file.record.file).enumerate() {
            let Some(matcher) =
                matcher_for(matchers, file.record.language, doc.language(), at == 0)
            else {
                continue;
            };
            if !matcher.requirement().admits(text, doc.parsed()) {
                continue;
            }
            let matches = matcher.find_until(doc.clone(), left, stop);
            left -= matches.len();
            if !matches.is_empty() {
                found.push(TreeMatches { doc, matches });
            }
        }
        found
    }

    /// Each tree of the file with the matcher that searches it.
    fn pairs<'f>(
        &'f self,
        file: &'f ScopedFile,
    ) -> impl Iterator<Item = (&'f Matcher, &'f ParsedTree)> {
        let host = file.record.language;
        let matchers = self.matchers.get(&host).map(Vec::as_slice).unwrap_or_default();
        file.record.file.trees().enumerate().filter_map(move |(at, (language, tree))| {
            matcher_for(matchers, host, language, at == 0).map(|matcher| (matcher, tree))
        })
    }
}

/// The matcher of a tree, if there is one: the host tree's is of the file's own language, which
/// an injected tree's never is.
fn matcher_for(
    matchers: &[Arc<Matcher>],
    host: Language,
    tree: Language,
    is_host: bool,
) -> Option<&Matcher> {
    let matcher = matchers.iter().find(|matcher| matcher.language() == tree)?;
    (is_host == (matcher.language() == host)).then_some(matcher)
}

fn one_line(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        line = format!("{line}: {error}");
        source = error.source();
    }
    line
}

//! `run` and `scan`: a fresh scope, a compiled query, matches streamed file by file.

use crate::daemon::Daemon;
use crate::request::RequestContext;
use crate::{errors, wire};
use astscope_parsing::Source;
use astscope_pattern_matcher::{CompactDoc, Matcher, MatcherSpec, RuleMatch, RuleSet, Severity};
use astscope_protocol::frame::RpcError;
use astscope_protocol::messages::{
    Delivery, Item, Matches, RunParams, ScanParams, SkippedFile, Summary,
};
use astscope_querying::{
    Bounds, Found, Gone, PatternQuery, QueryError, RuleQuery, Totals, execute,
};
use astscope_repository::{Scope, ScopedFile};
use astscope_syntax::{ContentId, Language, SkipReason};
use serde::Serialize;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

/// What was found in one file, encoded where it was found: on a thread of the pool.
#[derive(Debug, Default)]
struct Records {
    /// All that count, also where nobody wants more than the file's name.
    n_matches: usize,
    matches: Matches,
    /// Which of them are errors, in a scan.
    is_error: Vec<bool>,
}

impl Records {
    fn push(&mut self, record: &impl Serialize) {
        #[expect(clippy::expect_used, reason = "structs of texts and numbers always serialise")]
        self.matches.push(record).expect("a match can be written as JSON");
        self.n_matches += 1;
    }

    fn n_errors(&self) -> u64 {
        self.is_error.iter().filter(|is_error| **is_error).count() as u64
    }
}

impl Found for Records {
    fn n_matches(&self) -> usize {
        self.n_matches
    }

    fn truncate(&mut self, n: usize) {
        self.n_matches = n.min(self.n_matches);
        self.matches.truncate(n);
        self.is_error.truncate(n);
    }
}

/// A language by its name in a request.
pub(crate) fn language_of(name: Option<&str>) -> Result<Option<Language>, RpcError> {
    name.map(str::parse).transpose().map_err(|error| errors::language(&error))
}

/// Compiles for a scope: in the language given, or in those of its files.
pub(crate) fn compile(
    params: &RunParams,
    language: Option<Language>,
    scope: &Scope,
    context: &RequestContext,
) -> Result<PatternQuery, RpcError> {
    let hosts: BTreeSet<Language> = scope.files.iter().map(|file| file.record.language).collect();
    let spec = wire::matcher_spec(params.matcher.clone());
    let compile = |language, spec: &MatcherSpec, rewrite: Option<&str>| {
        context.compile(language, spec, rewrite)
    };
    PatternQuery::compile_with(&compile, &spec, language, params.rewrite.as_deref(), &hosts)
        .map_err(|error| errors::compile(&error))
}

pub(crate) fn run(
    daemon: &Arc<Daemon>,
    context: &RequestContext,
    params: &RunParams,
) -> Result<Summary, RpcError> {
    let language = language_of(params.language.as_deref())?;
    if let Some(text) = &params.selection.stdin {
        return run_text(daemon, context, params, language, text);
    }
    if let Some(language) = language {
        // A fault in the pattern is told before anything is walked.
        let spec = wire::matcher_spec(params.matcher.clone());
        let compiled = context.compile(language, &spec, params.rewrite.as_deref());
        compiled.map_err(|error| errors::compile(&error))?;
    }
    let wanted = language.map(|language| vec![language]);
    let scope = daemon.workspaces.scope(
        daemon,
        context,
        &params.selection,
        wanted,
        params.delivery.no_wait,
    )?;
    let query = compile(params, language, &scope, context)?;
    let search = |file: &ScopedFile, limit: usize| {
        let found = query.search(file, limit, &|| context.interrupt().is_some())?;
        let mut records = Records::default();
        if params.delivery.files_only {
            records.n_matches = usize::from(!found.is_empty());
            return Some(records);
        }
        for tree in &found {
            for found in &tree.matches {
                records.push(&wire::run_record(
                    &tree.doc,
                    &file.display,
                    found,
                    params.context,
                    params.delivery.brief,
                ));
            }
        }
        Some(records)
    };
    let summary = stream(daemon, context, &params.delivery, &scope, &search)?;
    Ok(Summary {
        pattern_has_error: query.pattern_has_error(),
        hints: query.hints().to_vec(),
        ..summary
    })
}

/// A text from standard input is searched as it is: no skip rules, no embedded languages.
fn run_text(
    daemon: &Daemon,
    context: &RequestContext,
    params: &RunParams,
    language: Option<Language>,
    text: &str,
) -> Result<Summary, RpcError> {
    let Some(language) = language else {
        return Err(errors::params("a language must be given for code from standard input"));
    };
    let spec = wire::matcher_spec(params.matcher.clone());
    let matcher = Matcher::compile(language, &spec, params.rewrite.as_deref())
        .map_err(|error| errors::compile(&error))?;
    let doc = parse_text(daemon, context, language, text)?;
    let limit = params.delivery.limit.unwrap_or(u64::MAX);
    let wanted = usize::try_from(limit.saturating_add(1)).unwrap_or(usize::MAX);
    let mut found = matcher.find_all(doc.clone(), wanted);
    let limit_reached = found.len() as u64 > limit;
    found.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    let mut records = Records::default();
    for found in &found {
        records.push(&wire::run_record(
            &doc,
            "STDIN",
            found,
            params.context,
            params.delivery.brief,
        ));
    }
    deliver_text(context, &params.delivery, text, records)?;
    Ok(Summary {
        matches: found.len() as u64,
        files_matched: u64::from(!found.is_empty()),
        files_verified: 1,
        files_selected: 1,
        limit_reached,
        pattern_has_error: matcher.pattern_has_error(),
        hints: matcher.hints().to_vec(),
        elapsed_us: elapsed_us(context),
        ..Summary::default()
    })
}

pub(crate) fn scan(
    daemon: &Arc<Daemon>,
    context: &RequestContext,
    params: ScanParams,
) -> Result<Summary, RpcError> {
    let sources: Vec<_> = params.rules.into_iter().map(wire::rule_source).collect();
    let utils: Vec<_> = params.utils.into_iter().map(wire::rule_source).collect();
    let rules = RuleSet::compile(&sources, &utils, &wire::overrides(params.overrides))
        .map_err(|error| errors::rules(&error))?;
    let project_dir = PathBuf::from(&params.project_dir);
    let project_dir = project_dir.canonicalize().unwrap_or(project_dir);
    let query = RuleQuery { rules, project_dir, all_fixes: params.all_fixes };
    let push = |records: &mut Records, doc: &CompactDoc, file: &str, found: &RuleMatch<'_>| {
        let (metadata, all_fixes) = (params.include_metadata, params.all_fixes);
        let brief = params.delivery.brief;
        records.push(&wire::scan_record(doc, file, found, metadata, all_fixes, brief));
        records.is_error.push(found.rule.severity == Severity::Error);
    };
    if let Some(text) = &params.selection.stdin {
        let Some(language) = query.rules.languages().next() else { return Ok(Summary::default()) };
        let doc = parse_text(daemon, context, language, text)?;
        let found = query.rules.scan(doc.clone(), std::path::Path::new("STDIN"), params.all_fixes);
        let limit =
            usize::try_from(params.delivery.limit.unwrap_or(u64::MAX)).unwrap_or(usize::MAX);
        let mut records = Records::default();
        for found in found.iter().take(limit) {
            push(&mut records, &doc, "STDIN", found);
        }
        let (matches, error_matches) = (records.n_matches as u64, records.n_errors());
        deliver_text(context, &params.delivery, text, records)?;
        return Ok(Summary {
            matches,
            error_matches,
            files_matched: u64::from(matches > 0),
            limit_reached: found.len() > limit,
            elapsed_us: elapsed_us(context),
            ..Summary::default()
        });
    }
    let wanted = Some(query.rules.languages().collect());
    let scope = daemon.workspaces.scope(
        daemon,
        context,
        &params.selection,
        wanted,
        params.delivery.no_wait,
    )?;
    let search = |file: &ScopedFile, limit: usize| {
        let mut records = Records::default();
        for (doc, matches) in &query.search(file, limit)? {
            for found in matches {
                push(&mut records, doc, &file.display, found);
            }
        }
        Some(records)
    };
    stream(daemon, context, &params.delivery, &scope, &search)
}

/// Executes a search and sends each file's records.
fn stream(
    daemon: &Daemon,
    context: &RequestContext,
    delivery: &Delivery,
    scope: &Scope,
    search: &(dyn Fn(&ScopedFile, usize) -> Option<Records> + Sync),
) -> Result<Summary, RpcError> {
    let interrupt = || context.interrupt();
    let bounds = Bounds { limit: delivery.limit.unwrap_or(u64::MAX), interrupt: &interrupt };
    let mut error_matches = 0;
    let mut deliver = |file: &ScopedFile, found: Records| -> Result<(), Gone> {
        // A slow client takes long to read what was found before, and may give up meanwhile.
        if context.interrupt().is_some() {
            return Err(Gone);
        }
        error_matches += found.n_errors();
        context.send_item(Item {
            id: context.id,
            file: file.display.to_string(),
            content_id: file.record.content.to_string(),
            source: delivery.include_source.then(|| file.record.file.text.to_string()),
            matches: if delivery.files_only { Matches::default() } else { found.matches },
        })
    };
    let totals = execute(&scope.files, &daemon.pool, &bounds, search, &mut deliver)
        .map_err(|error| errors::query(context.interrupt().map_or(error, Into::into)))?;
    Ok(Summary { error_matches, ..summary(context, scope, totals) })
}

fn parse_text(
    daemon: &Daemon,
    context: &RequestContext,
    language: Language,
    text: &str,
) -> Result<CompactDoc, RpcError> {
    let stop = || context.interrupt().is_some();
    let source = Source::new(text.into(), language);
    let parsed = daemon.parsers.parse(source, &stop);
    let parsed = parsed.map_err(|reason| match (&reason, context.interrupt()) {
        (SkipReason::ParseTimeout, Some(interrupt)) => errors::query(interrupt.into()),
        _ => errors::skipped("STDIN", &reason),
    })?;
    Ok(CompactDoc::host(Arc::new(parsed)))
}

fn deliver_text(
    context: &RequestContext,
    delivery: &Delivery,
    text: &str,
    found: Records,
) -> Result<(), RpcError> {
    if found.n_matches == 0 {
        return Ok(());
    }
    let item = Item {
        id: context.id,
        file: "STDIN".to_owned(),
        content_id: ContentId::of(text.as_bytes()).to_string(),
        source: delivery.include_source.then(|| text.to_owned()),
        matches: if delivery.files_only { Matches::default() } else { found.matches },
    };
    context.send_item(item).map_err(|Gone| errors::query(QueryError::Cancelled))
}

fn summary(context: &RequestContext, scope: &Scope, totals: Totals) -> Summary {
    Summary {
        revision: scope.revision.map(crate::wire::revision),
        matches: totals.matches,
        files_matched: totals.files_matched,
        files_verified: totals.files_verified,
        files_selected: scope.files.len() as u64 + scope.pending as u64,
        files_pending: scope.pending as u64,
        skipped: skipped_files(scope),
        limit_reached: totals.limit_reached,
        elapsed_us: elapsed_us(context),
        ..Summary::default()
    }
}

fn skipped_files(scope: &Scope) -> Vec<SkippedFile> {
    let skipped = scope.skipped.iter();
    skipped.map(|(path, reason)| wire::skipped(path.clone(), reason)).collect()
}

fn elapsed_us(context: &RequestContext) -> u64 {
    u64::try_from(context.started.elapsed().as_micros()).unwrap_or(u64::MAX)
}

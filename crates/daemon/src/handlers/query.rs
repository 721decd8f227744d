//! `run` and `scan`: a fresh scope, a compiled query, matches streamed file by file.

use crate::daemon::Daemon;
use crate::parsers::parse_one;
use crate::records::Records;
use crate::request::RequestContext;
use crate::{errors, wire};
use astscope_parsing::Source;
use astscope_pattern_matcher::{CompactDoc, Matcher, MatcherSpec, RuleMatch, RuleSet, Severity};
use astscope_protocol::frame::RpcError;
use astscope_protocol::messages::{
    Delivery, Item, Matches, RunParams, ScanParams, Selection, SkippedFile, Summary, method,
};
use astscope_querying::service::Recalled;
use astscope_querying::{
    Bounds, Found as _, Gone, PatternQuery, QueryError, QueryKey, RuleQuery, Totals, execute,
};
use astscope_repository::{Scope, ScopedFile};
use astscope_syntax::{ContentId, Language, SkipReason};
use serde::Serialize;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

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
        wire::wait(&params.delivery)?,
    )?;
    let query = compile(params, language, &scope, context)?;
    let recalled = recall_run(context, params);
    let search = |recalled: Option<&_>, file: &ScopedFile, limit: usize| {
        search(&query, params, context, recalled, file, limit)
    };
    let summary = stream(daemon, context, &params.delivery, &scope, recalled, &search)?;
    Ok(Summary {
        pattern_has_error: query.pattern_has_error(),
        hints: query.hints().to_vec(),
        ..summary
    })
}

/// What is remembered of a `run` and of the `explain` of it, unless nothing is to be.
///
/// The key is all parameters but those that say which files are searched and how far: a field that
/// is new is in it. What a file adds is the cache's affair.
pub(super) fn recall_run(
    context: &RequestContext,
    params: &RunParams,
) -> Option<Recalled<Records>> {
    let delivery = matches_of(&params.delivery);
    let what = RunParams { selection: Selection::default(), delivery, ..params.clone() };
    recall(context, &params.delivery, &(method::RUN, what))
}

/// The same of a `scan`.
pub(super) fn recall_scan(
    context: &RequestContext,
    params: &ScanParams,
    scan: &Scan,
) -> Option<Recalled<Records>> {
    let delivery = matches_of(&params.delivery);
    let what = ScanParams { selection: Selection::default(), delivery, ..params.clone() };
    // The rules' globs refer to the directory that the path leads to now.
    let project_dir = scan.query.project_dir.as_os_str().as_encoded_bytes();
    recall(context, &params.delivery, &(method::SCAN, what, project_dir))
}

/// The part of it that decides what a file's records are.
fn matches_of(delivery: &Delivery) -> Delivery {
    let Delivery { files_only, brief, .. } = *delivery;
    Delivery { files_only, brief, ..Delivery::default() }
}

fn recall(
    context: &RequestContext,
    delivery: &Delivery,
    description: &impl Serialize,
) -> Option<Recalled<Records>> {
    let results = context.results.as_ref().filter(|_| !delivery.no_cache)?;
    let description = serde_json::to_vec(description).ok()?;
    Some(results.recall(QueryKey::of(&description)))
}

/// Searches one file for a pattern.
pub(super) fn search(
    query: &PatternQuery,
    params: &RunParams,
    context: &RequestContext,
    recalled: Option<&Recalled<Records>>,
    file: &ScopedFile,
    limit: usize,
) -> Option<Records> {
    // Ruling a file out costs as little as looking it up.
    if !query.admits(file) {
        return None;
    }
    let interrupt = || context.interrupt();
    let verify = || {
        let found = query.verify(file, limit, &|| interrupt().is_some());
        if params.delivery.files_only {
            return Records::of_file(!found.is_empty());
        }
        let mut records = Records::default();
        for tree in &found {
            for found in &tree.matches {
                let (context, brief) = (params.context, params.delivery.brief);
                records.push(&wire::run_record(&tree.doc, &file.display, found, context, brief));
            }
        }
        records
    };
    match recalled {
        Some(recalled) => recalled.search(file, limit, &interrupt, || Some(verify().shrunk())),
        None => Some(verify()),
    }
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

/// Compiled rules, and how what they find is told.
#[derive(Debug)]
pub(crate) struct Scan {
    query: RuleQuery,
    include_metadata: bool,
    brief: bool,
}

impl Scan {
    pub(super) fn compile(params: &ScanParams) -> Result<Self, RpcError> {
        let project_dir = PathBuf::from(&params.project_dir);
        let project_dir = project_dir.canonicalize().unwrap_or(project_dir);
        let sources: Vec<_> = params.rules.iter().cloned().map(wire::rule_source).collect();
        let utils: Vec<_> = params.utils.iter().cloned().map(wire::rule_source).collect();
        let overrides = wire::overrides(params.overrides.clone());
        let rules = RuleSet::compile(&sources, &utils, &overrides)
            .map_err(|error| errors::rules(&error))?;
        let query = RuleQuery { rules, project_dir, all_fixes: params.all_fixes };
        let (include_metadata, brief) = (params.include_metadata, params.delivery.brief);
        Ok(Self { query, include_metadata, brief })
    }

    /// The languages that the rules are about.
    pub(super) fn languages(&self) -> Vec<Language> {
        self.query.rules.languages().collect()
    }

    /// Searches one file with all rules.
    pub(super) fn search(
        &self,
        context: &RequestContext,
        recalled: Option<&Recalled<Records>>,
        file: &ScopedFile,
        limit: usize,
    ) -> Option<Records> {
        let verify = || {
            let mut records = Records::default();
            for (doc, matches) in &self.query.search(file, limit)? {
                for found in matches {
                    self.push(&mut records, doc, &file.display, found);
                }
            }
            Some(records)
        };
        match recalled {
            // Ruling a file out takes globs and requirements of many rules: it is remembered as well.
            Some(recalled) => recalled
                .search(file, limit, &|| context.interrupt(), || verify().map(Records::shrunk)),
            None => verify(),
        }
    }

    fn push(&self, records: &mut Records, doc: &CompactDoc, file: &str, found: &RuleMatch<'_>) {
        let Self { query, include_metadata, brief } = self;
        let record =
            wire::scan_record(doc, file, found, *include_metadata, query.all_fixes, *brief);
        records.push_finding(&record, found.rule.severity == Severity::Error);
    }
}

pub(crate) fn scan(
    daemon: &Arc<Daemon>,
    context: &RequestContext,
    params: &ScanParams,
) -> Result<Summary, RpcError> {
    let scan = Scan::compile(params)?;
    let recalled = recall_scan(context, params, &scan);
    let Scan { query, .. } = &scan;
    if let Some(text) = &params.selection.stdin {
        let Some(language) = query.rules.languages().next() else { return Ok(Summary::default()) };
        let doc = parse_text(daemon, context, language, text)?;
        let found = query.rules.scan(doc.clone(), Path::new("STDIN"), params.all_fixes);
        let limit =
            usize::try_from(params.delivery.limit.unwrap_or(u64::MAX)).unwrap_or(usize::MAX);
        let mut records = Records::default();
        for found in found.iter().take(limit) {
            scan.push(&mut records, &doc, "STDIN", found);
        }
        let (matches, error_matches) = (records.n_matches() as u64, records.n_errors());
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
    let wanted = Some(scan.languages());
    let scope = daemon.workspaces.scope(
        daemon,
        context,
        &params.selection,
        wanted,
        wire::wait(&params.delivery)?,
    )?;
    let search = |recalled: Option<&Recalled<_>>, file: &ScopedFile, limit| {
        scan.search(context, recalled, file, limit)
    };
    stream(daemon, context, &params.delivery, &scope, recalled, &search)
}

/// Finds what is in a file, with what is known of it.
type Search<'s> =
    dyn Fn(Option<&Recalled<Records>>, &ScopedFile, usize) -> Option<Records> + Sync + 's;

/// Executes a search and sends each file's records.
fn stream(
    daemon: &Daemon,
    context: &RequestContext,
    delivery: &Delivery,
    scope: &Scope,
    recalled: Option<Recalled<Records>>,
    search: &Search<'_>,
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
            matches: if delivery.files_only { Matches::default() } else { found.into_matches() },
        })
    };
    let search = |file: &ScopedFile, limit: usize| search(recalled.as_ref(), file, limit);
    let totals = execute(&scope.files, &daemon.pool, &bounds, &search, &mut deliver);
    let files_remembered = recalled.map_or(0, Recalled::finish);
    let totals =
        totals.map_err(|error| errors::query(context.interrupt().map_or(error, Into::into)))?;
    Ok(Summary { error_matches, files_remembered, ..summary(context, scope, totals) })
}

fn parse_text(
    daemon: &Daemon,
    context: &RequestContext,
    language: Language,
    text: &str,
) -> Result<CompactDoc, RpcError> {
    let stop = || context.interrupt().is_some();
    let source = Source::new(text.into(), language);
    let parsed = parse_one(&*daemon.parsers.backend(), source, &stop);
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
    if found.n_matches() == 0 {
        return Ok(());
    }
    let item = Item {
        id: context.id,
        file: "STDIN".to_owned(),
        content_id: ContentId::of(text.as_bytes()).to_string(),
        source: delivery.include_source.then(|| text.to_owned()),
        matches: if delivery.files_only { Matches::default() } else { found.into_matches() },
    };
    context.send_item(item).map_err(|Gone| errors::query(QueryError::Cancelled))
}

fn summary(context: &RequestContext, scope: &Scope, totals: Totals) -> Summary {
    Summary {
        revision: scope.revision.map(wire::revision),
        freshness: scope.lag.as_ref().map(wire::freshness),
        matches: totals.matches,
        files_matched: totals.files_matched,
        files_verified: totals.files_verified,
        files_selected: scope.files.len() as u64 + scope.pending as u64,
        files_pending: scope.pending as u64,
        skipped: told(&scope.skipped),
        files_kept: told(&scope.kept),
        limit_reached: totals.limit_reached,
        elapsed_us: elapsed_us(context),
        ..Summary::default()
    }
}

fn told(files: &[(String, SkipReason)]) -> Vec<SkippedFile> {
    files.iter().map(|(path, reason)| wire::skipped(path.clone(), reason)).collect()
}

fn elapsed_us(context: &RequestContext) -> u64 {
    u64::try_from(context.started.elapsed().as_micros()).unwrap_or(u64::MAX)
}

//! `run` and `scan`: a fresh scope, a compiled query, matches streamed file by file.

use crate::lifecycle::Daemon;
use crate::request::RequestContext;
use crate::{errors, wire};
use astscope_parsing::Limits;
use astscope_pattern_matcher::{CompactDoc, Matcher, RuleSet, Severity};
use astscope_protocol::frame::RpcError;
use astscope_protocol::messages::{Delivery, RunParams, ScanParams, SkippedFile, Summary};
use astscope_querying::{Bounds, Gone, PatternQuery, RuleQuery, Totals, execute};
use astscope_repository::{Scope, ScopedFile};
use astscope_syntax::{ContentId, Language};
use serde_json::value::RawValue;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A language by its name in a request.
pub(crate) fn language_of(name: Option<&str>) -> Result<Option<Language>, RpcError> {
    name.map(str::parse).transpose().map_err(|error| errors::language(&error))
}

/// Compiles for a scope: in the language given, or in those of its files.
pub(crate) fn compile(
    params: &RunParams,
    language: Option<Language>,
    scope: &Scope,
) -> Result<PatternQuery, RpcError> {
    let hosts: BTreeSet<Language> = scope.files.iter().map(|file| file.record.language).collect();
    let spec = wire::matcher_spec(params.matcher.clone());
    PatternQuery::compile(&spec, language, params.rewrite.as_deref(), &hosts)
        .map_err(|error| errors::compile(&error))
}

pub(crate) fn run(
    daemon: &Arc<Daemon>,
    context: RequestContext,
    params: &RunParams,
) -> Result<Summary, RpcError> {
    let context = context.with_deadline_ms(params.delivery.deadline_ms)?;
    let language = language_of(params.language.as_deref())?;
    if let Some(text) = &params.selection.stdin {
        return run_text(&context, params, language, text);
    }
    if let Some(language) = language {
        // A fault in the pattern is told before anything is walked.
        let spec = wire::matcher_spec(params.matcher.clone());
        Matcher::compile(language, &spec, params.rewrite.as_deref())
            .map_err(|error| errors::compile(&error))?;
    }
    let wanted = language.map(|language| vec![language]);
    let scope = daemon.workspaces.scope(
        daemon,
        &context,
        &params.selection,
        wanted,
        params.delivery.no_wait,
    )?;
    let query = compile(params, language, &scope)?;
    let search = |file: &ScopedFile, limit: usize| {
        let found = query.search(file, limit, &|| context.interrupt().is_some())?;
        if params.delivery.files_only {
            return Some(found.first().map(|_| RawValue::NULL.to_owned()).into_iter().collect());
        }
        let records = found.iter().flat_map(|tree| {
            let context = params.context;
            tree.matches
                .iter()
                .filter_map(move |found| wire::run_record(&tree.doc, &file.display, found, context))
        });
        Some(records.collect())
    };
    let totals = stream(daemon, &context, &params.delivery, &scope, &search, |records| records)?;
    Ok(Summary {
        pattern_has_error: query.pattern_has_error(),
        hints: query.hints().to_vec(),
        ..summary(&context, &scope, totals)
    })
}

/// A text from standard input is searched as it is: no skip rules, no embedded languages.
fn run_text(
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
    let doc = parse_text(context, language, text)?;
    let limit = params.delivery.limit.unwrap_or(u64::MAX);
    let wanted = usize::try_from(limit.saturating_add(1)).unwrap_or(usize::MAX);
    let mut found = matcher.find_all(doc.clone(), wanted);
    let limit_reached = found.len() as u64 > limit;
    found.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    let records = found
        .iter()
        .filter_map(|found| wire::run_record(&doc, "STDIN", found, params.context))
        .collect();
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
    context: RequestContext,
    params: ScanParams,
) -> Result<Summary, RpcError> {
    let context = context.with_deadline_ms(params.delivery.deadline_ms)?;
    let sources: Vec<_> = params.rules.into_iter().map(wire::rule_source).collect();
    let utils: Vec<_> = params.utils.into_iter().map(wire::rule_source).collect();
    let rules = RuleSet::compile(&sources, &utils, &wire::overrides(params.overrides))
        .map_err(|error| errors::rules(&error))?;
    let project_dir = PathBuf::from(&params.project_dir);
    let project_dir = project_dir.canonicalize().unwrap_or(project_dir);
    let query = RuleQuery { rules, project_dir, all_fixes: params.all_fixes };
    let errors_found = AtomicU64::new(0);
    let record = |doc: &CompactDoc, file: &str, found: &astscope_pattern_matcher::RuleMatch<'_>| {
        let is_error = found.rule.severity == Severity::Error;
        let record = wire::scan_record(doc, file, found, params.include_metadata, params.all_fixes);
        record.map(|record| (is_error, record))
    };
    if let Some(text) = &params.selection.stdin {
        let Some(language) = query.rules.languages().next() else { return Ok(Summary::default()) };
        let doc = parse_text(&context, language, text)?;
        let found = query.rules.scan(doc.clone(), std::path::Path::new("STDIN"), params.all_fixes);
        let limit =
            usize::try_from(params.delivery.limit.unwrap_or(u64::MAX)).unwrap_or(usize::MAX);
        let records: Vec<_> =
            found.iter().take(limit).filter_map(|found| record(&doc, "STDIN", found)).collect();
        let (matches, error_matches) =
            (records.len() as u64, records.iter().filter(|(e, _)| *e).count() as u64);
        let records = records.into_iter().map(|(_, record)| record).collect();
        deliver_text(&context, &params.delivery, text, records)?;
        return Ok(Summary {
            matches,
            error_matches,
            files_matched: u64::from(matches > 0),
            limit_reached: found.len() > limit,
            elapsed_us: elapsed_us(&context),
            ..Summary::default()
        });
    }
    let wanted = Some(query.rules.languages().collect());
    let scope = daemon.workspaces.scope(
        daemon,
        &context,
        &params.selection,
        wanted,
        params.delivery.no_wait,
    )?;
    let search = |file: &ScopedFile, limit: usize| {
        let found = query.search(file, limit)?;
        let records = found.iter().flat_map(|(doc, matches)| {
            matches.iter().filter_map(|found| record(doc, &file.display, found))
        });
        Some(records.collect::<Vec<_>>())
    };
    let delivery = &params.delivery;
    let totals = stream(daemon, &context, delivery, &scope, &search, |records| {
        let n_errors = records.iter().filter(|(is_error, _)| *is_error).count() as u64;
        errors_found.fetch_add(n_errors, Ordering::Relaxed);
        records.into_iter().map(|(_, record)| record).collect()
    })?;
    Ok(Summary { error_matches: errors_found.into_inner(), ..summary(&context, &scope, totals) })
}

/// Executes a search and sends each file's records, which `take` makes of what was found.
fn stream<M: Send>(
    daemon: &Daemon,
    context: &RequestContext,
    delivery: &Delivery,
    scope: &Scope,
    search: &(dyn Fn(&ScopedFile, usize) -> Option<Vec<M>> + Sync),
    take: impl Fn(Vec<M>) -> Vec<Box<RawValue>>,
) -> Result<Totals, RpcError> {
    let interrupt = || context.interrupt();
    let bounds = Bounds { limit: delivery.limit.unwrap_or(u64::MAX), interrupt: &interrupt };
    let mut deliver = |file: &ScopedFile, found: Vec<M>| -> Result<(), Gone> {
        // A slow client takes long to read what a window found, and may give up meanwhile.
        if context.interrupt().is_some() {
            return Err(Gone);
        }
        let records = if delivery.files_only { Vec::new() } else { take(found) };
        let source = delivery.include_source.then(|| file.record.file.text.to_string());
        context.send_item(&file.display, file.record.content.to_string(), records, source)
    };
    execute(&scope.files, &daemon.pool, &bounds, search, &mut deliver)
        .map_err(|error| errors::query(context.interrupt().map_or(error, Into::into)))
}

fn parse_text(
    context: &RequestContext,
    language: Language,
    text: &str,
) -> Result<CompactDoc, RpcError> {
    let mut stop = || context.interrupt().is_some();
    let parsed = astscope_parsing::parse(text.into(), language, &Limits::DAEMON, &mut stop);
    let parsed = parsed.map_err(|reason| errors::skipped("STDIN", &reason))?;
    Ok(CompactDoc::host(Arc::new(parsed)))
}

fn deliver_text(
    context: &RequestContext,
    delivery: &Delivery,
    text: &str,
    records: Vec<Box<RawValue>>,
) -> Result<(), RpcError> {
    if records.is_empty() {
        return Ok(());
    }
    let records = if delivery.files_only { Vec::new() } else { records };
    let source = delivery.include_source.then(|| text.to_owned());
    let content = ContentId::of(text.as_bytes()).to_string();
    context
        .send_item("STDIN", content, records, source)
        .map_err(|Gone| errors::query(astscope_querying::QueryError::Cancelled))
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

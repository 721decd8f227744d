//! `parse`: one file's or text's tree, rendered; and how any request comes by such a tree.

use crate::daemon::Daemon;
use crate::parsers::parse_one;
use crate::request::RequestContext;
use crate::workspace::Workspace;
use crate::{errors, wire};
use astscope_parsing::{Backend, Limits, Source, admit};
use astscope_pattern_matcher::CompactDoc;
use astscope_protocol::frame::RpcError;
use astscope_protocol::messages::{ParseParams, ParseResult, SyntaxError};
use astscope_syntax::render::{self, Detail};
use astscope_syntax::{Language, ParsedFile, SkipReason};
use std::sync::Arc;

/// A file that a client names, or a text.
pub(super) struct Wanted<'p> {
    pub(super) cwd: &'p str,
    pub(super) path: Option<&'p str>,
    pub(super) text: Option<&'p str>,
    pub(super) language: Option<&'p str>,
}

/// What is wanted, parsed, and the workspace that has parsed it, if it lies in one. Blocks.
pub(super) fn parsed(
    daemon: &Daemon,
    context: &RequestContext,
    wanted: &Wanted<'_>,
) -> Result<(Arc<ParsedFile>, Option<Arc<Workspace>>), RpcError> {
    let named = wanted.language.map(str::parse::<Language>).transpose();
    let named = named.map_err(|error| errors::language(&error))?;
    let name = wanted.path.unwrap_or("STDIN");
    let (bytes, by_path, workspace) = match (wanted.text, wanted.path) {
        (Some(text), _) => (text.as_bytes().to_vec(), None, None),
        (None, Some(path)) => {
            let path = errors::absolute("cwd", wanted.cwd)?.join(path);
            let workspace = daemon.workspaces.running_around(&path);
            let bytes = astscope_synchronization::read_file(&path)
                .map_err(|reason| errors::skipped(name, &reason))?;
            (bytes, Language::from_path(&path), workspace)
        }
        (None, None) => return Err(errors::params("a path or a text must be given")),
    };
    let Some(language) = named.or(by_path) else {
        return Err(errors::params(format!(
            "{name}: its name says no language; name one with `language`"
        )));
    };
    let backend: Arc<dyn Backend> = match &workspace {
        Some(workspace) => Arc::new(workspace.parsing.clone()),
        None => daemon.parsers.backend(),
    };
    let stop = || context.interrupt().is_some();
    let parsed = admit(bytes, &Limits::DAEMON)
        .and_then(|text| parse_one(&*backend, Source::new(text, language), &stop));
    let parsed = parsed.map_err(|reason| match (&reason, context.interrupt()) {
        (SkipReason::ParseTimeout, Some(interrupt)) => errors::query(interrupt.into()),
        _ => errors::skipped(name, &reason),
    })?;
    Ok((Arc::new(parsed), workspace))
}

pub(crate) fn parse(
    daemon: &Daemon,
    context: &RequestContext,
    params: &ParseParams,
) -> Result<ParseResult, RpcError> {
    let wanted = Wanted {
        cwd: &params.cwd,
        path: params.path.as_deref(),
        text: params.text.as_deref(),
        language: params.language.as_deref(),
    };
    let (file, _workspace) = parsed(daemon, context, &wanted)?;
    let detail = if params.cst { Detail::Cst } else { Detail::Ast };
    let rendered = CompactDoc::all(&file).map(|doc| {
        let root = doc.parsed().tree.root();
        if params.json {
            render::json(root, &file.text, detail)
        } else {
            render::sexp(root, detail)
        }
    });
    let rendered: Vec<String> = rendered.collect();
    let tree = if params.json && rendered.len() > 1 {
        format!("[{}]", rendered.join(","))
    } else {
        rendered.join("\n")
    };
    let nodes = file.n_nodes() as u64;
    Ok(ParseResult {
        language: file.language.name().to_owned(),
        tree,
        nodes,
        errors: syntax_errors(&CompactDoc::host(file)),
    })
}

fn syntax_errors(doc: &CompactDoc) -> Vec<SyntaxError> {
    let broken =
        doc.parsed().tree.root().subtree().filter(|node| node.is_error() || node.is_missing());
    broken
        .map(|node| SyntaxError {
            range: wire::range(doc.lines(), node.range()),
            missing: node.is_missing().then(|| node.kind().to_owned()),
        })
        .collect()
}

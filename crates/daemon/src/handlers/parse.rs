//! `parse`: one file's or text's tree, rendered.

use crate::daemon::Daemon;
use crate::parsers::parse_one;
use crate::request::RequestContext;
use crate::{errors, wire};
use astscope_parsing::{Limits, Source, admit};
use astscope_pattern_matcher::CompactDoc;
use astscope_protocol::frame::RpcError;
use astscope_protocol::messages::{ParseParams, ParseResult, SyntaxError};
use astscope_syntax::render::{self, Detail};
use astscope_syntax::{Language, SkipReason};
use std::sync::Arc;

pub(crate) fn parse(
    daemon: &Daemon,
    context: &RequestContext,
    params: &ParseParams,
) -> Result<ParseResult, RpcError> {
    let named = params.language.as_deref().map(str::parse::<Language>).transpose();
    let named = named.map_err(|error| errors::language(&error))?;
    let name = params.path.clone().unwrap_or_else(|| "STDIN".to_owned());
    let mut backend = daemon.parsers.backend();
    let (bytes, by_path) = match (&params.text, &params.path) {
        (Some(text), _) => (text.clone().into_bytes(), None),
        (None, Some(path)) => {
            let path = errors::absolute("cwd", &params.cwd)?.join(path);
            if let Some(workspace) = daemon.workspaces.running_around(&path) {
                backend = Arc::new(workspace.parsing.clone());
            }
            let bytes = astscope_synchronization::read_file(&path)
                .map_err(|reason| errors::skipped(&name, &reason))?;
            (bytes, Language::from_path(&path))
        }
        (None, None) => return Err(errors::params("a path or a text must be given")),
    };
    let Some(language) = named.or(by_path) else {
        return Err(errors::params(format!(
            "{name}: its name says no language; name one with `language`"
        )));
    };
    let stop = || context.interrupt().is_some();
    let parsed = admit(bytes, &Limits::DAEMON)
        .and_then(|text| parse_one(&*backend, Source::new(text, language), &stop));
    let parsed = parsed.map_err(|reason| match (&reason, context.interrupt()) {
        (SkipReason::ParseTimeout, Some(interrupt)) => errors::query(interrupt.into()),
        _ => errors::skipped(&name, &reason),
    })?;
    let file = Arc::new(parsed);
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
        language: language.name().to_owned(),
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

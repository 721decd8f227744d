//! Our languages, as ast-grep's libraries want to see a language.

use crate::doc::CompactDoc;
use ast_grep_core::matcher::{Pattern, PatternBuilder, PatternError};
use astscope_parsing::{Limits, kind_table, parse, pattern_syntax};
use astscope_syntax::Language;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;

/// A [`Language`] that ast-grep's matchers and rules accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Lang(pub Language);

impl ast_grep_core::Language for Lang {
    fn pre_process_pattern<'q>(&self, query: &'q str) -> Cow<'q, str> {
        pattern_syntax(self.0).pre_process(query)
    }

    fn expando_char(&self) -> char {
        pattern_syntax(self.0).expando
    }

    fn from_path<P: AsRef<Path>>(path: P) -> Option<Self> {
        Language::from_path(path.as_ref()).map(Self)
    }

    /// 0 for a name that the grammar lacks, as tree-sitter says it.
    fn kind_to_id(&self, kind: &str) -> u16 {
        kind_table(self.0).and_then(|table| table.kind_id(kind)).unwrap_or(0)
    }

    fn field_to_id(&self, field: &str) -> Option<u16> {
        kind_table(self.0)?.field_id(field).map(u16::from)
    }

    /// Patterns go the way of sources: parsed by the same grammar, converted to the same tree.
    fn build_pattern(&self, builder: &PatternBuilder) -> Result<Pattern, PatternError> {
        builder.build(|source| {
            // A pattern is small, and nobody waits behind it: no budget.
            parse(source.into(), self.0, &Limits::DAEMON, &mut || false)
                .map(|file| CompactDoc::host(Arc::new(file)))
                .map_err(|reason| reason.to_string())
        })
    }
}

impl Serialize for Lang {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.name())
    }
}

impl<'de> Deserialize<'de> for Lang {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        name.parse().map(Self).map_err(serde::de::Error::custom)
    }
}

//! `--format sarif`: one SARIF 2.1.0 log of all findings.
//!
//! The structs' fields stand in alphabetical order because ast-grep's log has them so.

use super::{PrintError, Printer, Record, records};
use crate::console::Console;
use astscope_protocol::messages::{ByteRange, Item, Range};
use serde::Serialize;
use std::fmt::Write as _;

#[derive(Debug, Serialize)]
struct Log {
    runs: [Run; 1],
    version: &'static str,
}

#[derive(Debug, Serialize)]
struct Run {
    results: Vec<Finding>,
    tool: Tool,
}

#[derive(Debug, Serialize)]
struct Tool {
    driver: Driver,
}

#[derive(Debug, Serialize)]
struct Driver {
    name: &'static str,
    version: &'static str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Finding {
    #[serde(skip_serializing_if = "Option::is_none")]
    fixes: Option<[SarifFix; 1]>,
    level: &'static str,
    locations: [Location; 1],
    message: Text,
    rule_id: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Location {
    physical_location: PhysicalLocation,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct PhysicalLocation {
    artifact_location: ArtifactLocation,
    region: Region,
}

#[derive(Clone, Debug, Serialize)]
struct ArtifactLocation {
    uri: String,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Region {
    byte_length: u64,
    byte_offset: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    end_column: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    end_line: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    snippet: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    start_column: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    start_line: Option<u32>,
}

#[derive(Debug, Serialize)]
struct Text {
    text: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct SarifFix {
    artifact_changes: [ArtifactChange; 1],
    description: Text,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ArtifactChange {
    artifact_location: ArtifactLocation,
    replacements: [Replacement; 1],
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Replacement {
    deleted_region: Region,
    inserted_content: Text,
}

impl Region {
    fn of_bytes(range: ByteRange) -> Self {
        Self { byte_length: range.end - range.start, byte_offset: range.start, ..Self::default() }
    }

    fn of(range: Range) -> Self {
        Self {
            end_column: Some(range.end.column + 1),
            end_line: Some(range.end.line + 1),
            start_column: Some(range.start.column + 1),
            start_line: Some(range.start.line + 1),
            ..Self::of_bytes(range.byte_offset)
        }
    }
}

impl Finding {
    fn new(file: &str, record: &Record<'_>) -> Self {
        let artifact_location = ArtifactLocation { uri: uri(file) };
        let fixes = record.fix().map(|fix| {
            // Lines are known only for the match, and a fix may reach beyond it.
            let deleted_region = if fix.range == record.range.byte_offset {
                Region::of(record.range)
            } else {
                Region::of_bytes(fix.range)
            };
            let inserted_content = Text { text: fix.replacement };
            [SarifFix {
                artifact_changes: [ArtifactChange {
                    artifact_location: artifact_location.clone(),
                    replacements: [Replacement { deleted_region, inserted_content }],
                }],
                description: Text { text: "Apply suggested fix".to_owned() },
            }]
        });
        let snippet = record.text.as_ref().map(|text| Text { text: text.to_string() });
        let region = Region { snippet, ..Region::of(record.range) };
        let level = match record.severity.as_str() {
            "error" => "error",
            "warning" => "warning",
            "info" | "hint" => "note",
            _ => "none",
        };
        Self {
            fixes,
            level,
            locations: [Location {
                physical_location: PhysicalLocation { artifact_location, region },
            }],
            message: Text { text: record.message.clone() },
            rule_id: record.rule_id.clone(),
        }
    }
}

/// A path as a URI reference (RFC 3986).
fn uri(path: &str) -> String {
    path.bytes().fold(String::with_capacity(path.len()), |mut uri, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            uri.push(char::from(byte));
        } else {
            let _infallible = write!(uri, "%{byte:02X}");
        }
        uri
    })
}

/// Collects all findings, and prints one log.
#[derive(Debug, Default)]
pub(crate) struct SarifPrinter {
    findings: Vec<Finding>,
}

impl Printer for SarifPrinter {
    fn item(&mut self, item: &Item, _console: &mut Console<'_>) -> Result<(), PrintError> {
        for record in records(item)? {
            self.findings.push(Finding::new(&item.file, &record));
        }
        Ok(())
    }

    fn end(&mut self, console: &mut Console<'_>) -> Result<(), PrintError> {
        let driver = Driver { name: "astscope", version: env!("CARGO_PKG_VERSION") };
        let results = std::mem::take(&mut self.findings);
        let log = Log { runs: [Run { results, tool: Tool { driver } }], version: "2.1.0" };
        let json = serde_json::to_string_pretty(&log)?;
        writeln!(console.out, "{json}")?;
        Ok(console.out.flush()?)
    }
}

#[cfg(test)]
mod tests {
    use super::uri;

    #[test]
    fn paths_become_uri_references() {
        assert_eq!(uri("src/a b.rs"), "src/a%20b.rs");
        assert_eq!(uri("é:?.rs"), "%C3%A9%3A%3F.rs");
    }
}

//! When two programs' matches are the same: equal as multisets, key for key.
//!
//! Neither program promises an order between files, and JSON objects that come from hash maps have
//! none inside, so order never counts; everything else does, to the last column.

use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;

/// One object that the two programs don't agree on.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Difference {
    /// Only the oracle has it.
    Missing(Value),
    /// Only ours has it.
    Extra(Value),
    /// Both found the node and tell different things about it.
    Changed {
        /// What the oracle says.
        expected: Value,
        /// What ours says.
        actual: Value,
    },
}

/// What a match is recognised by: two that share it are one match told twice.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Identity {
    file: String,
    start: u64,
    end: u64,
    rule: String,
}

impl Identity {
    fn of(object: &Value) -> Self {
        let text = |key: &str| object[key].as_str().unwrap_or_default().to_owned();
        let offset = |end: &str| object["range"]["byteOffset"][end].as_u64().unwrap_or_default();
        Self {
            file: text("file"),
            start: offset("start"),
            end: offset("end"),
            rule: text("ruleId"),
        }
    }
}

/// All differences, sorted by file and position. With `unordered_labels` the labels of a match are
/// a set: labels that a rule configures come out of a hash map in ast-grep, so their order differs
/// from run to run.
pub(super) fn differences(
    expected: Vec<Value>,
    actual: Vec<Value>,
    unordered_labels: bool,
) -> Vec<Difference> {
    let mut groups: BTreeMap<Identity, (Vec<Value>, Vec<Value>)> = BTreeMap::new();
    for mut object in expected {
        normalise(&mut object, unordered_labels);
        groups.entry(Identity::of(&object)).or_default().0.push(object);
    }
    for mut object in actual {
        normalise(&mut object, unordered_labels);
        let (wanted, unmatched) = groups.entry(Identity::of(&object)).or_default();
        match wanted.iter().position(|candidate| *candidate == object) {
            Some(at) => drop(wanted.swap_remove(at)),
            None => unmatched.push(object),
        }
    }
    groups.into_values().flat_map(|(missing, extra)| pair(missing, extra)).collect()
}

/// What is left of one match on each side: told differently as far as both have one.
fn pair(missing: Vec<Value>, extra: Vec<Value>) -> Vec<Difference> {
    let mut out = Vec::new();
    let mut extra = extra.into_iter();
    for expected in missing {
        out.push(match extra.next() {
            Some(actual) => Difference::Changed { expected, actual },
            None => Difference::Missing(expected),
        });
    }
    out.extend(extra.map(Difference::Extra));
    out
}

fn normalise(object: &mut Value, unordered_labels: bool) {
    if let (true, Some(labels)) =
        (unordered_labels, object.get_mut("labels").and_then(Value::as_array_mut))
    {
        labels.sort_by_cached_key(|label| {
            (Identity::of(label), label["style"].to_string(), label["message"].to_string())
        });
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(object) => write!(f, "missing  {}", shortened(object)),
            Self::Extra(object) => write!(f, "extra    {}", shortened(object)),
            Self::Changed { expected, actual } => {
                let at = Identity::of(expected);
                write!(f, "changed  {}:{}..{} {}", at.file, at.start, at.end, at.rule)?;
                let mut lines = Vec::new();
                unequal("", expected, actual, &mut lines);
                lines.iter().take(6).try_for_each(|line| write!(f, "\n           {line}"))
            }
        }
    }
}

/// The paths at which two values differ, one line each.
fn unequal(path: &str, expected: &Value, actual: &Value, lines: &mut Vec<String>) {
    match (expected, actual) {
        (Value::Object(left), Value::Object(right)) => {
            let added = right.keys().filter(|key| !left.contains_key(*key));
            for key in left.keys().chain(added) {
                let inner = format!("{path}.{key}");
                match (left.get(key), right.get(key)) {
                    (Some(left), Some(right)) => unequal(&inner, left, right, lines),
                    (Some(left), None) => {
                        lines.push(format!("{inner}: only expected: {}", shortened(left)));
                    }
                    (None, Some(right)) => {
                        lines.push(format!("{inner}: only actual: {}", shortened(right)));
                    }
                    (None, None) => {}
                }
            }
        }
        (Value::Array(left), Value::Array(right)) if left.len() == right.len() => {
            for (at, (left, right)) in left.iter().zip(right).enumerate() {
                unequal(&format!("{path}[{at}]"), left, right, lines);
            }
        }
        _ if expected == actual => {}
        _ => lines.push(format!(
            "{path}: expected {}, is {}",
            shortened(expected),
            shortened(actual)
        )),
    }
}

fn shortened(value: &Value) -> String {
    const MAX_CHARS: usize = 400;
    let text = value.to_string();
    match text.char_indices().nth(MAX_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(file: &str, start: u64, column: u64) -> Value {
        json!({
            "file": file,
            "text": "x",
            "range": {"byteOffset": {"start": start, "end": start + 1}, "start": {"line": 0, "column": column}},
            "metaVariables": {"single": {"A": {"text": "a"}, "B": {"text": "b"}}},
        })
    }

    #[test]
    fn order_between_matches_does_not_count() {
        let (a, b) = (object("a", 0, 0), object("b", 0, 0));
        assert_eq!(differences(vec![a.clone(), b.clone()], vec![b, a], false), []);
    }

    #[test]
    fn order_of_keys_does_not_count() {
        let left = serde_json::from_str(r#"{"file": "a", "text": "t"}"#).unwrap();
        let right = serde_json::from_str(r#"{"text": "t", "file": "a"}"#).unwrap();
        assert_eq!(differences(vec![left], vec![right], false), []);
    }

    #[test]
    fn a_missing_match_is_found() {
        let (a, b) = (object("a", 0, 0), object("a", 5, 5));
        assert_eq!(
            differences(vec![a.clone(), b.clone()], vec![a], false),
            [Difference::Missing(b)]
        );
    }

    #[test]
    fn an_extra_match_is_found_even_when_it_is_a_duplicate() {
        let a = object("a", 0, 0);
        assert_eq!(
            differences(vec![a.clone()], vec![a.clone(), a.clone()], false),
            [Difference::Extra(a)]
        );
    }

    #[test]
    fn a_changed_column_is_found_and_named() {
        let found = differences(vec![object("a", 0, 0)], vec![object("a", 0, 7)], false);
        assert_eq!(found.len(), 1);
        let shown = found[0].to_string();
        assert!(shown.contains(".range.start.column: expected 0, is 7"), "{shown}");
    }

    #[test]
    fn a_key_on_one_side_only_is_found_and_named() {
        let (plain, mut more) = (object("a", 0, 0), object("a", 0, 0));
        more["replacement"] = json!("y");
        let shown = |expected: &Value, actual: &Value| {
            differences(vec![expected.clone()], vec![actual.clone()], false)[0].to_string()
        };
        assert!(shown(&plain, &more).contains(".replacement: only actual: \"y\""));
        assert!(shown(&more, &plain).contains(".replacement: only expected: \"y\""));
    }

    #[test]
    fn captures_are_ordered_lists_with_named_places() {
        let with =
            |captures: Value| json!({"file": "a", "metaVariables": {"multi": {"ARGS": captures}}});
        let found =
            differences(vec![with(json!(["1", "2"]))], vec![with(json!(["2", "1"]))], false);
        assert!(
            found[0].to_string().contains(".metaVariables.multi.ARGS[0]: expected \"1\", is \"2\"")
        );
    }

    #[test]
    fn labels_are_a_set_only_where_ast_grep_has_no_order() {
        let label = |start: u64| json!({"range": {"byteOffset": {"start": start, "end": 9}}, "style": "secondary"});
        let with = |labels: [Value; 2]| json!({"file": "a", "labels": labels});
        let (one, two) = (with([label(1), label(2)]), with([label(2), label(1)]));
        assert_eq!(differences(vec![one.clone()], vec![two.clone()], true), []);
        assert_eq!(differences(vec![one], vec![two], false).len(), 1);
    }

    #[test]
    fn the_same_node_under_two_rules_is_two_matches() {
        let with = |rule: &str| json!({"file": "a", "ruleId": rule});
        let found = differences(vec![with("r")], vec![with("s")], false);
        assert_eq!(found, [Difference::Missing(with("r")), Difference::Extra(with("s"))]);
    }
}

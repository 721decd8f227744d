//! Reads one line as a JSON-RPC message, and says precisely why it isn't one.
//!
//! Whoever sent a bad line learns which rule it broke, under the id of the request wherever the
//! id itself could be read, so that a client doesn't wait for an answer that never comes.

use super::{JSONRPC, Notification, Request, Response, RpcError};
use crate::messages::ErrorCode;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// JSON-RPC's number for a line that is not JSON; our other malformed requests are -32600.
const PARSE_ERROR: i32 = -32700;

/// A message.
#[derive(Clone, Debug)]
pub enum Incoming {
    /// Wants an answer.
    Request(Request),
    /// Wants none.
    Notification(Notification),
    /// Is one.
    Response(Response),
}

/// A line that is no message, with the answer that its sender should get.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub struct Rejected {
    /// The request's id, if one could be read.
    pub id: Option<u64>,
    /// -32700 for what isn't JSON, -32600 for what isn't a message, -32602 for `params` that are
    /// neither an object nor absent.
    pub error: RpcError,
}

/// The members of a message, each still raw, so that one bad member doesn't hide the others.
#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, default, deserialize_with = "present")]
    jsonrpc: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    id: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "requestId", deserialize_with = "present")]
    request_id: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    method: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    params: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    result: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    error: Option<&'a RawValue>,
}

/// Tells a member that is `null` from one that is absent.
fn present<'de, D: Deserializer<'de>>(from: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(from).map(Some)
}

/// Reads a line, which has no newline.
pub fn parse(line: &[u8]) -> Result<Incoming, Rejected> {
    let text = std::str::from_utf8(line).map_err(|error| not_json(&error))?;
    let envelope = envelope(text)?;
    let id = envelope.id.and_then(typed::<u64>);
    let refuse = |why: &str| malformed(id, why);

    if envelope.jsonrpc.and_then(typed::<String>).as_deref() != Some(JSONRPC) {
        return Err(refuse("`jsonrpc` must be \"2.0\""));
    }
    let Some(method) = envelope.method else {
        return response(&envelope, id);
    };
    let method = typed::<String>(method).ok_or_else(|| refuse("`method` must be a string"))?;
    if envelope.id.is_some() && id.is_none() {
        return Err(refuse("`id` must be an integer from 0 to 2^64-1"));
    }
    let params = params(envelope.params, id)?;
    Ok(match id {
        Some(id) => Incoming::Request(Request { id, method, params }),
        None => Incoming::Notification(Notification { method, params }),
    })
}

/// Takes an object apart; whatever else it is, is an error.
fn envelope(text: &str) -> Result<Envelope<'_>, Rejected> {
    // Derived structs also accept arrays, positionally. That is no JSON-RPC.
    let is_object = text.trim_start().starts_with('{');
    let error = match serde_json::from_str(text) {
        Ok(envelope) if is_object => return Ok(envelope),
        Ok(_) => None,
        Err(error) => Some(error),
    };
    if let Err(error) = serde_json::from_str::<IgnoredAny>(text) {
        return Err(not_json(&error));
    }
    Err(match error {
        Some(error) if is_object => malformed(None, &error.to_string()),
        _ if text.trim_start().starts_with('[') => malformed(None, "batches are not supported"),
        _ => malformed(None, "a message must be a JSON object"),
    })
}

/// A message without a method.
fn response(envelope: &Envelope<'_>, id: Option<u64>) -> Result<Incoming, Rejected> {
    let outcome =
        match (envelope.result, envelope.error) {
            (Some(result), None) => Ok(result.to_owned()),
            (None, Some(error)) => Err(typed(error)
                .ok_or_else(|| malformed(id, "`error` must have `code` and `message`"))?),
            (None, None) => return Err(malformed(id, "`method` is missing")),
            (Some(_), Some(_)) => {
                return Err(malformed(id, "`result` and `error` exclude each other"));
            }
        };
    // Only the answer to an unreadable request has no id, and says so by `null`.
    if id.is_none() && (outcome.is_ok() || envelope.id.is_none_or(|id| id.get() != "null")) {
        return Err(malformed(None, "a response must have the `id` of its request"));
    }
    let request_id = envelope.request_id.and_then(typed);
    Ok(Incoming::Response(Response { id, request_id, outcome }))
}

/// The parameters: by name or not at all. `null` counts as absent.
fn params(raw: Option<&RawValue>, id: Option<u64>) -> Result<Box<RawValue>, Rejected> {
    match raw {
        Some(raw) if raw.get().starts_with('{') => Ok(raw.to_owned()),
        Some(raw) if raw.get() != "null" => {
            let error = RpcError::new(ErrorCode::InvalidParams, "`params` must be an object");
            Err(Rejected { id, error })
        }
        _ => RawValue::from_string("{}".to_owned()).map_err(|error| not_json(&error)),
    }
}

/// The member as a `T`, if it is one.
fn typed<'a, T: Deserialize<'a>>(raw: &'a RawValue) -> Option<T> {
    serde_json::from_str(raw.get()).ok()
}

fn not_json(why: &dyn std::error::Error) -> Rejected {
    let error = RpcError::new(ErrorCode::MalformedRequest, format!("not JSON: {why}"));
    Rejected { id: None, error: RpcError { code: PARSE_ERROR, ..error } }
}

fn malformed(id: Option<u64>, why: &str) -> Rejected {
    let message = format!("not a JSON-RPC message: {why}");
    Rejected { id, error: RpcError::new(ErrorCode::MalformedRequest, message) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    /// A line in, what was understood or the refusal out.
    fn summary(line: &[u8]) -> String {
        match parse(line) {
            Ok(Incoming::Request(Request { id, method, params })) => {
                format!("request {id} {method} {params}")
            }
            Ok(Incoming::Notification(Notification { method, params })) => {
                format!("notification {method} {params}")
            }
            Ok(Incoming::Response(Response { id, outcome: Ok(result), .. })) => {
                format!("response {id:?} {result}")
            }
            Ok(Incoming::Response(Response { id, outcome: Err(error), .. })) => {
                format!("response {id:?} error {} {error}", error.code)
            }
            Err(Rejected { id, error }) => format!("{id:?} {} {error}", error.code),
        }
    }

    #[track_caller]
    fn check(lines: &[&str], expected: &Expect) {
        let seen: Vec<_> = lines.iter().map(|line| summary(line.as_bytes())).collect();
        expected.assert_eq(&seen.join("\n"));
    }

    #[test]
    fn messages_are_told_apart_by_their_members() {
        check(
            &[
                r#"{"jsonrpc":"2.0","id":1,"method":"run","params":{"a":[1, 2]}}"#,
                r#" {"params":{},"method":"r\u0075n","id":0,"jsonrpc":"2.0","later":true} "#,
                r#"{"jsonrpc":"2.0","id":18446744073709551615,"method":"status"}"#,
                r#"{"jsonrpc":"2.0","id":1,"method":"status","params":null}"#,
                r#"{"jsonrpc":"2.0","method":"$/cancel","params":{"id":1}}"#,
                r#"{"jsonrpc":"2.0","id":3,"result":null}"#,
                r#"{"jsonrpc":"2.0","id":3,"error":{"code":-1,"message":"no"}}"#,
                r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"what"}}"#,
            ],
            &expect![[r#"
                request 1 run {"a":[1, 2]}
                request 0 run {}
                request 18446744073709551615 status {}
                request 1 status {}
                notification $/cancel {"id":1}
                response Some(3) null
                response Some(3) error -1 no
                response None error -32700 what"#]],
        );
    }

    #[test]
    fn what_is_not_json_is_a_parse_error() {
        check(
            &["{\"jsonrpc\":", "run", "{\"id\":1}}", "[1,", "{'a':1}"],
            &expect![[r"
                None -32700 not JSON: EOF while parsing a value at line 1 column 11
                None -32700 not JSON: expected value at line 1 column 1
                None -32700 not JSON: trailing characters at line 1 column 9
                None -32700 not JSON: EOF while parsing a value at line 1 column 3
                None -32700 not JSON: key must be a string at line 1 column 2"]],
        );
        expect!["None -32700 not JSON: invalid utf-8 sequence of 1 bytes from index 1"]
            .assert_eq(&summary(b"\"\xff\""));
    }

    #[test]
    fn json_that_is_no_message_is_refused_under_its_id() {
        check(
            &[
                "3",
                "[]",
                r#"["2.0", 1, "run"]"#,
                "{}",
                r#"{"id":4,"method":"run"}"#,
                r#"{"jsonrpc":"1.0","id":4,"method":"run"}"#,
                r#"{"jsonrpc":"2.0","id":4}"#,
                r#"{"jsonrpc":"2.0","id":4,"method":7}"#,
                r#"{"jsonrpc":"2.0","id":"4","method":"run"}"#,
                r#"{"jsonrpc":"2.0","id":-4,"method":"run"}"#,
                r#"{"jsonrpc":"2.0","id":null,"method":"run"}"#,
                r#"{"jsonrpc":"2.0","id":4,"id":4,"method":"run"}"#,
                r#"{"jsonrpc":"2.0","id":4,"method":"run","params":[1]}"#,
                r#"{"jsonrpc":"2.0","id":4,"result":1,"error":{}}"#,
                r#"{"jsonrpc":"2.0","id":4,"error":"no"}"#,
                r#"{"jsonrpc":"2.0","result":1}"#,
            ],
            &expect![[r#"
                None -32600 not a JSON-RPC message: a message must be a JSON object
                None -32600 not a JSON-RPC message: batches are not supported
                None -32600 not a JSON-RPC message: batches are not supported
                None -32600 not a JSON-RPC message: `jsonrpc` must be "2.0"
                Some(4) -32600 not a JSON-RPC message: `jsonrpc` must be "2.0"
                Some(4) -32600 not a JSON-RPC message: `jsonrpc` must be "2.0"
                Some(4) -32600 not a JSON-RPC message: `method` is missing
                Some(4) -32600 not a JSON-RPC message: `method` must be a string
                None -32600 not a JSON-RPC message: `id` must be an integer from 0 to 2^64-1
                None -32600 not a JSON-RPC message: `id` must be an integer from 0 to 2^64-1
                None -32600 not a JSON-RPC message: `id` must be an integer from 0 to 2^64-1
                None -32600 not a JSON-RPC message: duplicate field `id` at line 1 column 28
                Some(4) -32602 `params` must be an object
                Some(4) -32600 not a JSON-RPC message: `result` and `error` exclude each other
                Some(4) -32600 not a JSON-RPC message: `error` must have `code` and `message`
                None -32600 not a JSON-RPC message: a response must have the `id` of its request"#]],
        );
    }

    #[test]
    fn deeply_nested_parameters_exhaust_no_stack() {
        let depth = 200_000;
        let nested = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let line =
            format!(r#"{{"jsonrpc":"2.0","id":1,"method":"run","params":{{"x":{nested}}}}}"#);
        let Ok(Incoming::Request(request)) = parse(line.as_bytes()) else { panic!("refused") };
        let error = request.params::<serde_json::Value>().unwrap_err();
        assert!(error.message.contains("recursion limit"), "{error}");
    }
}

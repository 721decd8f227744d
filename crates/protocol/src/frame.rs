//! Framing: one JSON text per line, each a JSON-RPC 2.0 request, notification or response.
//!
//! Nothing here reads or writes: the daemon does so with tokio and the client with blocking
//! sockets, and both must agree to the byte. Parameters and results stay raw text, so that a line
//! is scanned once and typed by whoever knows its method.

mod chunk;
mod incoming;
mod lines;

pub use chunk::{Chunk, ChunkAssembler, ChunksTooLarge, SplitLine, split_line};
pub use incoming::{Incoming, Rejected, parse};
pub use lines::{HalfLine, LineDecoder, LineTooLong};

use crate::messages::{ErrorCode, ErrorData, Item, Matches, method};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

/// More than an item's line has beside its matches, source and path.
const ITEM_BYTES: usize = 256;

/// The value of every message's `jsonrpc` member.
const JSONRPC: &str = "2.0";

/// A question that wants an answer.
#[derive(Clone, Debug)]
pub struct Request {
    /// Chosen by the asker, not used by another unanswered request of the connection.
    pub id: u64,
    /// What is asked.
    pub method: String,
    /// An object; `{}` where the line had none.
    pub params: Box<RawValue>,
}

impl Request {
    /// Types the parameters, or says as `invalid_params` what is wrong with them.
    pub fn params<T: DeserializeOwned>(&self) -> Result<T, RpcError> {
        serde_json::from_str(self.params.get()).map_err(|error| {
            let message = format!("invalid parameters of `{}`: {error}", self.method);
            RpcError::new(ErrorCode::InvalidParams, message)
        })
    }
}

/// A message that wants no answer.
#[derive(Clone, Debug)]
pub struct Notification {
    /// What it is about.
    pub method: String,
    /// An object; `{}` where the line had none.
    pub params: Box<RawValue>,
}

/// The answer to a request.
#[derive(Clone, Debug)]
pub struct Response {
    /// The request's id; `None` where the request could not be read so far.
    pub id: Option<u64>,
    /// The daemon's own name for the request, under which its log has it.
    pub request_id: Option<String>,
    /// The result, or what went wrong.
    pub outcome: Result<Box<RawValue>, RpcError>,
}

/// A JSON-RPC error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct RpcError {
    /// JSON-RPC error number.
    pub code: i32,
    /// One sentence for a person.
    pub message: String,
    /// The same for a program. `None` also where a newer peer says what this build can't read.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "data_if_understood"
    )]
    pub data: Option<Box<ErrorData>>,
    /// The daemon's own name for the request, where a [`Client`](crate::Client) received the
    /// error. On the wire it stands beside the error, in the [`Response`].
    #[serde(skip)]
    pub request_id: Option<String>,
}

impl RpcError {
    /// An error with the number and retry advice of its code.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        let retryable = code.retryable();
        let data = ErrorData { code, retryable, help: None, causes: Vec::new(), offset: None };
        Self {
            code: code.number(),
            message: message.into(),
            data: Some(Box::new(data)),
            request_id: None,
        }
    }

    /// The stable identifier, where this build knows it.
    pub fn error_code(&self) -> Option<ErrorCode> {
        self.data.as_ref().map(|data| data.code)
    }
}

/// An error code that a later version added must not hide the error's message.
fn data_if_understood<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<Option<Box<ErrorData>>, D::Error> {
    let value = serde_json::Value::deserialize(from)?;
    Ok(serde_json::from_value(value).ok())
}

/// A message could not be written as JSON.
#[derive(Debug, thiserror::Error)]
#[error("can't write a message as JSON")]
pub struct EncodeError {
    /// What the serialiser says.
    #[source]
    pub source: serde_json::Error,
}

/// Appends a request's line to `out`.
pub fn encode_request<P: Serialize + ?Sized>(
    out: &mut Vec<u8>,
    id: u64,
    method: &str,
    params: &P,
) -> Result<(), EncodeError> {
    #[derive(Serialize)]
    struct Line<'a, P: ?Sized> {
        jsonrpc: &'static str,
        id: u64,
        method: &'a str,
        params: &'a P,
    }
    append(out, &Line { jsonrpc: JSONRPC, id, method, params })
}

/// Appends a notification's line to `out`.
pub fn encode_notification<P: Serialize + ?Sized>(
    out: &mut Vec<u8>,
    method: &str,
    params: &P,
) -> Result<(), EncodeError> {
    #[derive(Serialize)]
    struct Line<'a, P: ?Sized> {
        jsonrpc: &'static str,
        method: &'a str,
        params: &'a P,
    }
    append(out, &Line { jsonrpc: JSONRPC, method, params })
}

/// Appends an item's line to `out`, its matches cut as [`Matches`] says.
pub fn encode_item(out: &mut Vec<u8>, mut item: Item) -> Result<(), EncodeError> {
    let matches = std::mem::take(&mut item.matches);
    let others = item.file.len() + item.source.as_ref().map_or(0, String::len);
    out.reserve(matches.written_bytes() + others + ITEM_BYTES);
    encode_notification(out, method::ITEM, &item)?;
    // The matches are the last member of the last member.
    out.truncate(out.len() - "[]}}\n".len());
    matches.write(out);
    out.extend_from_slice(b"}}\n");
    Ok(())
}

/// Reads an item in the daemon's own spelling, without looking into its matches.
///
/// Lines of another spelling mean the same, but must be read with [`parse`].
pub(crate) fn read_item(line: &str) -> Option<Item> {
    let rest = line.strip_prefix(r#"{"jsonrpc":"2.0","method":"$/item","params":"#)?;
    let (head, rest) = rest.split_once('\t')?;
    let matches = Matches::from_cut(rest.strip_suffix("\t]}}")?)?;
    let empty = format!("{head}]}}");
    let item: Item = serde_json::from_str(&empty).ok()?;
    head.ends_with(r#""matches":["#).then_some(Item { matches, ..item })
}

/// Appends the line of a request's result to `out`.
pub fn encode_response<R: Serialize + ?Sized>(
    out: &mut Vec<u8>,
    id: u64,
    result: &R,
) -> Result<(), EncodeError> {
    append(out, &ResultLine { jsonrpc: JSONRPC, id, request_id: None, result })
}

/// As [`encode_response`], with the daemon's own name for the request.
pub fn encode_tagged_response<R: Serialize + ?Sized>(
    out: &mut Vec<u8>,
    id: u64,
    request_id: &str,
    result: &R,
) -> Result<(), EncodeError> {
    append(out, &ResultLine { jsonrpc: JSONRPC, id, request_id: Some(request_id), result })
}

/// Appends the line of a request's failure to `out`; the id is `null` where none could be read.
pub fn encode_error(
    out: &mut Vec<u8>,
    id: Option<u64>,
    error: &RpcError,
) -> Result<(), EncodeError> {
    append(out, &ErrorLine { jsonrpc: JSONRPC, id, request_id: None, error })
}

/// As [`encode_error`], with the daemon's own name for the request.
pub fn encode_tagged_error(
    out: &mut Vec<u8>,
    id: Option<u64>,
    request_id: &str,
    error: &RpcError,
) -> Result<(), EncodeError> {
    append(out, &ErrorLine { jsonrpc: JSONRPC, id, request_id: Some(request_id), error })
}

/// The request's name stands before the result, which may be long: whoever reads a recorded line
/// finds it without scrolling.
#[derive(Serialize)]
struct ResultLine<'a, R: ?Sized> {
    jsonrpc: &'static str,
    id: u64,
    #[serde(rename = "requestId", skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
    result: &'a R,
}

#[derive(Serialize)]
struct ErrorLine<'a> {
    jsonrpc: &'static str,
    id: Option<u64>,
    #[serde(rename = "requestId", skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
    error: &'a RpcError,
}

/// Appends `message` as one line, or nothing.
fn append(out: &mut Vec<u8>, message: &impl Serialize) -> Result<(), EncodeError> {
    let start = out.len();
    if let Err(source) = serde_json::to_writer(&mut *out, message) {
        out.truncate(start);
        return Err(EncodeError { source });
    }
    // Raw values may be JSON that somebody formatted. A newline in JSON text is always space
    // between tokens: strings have it escaped.
    let mut from = start;
    while let Some(at) = memchr::memchr(b'\n', &out[from..]) {
        out[from + at] = b' ';
        from += at + 1;
    }
    out.push(b'\n');
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::{Cancel, StopParams};
    use expect_test::expect;

    fn text(out: Vec<u8>) -> String {
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn each_kind_of_message_is_one_line() {
        let mut out = Vec::new();
        encode_request(&mut out, 7, method::STOP, &StopParams { drain: true }).unwrap();
        encode_notification(&mut out, method::CANCEL, &Cancel { id: 7 }).unwrap();
        encode_response(&mut out, 7, &serde_json::json!({})).unwrap();
        encode_error(&mut out, Some(7), &RpcError::new(ErrorCode::Overloaded, "too much")).unwrap();
        let unread = RpcError { code: -32700, message: "?".into(), data: None, request_id: None };
        encode_error(&mut out, None, &unread).unwrap();
        encode_tagged_response(&mut out, 7, "3-17", &serde_json::json!({})).unwrap();
        encode_tagged_error(&mut out, Some(7), "3-18", &unread).unwrap();
        expect![[r#"
            {"jsonrpc":"2.0","id":7,"method":"stop","params":{"drain":true}}
            {"jsonrpc":"2.0","method":"$/cancel","params":{"id":7}}
            {"jsonrpc":"2.0","id":7,"result":{}}
            {"jsonrpc":"2.0","id":7,"error":{"code":-32802,"message":"too much","data":{"code":"overloaded","retryable":true}}}
            {"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"?"}}
            {"jsonrpc":"2.0","id":7,"requestId":"3-17","result":{}}
            {"jsonrpc":"2.0","id":7,"requestId":"3-18","error":{"code":-32700,"message":"?"}}
        "#]]
        .assert_eq(&text(out));
    }

    #[test]
    fn the_daemons_name_for_a_request_is_read_if_it_is_a_string() {
        for (member, expected) in [
            (r#""requestId":"3-17","#, Some("3-17")),
            (r#""requestId":3,"#, None),
            (r#""requestId":null,"#, None),
            ("", None),
        ] {
            let line = format!(r#"{{"jsonrpc":"2.0","id":1,{member}"result":{{}}}}"#);
            let Ok(Incoming::Response(response)) = parse(line.as_bytes()) else {
                panic!("not a response: {line}")
            };
            assert_eq!(response.request_id.as_deref(), expected);
        }
    }

    #[test]
    fn formatted_raw_json_does_not_break_the_line() {
        let raw = RawValue::from_string("{\n  \"a\": \"x\\ny\",\n  \"b\": 1\n}".into()).unwrap();
        let mut out = Vec::new();
        encode_response(&mut out, 1, &raw).unwrap();
        let out = text(out);
        assert_eq!(out.matches('\n').count(), 1);
        let value: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!(value["result"], serde_json::json!({"a": "x\ny", "b": 1}));
    }

    #[test]
    fn an_item_is_read_in_the_spelling_in_which_it_is_written() {
        for matches in ["[]", r#"[{"x":"]\t}}"}]"#, r#"[{"x":1},{"y":2}]"#] {
            for source in ["", r#""source":"f(\t\"matches\":[","#] {
                let json = format!(
                    r#"{{"id":1,"file":"a\t}}","contentId":"c0",{source}"matches":{matches}}}"#
                );
                let item: Item = serde_json::from_str(&json).unwrap();
                let mut line = Vec::new();
                encode_item(&mut line, item.clone()).unwrap();
                let line = text(line);
                let Ok(Incoming::Notification(any)) = parse(line.trim_end().as_bytes()) else {
                    panic!("{line}")
                };
                let read: Item = serde_json::from_str(any.params.get()).unwrap();
                assert_eq!(serde_json::to_string(&read).unwrap(), json);
                let quick = read_item(line.strip_suffix('\n').unwrap());
                let quick = quick.map(|item| serde_json::to_string(&item).unwrap());
                assert_eq!(quick, (matches != "[]").then_some(json));
            }
        }
    }

    #[test]
    fn a_message_that_cannot_be_written_leaves_nothing_behind() {
        let keyless = std::collections::BTreeMap::from([((1, 2), 3)]);
        let mut out = b"before\n".to_vec();
        let error = encode_notification(&mut out, "x", &keyless).unwrap_err();
        assert_eq!(error.to_string(), "can't write a message as JSON");
        assert_eq!(out, b"before\n");
    }

    #[test]
    fn an_error_code_of_a_later_version_keeps_its_message() {
        let line = br#"{"jsonrpc":"2.0","id":1,"error":{"code":-32099,"message":"new","data":{"code":"brand_new","retryable":true}}}"#;
        let Ok(Incoming::Response(response)) = parse(line) else { panic!("not a response") };
        let error = response.outcome.unwrap_err();
        assert_eq!((error.code, error.message.as_str(), error.data), (-32099, "new", None));
    }

    #[test]
    fn parameters_of_the_wrong_shape_are_named() {
        let line = br#"{"jsonrpc":"2.0","id":1,"method":"stop","params":{"drain":3}}"#;
        let Ok(Incoming::Request(request)) = parse(line) else { panic!("not a request") };
        let error = request.params::<StopParams>().unwrap_err();
        assert_eq!(error.error_code(), Some(ErrorCode::InvalidParams));
        expect!["invalid parameters of `stop`: invalid type: integer `3`, expected a boolean at line 1 column 10"]
            .assert_eq(&error.message);
    }
}

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
}

impl RpcError {
    /// An error with the number and retry advice of its code.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        let retryable = code.retryable();
        let data = ErrorData { code, retryable, help: None, causes: Vec::new(), offset: None };
        Self { code: code.number(), message: message.into(), data: Some(Box::new(data)) }
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
    #[derive(Serialize)]
    struct Line<'a, R: ?Sized> {
        jsonrpc: &'static str,
        id: u64,
        result: &'a R,
    }
    append(out, &Line { jsonrpc: JSONRPC, id, result })
}

/// Appends the line of a request's failure to `out`; the id is `null` where none could be read.
pub fn encode_error(
    out: &mut Vec<u8>,
    id: Option<u64>,
    error: &RpcError,
) -> Result<(), EncodeError> {
    #[derive(Serialize)]
    struct Line<'a> {
        jsonrpc: &'static str,
        id: Option<u64>,
        error: &'a RpcError,
    }
    append(out, &Line { jsonrpc: JSONRPC, id, error })
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
        encode_error(&mut out, None, &RpcError { code: -32700, message: "?".into(), data: None })
            .unwrap();
        expect![[r#"
            {"jsonrpc":"2.0","id":7,"method":"stop","params":{"drain":true}}
            {"jsonrpc":"2.0","method":"$/cancel","params":{"id":7}}
            {"jsonrpc":"2.0","id":7,"result":{}}
            {"jsonrpc":"2.0","id":7,"error":{"code":-32802,"message":"too much","data":{"code":"overloaded","retryable":true}}}
            {"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"?"}}
        "#]]
        .assert_eq(&text(out));
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

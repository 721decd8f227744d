//! `--json`: the daemon's objects as they are, or indented, exactly as ast-grep prints them.

use super::{PrintError, Printer};
use crate::args::JsonStyle;
use crate::console::Console;
use astscope_protocol::messages::Item;
use std::io::{self, Write};
use std::time::{Duration, Instant};

/// A reader of a stream sees a match at most this much later than we do. Not flushing after each
/// file saves a system call per file, which is most of the time where there are many.
const FLUSH_INTERVAL: Duration = Duration::from_millis(50);

/// Prints JSON.
#[derive(Debug)]
pub(crate) struct JsonPrinter {
    style: JsonStyle,
    any: bool,
    flushed: Option<Instant>,
}

impl JsonPrinter {
    pub(crate) fn new(style: JsonStyle) -> Self {
        Self { style, any: false, flushed: None }
    }

    fn print(&mut self, object: &str, out: &mut dyn Write) -> io::Result<()> {
        let first = !std::mem::replace(&mut self.any, true);
        match self.style {
            JsonStyle::Stream => {
                out.write_all(object.as_bytes())?;
                out.write_all(b"\n")
            }
            JsonStyle::Compact => {
                if !first {
                    out.write_all(b",")?;
                }
                out.write_all(object.as_bytes())
            }
            JsonStyle::Pretty => {
                out.write_all(if first { b"\n" } else { b",\n" })?;
                indent(object, out)
            }
        }
    }
}

impl Printer for JsonPrinter {
    fn begin(&mut self, console: &mut Console<'_>) -> Result<(), PrintError> {
        if self.style != JsonStyle::Stream {
            console.out.write_all(b"[")?;
        }
        Ok(())
    }

    fn item(&mut self, item: &Item, console: &mut Console<'_>) -> Result<(), PrintError> {
        for object in item.matches.iter() {
            self.print(object, console.out)?;
        }
        if self.style == JsonStyle::Stream
            && self.flushed.is_none_or(|flushed| flushed.elapsed() > FLUSH_INTERVAL)
        {
            console.out.flush()?;
            self.flushed = Some(Instant::now());
        }
        Ok(())
    }

    fn end(&mut self, console: &mut Console<'_>) -> Result<(), PrintError> {
        match self.style {
            JsonStyle::Stream => {}
            JsonStyle::Pretty if self.any => console.out.write_all(b"\n]\n")?,
            JsonStyle::Pretty | JsonStyle::Compact => console.out.write_all(b"]\n")?,
        }
        Ok(console.out.flush()?)
    }
}

/// Writes compact JSON with line breaks and two spaces per level, as `serde_json`'s pretty
/// printer would, but without parsing it: key order and the spelling of numbers stay as they are.
pub(crate) fn indent(json: &str, out: &mut dyn Write) -> io::Result<()> {
    let bytes = json.as_bytes();
    let mut pretty = Vec::with_capacity(json.len() * 2);
    let mut depth = 0_usize;
    let mut position = 0;
    while let Some(&byte) = bytes.get(position) {
        position += 1;
        match byte {
            b'"' => {
                let end = position + string_length(&bytes[position..]);
                pretty.extend_from_slice(&bytes[position - 1..end]);
                position = end;
            }
            b'{' | b'[' => {
                pretty.push(byte);
                let closing = bytes[position..].iter().position(|byte| !byte.is_ascii_whitespace());
                let closing = closing.map(|offset| (offset, bytes[position + offset]));
                if let Some((offset, close @ (b'}' | b']'))) = closing {
                    pretty.push(close);
                    position += offset + 1;
                } else {
                    depth += 1;
                    new_line(&mut pretty, depth);
                }
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                new_line(&mut pretty, depth);
                pretty.push(byte);
            }
            b',' => {
                pretty.push(byte);
                new_line(&mut pretty, depth);
            }
            b':' => pretty.extend_from_slice(b": "),
            _ if byte.is_ascii_whitespace() => {}
            _ => pretty.push(byte),
        }
    }
    out.write_all(&pretty)
}

/// Bytes of a string's contents with its closing quote.
fn string_length(bytes: &[u8]) -> usize {
    let mut position = 0;
    while let Some(&byte) = bytes.get(position) {
        match byte {
            b'"' => return position + 1,
            b'\\' => position += 2,
            _ => position += 1,
        }
    }
    bytes.len()
}

fn new_line(pretty: &mut Vec<u8>, depth: usize) {
    pretty.push(b'\n');
    pretty.resize(pretty.len() + 2 * depth, b' ');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn indented(json: &str) -> String {
        let mut out = Vec::new();
        indent(json, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn indentation_is_that_of_serde_json() {
        for json in [
            r#"{"a":1,"b":[1,2,{"c":null}],"d":{},"e":[],"f":"x, {y}: \"z\" \\"}"#,
            r#"["\\",[[]],{"k":[{}]}]"#,
            "3",
            r#""""#,
        ] {
            let value: serde_json::Value = serde_json::from_str(json).unwrap();
            assert_eq!(indented(json), serde_json::to_string_pretty(&value).unwrap());
        }
    }

    #[test]
    fn order_and_numbers_stay_as_they_are() {
        assert_eq!(indented(r#"{"b":1.50,"a":[ ]}"#), "{\n  \"b\": 1.50,\n  \"a\": []\n}");
    }

    #[test]
    fn a_string_that_never_ends_ends_with_the_text() {
        assert_eq!(indented(r#"["a\"#), "[\n  \"a\\");
    }
}

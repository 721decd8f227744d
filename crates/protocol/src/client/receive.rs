//! The receiving side: from bytes to typed events.

use super::{CallError, Event, News, Outcome};
use crate::frame::{Chunk, ChunkAssembler, Incoming, LineDecoder, RpcError, parse, read_item};
use crate::messages::method;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// Bytes per read: what a socket holds, so that a busy stream costs few system calls.
const READ_BYTES: usize = 256 << 10;

/// What the daemon sends.
#[derive(Debug)]
pub(super) enum Received {
    Event(Event),
    Response { id: Option<u64>, outcome: Outcome },
}

/// Reads and types the daemon's lines.
#[derive(Debug)]
pub(super) struct Receiver {
    stream: UnixStream,
    buffer: Box<[u8]>,
    /// `buffer[start..end]` is read and not decoded.
    start: usize,
    end: usize,
    decoder: LineDecoder,
    assembler: ChunkAssembler,
    /// Reads fail with `TimedOut` from then on.
    deadline: Option<Instant>,
}

impl Receiver {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            buffer: vec![0; READ_BYTES].into_boxed_slice(),
            start: 0,
            end: 0,
            decoder: LineDecoder::new(),
            assembler: ChunkAssembler::new(),
            deadline: None,
        }
    }

    /// Sets, or takes away, the time after which nothing is waited for.
    pub(super) fn set_deadline(&mut self, deadline: Option<Instant>) -> io::Result<()> {
        self.deadline = deadline;
        self.stream.set_read_timeout(None)
    }

    /// Waits for the next message that this build understands.
    pub(super) fn next(&mut self) -> Result<Received, CallError> {
        loop {
            while self.start < self.end {
                let mut input = &self.buffer[self.start..self.end];
                let received = match self.decoder.next_line(&mut input) {
                    Some(Ok(line)) => understand(line, &mut self.assembler),
                    Some(Err(error)) => Err(CallError::LineTooLong(error)),
                    None => Ok(None),
                };
                self.start = self.end - input.len();
                if let Some(received) = received? {
                    return Ok(received);
                }
            }
            self.fill()?;
        }
    }

    /// Reads at least one byte.
    fn fill(&mut self) -> Result<(), CallError> {
        if let Some(deadline) = self.deadline {
            let left = deadline.saturating_duration_since(Instant::now());
            // Zero would mean no timeout at all.
            let left = left.max(Duration::from_millis(1));
            self.stream.set_read_timeout(Some(left)).map_err(CallError::Receive)?;
        }
        loop {
            match self.stream.read(&mut self.buffer) {
                Ok(0) => {
                    self.decoder.finish().map_err(CallError::HalfLine)?;
                    return Err(CallError::Disconnected);
                }
                Ok(n_bytes) => {
                    (self.start, self.end) = (0, n_bytes);
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(CallError::Receive(error)),
            }
        }
    }
}

/// Types a line. `None` if it is a piece of one that isn't whole yet, or means nothing to this
/// build: a later daemon may send notifications that it can't know.
fn understand(line: &[u8], assembler: &mut ChunkAssembler) -> Result<Option<Received>, CallError> {
    // Nearly all lines are items, and nearly all of an item is matches, which nobody reads here.
    if let Some(item) = str::from_utf8(line).ok().and_then(read_item) {
        return Ok(Some(Received::Event(Event::Item(item))));
    }
    let notification = match parse(line).map_err(CallError::Malformed)? {
        Incoming::Response(response) => {
            let (id, request_id) = (response.id, response.request_id);
            let outcome = response.outcome.map_err(|error| RpcError { request_id, ..error });
            return Ok(Some(Received::Response { id, outcome }));
        }
        Incoming::Notification(notification) => notification,
        Incoming::Request(_) => return Ok(None),
    };
    let params = notification.params.get();
    let unexpected =
        |source| CallError::UnexpectedParams { method: notification.method.clone(), source };
    match notification.method.as_str() {
        method::ITEM => {
            let item = serde_json::from_str(params).map_err(unexpected)?;
            Ok(Some(Received::Event(Event::Item(item))))
        }
        method::PROGRESS => {
            let progress = serde_json::from_str(params).map_err(unexpected)?;
            Ok(Some(Received::Event(Event::Progress(progress))))
        }
        method::RESYNC => news(params, News::Resync).map_err(unexpected),
        method::DIFFERENCE => news(params, News::Difference).map_err(unexpected),
        method::SETTLED => news(params, News::Settled).map_err(unexpected),
        method::ENDED => news(params, News::Ended).map_err(unexpected),
        method::CHUNK => {
            let chunk = Chunk::deserialize(&mut serde_json::Deserializer::from_str(params))
                .map_err(unexpected)?;
            let whole = assembler.push(chunk).map_err(CallError::ChunksTooLarge)?;
            whole.map_or(Ok(None), |line| understand_whole(&line))
        }
        _ => Ok(None),
    }
}

fn news<T: DeserializeOwned>(
    params: &str,
    of: fn(T) -> News,
) -> Result<Option<Received>, serde_json::Error> {
    Ok(Some(Received::Event(Event::News(of(serde_json::from_str(params)?)))))
}

/// Types a line that came in pieces; pieces of pieces don't exist.
fn understand_whole(line: &str) -> Result<Option<Received>, CallError> {
    understand(line.as_bytes(), &mut ChunkAssembler::with_cap(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::encode_notification;
    use crate::messages::Item;

    fn item() -> Item {
        serde_json::from_str(r#"{"id":1,"file":"a}","contentId":"c0","matches":[{"x":1}]}"#)
            .unwrap()
    }

    #[test]
    fn an_item_in_another_spelling_is_the_same_item() {
        let params = serde_json::to_string(&item()).unwrap();
        let line = format!(r#"{{ "method":"$/item", "params":{params}, "jsonrpc":"2.0" }}"#);
        assert!(read_item(&line).is_none());
        let received = understand(line.as_bytes(), &mut ChunkAssembler::new()).unwrap();
        let Some(Received::Event(Event::Item(seen))) = received else { panic!("{received:?}") };
        assert_eq!(serde_json::to_string(&seen).unwrap(), params);
    }

    #[test]
    fn a_bad_item_is_reported_by_its_method() {
        let line = r#"{"jsonrpc":"2.0","method":"$/item","params":{"id":"x"}}"#;
        let error = understand(line.as_bytes(), &mut ChunkAssembler::new()).unwrap_err();
        assert_eq!(error.to_string(), "can't read a `$/item` notification of the daemon");
    }

    #[test]
    fn notifications_and_requests_of_a_later_version_are_passed_over() {
        for line in [
            &br#"{"jsonrpc":"2.0","method":"$/later","params":{}}"#[..],
            br#"{"jsonrpc":"2.0","id":1,"method":"ask","params":{}}"#,
        ] {
            let received = understand(line, &mut ChunkAssembler::new()).unwrap();
            assert!(received.is_none(), "{received:?}");
        }
    }

    #[test]
    fn a_piece_within_a_piece_is_refused() {
        let nest = |text: &str| {
            let chunk = Chunk { stream: 1, last: true, text: text.into() };
            let mut line = Vec::new();
            encode_notification(&mut line, method::CHUNK, &chunk).unwrap();
            String::from_utf8(line).unwrap().trim_end().to_owned()
        };
        let progress = r#"{"jsonrpc":"2.0","method":"$/progress","params":{"id":1,"phase":"indexing","done":1,"total":2}}"#;
        let once = nest(progress);
        let received = understand(once.as_bytes(), &mut ChunkAssembler::new()).unwrap();
        assert!(matches!(received, Some(Received::Event(Event::Progress(_)))), "{received:?}");
        let error = understand(nest(&once).as_bytes(), &mut ChunkAssembler::new()).unwrap_err();
        assert!(matches!(error, CallError::ChunksTooLarge(_)), "{error}");
    }
}

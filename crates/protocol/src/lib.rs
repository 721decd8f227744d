//! The wire types and framing of the Astscope daemon, and a blocking client.
//!
//! Everything that a program needs to talk to the daemon, and nothing that the daemon is made of:
//! no type of another crate appears here, so that the engine can change without the wire, and a
//! client doesn't link grammars. The protocol is JSON-RPC 2.0, one JSON text per line, over a Unix
//! socket that belongs to one user; `docs/protocol.md` describes it for other languages.
//!
//! In reading order:
//! - [`messages`]: what is said; every request, answer and notification.
//! - [`limits`]: every bound, on one screen.
//! - [`frame`]: how it becomes lines, and lines become messages again. No IO, so that the
//!   daemon (tokio) and the client (blocking) share it.
//! - [`runtime_dir`]: where the socket is, and why it can be trusted.
//! - [`client`]: a connection, calls, streamed answers, cancellation; reads that survive the
//!   restart of a part of the daemon.
//!
//! Invariants: unknown fields and notifications are ignored; `hello` comes first; no side holds
//! more than one line's cap of another's unfinished line; a bad line costs only itself.
//!
//! ```
//! use astscope_protocol::messages::{StopParams, method};
//! use astscope_protocol::{Incoming, LineDecoder, encode_request, parse};
//!
//! let mut sent = Vec::new();
//! encode_request(&mut sent, 1, method::STOP, &StopParams { drain: true })?;
//!
//! let mut decoder = LineDecoder::new();
//! let mut input = &sent[..];
//! let line = decoder.next_line(&mut input).ok_or("half a line")??;
//! let Incoming::Request(request) = parse(line)? else { return Err("no request".into()) };
//! assert_eq!((request.id, request.method.as_str()), (1, "stop"));
//! assert!(request.params::<StopParams>()?.drain);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A client asks for every call of a function:
//!
//! ```no_run
//! use astscope_protocol::messages::{MatcherSpec, Peer, RunParams, Selection, Summary, method};
//! use astscope_protocol::{Client, Event, RuntimeDir};
//! use std::{ops::ControlFlow, time::Duration};
//!
//! let dir = RuntimeDir::locate(&|name| std::env::var_os(name))?;
//! let me = Peer { name: "example".into(), version: "1.0.0".into() };
//! let (mut client, _hello) = Client::connect(&dir.socket(), me, Duration::from_secs(5))?;
//! let params = RunParams {
//!     selection: Selection { cwd: "/home/me/project".into(), ..Selection::default() },
//!     matcher: MatcherSpec { pattern: Some("f($$$ARGS)".into()), ..MatcherSpec::default() },
//!     ..RunParams::default()
//! };
//! let summary: Summary = client.call_streaming(method::RUN, &params, |event| {
//!     if let Event::Item(item) = event {
//!         println!("{}: {} matches", item.file, item.matches.len());
//!     }
//!     ControlFlow::Continue(())
//! })?;
//! println!("{} matches in {} files", summary.matches, summary.files_matched);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

pub mod messages;

pub mod limits;

pub mod frame;

pub mod runtime_dir;

pub mod client;

pub use client::{
    Attempt, CallError, Canceller, Client, ConnectError, Event, News, ReadCanceller, ReadRequest,
    RetryingClient,
};
pub use frame::{
    Chunk, ChunkAssembler, ChunksTooLarge, EncodeError, HalfLine, Incoming, LineDecoder,
    LineTooLong, Notification, Rejected, Request, Response, RpcError, SplitLine, encode_error,
    encode_item, encode_notification, encode_request, encode_response, encode_tagged_error,
    encode_tagged_response, parse, split_line,
};
pub use limits::{
    CHUNK_PIECE_BYTES, CHUNKED_BYTES_MAX, DEADLINE_MS_MAX, LAGGING_PATHS_MAX, LINE_BYTES_MAX,
    REQUESTS_IN_FLIGHT_MAX, SOCKET_PATH_BYTES_MAX, SUBSCRIPTION_BYTES_MAX,
    SUBSCRIPTION_MATCHES_MAX, SUBSCRIPTIONS_MAX, WAIT_MS_DEFAULT,
};
pub use runtime_dir::{RUNTIME_DIR_VARIABLE, RuntimeDir, RuntimeDirError};

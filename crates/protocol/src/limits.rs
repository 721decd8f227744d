//! Every bound of the protocol on one screen, so that the daemon, the client and
//! `docs/protocol.md` can't disagree about one.

/// Longest line in either direction, bytes without the newline. It bounds what one peer can make
/// the other hold; a request of a person or an editor is a few KiB.
pub const LINE_BYTES_MAX: usize = 16 << 20;

/// Bytes of the original line in one `$/chunk`. Large enough that a long answer is few lines,
/// small enough that escaping can't push a piece over [`LINE_BYTES_MAX`].
pub const CHUNK_PIECE_BYTES: usize = 4 << 20;

/// Most that a `$/chunk` notification adds around its text.
pub const CHUNK_ENVELOPE_BYTES: usize = 128;

/// Bytes that a client holds for lines that are still in pieces, all of them together.
pub const CHUNKED_BYTES_MAX: usize = 1 << 30;

/// Requests that one connection may have unanswered.
pub const REQUESTS_IN_FLIGHT_MAX: u32 = 32;

/// Subscriptions of one connection: what an editor or a dashboard shows at a time.
pub const SUBSCRIPTIONS_MAX: u32 = 16;

/// Matches that one subscription may have at a time. Each is held, to be told when it disappears;
/// what has more is a search, not something to be watched.
pub const SUBSCRIPTION_MATCHES_MAX: u64 = 1 << 16;

/// Bytes of those matches as JSON. A match is some hundred bytes as a rule, and may be a file long.
pub const SUBSCRIPTION_BYTES_MAX: u64 = 64 << 20;

/// Longest deadline that a request may ask for.
pub const DEADLINE_MS_MAX: u64 = 60 * 60 * 1000;

/// How long a query waits for files to be read and parsed unless it says so: far longer than any
/// change takes, so that it ends only what hangs.
pub const WAIT_MS_DEFAULT: u64 = 60 * 1000;

/// Files that an answer names in which it is behind the disk: what a person would read.
pub const LAGGING_PATHS_MAX: usize = 20;

/// Longest socket path: the kernel's `sun_path` has 108 bytes, one of them the closing NUL.
pub const SOCKET_PATH_BYTES_MAX: usize = 107;

// The text of a piece is JSON, which holds no control characters but whitespace: each byte
// becomes two at the most (`"`, `\`, tab, CR).
const _: () = assert!(2 * CHUNK_PIECE_BYTES + CHUNK_ENVELOPE_BYTES <= LINE_BYTES_MAX);
// A chunked line is at least one line longer than what fits into a single one.
const _: () = assert!(CHUNKED_BYTES_MAX > LINE_BYTES_MAX);

//! What goes through the pipes between a parser process and whoever owns it.
//!
//! Downwards one request a file: a head, then the text. A request has no number, for they are
//! answered in order. Upwards frames: a head, then so many bytes. The first is a greeting. For each
//! request comes *begun*, before a byte of its text is looked at, and then its trees, or why it has
//! none. So what a process was at when it died can be read from the pipe, whatever killed it.
//!
//! Numbers are little-endian.

use crate::Limits;
use astscope_syntax::{Language, SkipReason};
use std::time::Duration;

/// Changes with what is said here. The two ends are of one build, unless a program was replaced
/// while it ran.
pub(crate) const VERSION: u32 = 1;

/// Bytes of a request's head.
pub(crate) const REQUEST_HEAD: usize = 1 + 4 + 4 + 4;

/// A request's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) language: Language,
    /// Levels that its trees may have.
    pub(crate) depth_max: u32,
    /// Time that it may take, in milliseconds.
    pub(crate) time_max_ms: u32,
    /// Bytes of text that follow.
    pub(crate) len: u32,
}

impl Request {
    /// `None` if the text is longer than can be said.
    pub(crate) fn new(text: &str, language: Language, limits: &Limits) -> Option<Self> {
        Some(Self {
            language,
            depth_max: limits.depth_max,
            time_max_ms: u32::try_from(limits.time_max.as_millis()).unwrap_or(u32::MAX),
            len: u32::try_from(text.len()).ok()?,
        })
    }

    pub(crate) fn time_max(self) -> Duration {
        Duration::from_millis(self.time_max_ms.into())
    }

    pub(crate) fn to_bytes(self) -> [u8; REQUEST_HEAD] {
        let mut bytes = [0; REQUEST_HEAD];
        bytes[0] = self.language as u8;
        bytes[1..5].copy_from_slice(&self.depth_max.to_le_bytes());
        bytes[5..9].copy_from_slice(&self.time_max_ms.to_le_bytes());
        bytes[9..].copy_from_slice(&self.len.to_le_bytes());
        bytes
    }

    pub(crate) fn from_bytes(bytes: [u8; REQUEST_HEAD]) -> Option<Self> {
        let number =
            |at: usize| bytes[at..at + 4].iter().rev().fold(0, |n, byte| n << 8 | u32::from(*byte));
        Some(Self {
            language: *Language::ALL.get(usize::from(bytes[0]))?,
            depth_max: number(1),
            time_max_ms: number(5),
            len: number(9),
        })
    }
}

/// Bytes of a frame's head.
pub(crate) const FRAME_HEAD: usize = 1 + 4;

/// What a frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Tag {
    /// The version, and a byte that says which restrictions are in force.
    Greeting,
    /// Work on the next request begins. No bytes.
    Begun,
    /// Its trees, encoded.
    Trees,
    /// Why it has none: one byte.
    Skipped,
}

/// A frame's head.
pub(crate) fn frame_head(tag: Tag, len: u32) -> [u8; FRAME_HEAD] {
    let [a, b, c, d] = len.to_le_bytes();
    [tag as u8, a, b, c, d]
}

/// The frame that a head announces, and how many bytes it has. `None` if there is no such frame.
pub(crate) fn read_frame_head([tag, a, b, c, d]: [u8; FRAME_HEAD]) -> Option<(Tag, u32)> {
    let tags = [Tag::Greeting, Tag::Begun, Tag::Trees, Tag::Skipped];
    let tag = tags.into_iter().find(|known| *known as u8 == tag)?;
    Some((tag, u32::from_le_bytes([a, b, c, d])))
}

/// Bytes of a greeting.
pub(crate) const GREETING: usize = 4 + 1;

/// The reasons that a parser can have.
const REASONS: [fn(u32) -> SkipReason; 3] = [
    |limit| SkipReason::TooDeep { limit },
    |_| SkipReason::ParseTimeout,
    |_| SkipReason::GrammarNotBuilt,
];

/// The byte for a reason. Those that no parser has don't come here.
pub(crate) fn reason_to_byte(reason: &SkipReason) -> u8 {
    match reason {
        SkipReason::TooDeep { .. } => 0,
        SkipReason::GrammarNotBuilt => 2,
        _ => 1,
    }
}

/// The reason for a byte, if there is one.
pub(crate) fn reason_from_byte(byte: u8, limits: &Limits) -> Option<SkipReason> {
    Some(REASONS.get(usize::from(byte))?(limits.depth_max))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_come_back_as_they_were() {
        let limits = Limits { depth_max: 77, ..Limits::DAEMON };
        for language in Language::ALL {
            let request = Request::new("f(x)", *language, &limits).unwrap();
            assert_eq!((request.len, request.time_max()), (4, limits.time_max));
            assert_eq!(Request::from_bytes(request.to_bytes()), Some(request));
        }
        for tag in [Tag::Greeting, Tag::Begun, Tag::Trees, Tag::Skipped] {
            assert_eq!(read_frame_head(frame_head(tag, 70_000)), Some((tag, 70_000)));
        }
        for reason in [
            SkipReason::TooDeep { limit: 77 },
            SkipReason::ParseTimeout,
            SkipReason::GrammarNotBuilt,
        ] {
            assert_eq!(reason_from_byte(reason_to_byte(&reason), &limits), Some(reason));
        }
    }

    #[test]
    fn what_nobody_says_is_not_understood() {
        let request = Request::new("", Language::C, &Limits::DAEMON).unwrap();
        let mut bytes = request.to_bytes();
        bytes[0] = 255;
        assert_eq!(Request::from_bytes(bytes), None);
        assert_eq!(read_frame_head([4, 0, 0, 0, 0]), None);
        assert_eq!(reason_from_byte(3, &Limits::DAEMON), None);
    }
}

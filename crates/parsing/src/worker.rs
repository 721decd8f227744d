//! The process that parses: reads requests, parses, writes trees, until its stdin ends.
//!
//! It may hang, crash or be taken over by what it parses; its owner kills it, and takes what it
//! writes for hostile. So it is given texts and never paths or descriptors, and takes from itself
//! whatever parsing doesn't need before it reads the first one ([`Restrictions`]).
//!
//! Plain blocking code on the main thread, whose stack is made large: whoever owns the process does
//! the waiting.

mod fault;
mod sandbox;

pub use sandbox::Restrictions;

use crate::parse;
use crate::wire::{self, FRAME_HEAD, REQUEST_HEAD, Request, Tag};
use astscope_syntax::encoding;
use fault::Faults;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::time::Instant;

/// The variable that says how many bytes of address space the process may have.
pub const MEMORY_VARIABLE: &str = "ASTSCOPE_PARSER_MEMORY";

/// Holds the next request as a rule, so that the answer to one and the word that the next has begun
/// are one write.
const IN_BYTES: usize = 64 << 10;
/// A larger buffer for answers is given back after use.
const OUT_BYTES: usize = 1 << 20;

/// Text after which free pages are given back. What parsing took for less, some seventy times as much
/// at most, may stay until more comes.
const RELEASE_BYTES: usize = 512 << 10;

/// Serves requests on stdin, and answers on stdout. `release` gives the allocator's free pages back to
/// the kernel: a parser takes many times its text and keeps none of it.
///
/// # Errors
/// When a stream fails or the requests aren't of this version: whoever owns the process is gone, or
/// is another program.
pub fn serve_stdio(release: fn()) -> io::Result<()> {
    let input = File::from(rustix::stdio::stdin().try_clone_to_owned()?);
    let output = File::from(rustix::stdio::stdout().try_clone_to_owned()?);
    // Foreign code that prints must not get in between.
    rustix::stdio::dup2_stdout(rustix::stdio::stderr())?;
    serve(input, output, release)
}

/// The same on other streams. Restricts the process that calls it, for good.
///
/// # Errors
/// As [`serve_stdio`].
pub fn serve(input: impl Read, mut output: impl Write, release: fn()) -> io::Result<()> {
    let memory = std::env::var(MEMORY_VARIABLE).ok().and_then(|bytes| bytes.parse().ok());
    let faults = Faults::from_env();
    let restrictions = sandbox::enter(memory);
    let mut input = BufReader::with_capacity(IN_BYTES, input);
    let mut out = Vec::with_capacity(IN_BYTES);
    push_frame(&mut out, Tag::Greeting, |out| {
        out.extend(wire::VERSION.to_le_bytes());
        out.push(restrictions.bits());
    })?;
    let mut n_parsed = 0;
    loop {
        // What is done is told before anything is waited for.
        if input.buffer().len() < REQUEST_HEAD {
            flush(&mut out, &mut output)?;
            if n_parsed >= RELEASE_BYTES {
                release();
                n_parsed = 0;
            }
        }
        if input.fill_buf()?.is_empty() {
            return Ok(());
        }
        let mut head = [0; REQUEST_HEAD];
        input.read_exact(&mut head)?;
        // Before anything is done for it, memory for its text included.
        out.extend(wire::frame_head(Tag::Begun, 0));
        flush(&mut out, &mut output)?;
        let request = Request::from_bytes(head).ok_or(io::ErrorKind::InvalidData)?;
        let mut text = vec![0; request.len as usize];
        input.read_exact(&mut text)?;
        let text = String::from_utf8(text).map_err(io::Error::other)?;
        faults.obey(&text, &mut output)?;
        n_parsed += text.len();
        answer(request, text, &mut out)?;
    }
}

fn answer(request: Request, text: String, out: &mut Vec<u8>) -> io::Result<()> {
    let limits = crate::Limits { depth_max: request.depth_max, ..crate::Limits::DAEMON };
    let (begun, time_max) = (Instant::now(), request.time_max());
    let mut stop = || begun.elapsed() >= time_max;
    match parse(text.into(), request.language, &limits, &mut stop) {
        Ok(file) => push_frame(out, Tag::Trees, |out| encoding::encode(&file, out)),
        Err(reason) => push_frame(out, Tag::Skipped, |out| out.push(wire::reason_to_byte(&reason))),
    }
}

/// Appends a frame whose bytes `fill` appends.
fn push_frame(out: &mut Vec<u8>, tag: Tag, fill: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
    let at = out.len();
    out.extend(wire::frame_head(tag, 0));
    fill(out);
    let len = u32::try_from(out.len() - at - FRAME_HEAD).map_err(io::Error::other)?;
    out[at..at + FRAME_HEAD].copy_from_slice(&wire::frame_head(tag, len));
    Ok(())
}

fn flush(out: &mut Vec<u8>, output: &mut impl Write) -> io::Result<()> {
    output.write_all(out)?;
    out.clear();
    if out.capacity() > OUT_BYTES {
        *out = Vec::with_capacity(IN_BYTES);
    }
    Ok(())
}

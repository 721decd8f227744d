//! Faults on demand, so that tests can have a parser that misbehaves.
//!
//! A text that holds the marker and a fault's name behind it makes the process commit that fault.
//! The marker is the value of a variable, which the process reads when it starts; without it, as
//! everywhere but in tests, no text has any such effect.

use std::hint::black_box;
use std::io::{self, Write};

/// The variable.
const VARIABLE: &str = "ASTSCOPE_PARSER_FAULTS";

/// What a text may demand.
pub(super) struct Faults {
    marker: Option<String>,
}

impl Faults {
    pub(super) fn from_env() -> Self {
        Self { marker: std::env::var(VARIABLE).ok().filter(|marker| !marker.is_empty()) }
    }

    /// Commits the fault that `text` asks for, if it does.
    pub(super) fn obey(&self, text: &str, output: &mut impl Write) -> io::Result<()> {
        let Some(marker) = &self.marker else { return Ok(()) };
        let Some((_, rest)) = text.split_once(marker) else { return Ok(()) };
        let name = rest.split(|c: char| !c.is_ascii_lowercase()).next().unwrap_or_default();
        match name {
            "hang" => hang(),
            "abort" => std::process::abort(),
            "exit" => std::process::exit(3),
            "overflow" => {
                black_box(descend(0));
            }
            "eat" => eat(),
            "complain" => {
                // What a sanitizer or an allocator says before it gives up.
                writeln!(io::stderr(), "the scanner is confused")?;
                std::process::abort();
            }
            "garbage" => output.write_all(&[0xff; 64])?,
            "flood" => output.write_all(&[2, 0xff, 0xff, 0xff, 0xff])?,
            // A frame of trees that are none.
            "lie" => {
                output.write_all(&[2, 3, 0, 0, 0, 1, 1, 77])?;
                hang();
            }
            "fpe" => signal(rustix::process::Signal::FPE)?,
            "kill" => signal(rustix::process::Signal::KILL)?,
            "term" => signal(rustix::process::Signal::TERM)?,
            // Says what it can still do, as the reason of its end.
            "escape" => {
                writeln!(io::stderr(), "{}", super::sandbox::escapes())?;
                std::process::abort();
            }
            _ => {}
        }
        Ok(())
    }
}

fn hang() -> ! {
    loop {
        std::thread::park();
    }
}

/// Takes a page of stack each time.
fn descend(depth: u64) -> u64 {
    if black_box(depth) == u64::MAX {
        return depth; // never
    }
    let page = black_box([depth; 512]);
    black_box(descend(depth + 1)).wrapping_add(page[511])
}

/// Takes address space, which is limited, and not pages, which the machine may need.
fn eat() -> ! {
    let mut eaten = Vec::new();
    loop {
        eaten.push(black_box(Vec::<u8>::with_capacity(64 << 20)));
    }
}

fn signal(signal: rustix::process::Signal) -> io::Result<()> {
    rustix::process::kill_process(rustix::process::getpid(), signal)?;
    // Another thread may be the one that takes it, a moment later.
    hang()
}

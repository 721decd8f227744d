//! The program from its arguments to what it prints, with a fake daemon.
#![expect(clippy::unwrap_used, reason = "a test that can't set up its world has failed")]

mod commands;
mod editing;
mod parser_worker;
mod printers;
mod process;
mod serve;
mod supervised;
mod support;
mod watch;

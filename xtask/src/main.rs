//! `cargo xtask`: one command for everything that a contributor runs beside cargo itself.
//!
//! A new subcommand is a variant in `flags.rs`, a module, and an arm here.

use clap::Parser;
use std::process::ExitCode;
use xtask::flags::{Command, Flags};
use xtask::{bench, chaos, ci, differential, otp, soak, tidy};

fn main() -> ExitCode {
    let result = match Flags::parse().command {
        Command::Ci(flags) => ci::run(&flags),
        Command::Tidy => tidy::run(),
        Command::Bench(flags) => bench::run(&flags),
        Command::Differential(flags) => differential::run(&flags),
        Command::Kills(flags) => chaos::kills(&flags),
        Command::Chaos(flags) => chaos::run(&flags),
        Command::Soak(flags) => soak::run(&flags),
        Command::Otp(flags) => otp::run(&flags),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(&error);
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stderr, reason = "a command line tool says why it failed")]
fn report(error: &anyhow::Error) {
    eprintln!("error: {error:#}");
}

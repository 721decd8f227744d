//! `astscope completions`.

use crate::args::{Cli, CompletionsArgs};
use crate::console::Console;
use crate::exit::Exit;
use crate::failure::Failure;
use clap::CommandFactory;
use clap_complete::{Shell, generate};

/// Prints the script for a shell.
pub(crate) fn completions(
    args: &CompletionsArgs,
    console: &mut Console<'_>,
) -> Result<Exit, Failure> {
    let shell = args.shell.or_else(Shell::from_env).ok_or_else(|| {
        Failure::new(
            Exit::UnknownShell,
            "Can not infer which shell to generate completions.",
        )
        .help("Either specify the shell by `astscope completions [SHELL]` or set the SHELL environment variable.")
    })?;
    let mut script = Vec::new();
    generate(shell, &mut Cli::command(), "astscope", &mut script);
    let printed = console.out.write_all(&script).and_then(|()| console.out.flush());
    printed.map_err(crate::output::PrintError::Write).or_else(crate::request::give_up)?;
    Ok(Exit::Success)
}

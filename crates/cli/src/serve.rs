//! `astscope serve`: becomes the daemon; `astscope parser-worker`: becomes a process that parses for
//! one. The only file that names the daemon.

use crate::args::{IdleTimeout, ServeArgs};
use crate::console::Console;
use crate::daemon_start::bad_runtime_dir;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::{Allocator, log, service_manager};
use astscope_daemon::{
    DaemonConfig, IdleExit, LogFilter, MemorySource, ParserConfig, ServeError, SettingsSource,
};
use astscope_protocol::RuntimeDir;
use std::ffi::OsString;
use std::path::PathBuf;

/// Makes parsers fail on purpose, where that is allowed.
const FAULT_VARIABLE: &str = "ASTSCOPE_PARSER_FAULTS";

pub(crate) fn serve(
    args: &ServeArgs,
    allocator: Allocator,
    console: &mut Console<'_>,
) -> Result<Exit, Failure> {
    (allocator.settle)();
    let runtime_dir = RuntimeDir::locate(&|name| std::env::var_os(name))
        .map_err(|error| bad_runtime_dir(&error))?;
    let (state_dir, log) = log::start(args.spawned);
    let named = args.config.as_ref().map(|file| console.cwd.join(file));
    let settings = SettingsSource {
        idle_exit: args.idle_timeout.map(|IdleTimeout(limit)| match limit {
            Some(limit) => IdleExit::After(limit),
            None => IdleExit::Never,
        }),
        is_named: named.is_some(),
        file: named.or_else(|| settings_file(&|name| std::env::var_os(name))),
        log: LogFilter {
            given: log.asked().map(str::to_owned),
            default: log::DEFAULT_FILTER.to_owned(),
            check: log::check,
            set: Box::new(move |filter| log.set(filter)),
        },
    };
    let roots = args.root.iter().map(|root| console.cwd.join(root)).collect();
    let config = DaemonConfig {
        runtime_dir: runtime_dir.clone(),
        roots,
        parsers: Some(parsers(state_dir, args.allow_debug)),
        settings,
        allow_debug: args.allow_debug,
        memory: MemorySource {
            release_free_pages: Some(allocator.release),
            ..MemorySource::of_kernel()
        },
        leaving: if args.spawned { || () } else { service_manager::stopping },
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let served = astscope_daemon::serve(config, || {
        let (pid, socket) = (std::process::id(), runtime_dir.socket());
        let (version, socket) = (env!("CARGO_PKG_VERSION"), socket.display());
        tracing::info!(version, pid, %socket, "listening");
        if args.spawned {
            tell(console, "ready");
        } else {
            service_manager::ready();
            console.note(&format!("astscope: listening on {}", runtime_dir.socket().display()));
        }
    });
    match served {
        Ok(()) => {
            tracing::info!("left");
            Ok(Exit::Success)
        }
        Err(ServeError::AlreadyRunning { .. }) if args.spawned => {
            tell(console, "busy");
            Ok(Exit::Success)
        }
        Err(ServeError::RuntimeDir(error)) => Err(bad_runtime_dir(&error)),
        Err(error) => {
            let help = match &error {
                ServeError::AlreadyRunning { .. } => {
                    "`astscope status` shows it, `astscope stop` ends it."
                }
                ServeError::Settings { .. } => {
                    "Correct the file; `astscope serve --help` says what it may hold."
                }
                ServeError::Root { .. } => "Name a directory that exists.",
                _ => "Nothing was started.",
            };
            Err(Failure::new(Exit::Unreachable, "Cannot start the daemon.")
                .help(help)
                .source(&error))
        }
    }
}

/// Serves until its stdin ends. Its stdout is a pipe to the daemon, so it says nothing there itself.
pub(crate) fn parser_worker(allocator: Allocator) -> Result<Exit, Failure> {
    match astscope_daemon::parser_worker::serve_stdio(allocator.release) {
        Ok(()) => Ok(Exit::Success),
        Err(error) => Err(Failure::new(Exit::Unreachable, "Cannot go on parsing.").source(&error)),
    }
}

/// Parsers are this very program, even if its file is replaced while it runs.
fn parsers(state_dir: Option<PathBuf>, allow_debug: bool) -> ParserConfig {
    let own = PathBuf::from("/proc/self/exe");
    let program = if own.exists() { Ok(own) } else { std::env::current_exe() };
    let program = program.unwrap_or_else(|_| "astscope".into());
    let mut config = ParserConfig::new(program, ["parser-worker".into()]);
    // Without one, what cost a parser is forgotten when the daemon ends, which `status` says.
    config.quarantine_dir = state_dir;
    if allow_debug {
        let fault = std::env::var_os(FAULT_VARIABLE);
        config.env.extend(fault.map(|marker| (FAULT_VARIABLE.into(), marker)));
    }
    config
}

/// Where the daemon's settings are, by the environment: below `$XDG_CONFIG_HOME`, else `~/.config`.
/// Relative variables count as absent, as the XDG specification demands.
fn settings_file(env: &dyn Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let absolute = |name| env(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let above = absolute("XDG_CONFIG_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".config")))?;
    Some(above.join("astscope/config.toml"))
}

/// Says one word to the command that started this daemon; whether it still listens is its affair.
fn tell(console: &mut Console<'_>, word: &str) {
    let _unheard = writeln!(console.out, "{word}").and_then(|()| console.out.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_in_the_users_configuration_directory() {
        let located = |xdg: &'static str| {
            settings_file(&|name| match name {
                "XDG_CONFIG_HOME" => Some(xdg.into()),
                "HOME" => Some("/me".into()),
                _ => None,
            })
        };
        let path = |path: &str| Some(PathBuf::from(path));
        assert_eq!(located("/xdg"), path("/xdg/astscope/config.toml"));
        for absent in ["", "relative"] {
            assert_eq!(located(absent), path("/me/.config/astscope/config.toml"), "{absent:?}");
        }
        assert_eq!(settings_file(&|_| None), None);
    }
}

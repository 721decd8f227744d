//! The `astscope` program; all of it is in the library, where tests can call it.

use std::process::ExitCode;

/// For the daemon: mimalloc saves a tenth of the time that parsing takes with glibc's allocator.
/// It takes the place of C's `malloc` too, which tree-sitter uses.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    astscope_cli::main()
}

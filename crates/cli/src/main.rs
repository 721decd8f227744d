//! The `astscope` program; all of it is in the library, where tests can call it, but for two
//! functions of the C library that have no safe form.

use astscope_cli::Allocator;
use std::process::ExitCode;

fn main() -> ExitCode {
    astscope_cli::main(Allocator { settle: allocator::settle, release: allocator::release })
}

/// glibc's allocator.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "C functions")]
mod allocator {
    /// Blocks of at least so many bytes are mappings of their own, which go back when they are freed,
    /// unless a heap has a hole for them. Setting it keeps glibc from raising it.
    const MAPPED_BYTES_MIN: libc::c_int = 64 << 10;

    /// Heaps for all threads, one a core, where glibc would have eight: what one thread freed serves the
    /// next that needs it, and still they seldom wait for each other.
    const HEAPS: std::ops::RangeInclusive<libc::c_int> = 2..=8;

    pub(super) fn settle() {
        let n_cores = std::thread::available_parallelism().map_or(1, usize::from);
        let n_cores = libc::c_int::try_from(n_cores).unwrap_or(libc::c_int::MAX);
        let n_heaps = n_cores.clamp(*HEAPS.start(), *HEAPS.end());
        // SAFETY: any thread may call this, with any number.
        let _unknown = unsafe { libc::mallopt(libc::M_ARENA_MAX, n_heaps) };
        // SAFETY: as above.
        let _unknown = unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_BYTES_MIN) };
    }

    pub(super) fn release() {
        // SAFETY: any thread may call this at any time; it locks each heap for itself.
        let _is_something_released = unsafe { libc::malloc_trim(0) };
    }
}

/// Whatever other systems have is as it is.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
mod allocator {
    pub(super) fn settle() {}
    pub(super) fn release() {}
}

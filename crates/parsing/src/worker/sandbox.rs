//! What a process that parses takes from itself before it reads the first text.
//!
//! Each step is by itself: a kernel that lacks one still takes the others, and what is in force is
//! told with the greeting. All of it survives in whatever the process might start.

use std::fmt;

/// Bytes of stack for the main thread. tree-sitter doesn't recurse; a scanner of a grammar may.
#[cfg(unix)]
const STACK_BYTES: u64 = 64 << 20;

/// What is in force in a parser process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Restrictions(u8);

/// Each with the words that `status` has for it.
const ALL: [(Restrictions, &str); 5] = [
    (Restrictions::DEATH_SIGNAL, "ends with its owner"),
    (Restrictions::NO_NEW_PRIVS, "can't gain privileges"),
    (Restrictions::MEMORY, "memory is bounded"),
    (Restrictions::NO_FILES, "can't open or write files or make sockets"),
    (Restrictions::LANDLOCK, "sees no file system, network or other process"),
];

impl Restrictions {
    /// It is sent SIGTERM when the thread that started it ends. Not SIGKILL: by that its owner would
    /// think that the file was at fault.
    pub const DEATH_SIGNAL: Self = Self(1);
    /// Running a set-user-id program gains nothing.
    pub const NO_NEW_PRIVS: Self = Self(2);
    /// Its address space and its stack are bounded.
    pub const MEMORY: Self = Self(4);
    /// It has the descriptors that it was started with and can't have another: no file, socket or
    /// pipe. It can't write to a file, not even its own core.
    pub const NO_FILES: Self = Self(8);
    /// Landlock is enforced, as far as the kernel knows it: no path, TCP port, abstract socket or
    /// signal to others.
    pub const LANDLOCK: Self = Self(16);

    /// Both.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all of `other` is in force.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// What isn't in force, in words.
    pub fn missing(self) -> impl Iterator<Item = &'static str> {
        ALL.into_iter().filter(move |(one, _)| !self.contains(*one)).map(|(_, words)| words)
    }

    pub(crate) const fn bits(self) -> u8 {
        self.0
    }

    pub(crate) const fn from_bits(bits: u8) -> Self {
        Self(bits)
    }
}

impl fmt::Display for Restrictions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let in_force = ALL.iter().filter(|(one, _)| self.contains(*one));
        let words: Vec<&str> = in_force.map(|(_, words)| *words).collect();
        f.write_str(if words.is_empty() { "none" } else { "" })?;
        f.write_str(&words.join(", "))
    }
}

/// Restricts this process, and says how far that went.
pub(super) fn enter(memory_bytes: Option<u64>) -> Restrictions {
    let mut in_force = Restrictions::default();
    let mut step = |what: Restrictions, went: bool| {
        if went {
            in_force = in_force.with(what);
        }
    };
    // That the owner died before this is no harm: it sends nothing before it was greeted, so there
    // is nothing to read, and the process ends.
    step(Restrictions::DEATH_SIGNAL, die_with_owner());
    step(Restrictions::NO_NEW_PRIVS, no_new_privs());
    // Landlock needs a descriptor, so it comes before there can't be any.
    step(Restrictions::LANDLOCK, landlock());
    step(Restrictions::MEMORY, bound_memory(memory_bytes));
    step(Restrictions::NO_FILES, no_files());
    in_force
}

#[cfg(target_os = "linux")]
fn die_with_owner() -> bool {
    use rustix::process::{Signal, set_parent_process_death_signal};
    set_parent_process_death_signal(Some(Signal::TERM)).is_ok()
}

#[cfg(target_os = "linux")]
fn no_new_privs() -> bool {
    rustix::thread::set_no_new_privs(true).is_ok()
}

/// A ruleset that handles everything and allows nothing.
#[cfg(target_os = "linux")]
fn landlock() -> bool {
    use landlock::{ABI, Access as _, AccessFs, AccessNet, Ruleset, RulesetAttr as _};
    use landlock::{RulesetStatus, Scope};
    let ruleset = Ruleset::default()
        .handle_access(AccessFs::from_all(ABI::V6))
        .and_then(|ruleset| ruleset.handle_access(AccessNet::from_all(ABI::V6)))
        .and_then(|ruleset| ruleset.scope(Scope::from_all(ABI::V6)))
        .and_then(Ruleset::create)
        .and_then(landlock::RulesetCreated::restrict_self);
    ruleset.is_ok_and(|status| status.ruleset != RulesetStatus::NotEnforced)
}

#[cfg(not(target_os = "linux"))]
fn die_with_owner() -> bool {
    false
}

#[cfg(not(target_os = "linux"))]
fn no_new_privs() -> bool {
    false
}

#[cfg(not(target_os = "linux"))]
fn landlock() -> bool {
    false
}

#[cfg(unix)]
fn bound_memory(bytes: Option<u64>) -> bool {
    use rustix::process::Resource;
    // A stack that may not be so large is as large as it may be.
    let stack = limit(Resource::Stack, STACK_BYTES);
    bytes.is_some_and(|bytes| limit(Resource::As, bytes)) && stack
}

/// No more descriptors than there are, no byte to a file, no core.
#[cfg(unix)]
fn no_files() -> bool {
    use rustix::process::Resource;
    // A core that goes to a program's pipe isn't bounded by the limit.
    #[cfg(target_os = "linux")]
    let _limited_below =
        rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
    let resources = [Resource::Core, Resource::Fsize, Resource::Nofile];
    resources.map(|resource| limit(resource, 0)) == [true; 3]
}

#[cfg(unix)]
fn limit(resource: rustix::process::Resource, n: u64) -> bool {
    use rustix::process::{Rlimit, getrlimit, setrlimit};
    // Never more than was allowed before: raising it would be refused.
    let n = getrlimit(resource).maximum.map_or(n, |maximum| maximum.min(n));
    setrlimit(resource, Rlimit { current: Some(n), maximum: Some(n) }).is_ok()
}

#[cfg(not(unix))]
fn bound_memory(_: Option<u64>) -> bool {
    false
}

#[cfg(not(unix))]
fn no_files() -> bool {
    false
}

/// Tries what must not be possible, and says what was: for tests.
pub(super) fn escapes() -> String {
    let file = std::env::temp_dir().join("astscope-escaped");
    let attempts: [(&str, bool); 6] = [
        ("read a directory", std::fs::read_dir("/").is_ok()),
        ("read a file", std::fs::File::open("/proc/self/status").is_ok()),
        ("write a file", std::fs::write(file, "x").is_ok()),
        ("listen", std::net::TcpListener::bind("127.0.0.1:0").is_ok()),
        ("send", std::net::UdpSocket::bind("127.0.0.1:0").is_ok()),
        ("run a program", std::process::Command::new("/bin/true").status().is_ok()),
    ];
    let done: Vec<&str> =
        attempts.iter().filter(|(_, done)| *done).map(|(what, _)| *what).collect();
    format!("escapes: {done:?}")
}

//! What is done to the tree, one deed after the other, as its seed says.
//!
//! A deed is chosen by numbers and by what lies in the tree, in the order of its paths, so that the
//! same seed does the same again. Each says which files it didn't write at once: an answer may show
//! those half-written for as long as it lasts.

mod files;
mod ignores;

use super::ground::{BRANCHES, Ground};
use super::journal::Touched;
use crate::chaos::Random;
use anyhow::Result;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Deed {
    /// Writes a file in place.
    Edit,
    /// Changes a few bytes in place, twice within one tick of the clock.
    EditSameSize,
    /// The same with a question between, and the time of last change set back to before.
    EditUnseen,
    /// Writes a temporary file and renames it over another, as editors do.
    Replace,
    /// Writes a file in several pieces.
    Grow,
    Create,
    Rename,
    RenameOver,
    MoveDirectory,
    MoveOut,
    MoveIn,
    Delete,
    DeleteDirectory,
    Symlink,
    Chmod,
    SetBack,
    RootIgnore,
    NestedIgnore,
    DotIgnore,
    Exclude,
    Checkout,
    Commit,
    Stash,
    Reset,
    RootAway,
    RootBack,
}

/// How often each is done, among so many in all.
const WEIGHTS: [(Deed, usize); 25] = [
    (Deed::Edit, 10),
    (Deed::EditSameSize, 8),
    (Deed::EditUnseen, 6),
    (Deed::Replace, 10),
    (Deed::Grow, 5),
    (Deed::Create, 8),
    (Deed::Rename, 7),
    (Deed::RenameOver, 3),
    (Deed::MoveDirectory, 4),
    (Deed::MoveOut, 4),
    (Deed::MoveIn, 5),
    (Deed::Delete, 5),
    (Deed::DeleteDirectory, 1),
    (Deed::Symlink, 4),
    (Deed::Chmod, 2),
    (Deed::SetBack, 3),
    (Deed::RootIgnore, 2),
    (Deed::NestedIgnore, 2),
    (Deed::DotIgnore, 2),
    (Deed::Exclude, 1),
    (Deed::Checkout, 3),
    (Deed::Commit, 2),
    (Deed::Stash, 2),
    (Deed::Reset, 2),
    (Deed::RootAway, 1),
];

/// What became of a deed.
#[derive(Debug, Default)]
pub(super) struct Done {
    /// What was done to which path.
    pub(super) what: String,
    pub(super) touched: Touched,
    /// The path below the root that it was about.
    pub(super) about: Option<String>,
}

/// Files and directories below the root by their paths, git's own apart.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub(super) files: Vec<String>,
    pub(super) directories: Vec<String>,
}

impl Listing {
    /// What lies below a directory, however deep.
    pub(super) fn of(root: &Path) -> Result<Self> {
        let mut listing = Self::default();
        if root.is_dir() {
            listing.descend(root, "")?;
        }
        Ok(listing)
    }

    fn descend(&mut self, directory: &Path, above: &str) -> Result<()> {
        let mut entries = fs::read_dir(directory)?
            .map(|entry| entry.and_then(|it| Ok((it.file_name(), it.file_type()?.is_dir()))))
            .collect::<std::io::Result<Vec<_>>>()?;
        entries.sort();
        for (name, is_directory) in entries {
            let Some(name) = name.to_str().filter(|name| *name != ".git") else { continue };
            let path = format!("{above}{name}");
            if is_directory {
                self.descend(&directory.join(name), &format!("{path}/"))?;
                self.directories.push(path);
            } else {
                self.files.push(path);
            }
        }
        Ok(())
    }
}

/// Where the root is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Home,
    /// Renamed to somewhere else; nothing is at its path.
    Gone,
    /// Another directory is at its path.
    Replaced,
}

/// Does the deeds.
pub(super) struct Hand<'a> {
    ground: &'a Ground,
    random: Random,
    /// The tree as it was before the deed that is being done.
    listing: Listing,
    /// How many files there are to be, about.
    n_files: usize,
    n_named: u64,
    place: Place,
    has_stashed: bool,
    /// Directories that ignore rules leave alone.
    spared: BTreeSet<String>,
}

impl<'a> Hand<'a> {
    pub(super) fn new(ground: &'a Ground, random: Random, spared: &[String]) -> Result<Self> {
        let listing = Listing::of(&ground.root)?;
        Ok(Self {
            ground,
            random,
            n_files: listing.files.len(),
            listing,
            n_named: 0,
            place: Place::Home,
            has_stashed: false,
            spared: spared.iter().cloned().collect(),
        })
    }

    /// A number below `n`, of those that the seed gives.
    pub(super) fn below(&mut self, n: usize) -> usize {
        self.random.below(n)
    }

    /// A file and a directory that there were before the last deed.
    pub(super) fn pick(&mut self) -> (String, String) {
        let somewhere = || ".".to_owned();
        let (file, directory) = (self.file(), self.directory());
        (file.unwrap_or_else(somewhere), directory.unwrap_or_else(somewhere))
    }

    pub(super) fn is_root_away(&self) -> bool {
        self.place != Place::Home
    }

    /// Chooses the next deed by what there is.
    pub(super) fn choose(&mut self) -> Result<Deed> {
        self.listing = Listing::of(&self.ground.root)?;
        if self.place != Place::Home {
            return Ok(Deed::RootBack);
        }
        let all: usize = WEIGHTS.iter().map(|(_, weight)| weight).sum();
        let mut at = self.random.below(all);
        let chosen = WEIGHTS.iter().find(|(_, weight)| {
            let is_it = at < *weight;
            at = at.saturating_sub(*weight);
            is_it
        });
        let deed = chosen.map_or(Deed::Edit, |(deed, _)| *deed);
        // The tree is to stay about as large as it was.
        let n_now = self.listing.files.len();
        if n_now > self.n_files * 2 {
            // What was committed comes back with each checkout, whatever else is done.
            return Ok(Deed::DeleteDirectory);
        }
        Ok(match deed {
            Deed::Create | Deed::Grow | Deed::MoveIn if n_now * 2 > self.n_files * 3 => {
                [Deed::DeleteDirectory, Deed::MoveOut][self.random.below(2)]
            }
            Deed::Delete | Deed::DeleteDirectory | Deed::MoveOut
                if n_now * 3 < self.n_files * 2 =>
            {
                [Deed::Create, Deed::MoveIn, Deed::Reset][self.random.below(3)]
            }
            deed => deed,
        })
    }

    /// Does a deed. `ask` asks something in the middle of it.
    pub(super) fn perform(
        &mut self,
        deed: Deed,
        ask: &mut dyn FnMut() -> Result<()>,
    ) -> Result<Done> {
        match deed {
            Deed::Edit => self.edit(),
            Deed::EditSameSize => self.edit_same_size(),
            Deed::EditUnseen => self.edit_unseen(ask),
            Deed::Replace => self.replace(),
            Deed::Grow => self.grow(),
            Deed::Create => self.create(),
            Deed::Rename => self.rename(),
            Deed::RenameOver => self.rename_over(),
            Deed::MoveDirectory => self.move_directory(),
            Deed::MoveOut => self.move_out(),
            Deed::MoveIn => self.move_in(),
            Deed::Delete => self.delete(),
            Deed::DeleteDirectory => self.delete_directory(),
            Deed::Symlink => self.symlink(),
            Deed::Chmod => self.chmod(),
            Deed::SetBack => self.set_back(),
            Deed::RootIgnore => self.ignore(".gitignore"),
            Deed::NestedIgnore => {
                let directory = self.directory().unwrap_or_default();
                self.ignore(&format!("{directory}/.gitignore"))
            }
            Deed::DotIgnore => {
                let directory = self.directory().filter(|_| self.n_named.is_multiple_of(2));
                let above = directory.map(|it| format!("{it}/")).unwrap_or_default();
                self.ignore(&format!("{above}.ignore"))
            }
            Deed::Exclude => self.ignore(".git/info/exclude"),
            Deed::Checkout => {
                let branch = format!("branch{}", self.random.below(BRANCHES));
                self.git(&[&["checkout", "--quiet", "--force", &branch]])
            }
            Deed::Commit => {
                self.git(&[&["add", "--all"], &["commit", "--quiet", "--message=more"]])
            }
            Deed::Reset => self.git(&[&["reset", "--quiet", "--hard"]]),
            Deed::Stash => self.stash(),
            Deed::RootAway => self.root_away(),
            Deed::RootBack => self.root_back(),
        }
    }

    fn git(&mut self, commands: &[&[&str]]) -> Result<Done> {
        let mut what = Vec::new();
        for command in commands {
            let is_done = self.ground.git(command)?;
            what.push(format!("git {}{}", command.join(" "), if is_done { "" } else { " (no)" }));
        }
        Ok(Done { what: what.join(", "), touched: everything(), about: None })
    }

    fn stash(&mut self) -> Result<Done> {
        self.has_stashed = !self.has_stashed;
        if self.has_stashed {
            return self.git(&[&["stash", "push", "--quiet", "--include-untracked"]]);
        }
        let popped = self.git(&[&["stash", "pop", "--quiet"]])?;
        if !popped.what.ends_with("(no)") {
            return Ok(popped);
        }
        // What is there is in the way of what was put aside: that is lost, then.
        let mut done =
            self.git(&[&["reset", "--quiet", "--hard"], &["stash", "drop", "--quiet"]])?;
        done.touched.unknown = true;
        Ok(done)
    }

    fn root_away(&mut self) -> Result<Done> {
        fs::rename(&self.ground.root, self.away())?;
        self.place = Place::Gone;
        Ok(Done { what: "the root goes".to_owned(), touched: everything(), about: None })
    }

    fn root_back(&mut self) -> Result<Done> {
        let root = &self.ground.root;
        if self.place == Place::Gone && self.random.below(2) == 0 {
            fs::create_dir(root)?;
            fs::write(root.join("other.js"), "marker(2)\n")?;
            self.place = Place::Replaced;
            let what = "another root comes".to_owned();
            return Ok(Done { what, touched: everything(), about: Some("other.js".to_owned()) });
        }
        if self.place == Place::Replaced {
            fs::remove_dir_all(root)?;
        }
        fs::rename(self.away(), root)?;
        self.place = Place::Home;
        Ok(Done { what: "the root comes back".to_owned(), touched: everything(), about: None })
    }

    fn away(&self) -> PathBuf {
        self.ground.root.with_file_name("away")
    }

    /// One of the files that there are.
    fn file(&mut self) -> Option<String> {
        let at = self.random.below(self.listing.files.len());
        self.listing.files.get(at).cloned()
    }

    /// One of the directories that there are.
    fn directory(&mut self) -> Option<String> {
        let at = self.random.below(self.listing.directories.len());
        self.listing.directories.get(at).cloned()
    }

    fn path(&self, below: &str) -> PathBuf {
        self.ground.root.join(below)
    }

    /// A number that no name has yet.
    fn name(&mut self) -> u64 {
        self.n_named += 1;
        self.n_named
    }
}

/// Somebody else writes what nobody here can tell.
fn everything() -> Touched {
    Touched { everything: true, ..Touched::default() }
}

/// A deed that leaves each file as it was or as it is, at any time.
fn at_once(what: String, about: &str) -> Done {
    Done { what, touched: Touched::default(), about: Some(about.to_owned()) }
}

/// A deed that found nothing to be done to.
fn nothing() -> Done {
    Done { what: "nothing".to_owned(), ..Done::default() }
}

//! Deeds that write, move and remove files.

use super::super::ground::{text, version};
use super::super::journal::Touched;
use super::{Done, Hand, at_once, nothing};
use anyhow::{Context as _, Result};
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

/// What a call with a number looks like.
const MARKER: &str = "marker(";

/// Digits of the number.
const DIGITS: usize = 7;

/// Files larger than this are somebody's: they are added to, not made anew.
const OWN_BYTES_MAX: usize = 2 << 10;

/// Files larger than this keep their extension: in another language they are all errors, which can
/// take a hundred times as long to parse.
const RENAMED_BYTES_MAX: u64 = 32 << 10;

/// Extensions of new files, more often those that are asked for.
const EXTENSIONS: [&str; 12] =
    ["js", "js", "py", "py", "ex", "ts", "rs", "html", "json", "md", "txt", "tmp"];

/// Modes that leave a file readable.
const MODES: [u32; 5] = [0o644, 0o600, 0o755, 0o444, 0o700];

/// A deed that wrote one file in place, which was that meanwhile.
fn torn(what: String, path: &str, meanwhile: Vec<Vec<u8>>) -> Done {
    let touched = Touched { torn: [(path.to_owned(), meanwhile)].into(), ..Touched::default() };
    Done { what, touched, about: Some(path.to_owned()) }
}

fn extension(path: &str) -> &str {
    Path::new(path).extension().and_then(|it| it.to_str()).unwrap_or_default()
}

impl Hand<'_> {
    pub(super) fn edit(&mut self) -> Result<Done> {
        let Some(path) = self.regular()? else { return Ok(nothing()) };
        let bytes = self.next_text(&path)?;
        fs::write(self.path(&path), &bytes)?;
        Ok(torn(format!("write {path}"), &path, vec![bytes]))
    }

    pub(super) fn edit_same_size(&mut self) -> Result<Done> {
        let Some((path, file, at)) = self.marked()? else { return self.edit() };
        let before = fs::read(self.path(&path))?;
        let meanwhile = self.overwrite(&file, at, before)?;
        self.overwrite(&file, at, meanwhile.clone())?;
        Ok(torn(format!("overwrite in {path} twice"), &path, vec![meanwhile]))
    }

    pub(super) fn edit_unseen(&mut self, ask: &mut dyn FnMut() -> Result<()>) -> Result<Done> {
        let Some((path, file, at)) = self.marked()? else { return self.edit() };
        let before = fs::read(self.path(&path))?;
        let meanwhile = self.overwrite(&file, at, before)?;
        let modified = file.metadata()?.modified()?;
        ask()?;
        self.overwrite(&file, at, meanwhile.clone())?;
        file.set_modified(modified)?;
        Ok(torn(format!("overwrite in {path}, ask, and again"), &path, vec![meanwhile]))
    }

    pub(super) fn replace(&mut self) -> Result<Done> {
        let Some(path) = self.regular()? else { return Ok(nothing()) };
        let bytes = self.next_text(&path)?;
        // Of the same language as often as not, as some editors do, and hidden, as others.
        let (above, name) = path.rsplit_once('/').map_or(("", &*path), |(a, n)| (a, n));
        let number = self.name();
        let temporary = match number % 3 {
            0 => format!("{above}/.{name}.{number}"),
            1 => format!("{above}/{name}~"),
            _ => format!("{above}/{number}-{name}"),
        };
        let temporary = temporary.trim_start_matches('/').to_owned();
        let mut file = File::create(self.path(&temporary))?;
        file.write_all(&bytes)?;
        drop(file);
        fs::rename(self.path(&temporary), self.path(&path))?;
        let touched = Touched { torn: [(temporary, vec![bytes])].into(), ..Touched::default() };
        Ok(Done { what: format!("replace {path}"), touched, about: Some(path) })
    }

    pub(super) fn grow(&mut self) -> Result<Done> {
        let path = self.new_path();
        let mut whole = Vec::new();
        let mut file = File::create(self.path(&path))?;
        for _ in 0..2 + self.below(6) {
            let piece = text(Path::new(&path), version(&mut self.random), 1 + self.below(20));
            // Also in the middle of a word.
            let (head, tail) = piece.as_bytes().split_at(piece.len() / 2);
            file.write_all(head)?;
            file.write_all(tail)?;
            whole.extend_from_slice(piece.as_bytes());
        }
        Ok(torn(format!("grow {path}"), &path, vec![whole]))
    }

    pub(super) fn create(&mut self) -> Result<Done> {
        let mut path = self.new_path();
        if self.below(3) == 0 {
            let number = self.name();
            path = match path.rsplit_once('/') {
                Some((above, name)) => format!("{above}/new{number}/deep/{name}"),
                None => format!("new{number}/{path}"),
            };
            let above = self.path(&path);
            fs::create_dir_all(above.parent().context("it has one")?)?;
        }
        let bytes = text(Path::new(&path), version(&mut self.random), 1 + self.below(30));
        fs::write(self.path(&path), &bytes)?;
        Ok(torn(format!("create {path}"), &path, vec![bytes.into_bytes()]))
    }

    pub(super) fn rename(&mut self) -> Result<Done> {
        let (Some(from), mut to) = (self.file(), self.new_path()) else { return Ok(nothing()) };
        if self.is_large(&from) {
            to = Path::new(&to).with_extension(extension(&from)).to_string_lossy().into_owned();
        }
        fs::rename(self.path(&from), self.path(&to))?;
        Ok(at_once(format!("rename {from} to {to}"), &to))
    }

    pub(super) fn rename_over(&mut self) -> Result<Done> {
        let (Some(from), Some(to)) = (self.file(), self.file()) else { return Ok(nothing()) };
        if extension(&from) != extension(&to) && self.is_large(&from) {
            return Ok(nothing());
        }
        fs::rename(self.path(&from), self.path(&to))?;
        Ok(at_once(format!("rename {from} over {to}"), &to))
    }

    pub(super) fn move_directory(&mut self) -> Result<Done> {
        let Some(from) = self.directory() else { return Ok(nothing()) };
        let above =
            self.directory().filter(|it| *it != from && !it.starts_with(&format!("{from}/")));
        let name = format!("moved{}", self.name());
        let to = above.map_or_else(|| name.clone(), |above| format!("{above}/{name}"));
        fs::rename(self.path(&from), self.path(&to))?;
        Ok(at_once(format!("move {from} to {to}"), &to))
    }

    pub(super) fn move_out(&mut self) -> Result<Done> {
        let from = if self.below(2) == 0 { self.file() } else { self.small_directory() };
        let Some(from) = from else { return Ok(nothing()) };
        let name = from.rsplit('/').next().unwrap_or(&from);
        let to = self.ground.outside.join(format!("{}-{name}", self.n_named));
        self.name();
        fs::rename(self.path(&from), to)?;
        Ok(at_once(format!("move {from} out"), &from))
    }

    /// Something that was moved out, or a directory that was never here.
    pub(super) fn move_in(&mut self) -> Result<Done> {
        let outside = &self.ground.outside;
        let mut names: Vec<_> = fs::read_dir(outside)?
            .map(|it| it.map(|it| it.file_name()))
            .collect::<Result<_, _>>()?;
        names.sort();
        let at = self.random.below(names.len() + 1);
        let number = self.name();
        let (from, name) = if let Some(name) = names.get(at) {
            let shown = name.to_string_lossy();
            let name = shown.split_once('-').map_or(&*shown, |(_, name)| name).to_owned();
            (outside.join(&*shown), format!("back{number}-{name}"))
        } else {
            let from = outside.join(format!("{number}-made"));
            fs::create_dir_all(from.join("below"))?;
            for (n, extension) in EXTENSIONS.iter().enumerate() {
                let above = if n % 2 == 0 { from.clone() } else { from.join("below") };
                let path = above.join(format!("in{n}.{extension}"));
                fs::write(&path, text(&path, version(&mut self.random), n))?;
            }
            (from, format!("made{number}"))
        };
        let above = self.directory().map(|it| format!("{it}/")).unwrap_or_default();
        let to = format!("{above}{name}");
        fs::rename(from, self.path(&to))?;
        Ok(at_once(format!("move {to} in"), &to))
    }

    pub(super) fn delete(&mut self) -> Result<Done> {
        let Some(path) = self.file() else { return Ok(nothing()) };
        fs::remove_file(self.path(&path))?;
        Ok(at_once(format!("delete {path}"), &path))
    }

    pub(super) fn delete_directory(&mut self) -> Result<Done> {
        let Some(path) = self.small_directory() else { return Ok(nothing()) };
        fs::remove_dir_all(self.path(&path))?;
        // Its ignore file may go before what that ignores.
        let touched = Touched { everything: true, ..Touched::default() };
        Ok(Done { what: format!("delete {path} and all below"), touched, about: Some(path) })
    }

    /// A new link, or one that leads elsewhere from now on, or one in a file's place.
    pub(super) fn symlink(&mut self) -> Result<Done> {
        let links = self.listing.files.iter().filter(|path| self.path(path).is_symlink());
        let links: Vec<String> = links.cloned().collect();
        let target = match self.below(5) {
            0 => self.directory().map(|it| self.path(&it)),
            1 => Some(self.ground.outside.clone()),
            2 => Some("nowhere.js".into()),
            _ => self.file().map(|it| self.path(&it)),
        };
        let Some(target) = target else { return Ok(nothing()) };
        let path = match (self.below(4), links.get(self.random.below(links.len()))) {
            (0, Some(link)) => link.clone(),
            (1, _) => self.file().unwrap_or_default(),
            _ => format!("{}.link.js", self.new_path()),
        };
        if path.is_empty() || self.path(&path) == target {
            return Ok(nothing());
        }
        let temporary = self.ground.outside.with_file_name("link");
        symlink(&target, &temporary)?;
        fs::rename(temporary, self.path(&path))?;
        Ok(at_once(format!("link {path} to {}", target.display()), &path))
    }

    pub(super) fn chmod(&mut self) -> Result<Done> {
        let Some(path) = self.regular()? else { return Ok(nothing()) };
        let mode = MODES[self.below(MODES.len())];
        fs::set_permissions(self.path(&path), fs::Permissions::from_mode(mode))?;
        Ok(at_once(format!("chmod {mode:o} {path}"), &path))
    }

    /// As an archive or a version control would, with or without another text.
    pub(super) fn set_back(&mut self) -> Result<Done> {
        let Some(path) = self.regular()? else { return Ok(nothing()) };
        let file = File::options().read(true).write(true).open(self.path(&path));
        // One that may not be written may be dated all the same, but not through this.
        let Ok(file) = file else { return Ok(nothing()) };
        let hours = 1 + self.below(1000) as u64;
        let then = SystemTime::now() - Duration::from_secs(hours * 3600);
        let mut done = at_once(format!("date {path} {hours} hours back"), &path);
        if hours.is_multiple_of(2) {
            let bytes = self.next_text(&path)?;
            fs::write(self.path(&path), &bytes)?;
            done = torn(format!("{} with another text", done.what), &path, vec![bytes]);
        }
        file.set_modified(then)?;
        Ok(done)
    }

    /// One of the files, symlinks and read-only ones apart.
    fn regular(&mut self) -> Result<Option<String>> {
        for _ in 0..8 {
            let Some(path) = self.file() else { return Ok(None) };
            let metadata = self.path(&path).symlink_metadata()?;
            if metadata.is_file() && metadata.permissions().mode() & 0o200 != 0 {
                return Ok(Some(path));
            }
        }
        Ok(None)
    }

    /// A directory with few others below it.
    fn small_directory(&mut self) -> Option<String> {
        let path = self.directory()?;
        let prefix = format!("{path}/");
        let n_below = self.listing.files.iter().filter(|file| file.starts_with(&prefix)).count();
        (n_below * 8 < self.n_files.max(100)).then_some(path)
    }

    /// A file that has a number to be written over, and where.
    fn marked(&mut self) -> Result<Option<(String, File, u64)>> {
        for _ in 0..8 {
            let Some(path) = self.regular()? else { return Ok(None) };
            let bytes = fs::read(self.path(&path))?;
            let at = bytes.windows(MARKER.len()).position(|it| it == MARKER.as_bytes());
            let Some(at) = at.map(|at| at + MARKER.len()) else { continue };
            let digits = bytes.get(at..at + DIGITS).unwrap_or_default();
            if digits.len() == DIGITS && digits.iter().all(u8::is_ascii_digit) {
                let file = File::options().read(true).write(true).open(self.path(&path))?;
                return Ok(Some((path, file, u64::try_from(at)?)));
            }
        }
        Ok(None)
    }

    /// Writes another number at `at`, and says what the whole file is then.
    fn overwrite(&mut self, file: &File, at: u64, mut whole: Vec<u8>) -> Result<Vec<u8>> {
        let digits = version(&mut self.random).to_string();
        file.write_all_at(digits.as_bytes(), at)?;
        let at = usize::try_from(at)?;
        whole.splice(at..at + DIGITS, digits.into_bytes());
        Ok(whole)
    }

    /// What a file is to say next.
    fn next_text(&mut self, path: &str) -> Result<Vec<u8>> {
        let mut bytes = fs::read(self.path(path))?;
        let n_lines = 1 + self.below(30);
        let number = version(&mut self.random);
        if bytes.len() <= OWN_BYTES_MAX {
            return Ok(text(Path::new(path), number, n_lines).into_bytes());
        }
        bytes.extend_from_slice(format!("\n{MARKER}{number})\n").as_bytes());
        Ok(bytes)
    }

    fn is_large(&self, path: &str) -> bool {
        fs::symlink_metadata(self.path(path)).is_ok_and(|it| it.len() > RENAMED_BYTES_MAX)
    }

    /// A path that nothing has, in a directory that is there.
    pub(super) fn new_path(&mut self) -> String {
        let above = self.directory().map(|it| format!("{it}/")).unwrap_or_default();
        let extension = EXTENSIONS[self.below(EXTENSIONS.len())];
        format!("{above}made{}.{extension}", self.name())
    }
}

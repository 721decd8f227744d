//! A log file that never grows beyond its bound: when it is full it gets a number and a new one is
//! begun, and the oldest is removed. By size and not by day, because only the size bounds a disk.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

/// `daemon.log`, and older ones from `daemon.log.1` on.
#[derive(Debug)]
pub(super) struct RotatingFile {
    path: PathBuf,
    file: File,
    /// Bytes in `file`.
    bytes: u64,
    bytes_max: u64,
    n_files_max: usize,
}

impl RotatingFile {
    /// Goes on with the file that is there.
    pub(super) fn open(path: PathBuf, bytes_max: u64, n_files_max: usize) -> io::Result<Self> {
        let file = append_to(&path)?;
        let bytes = file.metadata()?.len();
        Ok(Self { path, file, bytes, bytes_max, n_files_max })
    }

    fn numbered(&self, n: usize) -> PathBuf {
        let mut path = self.path.clone().into_os_string();
        if n > 0 {
            path.push(format!(".{n}"));
        }
        path.into()
    }

    /// Begins a new file.
    fn rotate(&mut self) -> io::Result<()> {
        // The last one is overwritten by the last but one.
        for n in (0..self.n_files_max.saturating_sub(1)).rev() {
            match fs::rename(self.numbered(n), self.numbered(n + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        self.file = append_to(&self.path)?;
        if self.n_files_max <= 1 {
            self.file.set_len(0)?;
        }
        Ok(())
    }
}

fn append_to(path: &PathBuf) -> io::Result<File> {
    File::options().create(true).append(true).mode(0o600).open(path)
}

/// Each `write` is one record, which is never divided between two files.
impl Write for RotatingFile {
    fn write(&mut self, record: &[u8]) -> io::Result<usize> {
        let is_full = self.bytes + record.len() as u64 > self.bytes_max;
        if is_full && self.bytes > 0 {
            if self.rotate().is_err() {
                // Better to lose old records than the bound.
                self.file.set_len(0)?;
            }
            self.bytes = self.file.metadata()?.len();
        }
        let n_bytes = self.file.write(record)?;
        self.bytes += n_bytes as u64;
        Ok(n_bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use tempfile::TempDir;

    /// The files of a directory, by name.
    fn files(dir: &TempDir) -> BTreeMap<String, String> {
        fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let name = entry.file_name().into_string().unwrap();
                (name, fs::read_to_string(entry.path()).unwrap())
            })
            .collect()
    }

    fn log(dir: &TempDir, bytes_max: u64, n_files_max: usize) -> RotatingFile {
        RotatingFile::open(dir.path().join("log"), bytes_max, n_files_max).unwrap()
    }

    #[track_caller]
    fn check(dir: &TempDir, expected: &[(&str, &str)]) {
        let expected = expected.iter().map(|(name, text)| ((*name).into(), (*text).into()));
        assert_eq!(files(dir), expected.collect());
    }

    #[test]
    fn a_full_file_gets_a_number_and_the_oldest_goes() {
        let dir = TempDir::new().unwrap();
        let mut log = log(&dir, 4, 3);
        for record in ["a\n", "b\n"] {
            log.write_all(record.as_bytes()).unwrap();
        }
        check(&dir, &[("log", "a\nb\n")]);
        for record in ["c\n", "d\n", "e\n"] {
            log.write_all(record.as_bytes()).unwrap();
        }
        check(&dir, &[("log", "e\n"), ("log.1", "c\nd\n"), ("log.2", "a\nb\n")]);
        for record in ["f\n", "g\n"] {
            log.write_all(record.as_bytes()).unwrap();
        }
        check(&dir, &[("log", "g\n"), ("log.1", "e\nf\n"), ("log.2", "c\nd\n")]);
    }

    #[test]
    fn no_record_is_divided() {
        let dir = TempDir::new().unwrap();
        let mut log = log(&dir, 4, 2);
        for record in ["abc\n", "longer than a file\n", "d\n"] {
            log.write_all(record.as_bytes()).unwrap();
        }
        check(&dir, &[("log", "d\n"), ("log.1", "longer than a file\n")]);
    }

    #[test]
    fn the_next_daemon_goes_on_where_the_last_one_ended() {
        let dir = TempDir::new().unwrap();
        log(&dir, 4, 2).write_all(b"ab\n").unwrap();
        log(&dir, 4, 2).write_all(b"cd\n").unwrap();
        check(&dir, &[("log", "cd\n"), ("log.1", "ab\n")]);
    }

    #[test]
    fn one_file_alone_begins_anew() {
        let dir = TempDir::new().unwrap();
        let mut log = log(&dir, 4, 1);
        for record in ["abc\n", "d\n"] {
            log.write_all(record.as_bytes()).unwrap();
        }
        check(&dir, &[("log", "d\n")]);
    }

    #[test]
    fn a_file_that_cannot_be_renamed_stays_within_its_bound() {
        let dir = TempDir::new().unwrap();
        // A file can't take the name of a directory.
        fs::create_dir(dir.path().join("log.1")).unwrap();
        let mut log = log(&dir, 4, 2);
        for record in ["abc\n", "d\n"] {
            log.write_all(record.as_bytes()).unwrap();
        }
        assert_eq!(fs::read_to_string(dir.path().join("log")).unwrap(), "d\n");
    }

    #[test]
    fn a_log_that_was_removed_is_begun_again_with_the_next_file() {
        let dir = TempDir::new().unwrap();
        let mut log = log(&dir, 4, 2);
        log.write_all(b"abc\n").unwrap();
        fs::remove_file(dir.path().join("log")).unwrap();
        log.write_all(b"d\n").unwrap();
        check(&dir, &[("log", "d\n")]);
    }
}

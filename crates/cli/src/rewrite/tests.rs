//! No file is lost, half-written, or written over somebody else's change.

use super::*;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

fn edit(range: Range<usize>, replacement: &str) -> Edit {
    Edit { range, replacement: replacement.to_owned(), title: None }
}

fn id(contents: &str) -> String {
    blake3::hash(contents.as_bytes()).to_hex().to_string()
}

#[test]
fn edits_are_applied_from_front_to_back() {
    let edits = without_overlaps(vec![edit(4..5, "E"), edit(0..2, ""), edit(5..5, "+")]);
    assert_eq!(apply("abcdef", &edits).unwrap(), "cdE+f");
}

#[test]
fn of_two_edits_that_overlap_the_first_one_stays() {
    let edits =
        without_overlaps(vec![edit(2..3, "inner"), edit(0..6, "outer"), edit(6..7, "next")]);
    assert_eq!(edits, [edit(0..6, "outer"), edit(6..7, "next")]);
}

#[test]
fn an_edit_outside_the_text_or_within_a_character_is_refused() {
    assert!(apply("abc", &[edit(2..9, "")]).is_err());
    assert!(apply("é", &[edit(1..2, "")]).is_err());
    assert!(apply("abc", &[edit(2..3, ""), edit(0..1, "")]).is_err());
}

#[test]
fn a_file_is_rewritten_and_keeps_its_mode() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.sh");
    fs::write(&path, "old text").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o750)).unwrap();
    rewrite(&path, &id("old text"), &[edit(0..3, "new")]).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "new text");
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o750);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file stays behind");
}

#[test]
fn a_file_that_changed_since_it_was_searched_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.rs");
    fs::write(&path, "changed").unwrap();
    let error = rewrite(&path, &id("searched"), &[edit(0..1, "x")]).unwrap_err();
    assert!(matches!(error, RewriteError::Changed), "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "changed");
}

#[test]
fn a_symbolic_link_stays_one_and_its_target_is_rewritten() {
    let dir = tempfile::tempdir().unwrap();
    let (target, link) = (dir.path().join("target.rs"), dir.path().join("link.rs"));
    fs::write(&target, "a").unwrap();
    symlink("target.rs", &link).unwrap();
    rewrite(&link, &id("a"), &[edit(0..1, "b")]).unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(fs::read_to_string(&target).unwrap(), "b");
}

#[test]
fn a_write_that_fails_leaves_the_old_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sub");
    fs::create_dir(&path).unwrap();
    // A directory can't be opened for writing, whoever runs the test.
    assert!(replace(&path, b"new").is_err());
    assert!(path.is_dir());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);

    let missing = dir.path().join("missing.rs");
    assert!(replace(&missing, b"new").is_err());
    assert!(!missing.exists());
}

#[test]
fn a_vanished_file_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let error = rewrite(&dir.path().join("gone.rs"), &id(""), &[]).unwrap_err();
    assert!(matches!(error, RewriteError::Read(_)), "{error}");
}

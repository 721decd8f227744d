//! The source trees that both programs search.
//!
//! `samples` is a copy of `differential/corpus` plus files that can't be committed as they are
//! (odd bytes, ignored and hidden files, symbolic links), inside a git repository of its own so
//! that ignore files count. `workspace` is a copy of this workspace, because the original may change
//! between two runs. `crates` is what cargo has unpacked already. All others are given by the caller.

use anyhow::{Context, Result, ensure};
use ignore::WalkBuilder;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A tree to search.
#[derive(Clone, Debug)]
pub(super) struct Corpus {
    /// What cases call it.
    pub(super) name: String,
    /// Where both programs run.
    pub(super) root: PathBuf,
    /// What they are asked to search there; nothing means all.
    pub(super) paths: Vec<String>,
}

impl Corpus {
    /// A directory that the caller names.
    pub(super) fn at(name: &str, root: &Path) -> Result<Self> {
        let root =
            root.canonicalize().with_context(|| format!("corpus {name}: {}", root.display()))?;
        Ok(Self { name: name.to_owned(), root, paths: Vec::new() })
    }
}

/// Copies the committed corpus below `scratch` and adds the generated files.
pub(super) fn samples(corpus: &Path, scratch: &Path) -> Result<Corpus> {
    let root = scratch.join("samples");
    copy_tree(corpus, &root)?;
    for (name, content) in generated() {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap_or(&root))?;
        fs::write(&path, content).with_context(|| format!("can't write {}", path.display()))?;
    }
    symlink("javascript/basics.js", root.join("link.js"))?;
    symlink(".", root.join("nested/loop"))?;
    symlink("nowhere", root.join("dangling.js"))?;
    git_init(&root)?;
    git_init(&root.join("vendored"))?;
    Corpus::at("samples", &root)
}

/// Copies what git would show of the workspace at `root` below `scratch`.
pub(super) fn workspace(root: &Path, scratch: &Path) -> Result<Corpus> {
    let copy = scratch.join("workspace");
    copy_tree(root, &copy)?;
    git_init(&copy)?;
    Corpus::at("workspace", &copy)
}

/// Crates whose sources are searched whole, by the beginning of their directory's name.
const CRATES: [&str; 8] = [
    "ast-grep-",
    "clap_builder-4",
    "memchr-2",
    "regex-1",
    "regex-syntax-0",
    "serde-1",
    "serde_core-1",
    "serde_json-1",
];

/// The few that also a quick run searches.
const SMALL_CRATES: [&str; 6] =
    ["anyhow-1", "blake3-1", "globset-0", "ignore-0", "thiserror-2", "walkdir-2"];

/// The parts of a grammar crate that a person wrote: the generated parser is tens of megabytes.
const GRAMMAR_PARTS: [&str; 6] =
    ["bindings", "grammar.js", "queries", "README.md", "Cargo.toml", "src/scanner.c"];

/// Sources of well-known crates out of cargo's registry; `None` when cargo has unpacked none.
/// With `few` only so many that a question takes no time.
pub(super) fn crates(few: bool) -> Result<Option<Corpus>> {
    let chosen: Vec<_> = CRATES.iter().filter(|_| !few).chain(&SMALL_CRATES).collect();
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home =
        home.or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")));
    let Some(sources) =
        home.map(|home| home.join("registry/src")).filter(|sources| sources.is_dir())
    else {
        return Ok(None);
    };
    let mut registries = names_in(&sources)?.into_iter().map(|name| sources.join(name));
    let Some(root) = registries.find(|registry| registry.is_dir()) else {
        return Ok(None);
    };
    let mut paths = Vec::new();
    for name in names_in(&root)? {
        if chosen.iter().any(|prefix| name.starts_with(**prefix)) {
            paths.push(name);
        } else if name.starts_with(if few { "tree-sitter-e" } else { "tree-sitter-" }) {
            let parts = GRAMMAR_PARTS.iter().map(|part| format!("{name}/{part}"));
            paths.extend(parts.filter(|part| root.join(part).exists()));
        }
    }
    let corpus = Corpus { paths, ..Corpus::at("crates", &root)? };
    Ok(Some(corpus).filter(|corpus| !corpus.paths.is_empty()))
}

fn names_in(dir: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("can't read {}", dir.display()))? {
        names.extend(entry?.file_name().into_string());
    }
    names.sort();
    Ok(names)
}

fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in WalkBuilder::new(from).build() {
        let entry = entry?;
        let target = to.join(entry.path().strip_prefix(from)?);
        match entry.file_type() {
            Some(kind) if kind.is_dir() => fs::create_dir_all(&target)?,
            Some(kind) if kind.is_file() => drop(fs::copy(entry.path(), &target)?),
            _ => {}
        }
    }
    Ok(())
}

fn git_init(dir: &Path) -> Result<()> {
    let status = Command::new("git")
        .args(["init", "--quiet"])
        .arg(dir)
        .status()
        .context("can't run git init")?;
    ensure!(status.success(), "git init ended with {status}");
    Ok(())
}

/// Files whose bytes or place a repository would not keep.
fn generated() -> Vec<(&'static str, Vec<u8>)> {
    let log = |text: &str| format!("console.log(\"{text}\");\n").into_bytes();
    vec![
        (".gitignore", b"ignored.js\nbuild/\n*.gen.js\n!kept.gen.js\n".to_vec()),
        (".ignore", b"dot_ignored.js\n".to_vec()),
        ("ignored.js", log("ignored by git")),
        ("build/out.js", log("ignored directory")),
        ("a.gen.js", log("ignored by a glob")),
        ("kept.gen.js", log("kept by a negation")),
        ("dot_ignored.js", log("ignored by .ignore")),
        ("nested/.gitignore", b"/inner.js\n".to_vec()),
        ("nested/inner.js", log("ignored by a nested file")),
        ("nested/deeper/inner.js", log("the nested rule is anchored")),
        (".hidden/secret.js", log("hidden directory")),
        ("javascript/.dot.js", log("hidden file")),
        ("vendored/lib.js", log("in a repository inside")),
        ("vendored/.gitignore", b"skip.js\n".to_vec()),
        ("vendored/skip.js", log("ignored inside")),
        ("odd/crlf.js", b"// CRLF\r\nconsole.log('a');\r\nfoo(\r\n  1,\r\n  2\r\n);\r\nconsole.log(`x\r\ny`);\r\n".to_vec()),
        ("odd/crlf.py", b"def f(a,\r\n      b):\r\n    print(a)\r\n    return b\r\n".to_vec()),
        ("odd/cr.js", b"console.log('cr');\rconsole.log('only');\r".to_vec()),
        ("odd/bom.js", "\u{feff}console.log('after a byte order mark');\nconsole.log(1);\n".into()),
        ("odd/bom.py", "\u{feff}print('bom')\nprint(2)\n".into()),
        ("odd/empty.js", Vec::new()),
        ("odd/blank.js", b"\n\n   \n\t\n".to_vec()),
        ("odd/nul.js", b"console.log('before');\0\nconsole.log('after\0nul');\n".to_vec()),
        ("odd/latin1.js", b"console.log('gr\xfc\xdfe');\n".to_vec()),
        ("odd/utf16.js", "console.log(1);\n".encode_utf16().flat_map(u16::to_le_bytes).collect()),
        ("odd/no_newline.js", b"console.log('no newline at the end')".to_vec()),
        ("odd/tabs.js", b"\t\tif (a) {\n\t\t\tconsole.log(\t1,\t2\t);\n\t\t}\n".to_vec()),
        ("odd/module.mjs", log("mjs")),
        ("odd/common.cjs", log("cjs")),
        ("odd/view.jsx", b"const v = <div>{console.log('jsx')}</div>;\n".to_vec()),
        ("odd/UPPER.JS", log("upper-case extension")),
        ("odd/stub.pyi", b"def f(a: int) -> str: ...\nprint(1)\n".to_vec()),
        ("odd/\u{fc}n\u{ef} c\u{f6}d\u{e9} \u{1f389}.js", log("a name with spaces and emoji")),
        ("odd/-dash.js", log("a name with a dash")),
        ("odd/minified.js", minified()),
        ("odd/nested.js", nested()),
        ("odd/huge_many_lines.py", b"x = 1\n".repeat(510_000)),
        ("odd/huge_few_lines.py", huge_few_lines()),
    ]
}

/// About 200 KB on one line. Nearly all of it is numbers in objects: each match prints its whole
/// line, so a thousand matches would be 200 MB of JSON, and one list of all of them would keep
/// every rule about the position among siblings busy for minutes.
fn minified() -> Vec<u8> {
    let call = |n: usize| {
        format!("function f{n}(a,b){{return a+b}}console.log(f{n}(1,\"\u{e9}\"));if(a==b){{x=1}}")
    };
    let object = |n: usize| {
        let pairs: Vec<_> = (0..60).map(|key| format!("k{key}:{n}")).collect();
        format!("t{n}={{{}}}", pairs.join(","))
    };
    let data: Vec<_> = (0..360).map(object).collect();
    let calls: Vec<_> = (2..6).map(call).collect();
    format!("{}var {};{}", call(1), data.join(","), calls.concat()).into_bytes()
}

fn nested() -> Vec<u8> {
    format!("console.log({}1{});\n", "(".repeat(300), ")".repeat(300)).into_bytes()
}

/// More bytes than ast-grep's limit in fewer lines than its other one: searched.
fn huge_few_lines() -> Vec<u8> {
    let comment = format!("# {}\n", "long ".repeat(8_000));
    (0..80).flat_map(|n| format!("{comment}print('huge', {n})\n").into_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn generated_files_have_names_of_their_own() {
        let names: BTreeSet<_> = generated().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names.len(), generated().len());
    }

    #[test]
    fn the_huge_files_lie_on_both_sides_of_the_limit() {
        // ast-grep skips a file of more than 3,000,000 bytes that has more than 200,000 lines.
        let count = |bytes: &[u8]| {
            (bytes.len() > 3_000_000, bytes.split(|byte| *byte == b'\n').count() > 200_000)
        };
        let sizes: Vec<_> = generated()
            .iter()
            .filter(|(name, _)| name.contains("huge"))
            .map(|(_, bytes)| count(bytes))
            .collect();
        assert_eq!(sizes, [(true, true), (true, false)]);
    }

    #[test]
    fn the_minified_file_is_one_long_line() {
        let text = minified();
        assert!(text.len() > 150_000);
        assert!(!text.contains(&b'\n'));
    }
}

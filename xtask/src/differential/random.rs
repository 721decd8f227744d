//! Patterns that nobody wrote: a random subtree of a real file, with some of its parts replaced by
//! metavariables, at a random strictness.
//!
//! The subtrees come from ast-grep itself (`$A` matches every named node). One number replays a
//! run: the files are listed in a fixed order, and nothing else is random.

use super::corpora::Corpus;
use super::{Bench, print_line};
use anyhow::{Context, Result, ensure};
use ignore::WalkBuilder;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Languages to draw from, by file extension.
const LANGUAGES: [(&str, &str); 26] = [
    ("bash", "sh"),
    ("c", "c"),
    ("cpp", "cpp"),
    ("csharp", "cs"),
    ("css", "css"),
    ("dart", "dart"),
    ("elixir", "ex"),
    ("elixir", "exs"),
    ("go", "go"),
    ("haskell", "hs"),
    ("hcl", "tf"),
    ("html", "html"),
    ("java", "java"),
    ("js", "js"),
    ("json", "json"),
    ("kotlin", "kt"),
    ("lua", "lua"),
    ("php", "php"),
    ("python", "py"),
    ("ruby", "rb"),
    ("rust", "rs"),
    ("scala", "scala"),
    ("swift", "swift"),
    ("ts", "ts"),
    ("tsx", "tsx"),
    ("yaml", "yml"),
];
const STRICTNESS: [&str; 6] = ["cst", "smart", "ast", "relaxed", "signature", "template"];
/// Larger files have so many nodes that drawing from them costs more than it finds.
const MAX_FILE_BYTES: u64 = 40_000;
/// Bounds of a subtree's text: shorter is a name, longer matches only itself.
const PATTERN_BYTES: std::ops::RangeInclusive<usize> = 3..=250;
/// Draws for each pattern that is asked for, before giving up.
const MAX_DRAWS: u64 = 20;

/// A file to draw from.
#[derive(Debug)]
struct Source {
    language: &'static str,
    root: PathBuf,
    file: PathBuf,
}

/// Asks `count` random questions. Without a seed one is made up, and printed.
pub(super) fn run(bench: &Bench, count: u64, seed: Option<u64>) -> Result<()> {
    let seed = seed.unwrap_or_else(seed_of_now);
    println!("replay with: --random {count} --seed {seed}");
    let sources = sources(&bench.corpora)?;
    let languages: Vec<_> = sources.keys().copied().collect();
    ensure!(!languages.is_empty(), "no file to draw patterns from");
    let mut random = Random(seed);
    let (mut asked, mut hits, mut different) = (0, 0, 0);
    for _ in 0..count * MAX_DRAWS {
        if asked == count {
            break;
        }
        // First the language, so that rare ones are tried as often as common ones.
        let language = *random.pick(&languages);
        let source = random.pick(&sources[language]);
        let Some(pattern) = draw(bench, source, &mut random)? else { continue };
        let strictness = random.pick(&STRICTNESS);
        let args = [
            "run".to_owned(),
            "--json=stream".to_owned(),
            format!("--lang={}", source.language),
            format!("--strictness={strictness}"),
            format!("--pattern={pattern}"),
        ];
        // The file itself and its neighbours: other files must not match by accident either.
        let dir = source.file.parent().unwrap_or(Path::new("")).to_string_lossy().into_owned();
        let paths = vec![if dir.is_empty() { ".".to_owned() } else { dir }];
        let corpus = Corpus { name: "random".to_owned(), root: source.root.clone(), paths };
        let verdict = bench.compare(&args, &corpus, false)?;
        asked += 1;
        hits += usize::from(verdict.hits > 0);
        if !verdict.is_equal() {
            different += 1;
            print_line(&format!("random/{asked}"), source.language, &verdict);
            println!("    in {}: {args:?} {:?}", source.root.display(), corpus.paths);
        }
    }
    println!("{asked} random patterns, {hits} with hits, {different} differ (seed {seed})");
    ensure!(asked == count, "only {asked} of {count} patterns could be drawn");
    ensure!(different == 0, "{different} random patterns differ");
    Ok(())
}

fn seed_of_now() -> u64 {
    // Any number serves; the bits of the fraction differ between runs.
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |now| u64::from(now.subsec_nanos()))
}

/// Files to draw from by language, in a fixed order.
fn sources(corpora: &[Corpus]) -> Result<BTreeMap<&'static str, Vec<Source>>> {
    let mut found: BTreeMap<&str, Vec<Source>> = BTreeMap::new();
    for corpus in corpora {
        let starts: Vec<_> = match corpus.paths.as_slice() {
            [] => vec![corpus.root.clone()],
            paths => paths.iter().map(|path| corpus.root.join(path)).collect(),
        };
        for start in starts {
            for entry in WalkBuilder::new(start).sort_by_file_path(Path::cmp).build() {
                let entry = entry.context("can't list a corpus")?;
                let extension = entry.path().extension().unwrap_or_default();
                let language = LANGUAGES
                    .iter()
                    .find(|(_, known)| extension == *known)
                    .map(|(language, _)| *language);
                let small = entry
                    .metadata()
                    .is_ok_and(|meta| meta.is_file() && meta.len() <= MAX_FILE_BYTES);
                if let (Some(language), true) = (language, small) {
                    let file = entry.path().strip_prefix(&corpus.root)?.to_owned();
                    let source = Source { language, root: corpus.root.clone(), file };
                    found.entry(language).or_default().push(source);
                }
            }
        }
    }
    Ok(found)
}

/// A random pattern out of `source`, if it has a subtree of the right size.
fn draw(bench: &Bench, source: &Source, random: &mut Random) -> Result<Option<String>> {
    let args = ["run", "--json=stream", "--pattern=$A"].map(str::to_owned);
    let file = source.file.to_string_lossy().into_owned();
    let args: Vec<_> =
        args.into_iter().chain([format!("--lang={}", source.language), file]).collect();
    let outcome = bench.oracle.ask(&source.root, &args)?;
    let nodes: Vec<_> = outcome.objects.iter().filter_map(Node::of).collect();
    let candidates: Vec<_> =
        nodes.iter().filter(|node| PATTERN_BYTES.contains(&node.text.len())).collect();
    if candidates.is_empty() {
        return Ok(None);
    }
    let whole = random.pick(&candidates);
    let parts: Vec<_> = nodes
        .iter()
        .filter(|node| {
            whole.start <= node.start && node.end <= whole.end && node.text != whole.text
        })
        .collect();
    Ok(Some(with_holes(whole, &parts, random)))
}

/// A named node's place and text.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Node {
    start: usize,
    end: usize,
    text: String,
}

impl Node {
    fn of(object: &serde_json::Value) -> Option<Self> {
        let offset = |end: &str| usize::try_from(object["range"]["byteOffset"][end].as_u64()?).ok();
        let text = object["text"].as_str()?.to_owned();
        let (start, end) = (offset("start")?, offset("end")?);
        // Injected trees can have text that isn't one piece of the file.
        (end - start == text.len()).then_some(Self { start, end, text })
    }
}

/// `whole`'s text with up to three of its `parts` replaced. Equal texts may become the same
/// metavariable, which then has to match equal code.
fn with_holes(whole: &Node, parts: &[&Node], random: &mut Random) -> String {
    let mut holes: Vec<(&Node, String)> = Vec::new();
    for _ in 0..random.below(4).min(parts.len()) {
        let part = *random.pick(parts);
        if holes.iter().any(|(taken, _)| part.start < taken.end && taken.start < part.end) {
            continue;
        }
        let n = holes.len();
        let hole = match random.below(8) {
            0 => "$_".to_owned(),
            1 => "$$$".to_owned(),
            2 | 3 => format!("$$$MANY{n}"),
            _ => format!("$ONE{n}"),
        };
        let twins = parts.iter().filter(|twin| twin.text == part.text && twin.start >= part.end);
        let twin = twins.min_by_key(|twin| twin.start).copied();
        holes.push((part, hole.clone()));
        if let Some(twin) = twin
            && random.below(2) == 0
            && !holes.iter().any(|(taken, _)| twin.start < taken.end && taken.start < twin.end)
        {
            holes.push((twin, hole));
        }
    }
    holes.sort_by_key(|(part, _)| part.start);
    let mut pattern = String::new();
    let mut at = whole.start;
    for (part, hole) in holes {
        pattern += &whole.text[at - whole.start..part.start - whole.start];
        pattern += &hole;
        at = part.end;
    }
    pattern + &whole.text[at - whole.start..]
}

/// `SplitMix64`: eight lines that replay the same on every machine and in every version.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap_or_default()
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(whole: &str, start: usize, end: usize) -> Node {
        Node { start, end, text: whole[start..end].to_owned() }
    }

    #[test]
    fn the_same_seed_draws_the_same() {
        let draw = |seed| {
            (0..8).scan(Random(seed), |random, _| Some(random.below(1_000))).collect::<Vec<_>>()
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }

    #[test]
    fn holes_keep_everything_else_as_it_stands() {
        let text = "f(a, b, a)";
        let (whole, parts) =
            (node(text, 0, 10), [node(text, 2, 3), node(text, 5, 6), node(text, 8, 9)]);
        let parts: Vec<_> = parts.iter().collect();
        for seed in 0..200 {
            let pattern = with_holes(&whole, &parts, &mut Random(seed));
            let inner = pattern.strip_prefix("f(").and_then(|rest| rest.strip_suffix(')')).unwrap();
            let args: Vec<_> = inner.split(", ").collect();
            assert_eq!(args.len(), 3, "{pattern}");
            for (arg, part) in args.iter().zip(&parts) {
                assert!(*arg == part.text || arg.starts_with('$'), "{pattern}");
            }
        }
    }

    #[test]
    fn some_seed_repeats_a_metavariable_for_equal_texts() {
        let text = "x == x";
        let (whole, parts) = (node(text, 0, 6), [node(text, 0, 1), node(text, 5, 6)]);
        let parts: Vec<_> = parts.iter().collect();
        let patterns: Vec<_> =
            (0..200).map(|seed| with_holes(&whole, &parts, &mut Random(seed))).collect();
        assert!(patterns.iter().any(|pattern| pattern == "$ONE0 == $ONE0"), "{patterns:?}");
    }
}

//! The project: `sgconfig.yml`, and the rule files that it names.
//!
//! Found and read here, in the client, because it belongs to the directory that the user is in.
//! The daemon gets the rules as text.

use crate::exit::Exit;
use crate::failure::Failure;
use astscope_protocol::messages::{IgnoreKind, RuleSource};
use ignore::WalkBuilder;
use ignore::types::TypesBuilder;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_saphyr::options::{MergeKeyPolicy, NonFiniteFloatPolicy};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

const CONFIG_FILES: [&str; 2] = ["sgconfig.yml", "sgconfig.yaml"];

/// What `sgconfig.yml` says. Other keys, among them `testConfigs`, mean nothing to us and are
/// ignored, as ast-grep ignores keys that it doesn't know.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Config {
    #[serde(default)]
    rule_dirs: Vec<PathBuf>,
    #[serde(default)]
    util_dirs: Option<Vec<PathBuf>>,
    #[serde(default)]
    custom_languages: Option<BTreeMap<String, serde_json::Value>>,
    #[serde(default)]
    language_globs: Option<BTreeMap<String, Vec<String>>>,
    #[serde(default)]
    language_injections: Vec<IgnoredAny>,
    #[serde(default)]
    no_ignore: Option<Vec<IgnoreKind>>,
}

/// A project.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Project {
    /// The directory of the configuration file, resolved.
    pub(crate) dir: PathBuf,
    rule_dirs: Vec<PathBuf>,
    util_dirs: Vec<PathBuf>,
    /// Globs by language name.
    pub(crate) language_globs: BTreeMap<String, Vec<String>>,
    /// Ignore sources to disregard unless the command line names others.
    pub(crate) no_ignore: Vec<IgnoreKind>,
}

impl Project {
    /// Reads the configuration named, or else the nearest one in `cwd` or above. `None` if there
    /// is none.
    pub(crate) fn discover(named: Option<&Path>, cwd: &Path) -> Result<Option<Self>, Failure> {
        let found = match named {
            Some(named) => Some(cwd.join(named)),
            None => cwd
                .ancestors()
                .flat_map(|dir| CONFIG_FILES.map(|name| dir.join(name)))
                .find(|path| path.exists()),
        };
        found.map(|path| Self::read(&path)).transpose()
    }

    fn read(path: &Path) -> Result<Self, Failure> {
        let unreadable = |error: std::io::Error| {
            Failure::new(Exit::File, format!("Cannot read configuration {}.", path.display()))
                .help("Please add an sgconfig.yml configuration file in the project root.")
                .page("/guide/rule-config.html")
                .source(&error)
        };
        // ast-grep resolves links first: a linked configuration belongs to where it really is.
        let path = path.canonicalize().map_err(unreadable)?;
        let text = fs::read_to_string(&path).map_err(unreadable)?;
        let config: Config =
            serde_saphyr::from_str_with_options(&text, yaml_options()).map_err(|error| {
                Failure::new(Exit::InvalidQuery, "Cannot parse configuration")
                    .help("The sgconfig.yml is not a valid configuration file. Please refer to the documentation and fix the error.")
                    .page("/reference/sgconfig.html")
                    .cause(format!("{}: {error}", path.display()))
            })?;
        config.refuse_unsupported(&path)?;
        Ok(Self {
            dir: path.parent().map(Path::to_owned).unwrap_or_default(),
            rule_dirs: config.rule_dirs,
            util_dirs: config.util_dirs.unwrap_or_default(),
            language_globs: config.language_globs.unwrap_or_default(),
            no_ignore: config.no_ignore.unwrap_or_default(),
        })
    }

    /// The rules of `ruleDirs`.
    pub(crate) fn rules(&self) -> Result<Vec<RuleSource>, Failure> {
        read_dirs(&self.dir, &self.rule_dirs)
    }

    /// The global utility rules of `utilDirs`.
    pub(crate) fn utils(&self) -> Result<Vec<RuleSource>, Failure> {
        read_dirs(&self.dir, &self.util_dirs)
    }
}

impl Config {
    fn refuse_unsupported(&self, path: &Path) -> Result<(), Failure> {
        if let Some(name) = self.custom_languages.iter().flatten().map(|(name, _)| name).next() {
            return Err(Failure::new(
                Exit::CustomLanguage,
                format!("`customLanguages` is not supported: {}", path.display()),
            )
            .help(format!(
                "A custom language, such as `{name}`, is native code that would run inside the daemon. Remove the key, or use ast-grep for this project."
            )));
        }
        if !self.language_injections.is_empty() {
            return Err(Failure::new(
                Exit::InvalidQuery,
                format!("`languageInjections` is not supported: {}", path.display()),
            )
            .help("Only the built-in injections are searched. Remove the key, or use ast-grep for this project."));
        }
        Ok(())
    }
}

/// YAML as ast-grep reads it: `y`, `on` and `off` are strings, and `<<` is an ordinary key.
fn yaml_options() -> serde_saphyr::Options {
    let mut options = serde_saphyr::Options::default();
    options.strict_booleans = true;
    options.merge_keys = MergeKeyPolicy::AsOrdinary;
    options.non_finite_float_policy = NonFiniteFloatPolicy::PassThrough;
    options.reject_unsupported_tags = true;
    options
}

/// All YAML files below some directories, in order of directory and then of path.
fn read_dirs(base: &Path, dirs: &[PathBuf]) -> Result<Vec<RuleSource>, Failure> {
    let mut sources = Vec::new();
    for dir in dirs {
        let dir = base.join(dir);
        let unreadable = |error: ignore::Error| {
            Failure::new(Exit::File, format!("Cannot read rule directory {}", dir.display()))
                .help("The rule directory cannot be read or traversed")
                .source(&error)
        };
        let mut types = TypesBuilder::new();
        for glob in ["*.yml", "*.yaml"] {
            types.add("yml", glob).map_err(unreadable)?;
        }
        let types = types.select("yml").build().map_err(unreadable)?;
        let walk = WalkBuilder::new(&dir)
            // A directory that is named is meant, whatever the ignore files above it say.
            .parents(false)
            .types(types)
            .sort_by_file_path(Path::cmp)
            .build();
        for entry in walk {
            let entry = entry.map_err(unreadable)?;
            if entry.file_type().is_some_and(|kind| kind.is_file()) {
                sources.push(read_rule(entry.path(), &entry.path().display().to_string())?);
            }
        }
    }
    Ok(sources)
}

/// One rule file. `name` is what errors call it.
pub(crate) fn read_rule(path: &Path, name: &str) -> Result<RuleSource, Failure> {
    let yaml = fs::read_to_string(path).map_err(|error| {
        Failure::new(Exit::File, format!("Cannot read rule {name}"))
            .help("The rule file either does not exist or cannot be opened.")
            .page("/guide/rule-config.html")
            .source(&error)
    })?;
    let default_id = path.file_stem().and_then(|stem| stem.to_str()).map(str::to_owned);
    Ok(RuleSource { source: name.to_owned(), yaml, default_id })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use tempfile::TempDir;

    fn project(files: &[(&str, &str)]) -> TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        dir
    }

    fn names(sources: &[RuleSource], dir: &TempDir) -> Vec<String> {
        let base = dir.path().canonicalize().unwrap();
        sources
            .iter()
            .map(|source| {
                Path::new(&source.source).strip_prefix(&base).unwrap().display().to_string()
            })
            .collect()
    }

    fn refusal(config: &str) -> Failure {
        let dir = project(&[("sgconfig.yml", config)]);
        Project::discover(None, dir.path()).unwrap_err()
    }

    #[test]
    fn the_nearest_configuration_above_is_taken() {
        let dir = project(&[
            ("sgconfig.yml", "ruleDirs: [outer]"),
            ("inner/sgconfig.yaml", "ruleDirs: [rules]"),
            ("inner/deep/er/file", ""),
        ]);
        let found = Project::discover(None, &dir.path().join("inner/deep/er")).unwrap().unwrap();
        assert_eq!(found.dir, dir.path().join("inner").canonicalize().unwrap());
        assert_eq!(found.rule_dirs, [PathBuf::from("rules")]);
    }

    #[test]
    fn a_configuration_is_named_relative_to_the_current_directory() {
        let dir = project(&[("conf/my.yml", "ruleDirs: []")]);
        let found = Project::discover(Some(Path::new("conf/my.yml")), dir.path()).unwrap().unwrap();
        assert_eq!(found.dir, dir.path().join("conf").canonicalize().unwrap());
        let error = Project::discover(Some(Path::new("gone.yml")), dir.path()).unwrap_err();
        assert_eq!(error.exit, Exit::File);
    }

    #[test]
    fn a_linked_configuration_belongs_to_where_it_really_is() {
        let dir = project(&[("real/sgconfig.yml", "ruleDirs: []"), ("links/x", "")]);
        symlink(dir.path().join("real/sgconfig.yml"), dir.path().join("links/sgconfig.yml"))
            .unwrap();
        let found = Project::discover(None, &dir.path().join("links")).unwrap().unwrap();
        assert_eq!(found.dir, dir.path().join("real").canonicalize().unwrap());
    }

    #[test]
    fn all_keys_that_matter_are_honoured_and_others_ignored() {
        let dir = project(&[
            (
                "sgconfig.yml",
                "ruleDirs: [rules]\nutilDirs: [utils]\nlanguageGlobs: {html: ['*.vue']}\n\
                 noIgnore: [hidden, vcs]\ntestConfigs: 7\nwhatever: {x: y}\ncustomLanguages: {}\n",
            ),
            ("rules/b.yml", "id: b"),
            ("rules/a/z.yaml", "id: z"),
            ("rules/readme.md", "no rule"),
            ("rules/.gitignore", "b.yml"),
            ("utils/u.yml", "id: u"),
        ]);
        let found = Project::discover(None, dir.path()).unwrap().unwrap();
        assert_eq!(found.no_ignore, [IgnoreKind::Hidden, IgnoreKind::Vcs]);
        assert_eq!(found.language_globs["html"], ["*.vue"]);
        let rules = found.rules().unwrap();
        assert_eq!(names(&rules, &dir), ["rules/a/z.yaml", "rules/b.yml"]);
        assert_eq!((rules[1].yaml.as_str(), rules[1].default_id.as_deref()), ("id: b", Some("b")));
        assert_eq!(names(&found.utils().unwrap(), &dir), ["utils/u.yml"]);
    }

    #[test]
    fn foreign_code_and_injections_are_refused_by_name() {
        let error = refusal("customLanguages: {mojo: {libraryPath: mojo.so, extensions: [mojo]}}");
        assert_eq!(error.exit, Exit::CustomLanguage);
        assert!(error.render(false).contains("`customLanguages`"));
        assert!(error.render(false).contains("`mojo`"));
        let error = refusal("languageInjections: [{hostLanguage: js}]");
        assert_eq!(error.exit, Exit::InvalidQuery);
        assert!(error.render(false).contains("`languageInjections`"));
    }

    #[test]
    fn a_broken_configuration_is_reported_with_the_place() {
        let error = refusal("ruleDirs: {");
        assert_eq!(error.exit, Exit::InvalidQuery);
        assert!(error.render(false).contains("line 1"), "{}", error.render(false));
        assert_eq!(refusal("noIgnore: [everything]").exit, Exit::InvalidQuery);
    }

    #[test]
    fn a_rule_directory_that_is_missing_is_an_error() {
        let dir = project(&[("sgconfig.yml", "ruleDirs: [gone]")]);
        let found = Project::discover(None, dir.path()).unwrap().unwrap();
        let error = found.rules().unwrap_err();
        assert_eq!(error.exit, Exit::File);
        assert!(error.render(false).contains("gone"));
    }

    #[test]
    fn without_a_configuration_there_is_no_project() {
        let dir = project(&[]);
        // The directories above a temporary one are not ours to judge.
        let found = Project::discover(None, dir.path()).unwrap();
        assert!(found.is_none_or(|project| !project.dir.starts_with(dir.path())));
    }
}

//! The languages: their names, and which file is written in which.
//!
//! Names, aliases and extensions are those of ast-grep 0.51.1, whose answers ours must equal;
//! a test in `parsing` compares them with the `ast-grep-language` crate. Erlang, HEEx and TOML
//! are ours, and only they are also found by file name and shebang: ast-grep itself goes by the
//! extension alone.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

macro_rules! languages {
    ($($(#[$doc:meta])* $variant:ident, $name:literal, [$($alias:literal),*], [$($extension:literal),*];)*) => {
        /// A language that can be parsed, if its grammar is part of the build.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Language {
            $(#[doc = concat!("`", $name, "`.")] $variant,)*
        }

        impl Language {
            /// All languages, sorted by name within ast-grep's, then ours.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The name as ast-grep's JSON spells it.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// What a user may call it, in lower case.
            pub const fn aliases(self) -> &'static [&'static str] {
                match self { $(Self::$variant => &[$($alias),*],)* }
            }

            /// Extensions of its files, without the dot, case-sensitive.
            pub const fn extensions(self) -> &'static [&'static str] {
                match self { $(Self::$variant => &[$($extension),*],)* }
            }
        }
    };
}

languages! {
    Bash, "Bash", ["bash"], ["bash", "bats", "cgi", "command", "env", "fcgi", "ksh", "sh", "tmux", "tool", "zsh"];
    C, "C", ["c"], ["c", "h"];
    Cpp, "Cpp", ["cc", "c++", "cpp", "cxx"], ["cc", "hpp", "cpp", "c++", "hh", "cxx", "cu", "ino"];
    CSharp, "CSharp", ["cs", "csharp"], ["cs"];
    Css, "Css", ["css"], ["css", "scss"];
    Dart, "Dart", ["dart"], ["dart"];
    Elixir, "Elixir", ["ex", "elixir"], ["ex", "exs"];
    Go, "Go", ["go", "golang"], ["go"];
    Haskell, "Haskell", ["hs", "haskell"], ["hs"];
    Hcl, "Hcl", ["hcl"], ["hcl", "nomad", "tf", "tfvars", "workflow"];
    Html, "Html", ["html"], ["html", "htm", "xhtml"];
    Java, "Java", ["java"], ["java"];
    JavaScript, "JavaScript", ["javascript", "js", "jsx"], ["cjs", "js", "mjs", "jsx"];
    Json, "Json", ["json"], ["json"];
    Kotlin, "Kotlin", ["kotlin", "kt"], ["kt", "ktm", "kts"];
    Lua, "Lua", ["lua"], ["lua"];
    Markdown, "Markdown", ["markdown", "md"], ["markdown", "md"];
    Nix, "Nix", ["nix"], ["nix"];
    Php, "Php", ["php"], ["php"];
    Python, "Python", ["py", "python"], ["py", "py3", "pyi", "bzl", "bazel"];
    Ruby, "Ruby", ["rb", "ruby"], ["rb", "rbw", "gemspec"];
    Rust, "Rust", ["rs", "rust"], ["rs"];
    Scala, "Scala", ["scala"], ["scala", "sc", "sbt"];
    Solidity, "Solidity", ["sol", "solidity"], ["sol"];
    Swift, "Swift", ["swift"], ["swift"];
    Tsx, "Tsx", ["tsx"], ["tsx"];
    TypeScript, "TypeScript", ["ts", "typescript"], ["ts", "cts", "mts"];
    Yaml, "Yaml", ["yaml", "yml"], ["yaml", "yml"];
    Zig, "Zig", ["zig"], ["zig"];
    Erlang, "Erlang", ["erl", "erlang"], ["erl", "hrl", "escript", "xrl", "yrl"];
    Heex, "Heex", ["heex", "eex", "leex"], ["heex", "leex", "eex"];
    Toml, "Toml", ["toml"], ["toml"];
}

/// File names that say the language without an extension that would.
const FILE_NAMES: &[(&str, Language)] = &[
    ("rebar.config", Language::Erlang),
    ("rebar.config.script", Language::Erlang),
    ("erlang.mk.config", Language::Erlang),
    ("Cargo.lock", Language::Toml),
    ("Pipfile", Language::Toml),
    ("poetry.lock", Language::Toml),
    ("uv.lock", Language::Toml),
];

impl Language {
    /// The languages that ast-grep lacks.
    pub const ADDED: &[Self] = &[Self::Erlang, Self::Heex, Self::Toml];

    /// The language of a file by its path alone: extension, then file name.
    pub fn from_path(path: &Path) -> Option<Self> {
        let by_extension = path.extension().and_then(|extension| {
            let extension = extension.to_str()?;
            Self::ALL.iter().copied().find(|language| language.extensions().contains(&extension))
        });
        by_extension.or_else(|| {
            let name = path.file_name()?.to_str()?;
            FILE_NAMES.iter().find(|(known, _)| *known == name).map(|(_, language)| *language)
        })
    }

    /// The language by the first line of a file whose path says nothing, by its `#!` interpreter.
    ///
    /// Only the added languages are found so: where ast-grep sees no language in a path, it
    /// searches nothing, and an answer of ours for one of its languages would be one too many.
    pub fn from_shebang(first_line: &str) -> Option<Self> {
        let command = first_line.strip_prefix("#!")?;
        let mut words =
            command.split_whitespace().map(|word| word.rsplit('/').next().unwrap_or(word));
        let interpreter = words.next()?;
        let interpreter =
            if interpreter == "env" { words.find(|w| !w.starts_with('-'))? } else { interpreter };
        (interpreter == "escript").then_some(Self::Erlang)
    }

    /// Names of the file globs that say this language: `*.ext` each, then whole file names.
    pub fn globs(self) -> impl Iterator<Item = String> {
        let extensions = self.extensions().iter().map(|extension| format!("*.{extension}"));
        let names = FILE_NAMES.iter().filter(move |(_, language)| *language == self);
        extensions.chain(names.map(|(name, _)| (*name).to_owned()))
    }

    /// The languages whose code may stand inside a file of this one.
    pub const fn injectable(self) -> &'static [Self] {
        match self {
            Self::Html => &[Self::Css, Self::JavaScript, Self::TypeScript, Self::Tsx],
            Self::Heex => &[Self::Elixir],
            _ => &[],
        }
    }
}

impl fmt::Display for Language {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A language name that nobody here knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownLanguage {
    /// What was asked for.
    pub name: String,
}

impl fmt::Display for UnknownLanguage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is not supported!", self.name)
    }
}

impl std::error::Error for UnknownLanguage {}

impl FromStr for Language {
    type Err = UnknownLanguage;

    /// By alias, in any case.
    fn from_str(name: &str) -> Result<Self, UnknownLanguage> {
        let known = |language: &&Self| {
            language.aliases().iter().any(|alias| alias.eq_ignore_ascii_case(name))
        };
        Self::ALL
            .iter()
            .find(known)
            .copied()
            .ok_or_else(|| UnknownLanguage { name: name.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_say_their_language_by_extension_then_by_name() {
        let of = |path: &str| Language::from_path(Path::new(path));
        assert_eq!(of("lib/a.ex"), Some(Language::Elixir));
        assert_eq!(of("a.html.heex"), Some(Language::Heex));
        assert_eq!(of("x/rebar.config"), Some(Language::Erlang));
        assert_eq!(of("Cargo.lock"), Some(Language::Toml));
        assert_eq!(of("a.RS"), None, "extensions are case-sensitive, as in ast-grep");
        assert_eq!(of("Makefile"), None);
    }

    #[test]
    fn every_alias_leads_to_its_language_in_any_case_and_no_two_share_one() {
        for language in Language::ALL {
            for alias in language.aliases() {
                assert_eq!(alias.to_uppercase().parse(), Ok(*language));
            }
        }
        assert!("cobol".parse::<Language>().is_err());
    }

    #[test]
    fn escripts_are_erlang_by_their_shebang_and_shell_scripts_stay_unknown() {
        assert_eq!(Language::from_shebang("#!/usr/bin/env escript"), Some(Language::Erlang));
        assert_eq!(Language::from_shebang("#!/usr/bin/env -S escript -c"), Some(Language::Erlang));
        assert_eq!(Language::from_shebang("#!/usr/lib/erlang/bin/escript"), Some(Language::Erlang));
        assert_eq!(Language::from_shebang("#!/bin/sh"), None);
        assert_eq!(Language::from_shebang("# escript"), None);
    }
}

//! The laws of points: identities, levels, kinds by language, and what they cost.

use super::*;
use crate::{Limits, grammar_is_built, kind_table, parse};
use astscope_fixtures::samples::SAMPLES;
use expect_test::{Expect, expect};
use proptest::prelude::{ProptestConfig, prop_assert, prop_assert_eq, proptest};
use std::collections::BTreeSet;
use std::fmt::Write as _;

const ELIXIR: &str = r#"defmodule Shop.Cart do
  use GenServer
  @limit 3

  def start(name) when is_atom(name), do: GenServer.start_link(__MODULE__, name)
  def init(name), do: {:ok, name}

  def handle_call({:add, item}, _from, cart) do
    next = cart |> add(item) |> Enum.take(@limit)
    case next do
      [] -> {:stop, :normal, cart}
      _ -> {:reply, :ok, next}
    end
  end

  defp add(cart, item) do
    try do
      if item, do: [item | cart], else: cart
    rescue
      error -> Enum.map([error], fn it -> it end)
    end
  end

  defmacro twice(code), do: quote(do: {unquote(code), unquote(code)})
end

defmodule ShopWeb.CartController do
  def show(conn, params), do: render(conn, params)
  def helper(conn), do: conn
end

defmodule ShopWeb.Live do
  use ShopWeb, :live_view
  def mount(_params, _session, socket), do: {:ok, socket}
end
"#;

const RUST: &str = r#"#![allow(dead_code)]
mod shop {
    impl Cart {
        pub fn add(&mut self, (a, b): (u8, u8)) -> Option<u8> {
            let next = self.items.iter().map(|it| it + a).max()?;
            match next {
                0 => None,
                _ => Some(spawn(b)),
            }
        }
    }
    fn hidden() { println!("no"); }
    macro_rules! m { () => {}; }
}
"#;

fn file(text: &str, language: Language) -> ParsedFile {
    parse(text.into(), language, &Limits::DAEMON, &mut || false).unwrap()
}

fn at(level: Level, text: &str, language: Language) -> Vec<Point> {
    points(&file(text, language), &MapConfig::of(level))
}

#[track_caller]
fn check(level: Level, text: &str, language: Language, expected: &Expect) {
    let mut shown = String::new();
    for point in at(level, text, language) {
        let Point { kind, strategy, symbol, name, position, priority, .. } = &point;
        let (kind, strategy) = (kind.name(), strategy.name());
        let name = name.as_deref().unwrap_or("-");
        let flags = [
            (point.is_public, " public"),
            (point.has_guards, " guards"),
            (point.has_pattern_matching, " patterns"),
        ];
        let flags: String = flags.iter().filter(|it| it.0).map(|it| it.1).collect();
        let line = position.line + 1;
        writeln!(shown, "{priority} {kind} {strategy} {symbol} {name} {line}{flags}").unwrap();
    }
    expected.assert_eq(&shown);
}

#[test]
fn functions_are_observed_at_each_level_and_important_calls_from_balanced_on() {
    check(
        Level::Balanced,
        ELIXIR,
        Language::Elixir,
        &expect![[r#"
        100 function_entry function_boundary Shop.Cart.start/1 start 5 public guards
        100 function_exit function_boundary Shop.Cart.start/1 start 5 public guards
        100 genserver_callback function_boundary Shop.Cart.init/1 init 6 public
        100 function_exit function_boundary Shop.Cart.init/1 init 6 public
        100 genserver_callback function_boundary Shop.Cart.handle_call/3 handle_call 8 public patterns
        100 function_exit function_boundary Shop.Cart.handle_call/3 handle_call 8 public patterns
        100 macro_expansion function_boundary Shop.Cart.twice/1 twice 24 public
        100 controller_action function_boundary ShopWeb.CartController.show/2 show 28 public
        100 function_exit function_boundary ShopWeb.CartController.show/2 show 28 public
        100 function_entry function_boundary ShopWeb.CartController.helper/1 helper 29 public
        100 function_exit function_boundary ShopWeb.CartController.helper/1 helper 29 public
        100 live_view_callback function_boundary ShopWeb.Live.mount/3 mount 34 public
        100 function_exit function_boundary ShopWeb.Live.mount/3 mount 34 public
        90 function_entry function_boundary Shop.Cart.add/2 add 16
        90 function_exit function_boundary Shop.Cart.add/2 add 16
        70 call expression_trace Shop.Cart.start/1 start_link 5
    "#]],
    );
}

#[test]
fn rust_has_its_own_words_for_the_same() {
    check(
        Level::Debug,
        RUST,
        Language::Rust,
        &expect![[r#"
        100 function_entry function_boundary shop.Cart.add/2 add 4 public patterns
        100 function_exit function_boundary shop.Cart.add/2 add 4 public patterns
        90 function_entry function_boundary shop.hidden/0 hidden 12
        90 function_exit function_boundary shop.hidden/0 hidden 12
        90 macro_expansion function_boundary shop.m m 13
        80 call expression_trace shop.Cart.add/2 spawn 8
        60 pipe_operation expression_trace shop.Cart.add/2 max 5
        60 call expression_trace shop.Cart.add/2 map 5
        60 call expression_trace shop.Cart.add/2 iter 5
        60 call expression_trace shop.Cart.add/2 Some 8
        60 macro_expansion expression_trace shop.hidden/0 println 12
        50 try_catch expression_trace shop.Cart.add/2 - 5
        50 closure expression_trace shop.Cart.add/2 - 5
        50 case_branch expression_trace shop.Cart.add/2 - 6
        30 assignment variable_capture shop.Cart.add/2 - 5
        10 module_attribute none  - 1
    "#]],
    );
}

/// Every kind of point that a language's profile names is found in a text that has it, with an
/// identity, a place and a correlation of its own.
#[test]
fn acceptance_check_26() {
    let kinds = |text, language| -> BTreeSet<&str> {
        at(Level::Debug, text, language).iter().map(|point| point.kind.name()).collect()
    };
    let all = [
        "assignment",
        "call",
        "case_branch",
        "closure",
        "controller_action",
        "function_entry",
        "function_exit",
        "genserver_callback",
        "live_view_callback",
        "macro_expansion",
        "module_attribute",
        "pipe_operation",
        "try_catch",
    ];
    assert_eq!(kinds(ELIXIR, Language::Elixir).into_iter().collect::<Vec<_>>(), all);
    let callbacks = ["controller_action", "genserver_callback", "live_view_callback"];
    let general: Vec<_> = all.into_iter().filter(|kind| !callbacks.contains(kind)).collect();
    assert_eq!(kinds(RUST, Language::Rust).into_iter().collect::<Vec<_>>(), general);
    for (text, language) in [(ELIXIR, Language::Elixir), (RUST, Language::Rust)] {
        let points = at(Level::Debug, text, language);
        let correlated = correlations(&points);
        assert_eq!(correlated.len(), points.len(), "each has one of its own");
        for point in &points {
            assert_eq!(correlated.get(&point.correlation()), Some(&point.id));
        }
    }
}

#[test]
fn profiles_name_kinds_that_their_grammars_have() {
    for &language in Language::ALL {
        let Some(profile) = profile::of(language).filter(|_| grammar_is_built(language)) else {
            continue;
        };
        let table = kind_table(language).unwrap();
        for (kind, _) in profile.kinds {
            assert!(table.kind_id(kind).is_some(), "{}: {kind}", language.name());
        }
    }
}

#[test]
fn each_profile_finds_the_functions_of_its_sample() {
    let mut n_profiles = 0;
    for (name, text) in SAMPLES {
        let language: Language = name.to_lowercase().parse().unwrap();
        let found = at(Level::Minimal, text, language);
        assert_eq!(!found.is_empty(), has_profile(language), "{name}: {found:?}");
        n_profiles += usize::from(has_profile(language));
    }
    assert_eq!(n_profiles, 8);
}

fn ids(points: &[Point]) -> BTreeSet<PointId> {
    points.iter().map(|point| point.id).collect()
}

#[test]
fn acceptance_check_25() {
    let before = at(Level::Debug, ELIXIR, Language::Elixir);
    assert_eq!(at(Level::Debug, ELIXIR, Language::Elixir), before, "the same twice");
    assert_eq!(ids(&before).len(), before.len(), "all unique");
    // Elsewhere: lines, another module, another function, and in the body of a function.
    let edits = [
        (
            "defmodule Shop.Cart",
            "# a line\n\ndefmodule Other do\n  def f, do: 1\nend\ndefmodule Shop.Cart",
        ),
        ("  def init(name)", "  def other(x), do: x |> f()\n\n  def init(name)"),
        ("      [] -> {:stop", "      [] -> log(1); {:stop"),
    ];
    for (from, to) in edits {
        let edited = ELIXIR.replace(from, to);
        assert_ne!(edited, ELIXIR);
        let after = at(Level::Debug, &edited, Language::Elixir);
        let (before, after) = (ids(&before), ids(&after));
        assert!(before.is_subset(&after), "{to}");
        assert!(before.len() < after.len(), "{to}");
    }
}

/// The file's own points, and their kinds: what a level's priorities change apart.
fn known(points: &[Point]) -> BTreeSet<(PointId, PointKind)> {
    points.iter().map(|point| (point.id, point.kind)).collect()
}

fn sorted(points: &[Point]) -> bool {
    points.is_sorted_by_key(|point| std::cmp::Reverse(point.priority))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Over samples of all languages, cut anywhere, which is broken code as a rule.
    #[test]
    fn acceptance_check_28(sample in 0..SAMPLES.len() + 2, cut in 0.0..=1.0, max in 0.0..=1.0) {
        let (name, text) = match sample.checked_sub(SAMPLES.len()) {
            None => SAMPLES[sample],
            Some(0) => ("Elixir", ELIXIR),
            Some(_) => ("Rust", RUST),
        };
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "a place in a small text")]
        let cut = text.floor_char_boundary((text.len() as f64 * cut) as usize);
        let language: Language = name.to_lowercase().parse().unwrap();
        let file = file(&text[..cut], language);
        let by_level = Level::ALL.map(|level| points(&file, &MapConfig::of(level)));
        for (less, more) in by_level.iter().zip(&by_level[1..]) {
            prop_assert!(known(less).is_subset(&known(more)));
        }
        for (level, points) in Level::ALL.into_iter().zip(by_level) {
            prop_assert_eq!(ids(&points).len(), points.len(), "identities are unique");
            prop_assert!(sorted(&points));
            let captures = points.iter().any(|it| it.strategy == Strategy::VariableCapture);
            prop_assert!(!captures || level == Level::Debug);
            let impact = estimate_performance_impact(&points);
            prop_assert!((0.0..=1.0).contains(&impact));
            let boundaries = |points: &[Point]| -> Vec<PointId> {
                let all = points.iter().filter(|it| it.strategy == Strategy::FunctionBoundary);
                all.map(|point| point.id).collect()
            };
            let kept = optimize_for_performance(points.clone(), max, true);
            prop_assert_eq!(boundaries(&kept), boundaries(&points), "boundaries stay");
            prop_assert!(sorted(&kept) && ids(&kept).is_subset(&ids(&points)));
            let only: Vec<Point> =
                points.iter().filter(|it| it.strategy == Strategy::FunctionBoundary).cloned().collect();
            let bound = max.max(estimate_performance_impact(&only));
            prop_assert!(estimate_performance_impact(&kept) <= bound);
            let any = optimize_for_performance(points, max, false);
            prop_assert!(estimate_performance_impact(&any) <= max);
        }
    }
}

#[test]
fn a_walk_that_is_told_to_stop_gives_up() {
    let text = "def f(a), do: g(a)\n".repeat(1_000);
    let (file, config) = (file(&text, Language::Elixir), MapConfig::of(Level::Debug));
    let mut n_asked = 0;
    let mut stop = || {
        n_asked += 1;
        n_asked == 3
    };
    assert_eq!(points_until(&file, &config, &mut stop), None);
    assert_eq!(n_asked, 3, "and looks no further");
    assert_eq!(points_until(&file, &config, &mut || false), Some(points(&file, &config)));
}

#[test]
fn what_points_cost_is_a_sum_of_weights_with_a_cap() {
    let mut points = at(Level::Debug, RUST, Language::Rust);
    let all = [
        (Strategy::FunctionBoundary, 0.1),
        (Strategy::ExpressionTrace, 0.3),
        (Strategy::LineExecution, 0.2),
        (Strategy::VariableCapture, 0.5),
        (Strategy::None, 0.0),
    ];
    for (strategy, weight) in all {
        for point in &mut points {
            point.strategy = strategy;
        }
        let impact = estimate_performance_impact(&points[..2]);
        assert!((impact - weight * 2.0 / 5.0).abs() < 1e-9, "{strategy:?}: {impact}");
    }
    points[0].strategy = Strategy::VariableCapture;
    let many: Vec<Point> = std::iter::repeat_n(points[0].clone(), 11).collect();
    assert!((estimate_performance_impact(&many) - 1.0).abs() < 1e-9);
    assert_eq!(optimize_for_performance(many, DEFAULT_IMPACT_MAX, true).len(), 3);
}

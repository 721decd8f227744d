//! What observing points costs, and which are given up where that is too much.
//!
//! The weights are `ElixirScope`'s: fifths of nothing measured, but ordered as the costs are.

use super::{Point, Strategy};

/// The impact that is accepted by default.
pub const DEFAULT_IMPACT_MAX: f64 = 0.3;

/// Tenths that a point costs: whole numbers, so that a sum doesn't depend on its order.
fn tenths(strategy: Strategy) -> u64 {
    match strategy {
        Strategy::FunctionBoundary => 1,
        Strategy::LineExecution => 2,
        Strategy::ExpressionTrace => 3,
        Strategy::VariableCapture => 5,
        Strategy::None => 0,
    }
}

#[expect(clippy::cast_precision_loss, reason = "an estimate that is capped at 1")]
fn impact(tenths: u64) -> f64 {
    (tenths as f64 / 50.0).min(1.0)
}

/// How much observing all of these would slow a program down, from 0 to 1.
pub fn estimate_performance_impact(points: &[Point]) -> f64 {
    impact(points.iter().map(|point| tenths(point.strategy)).sum())
}

/// Points whose impact is at most `impact_max`, from 0 to 1, in the order of their priority, as they
/// are given. With `preserve_functions` all boundaries of functions are among them, whatever they
/// cost; the others are added while there is room.
pub fn optimize_for_performance(
    points: Vec<Point>,
    impact_max: f64,
    preserve_functions: bool,
) -> Vec<Point> {
    let is_kept =
        |point: &Point| preserve_functions && point.strategy == Strategy::FunctionBoundary;
    let kept = points.iter().filter(|point| is_kept(point));
    let mut sum: u64 = kept.map(|point| tenths(point.strategy)).sum();
    let mut is_full = false;
    let mut by_priority = points;
    by_priority.sort_by_key(|point| std::cmp::Reverse(point.priority));
    by_priority.retain(|point| {
        if is_kept(point) {
            return true;
        }
        let with_it = sum + tenths(point.strategy);
        is_full |= impact(with_it) > impact_max;
        if !is_full {
            sum = with_it;
        }
        !is_full
    });
    by_priority
}

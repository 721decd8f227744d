//! Series of samples, and what is said about them.

/// One run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    /// Seconds on the wall.
    pub(super) wall: f64,
    /// Seconds of CPU, all threads.
    pub(super) cpu: f64,
}

/// The runs of one side.
#[derive(Clone, Debug, Default)]
pub(super) struct Series(Vec<Sample>);

impl Series {
    pub(super) fn push(&mut self, sample: Sample) {
        self.0.push(sample);
    }

    /// The median of the wall times; of an even number the upper one.
    pub(super) fn median(&self) -> f64 {
        median(self.0.iter().map(|sample| sample.wall))
    }

    pub(super) fn min(&self) -> f64 {
        self.0.iter().map(|sample| sample.wall).fold(f64::INFINITY, f64::min)
    }

    pub(super) fn max(&self) -> f64 {
        self.0.iter().map(|sample| sample.wall).fold(0.0, f64::max)
    }

    pub(super) fn median_cpu(&self) -> f64 {
        median(self.0.iter().map(|sample| sample.cpu))
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// CPU seconds of all children that have been waited for.
pub(super) fn cpu_seconds_of_children() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    cpu_seconds(&stat, CHILDREN_TICKS)
}

/// Where `utime` and `stime` stand in `/proc/PID/stat`, counted behind the parenthesised name.
pub(crate) const OWN_TICKS: usize = 11;
/// Where `cutime` and `cstime` stand.
const CHILDREN_TICKS: usize = 13;

/// The user's and the kernel's time at the fields from `at` on of a `/proc/PID/stat`, in seconds.
pub(crate) fn cpu_seconds(stat: &str, at: usize) -> f64 {
    let behind = stat.rsplit(')').next().unwrap_or_default();
    let ticks = behind.split_whitespace().skip(at).take(2);
    // Linux counts a hundred ticks a second on every architecture that we run on.
    ticks.filter_map(|field| field.parse::<f64>().ok()).sum::<f64>() / 100.0
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
pub(super) fn to_f64(n: u64) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_seconds_are_found_behind_a_name_with_spaces() {
        let stat = "7 (a b) c) S 1 1 1 0 -1 4 9 9 9 9 150 50 300 100 20 0 1 0";
        assert!((cpu_seconds(stat, OWN_TICKS) - 2.0).abs() < f64::EPSILON);
        assert!((cpu_seconds(stat, CHILDREN_TICKS) - 4.0).abs() < f64::EPSILON);
    }

    #[test]
    fn the_median_is_the_middle_of_the_sorted_runs() {
        let mut series = Series::default();
        for wall in [5.0, 1.0, 3.0] {
            series.push(Sample { wall, cpu: 10.0 - wall });
        }
        assert!((series.median() - 3.0).abs() < f64::EPSILON);
        assert!((series.median_cpu() - 7.0).abs() < f64::EPSILON);
        assert!(
            (series.min() - 1.0).abs() < f64::EPSILON && (series.max() - 5.0).abs() < f64::EPSILON
        );
    }
}

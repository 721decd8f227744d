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
    let behind = stat.rsplit(')').next().unwrap_or_default();
    let ticks =
        behind.split_whitespace().skip(13).take(2).filter_map(|field| field.parse::<f64>().ok());
    // Linux counts a hundred ticks a second on every architecture that we run on.
    ticks.sum::<f64>() / 100.0
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
pub(super) fn to_f64(n: u64) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests {
    use super::*;

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

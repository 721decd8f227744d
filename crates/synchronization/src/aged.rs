//! Trees that were there before.

use crate::read::stat_of;
use astscope_repository::FileStamp;
use std::fs;
use std::path::Path;
use std::time::SystemTime;

/// Waits until all that was written before now, on the disk that has this directory, is old enough for
/// its time stamps to be trusted, and gives the time that they are trusted at, in nanoseconds.
pub(crate) fn aged(directory: &Path) -> i64 {
    let probe = directory.with_extension("probe");
    fs::write(&probe, "").unwrap();
    let stat = stat_of(&probe.metadata().unwrap());
    loop {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let read_at_ns = i64::try_from(now.as_nanos()).unwrap();
        if (FileStamp { stat, read_at_ns }).proves_unchanged(&stat) {
            return read_at_ns;
        }
        std::thread::yield_now();
    }
}

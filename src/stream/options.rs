//! What the streaming side may use.

use std::path::PathBuf;
use std::time::Duration;

/// Limits of [`Streams`](super::Streams).
#[derive(Debug, Clone)]
pub struct StreamOptions {
    /// A directory of its own, for segments and indexes. May be emptied while the program does not run.
    pub cache_dir: PathBuf,
    /// Bytes of segments in memory.
    pub memory_limit: u64,
    /// Bytes of segments on disk.
    pub disk_limit: u64,
    /// Segments on disk are removed at this age.
    pub disk_age: Duration,
    /// Bytes of indexes on disk; they have no age.
    pub index_limit: u64,
    /// FFmpegs at a time.
    pub max_runs: usize,
    /// Requests for parts that wait at a time.
    pub max_waiting: usize,
    /// A run that is so far ahead of its viewer pauses.
    pub ahead: Duration,
    /// A run that nobody asks of ends after this.
    pub idle: Duration,
    /// A request is given up when nothing has come for the film in this time: the mount's read deadline.
    pub read_deadline: Duration,
}

impl StreamOptions {
    /// The defaults, with this directory.
    pub fn new(cache_dir: PathBuf) -> StreamOptions {
        StreamOptions {
            cache_dir,
            memory_limit: 64 << 20,
            disk_limit: 4 << 30,
            disk_age: Duration::from_secs(7 * 86_400),
            index_limit: 256 << 20,
            max_runs: 8,
            max_waiting: 1024,
            ahead: Duration::from_secs(30),
            idle: Duration::from_secs(60),
            read_deadline: Duration::from_secs(60),
        }
    }
}

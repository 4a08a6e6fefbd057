//! Segments that were made once: some in memory, more on disk, also after a restart.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use parking_lot::Mutex;

use super::policy::Part;
use super::shelf::{Bounds, Shelf};

/// What an entry in memory costs besides its bytes.
const ENTRY_COST: usize = 256;

/// The most bytes of one run's provisional subtitles, with the same cost for each.
const PROVISIONAL_LIMIT: usize = 8 << 20;

/// What a part is known by. Equal keys have equal bytes, whenever and by whomever they were made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key {
    /// The mark of its torrent, by which all that is kept of that is found.
    pub(super) torrent: [u8; 20],
    /// Of the torrent, the file, its index and the layout of segments.
    pub(super) film: [u8; 20],
    /// Which output of the plan.
    pub(super) track: usize,
    /// Which part of it.
    pub(super) part: Part,
}

impl fmt::Display for Key {
    /// As a file's name.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (torrent, film) = (hex::encode(self.torrent), hex::encode(self.film));
        write!(formatter, "{torrent}-{film}-{}-", self.track)?;
        match self.part {
            Part::Init => formatter.write_str("init"),
            Part::Segment(number) => number.fmt(formatter),
        }
    }
}

/// The cache. Its bounds are those of both halves; what is being written to disk at the moment comes on top.
#[derive(Debug)]
pub(super) struct Segments {
    memory: Cache<Key, Bytes>,
    /// Not yet on disk, so that nothing is missing between the two.
    pending: Mutex<HashMap<Key, Bytes>>,
    disk: Shelf,
}

impl Segments {
    /// Takes up what the directory holds.
    ///
    /// # Errors
    /// The directory cannot be made or listed.
    pub(super) fn open(dir: &Path, memory_limit: u64, disk: Bounds) -> io::Result<Segments> {
        let weigh = |_: &Key, bytes: &Bytes| u32::try_from(bytes.len() + ENTRY_COST).unwrap_or(u32::MAX);
        Ok(Segments {
            memory: Cache::builder()
                .max_capacity(memory_limit)
                .weigher(weigh)
                .eviction_policy(EvictionPolicy::lru())
                .build(),
            pending: Mutex::default(),
            disk: Shelf::open(dir, disk)?,
        })
    }

    /// If it is in memory. Never waits.
    pub(super) fn get_now(&self, key: Key) -> Option<Bytes> {
        self.memory.get(&key).or_else(|| self.pending.lock().get(&key).cloned())
    }

    /// If it is anywhere; waits for the disk.
    pub(super) async fn get(self: &Arc<Self>, key: Key) -> Option<Bytes> {
        if let Some(bytes) = self.get_now(key) {
            return Some(bytes);
        }
        let segments = self.clone();
        let read = move || {
            let bytes = segments.disk.get(&key.to_string())?;
            segments.remember(key, bytes.clone());
            Some(bytes)
        };
        // It fails only if the runtime ends.
        tokio::task::spawn_blocking(read).await.ok().flatten()
    }

    /// From the return on it can be got; the task ends when it is on disk, or cannot be put there: then it is only in
    /// memory. Whoever makes segments waits for the task, so that what is pending stays little. If its torrent `is_gone`
    /// when it is on disk, nothing is kept: that is asked then, so that it is not missed by a
    /// [`keep_only`](Segments::keep_only) of that moment.
    pub(super) fn put(
        self: &Arc<Self>,
        key: Key,
        bytes: Bytes,
        is_gone: impl FnOnce() -> bool + Send + 'static,
    ) -> tokio::task::JoinHandle<()> {
        self.remember(key, bytes.clone());
        self.pending.lock().insert(key, bytes.clone());
        let segments = self.clone();
        tokio::task::spawn_blocking(move || {
            let name = key.to_string();
            if !segments.disk.has(&name)
                && let Err(error) = segments.disk.put(&name, &bytes)
            {
                tracing::warn!(%error, "cannot keep a segment on disk");
            }
            segments.pending.lock().remove(&key);
            if is_gone() {
                segments.memory.invalidate(&key);
                segments.disk.discard(&name);
            }
        })
    }

    /// Gives up what is too old, and the segments of all torrents but those of these marks. Waits for the disk.
    pub(super) fn keep_only(&self, marks: &HashSet<String>) {
        for (key, _) in &self.memory {
            if !marks.contains(&hex::encode(key.torrent)) {
                self.memory.invalidate(&*key);
            }
        }
        self.disk.keep_only(marks);
    }

    fn remember(&self, key: Key, bytes: Bytes) {
        self.memory.insert(key, bytes);
        // At once, not some inserts later: a few segments may be the whole limit.
        self.memory.run_pending_tasks();
    }
}

/// Subtitles of one run that may not be kept, for those who ask while it lasts. If they become too much, the earliest
/// in the film go.
#[derive(Debug, Default)]
pub(super) struct Provisional {
    segments: BTreeMap<(u32, usize), Bytes>,
    bytes: usize,
}

impl Provisional {
    pub(super) fn get(&self, track: usize, number: u32) -> Option<Bytes> {
        self.segments.get(&(number, track)).cloned()
    }

    pub(super) fn put(&mut self, track: usize, number: u32, bytes: Bytes) {
        self.remove(track, number);
        self.bytes += bytes.len() + ENTRY_COST;
        self.segments.insert((number, track), bytes);
        while self.bytes > PROVISIONAL_LIMIT
            && let Some((_, gone)) = self.segments.pop_first()
        {
            self.bytes -= gone.len() + ENTRY_COST;
        }
    }

    /// The final one has been made.
    pub(super) fn remove(&mut self, track: usize, number: u32) {
        if let Some(gone) = self.segments.remove(&(number, track)) {
            self.bytes -= gone.len() + ENTRY_COST;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DISK: Bounds = Bounds {
        bytes: 1 << 20,
        age: None,
    };

    fn key(track: usize, number: u32) -> Key {
        Key {
            torrent: [1; 20],
            film: [7; 20],
            track,
            part: Part::Segment(number),
        }
    }

    #[tokio::test]
    async fn what_memory_cannot_hold_is_on_disk_also_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Arc::new(Segments::open(dir.path(), 25_000, DISK).unwrap());
        let segments = open();
        let made = |number: u32| Bytes::from(vec![u8::try_from(number).unwrap(); 10_000]);
        for number in 0..10 {
            let kept = segments.put(key(0, number), made(number), || false);
            assert_eq!(segments.get_now(key(0, number)), Some(made(number)));
            kept.await.unwrap();
        }
        assert!(segments.memory.weighted_size() <= 25_000);
        assert_eq!(segments.get_now(key(0, 0)), None);
        assert_eq!(segments.get(key(0, 0)).await, Some(made(0)));
        assert_eq!(segments.get_now(key(0, 0)), Some(made(0)));
        assert_eq!(segments.get(key(1, 0)).await, None);
        assert!(segments.pending.lock().is_empty());
        drop(segments);
        let segments = open();
        for number in 0..10 {
            assert_eq!(segments.get(key(0, number)).await, Some(made(number)));
        }
    }

    #[tokio::test]
    async fn a_segment_larger_than_memory_or_on_no_disk_is_still_had_while_it_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let none = Bounds { bytes: 0, age: None };
        let segments = Arc::new(Segments::open(dir.path(), 100, none).unwrap());
        let kept = segments.put(key(0, 1), Bytes::from_static(&[1; 1000]), || false);
        kept.await.unwrap();
        assert_eq!(segments.get(key(0, 1)).await, None);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn provisional_subtitles_are_bounded_and_the_earliest_go_first() {
        let mut provisional = Provisional::default();
        let large = || Bytes::from(vec![b'x'; PROVISIONAL_LIMIT / 2 - ENTRY_COST]);
        provisional.put(2, 7, large());
        provisional.put(1, 8, Bytes::from_static(b"old"));
        provisional.put(1, 8, large());
        assert!(provisional.get(2, 7).is_some() && provisional.get(1, 8) == Some(large()));
        provisional.put(0, 9, Bytes::from_static(b"new"));
        assert!(provisional.get(2, 7).is_none() && provisional.get(1, 8).is_some());
        provisional.remove(1, 8);
        provisional.remove(0, 9);
        assert_eq!((provisional.get(0, 9), provisional.bytes), (None, 0));
    }

    #[test]
    fn names_differ_where_keys_do() {
        let film = format!("{}-{}", "01".repeat(20), "07".repeat(20));
        assert_eq!(key(3, 12).to_string(), format!("{film}-3-12"));
        let init = Key {
            part: Part::Init,
            ..key(0, 0)
        };
        assert_eq!(init.to_string(), format!("{film}-0-init"));
    }
}

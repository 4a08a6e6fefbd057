//! Files on disk that may be lost but never be wrong: bounded in bytes and by age, the least recently used given up
//! first, found again after a restart.
//!
//! A file begins with a line that has the length and the hash of what follows, and comes into being by a rename. A file
//! that a crash tore is found out when it is read, removed, and missing from then on.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use sha1::{Digest, Sha1};

/// First bytes of every file; another layout gets another number, and what is found of this one is then removed.
const MAGIC: &[u8; 16] = b"magnetfs-shelf 1";

/// The magic, the payload's length, its hash.
const HEADER: usize = 16 + 8 + 20;

/// What a file costs besides its bytes: a block of the file system, an inode, its place in the index. So the number of
/// small files is bounded as well.
const FILE_COST: u64 = 4096;

/// No file of ours is larger: 60 s at 400 Mbit/s.
const FILE_LIMIT: u64 = 3 << 30;

/// The suffix of a file that is being written.
const HALF_WRITTEN: &str = ".new";

/// What a shelf holds at most.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Bytes of all files, each with [`FILE_COST`].
    pub(super) bytes: u64,
    /// Files older than this are removed, if there is a limit.
    pub(super) age: Option<Duration>,
}

/// A directory of such files. All calls may wait for the disk, and for nothing else.
pub(super) struct Shelf {
    dir: PathBuf,
    bounds: Bounds,
    files: Cache<String, Entry>,
    /// So that two that write the same file at once do not write into each other's.
    written: AtomicU64,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    length: u64,
    /// Until it is removed for its age.
    left: Option<Duration>,
}

#[derive(Debug)]
struct ByAge;

impl moka::Expiry<String, Entry> for ByAge {
    fn expire_after_create(&self, _: &String, entry: &Entry, _: Instant) -> Option<Duration> {
        entry.left
    }

    fn expire_after_update(&self, _: &String, entry: &Entry, _: Instant, _: Option<Duration>) -> Option<Duration> {
        entry.left
    }
}

impl Shelf {
    /// Opens the directory, makes it if there is none, and takes up what it holds. What is half written, too old, too
    /// short or without a name that is text is removed.
    ///
    /// # Errors
    /// The directory cannot be made or listed.
    pub(super) fn open(dir: &Path, bounds: Bounds) -> io::Result<Shelf> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let gone = Arc::<Path>::from(dir);
        let files = Cache::builder()
            .max_capacity(bounds.bytes.div_ceil(UNIT))
            .weigher(|_: &String, entry: &Entry| weight(entry.length))
            .eviction_policy(EvictionPolicy::lru())
            .expire_after(ByAge)
            .eviction_listener(move |name: Arc<String>, _, cause| {
                if cause != moka::notification::RemovalCause::Replaced {
                    remove(&gone.join(&*name));
                }
            })
            .build();
        for (name, length, age) in found(dir)? {
            let left = bounds.age.map(|limit| limit.saturating_sub(age));
            if left == Some(Duration::ZERO) {
                remove(&dir.join(&name));
            } else {
                files.insert(name, Entry { length, left });
            }
        }
        files.run_pending_tasks();
        Ok(Shelf {
            dir: dir.to_owned(),
            bounds,
            files,
            written: AtomicU64::new(0),
        })
    }

    /// Whether a file of this name is on the shelf; it may still turn out to be torn.
    pub(super) fn has(&self, name: &str) -> bool {
        self.files.contains_key(name)
    }

    /// What was put there under this name, if it is still there and whole.
    pub(super) fn get(&self, name: &str) -> Option<Bytes> {
        self.files.get(name)?;
        let path = self.dir.join(name);
        match read(&path) {
            Ok(bytes) => Some(bytes),
            Err(error) => {
                tracing::debug!(path = %path.display(), %error, "a file of the cache is not whole");
                self.discard(name);
                None
            }
        }
    }

    /// Removes what is too old, and all files but those whose names begin with one of these marks and a `-`.
    pub(super) fn keep_only(&self, marks: &HashSet<String>) {
        for (name, _) in &self.files {
            if name.split_once('-').is_none_or(|(mark, _)| !marks.contains(mark)) {
                self.files.invalidate(name.as_str());
            }
        }
        self.files.run_pending_tasks();
    }

    /// Removes a file, if it is there.
    pub(super) fn discard(&self, name: &str) {
        self.files.invalidate(name);
        self.files.run_pending_tasks();
    }

    /// Puts bytes there under this name, a plain file name. What stood there is replaced as a whole. What is larger
    /// than the whole shelf is not kept.
    ///
    /// # Errors
    /// The disk is full or fails; then nothing has changed.
    pub(super) fn put(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let cost = (bytes.len() + HEADER) as u64 + FILE_COST;
        if cost > self.bounds.bytes {
            return Ok(());
        }
        let number = self.written.fetch_add(1, Ordering::Relaxed);
        let new = self.dir.join(format!("{name}.{number}{HALF_WRITTEN}"));
        let written = write(&new, bytes).and_then(|()| fs::rename(&new, self.dir.join(name)));
        written.inspect_err(|_| remove(&new))?;
        let entry = Entry {
            length: (bytes.len() + HEADER) as u64,
            left: self.bounds.age,
        };
        self.files.insert(name.to_owned(), entry);
        self.files.run_pending_tasks();
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> u64 {
        self.files.run_pending_tasks();
        self.files.weighted_size() * UNIT
    }
}

impl std::fmt::Debug for Shelf {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Shelf")
            .field("dir", &self.dir)
            .finish_non_exhaustive()
    }
}

/// A weight is 32 bits wide: it counts in KiB.
const UNIT: u64 = 1024;

fn weight(length: u64) -> u32 {
    u32::try_from((length + FILE_COST).div_ceil(UNIT)).unwrap_or(u32::MAX)
}

/// Name, length and age of what the directory holds, the oldest first.
fn found(dir: &Path) -> io::Result<Vec<(String, u64, Duration)>> {
    let now = SystemTime::now();
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let Ok(metadata) = entry.metadata() else { continue };
        if !metadata.is_file() {
            continue;
        }
        let name = entry.file_name().into_string().ok();
        let name = name.filter(|name| !name.ends_with(HALF_WRITTEN) && metadata.len() >= HEADER as u64);
        match name {
            Some(name) => {
                let changed = metadata.modified().unwrap_or(now);
                let age = now.duration_since(changed).unwrap_or_default();
                found.push((name, metadata.len(), age));
            }
            None => remove(&entry.path()),
        }
    }
    found.sort_by_key(|(_, _, age)| std::cmp::Reverse(*age));
    Ok(found)
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    let mut header = Vec::with_capacity(HEADER);
    header.extend_from_slice(MAGIC);
    header.extend_from_slice(&(bytes.len() as u64).to_be_bytes());
    header.extend_from_slice(&Sha1::digest(bytes));
    file.write_all(&header)?;
    // Not synced: what a crash tears is found out by its hash.
    file.write_all(bytes)
}

fn read(path: &Path) -> io::Result<Bytes> {
    let torn = || io::Error::from(io::ErrorKind::InvalidData);
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let mut header = [0; HEADER];
    file.read_exact(&mut header)?;
    let (magic, rest) = header.split_at(MAGIC.len());
    let (claimed, hash) = rest.split_at(8);
    let claimed = claimed.try_into().map(u64::from_be_bytes).map_err(|_| torn())?;
    if magic != MAGIC || length > FILE_LIMIT || claimed != length - HEADER as u64 {
        return Err(torn());
    }
    let mut bytes = Vec::with_capacity(usize::try_from(claimed).map_err(|_| torn())?);
    file.take(claimed).read_to_end(&mut bytes)?;
    if Sha1::digest(&bytes)[..] != *hash {
        return Err(torn());
    }
    Ok(bytes.into())
}

fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), %error, "cannot remove a file of the cache");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIDE: Bounds = Bounds {
        bytes: 1 << 20,
        age: None,
    };

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_there_again_after_a_restart_and_half_a_file_never() {
        let dir = tempfile::tempdir().unwrap();
        let shelf = Shelf::open(dir.path(), WIDE).unwrap();
        shelf.put("a", b"one").unwrap();
        shelf.put("a", b"two").unwrap();
        shelf.put("b", b"").unwrap();
        assert_eq!(shelf.get("a").unwrap(), "two");
        drop(shelf);
        fs::write(dir.path().join("c.0.new"), b"half").unwrap();
        fs::write(dir.path().join("d"), b"short").unwrap();
        let shelf = Shelf::open(dir.path(), WIDE).unwrap();
        assert_eq!(names(dir.path()), ["a", "b"]);
        assert_eq!(shelf.get("a").unwrap(), "two");
        assert_eq!(shelf.get("b").unwrap(), "");
        assert_eq!(shelf.get("c"), None);
    }

    /// Every way in which a crash leaves a file whose blocks did not all reach the disk.
    #[test]
    fn a_torn_file_is_missing_and_then_gone() {
        let dir = tempfile::tempdir().unwrap();
        let shelf = Shelf::open(dir.path(), WIDE).unwrap();
        let payload: Vec<u8> = (0..=255).collect();
        let path = dir.path().join("a");
        shelf.put("a", &payload).unwrap();
        let whole = fs::read(&path).unwrap();
        let mut torn: Vec<Vec<u8>> = (0..whole.len()).map(|length| whole[..length].to_vec()).collect();
        torn.extend((0..whole.len()).map(|place| {
            let mut zeroed = whole.clone();
            zeroed[place] ^= 1;
            zeroed
        }));
        torn.push([&whole[..], b"x"].concat());
        for bytes in torn {
            fs::write(&path, &bytes).unwrap();
            for torn_before in [true, false] {
                let shelf = Shelf::open(dir.path(), WIDE).unwrap();
                shelf.put("a", &payload).unwrap();
                fs::write(&path, &bytes).unwrap();
                let shelf = if torn_before {
                    Shelf::open(dir.path(), WIDE).unwrap()
                } else {
                    shelf
                };
                assert_eq!(shelf.get("a"), None);
                assert_eq!(names(dir.path()), Vec::<String>::new());
                assert!(!shelf.has("a"));
            }
            let shelf = Shelf::open(dir.path(), WIDE).unwrap();
            shelf.put("a", &payload).unwrap();
            assert_eq!(shelf.get("a").unwrap(), payload);
        }
    }

    #[test]
    fn the_least_recently_used_goes_first_and_its_file_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let bounds = Bounds {
            bytes: 10 * (FILE_COST + 2 * UNIT),
            age: None,
        };
        let shelf = Shelf::open(dir.path(), bounds).unwrap();
        for number in 0..10 {
            shelf.put(&number.to_string(), &[0; 1500]).unwrap();
        }
        assert_eq!(names(dir.path()).len(), 10);
        shelf.get("0").unwrap();
        shelf.put("10", &[0; 1500]).unwrap();
        shelf.put("11", &[0; 1500]).unwrap();
        assert!(shelf.bytes() <= bounds.bytes);
        assert_eq!(names(dir.path()), ["0", "10", "11", "3", "4", "5", "6", "7", "8", "9"]);
        // A smaller shelf takes up only what it may.
        drop(shelf);
        let smaller = Bounds {
            bytes: bounds.bytes / 2,
            ..bounds
        };
        let shelf = Shelf::open(dir.path(), smaller).unwrap();
        assert!(shelf.bytes() <= smaller.bytes);
        assert_eq!(names(dir.path()).len(), 5);
    }

    #[test]
    fn what_is_too_old_is_not_taken_up() {
        let dir = tempfile::tempdir().unwrap();
        let shelf = Shelf::open(dir.path(), WIDE).unwrap();
        shelf.put("old", b"1").unwrap();
        shelf.put("new", b"2").unwrap();
        let file = File::options().write(true).open(dir.path().join("old")).unwrap();
        let day = Duration::from_secs(86_400);
        file.set_modified(SystemTime::now() - day).unwrap();
        let bounds = Bounds {
            age: Some(day / 2),
            ..WIDE
        };
        let shelf = Shelf::open(dir.path(), bounds).unwrap();
        assert_eq!(shelf.get("old"), None);
        assert_eq!(shelf.get("new").unwrap(), "2");
        assert_eq!(names(dir.path()), ["new"]);
    }

    #[test]
    fn what_grows_too_old_goes_without_a_write_and_what_is_nobodys_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let bounds = Bounds {
            age: Some(Duration::from_secs(2)),
            ..WIDE
        };
        let shelf = Shelf::open(dir.path(), bounds).unwrap();
        for name in ["one-1", "one-2", "two-1", "none"] {
            shelf.put(name, b"1").unwrap();
        }
        let marks = HashSet::from(["one".to_owned()]);
        shelf.keep_only(&marks);
        assert_eq!(names(dir.path()), ["one-1", "one-2"]);
        let began = Instant::now();
        while !names(dir.path()).is_empty() {
            assert!(began.elapsed() < Duration::from_secs(20));
            std::thread::sleep(Duration::from_millis(50));
            shelf.keep_only(&marks);
        }
    }
}

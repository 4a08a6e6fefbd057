//! A catalog whose files arrive when the test says so. Shared by the tests with and without a kernel.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use magnetfs_mount::{Catalog, Content, Entry, FileStatus, Group, Groups, Kind, ReadError, Space};
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

/// The time that every fake file shows: 2020-01-01.
pub(crate) const MODIFIED: Duration = Duration::from_secs(1_577_836_800);

/// The bytes that a file of this inode number has there.
pub(crate) fn fill(inode: u64, offset: u64, buffer: &mut [u8]) {
    for (at, byte) in (offset..).zip(buffer) {
        let word = (at / 8 + (inode << 40)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        *byte = (word ^ (word >> 29)).to_le_bytes()[(at % 8) as usize];
    }
}

pub(crate) fn bytes(inode: u64, offset: u64, length: usize) -> Vec<u8> {
    let mut buffer = vec![0; length];
    fill(inode, offset, &mut buffer);
    buffer
}

pub(crate) struct Fake {
    groups: watch::Sender<Groups>,
    files: RwLock<HashMap<u64, Arc<FakeFile>>>,
    pub(crate) space: Mutex<Space>,
}

pub(crate) struct FakeFile {
    pub(crate) inode: u64,
    pub(crate) size: u64,
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

#[derive(Default)]
struct State {
    here: Vec<Range<u64>>,
    /// Bytes that are here are answered from `read_now`.
    in_memory: bool,
    /// `read_at` gives a byte less than it should.
    short: bool,
    panics: bool,
    error: Option<ReadError>,
    progress: Option<Instant>,
    complete: bool,
    backing: Option<PathBuf>,
    asked: Vec<(u64, usize)>,
    openers: Vec<u32>,
    waiting: usize,
    attributes: Vec<(String, Vec<u8>)>,
}

impl Fake {
    pub(crate) fn new() -> Arc<Fake> {
        let groups = watch::Sender::new(Groups::from([]));
        Arc::new(Fake {
            groups,
            files: RwLock::default(),
            space: Mutex::default(),
        })
    }

    /// A file in the root, of which nothing is here.
    pub(crate) fn add(&self, name: &str, size: u64) -> Arc<FakeFile> {
        self.add_group(&[(name, Some(size))]).remove(0)
    }

    /// Folders (`None`) and files of a new group, with inode numbers never used before. Gives the files.
    pub(crate) fn add_group(&self, paths: &[(&str, Option<u64>)]) -> Vec<Arc<FakeFile>> {
        let mut files = self.files.write();
        let used: u64 = self
            .groups
            .borrow()
            .iter()
            .map(|group| group.entries.len() as u64)
            .sum();
        let first = files.keys().max().map_or(2, |last| last + 1).max(used + 2);
        let mut added = Vec::new();
        let entry = |(inode, (path, size)): (u64, &(&str, Option<u64>))| {
            if let Some(size) = *size {
                let (state, changed) = (Mutex::default(), watch::Sender::new(()));
                let file = Arc::new(FakeFile {
                    inode,
                    size,
                    state,
                    changed,
                });
                files.insert(inode, file.clone());
                added.push(file);
            }
            let kind = size.map_or(Kind::Folder, |size| Kind::File { size });
            Entry {
                inode,
                path: Path::new(path).into(),
                kind,
                modified: SystemTime::UNIX_EPOCH + MODIFIED,
            }
        };
        let group = Arc::new(Group {
            entries: (first..).zip(paths).map(entry).collect(),
        });
        drop(files);
        self.groups
            .send_modify(|groups| *groups = groups.iter().cloned().chain([group]).collect());
        added
    }

    /// Takes the group away whose first entry has this path. The numbers of its files stay known, as they would to an
    /// owner that is asked late.
    pub(crate) fn remove(&self, path: &str) {
        let stays = |group: &&Arc<Group>| {
            group
                .entries
                .first()
                .is_none_or(|first| *first.path != *Path::new(path))
        };
        self.groups
            .send_modify(|groups| *groups = groups.iter().filter(stays).cloned().collect());
    }

    fn file(&self, inode: u64) -> Option<Arc<FakeFile>> {
        self.files.read().get(&inode).cloned()
    }
}

impl FakeFile {
    fn change(&self, how: impl FnOnce(&mut State)) {
        how(&mut self.state.lock());
        self.changed.send_replace(());
    }

    pub(crate) fn deliver(&self, range: Range<u64>) {
        self.change(|state| {
            state.here.push(range);
            state.progress = Some(Instant::now());
        });
    }

    pub(crate) fn deliver_all(&self) {
        self.deliver(0..self.size);
    }

    /// All of it is here, and in memory.
    pub(crate) fn ready(self: Arc<Self>) -> Arc<Self> {
        self.change(|state| {
            state.here.push(0..self.size);
            state.in_memory = true;
        });
        self
    }

    /// Complete and verified, and stored in this file.
    pub(crate) fn backed_by(&self, path: &Path) {
        self.change(|state| {
            state.complete = true;
            state.backing = Some(path.to_path_buf());
        });
    }

    /// A block arrived that does not finish any read.
    pub(crate) fn progress(&self) {
        self.change(|state| state.progress = Some(Instant::now()));
    }

    pub(crate) fn fail(&self, error: Option<ReadError>) {
        self.change(|state| state.error = error);
    }

    pub(crate) fn answer_short(&self) {
        self.change(|state| state.short = true);
    }

    pub(crate) fn panic_when_read(&self) {
        self.change(|state| state.panics = true);
    }

    pub(crate) fn set_attributes(&self, attributes: &[(&str, &str)]) {
        let own = |(name, value): &(&str, &str)| (name.to_string(), value.as_bytes().to_vec());
        self.change(|state| state.attributes = attributes.iter().map(own).collect());
    }

    /// The reads that came so far, as offset and length.
    pub(crate) fn asked(&self) -> Vec<(u64, usize)> {
        self.state.lock().asked.clone()
    }

    /// The processes that opened it so far.
    pub(crate) fn openers(&self) -> Vec<u32> {
        self.state.lock().openers.clone()
    }

    /// How many demands are alive now.
    pub(crate) fn waiting(&self) -> usize {
        self.state.lock().waiting
    }
}

impl State {
    fn has(&self, offset: u64, length: usize) -> bool {
        let mut at = offset;
        while let Some(range) = self.here.iter().find(|range| range.contains(&at)) {
            at = range.end;
            if at >= offset + length as u64 {
                return true;
            }
        }
        false
    }
}

impl Catalog for Fake {
    type Content = FakeContent;

    fn groups(&self) -> watch::Receiver<Groups> {
        self.groups.subscribe()
    }

    fn open(&self, inode: u64, process: u32) -> Result<FakeContent, ReadError> {
        let file = self.file(inode).ok_or(ReadError::Removed)?;
        file.state.lock().openers.push(process);
        Ok(FakeContent(file))
    }

    fn status(&self, inode: u64) -> Option<FileStatus> {
        let file = self.file(inode)?;
        let state = file.state.lock();
        let bytes_here = state.here.iter().map(|range| range.end - range.start).sum();
        Some(FileStatus {
            bytes_here,
            complete: state.complete,
        })
    }

    fn backing(&self, inode: u64) -> Option<File> {
        File::open(self.file(inode)?.state.lock().backing.as_ref()?).ok()
    }

    fn attributes(&self, inode: u64) -> Vec<(String, Vec<u8>)> {
        self.file(inode)
            .map(|file| file.state.lock().attributes.clone())
            .unwrap_or_default()
    }

    fn space(&self) -> Space {
        *self.space.lock()
    }
}

/// One open handle of a fake file.
pub(crate) struct FakeContent(Arc<FakeFile>);

impl Content for FakeContent {
    fn read_now(&self, buffer: &mut [u8], offset: u64) -> Option<io::Result<()>> {
        let mut state = self.0.state.lock();
        if !state.in_memory || !state.has(offset, buffer.len()) {
            return None;
        }
        state.asked.push((offset, buffer.len()));
        fill(self.0.inode, offset, buffer);
        Some(Ok(()))
    }

    async fn read_at(self: Arc<Self>, offset: u64, length: usize) -> Result<Vec<u8>, ReadError> {
        let file = &self.0;
        let mut changed = file.changed.subscribe();
        let _waiting = Waits::new(file, offset, length);
        loop {
            {
                let state = file.state.lock();
                assert!(!state.panics, "a content that panics, as the test wants");
                if let Some(error) = &state.error {
                    return Err(error.clone());
                }
                if state.has(offset, length) {
                    return Ok(bytes(file.inode, offset, length - usize::from(state.short)));
                }
            }
            changed.changed().await.expect("the file lives as long as its content");
        }
    }

    fn progress(&self, _offset: u64, _length: usize) -> Option<Instant> {
        self.0.state.lock().progress
    }
}

/// Counts a demand for as long as it lives.
struct Waits(Arc<FakeFile>);

impl Waits {
    fn new(file: &Arc<FakeFile>, offset: u64, length: usize) -> Waits {
        let mut state = file.state.lock();
        state.asked.push((offset, length));
        state.waiting += 1;
        Waits(file.clone())
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.state.lock().waiting -= 1;
    }
}

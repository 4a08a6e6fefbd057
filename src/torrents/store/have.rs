//! A torrent's have-map on disk: which pieces are stored and, as of the last clean stop, which of them were compared
//! with their hashes and how each data file looked then.
//!
//! The file is allocated whole when it is made, so a full disk cannot keep a piece from being recorded. Little endian:
//!
//! | at | what |
//! |---|---|
//! | 0 | magic, version, number of pieces, number of files |
//! | 24 | the clean mark: SHA-1 of everything else in the file; zeros while the torrent is being written |
//! | 64 | have bits, then verified bits, each in the order of the wire |
//! | then | one [`Stamp`] a file |
//!
//! A bit is written without waiting for the disk, because after a stop that was not clean no bit is believed until
//! the piece is hashed. What must be durable is only that the mark is gone before anything changes. And because the
//! mark is a hash of the rest, a map that was written in part is never taken for a clean one, in whatever order the
//! disk wrote it.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use sha1::{Digest, Sha1};

use super::bits::Bits;

const MAGIC: &[u8; 8] = b"mfs-have";
const VERSION: u32 = 1;
const MARK: usize = 24;
const MARK_LENGTH: usize = 20;
const BITS: usize = 64;
const STAMP: usize = 40;

/// How a data file looked: whoever changed it since changed this too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Stamp {
    size: u64,
    modified: (i64, i64),
    /// A program may set the modification time back, but not this one.
    changed: (i64, i64),
}

impl Stamp {
    pub(super) fn of(file: &File) -> io::Result<Stamp> {
        let metadata = file.metadata()?;
        Ok(Stamp {
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }

    fn to_bytes(self) -> [u8; STAMP] {
        let mut bytes = [0; STAMP];
        let numbers = [
            self.size.to_le_bytes(),
            self.modified.0.to_le_bytes(),
            self.modified.1.to_le_bytes(),
            self.changed.0.to_le_bytes(),
            self.changed.1.to_le_bytes(),
        ];
        for (place, number) in bytes.chunks_exact_mut(8).zip(numbers) {
            place.copy_from_slice(&number);
        }
        bytes
    }
}

/// What a have-map is written to.
pub(super) trait Medium: Sized {
    fn open(path: &Path) -> io::Result<Self>;
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()>;
    fn sync(&self) -> io::Result<()>;
}

impl Medium for File {
    fn open(path: &Path) -> io::Result<File> {
        File::options().read(true).write(true).open(path)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        FileExt::write_all_at(self, bytes, offset)
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        FileExt::read_exact_at(self, bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}

/// Where things lie in the map of a torrent of so many pieces and files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) pieces: u32,
    pub(super) files: u32,
}

impl Shape {
    fn verified(self) -> usize {
        BITS + Bits::bytes_for(self.pieces)
    }

    fn stamps(self) -> usize {
        BITS + 2 * Bits::bytes_for(self.pieces)
    }

    fn stamp(self, file: u32) -> u64 {
        (self.stamps() + file as usize * STAMP) as u64
    }

    fn length(self) -> usize {
        self.stamps() + self.files as usize * STAMP
    }

    fn header(self) -> [u8; MARK] {
        let mut header = [0; MARK];
        header[..8].copy_from_slice(MAGIC);
        header[8..12].copy_from_slice(&VERSION.to_le_bytes());
        header[12..16].copy_from_slice(&self.pieces.to_le_bytes());
        header[16..20].copy_from_slice(&self.files.to_le_bytes());
        header
    }

    fn mark(self, map: &[u8]) -> [u8; MARK_LENGTH] {
        let mut hash = Sha1::new();
        hash.update(self.header());
        hash.update(&map[BITS..]);
        hash.finalize().into()
    }
}

/// What a map says at a start.
pub(super) struct Loaded {
    /// Pieces that are said to be stored.
    pub(super) have: Bits,
    /// Pieces whose hash was compared before the last clean stop; none after any other stop. It holds for a file only
    /// while its stamp is the recorded one.
    pub(super) verified: Bits,
    /// The file was there but made no sense, so all that it knew is lost.
    pub(super) broken: bool,
}

/// Makes a map that knows of no piece, durable when this returns.
pub(super) fn create(path: &Path, shape: Shape) -> io::Result<()> {
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)?;
    let mut map = vec![0; shape.length()];
    map[..MARK].copy_from_slice(&shape.header());
    let mark = shape.mark(&map);
    map[MARK..MARK + MARK_LENGTH].copy_from_slice(&mark);
    file.write_all_at(&map, 0)?;
    file.sync_all()
}

/// Reads the map, and makes it where there is none.
pub(super) fn load(path: &Path, shape: Shape) -> io::Result<Loaded> {
    let map = match std::fs::read(path) {
        Ok(map) => map,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error),
    };
    if map.len() != shape.length() || map[..MARK] != shape.header() {
        create(path, shape)?;
        let broken = map.iter().any(|byte| *byte != 0);
        return Ok(Loaded {
            have: Bits::new(shape.pieces),
            verified: Bits::new(shape.pieces),
            broken,
        });
    }
    Ok(interpret(&map, shape))
}

fn interpret(map: &[u8], shape: Shape) -> Loaded {
    let clean = map[MARK..MARK + MARK_LENGTH] == shape.mark(map);
    let have = Bits::from_bytes(&map[BITS..shape.verified()], shape.pieces);
    let verified = if clean {
        Bits::from_bytes(&map[shape.verified()..shape.stamps()], shape.pieces)
    } else {
        Bits::new(shape.pieces)
    };
    Loaded {
        have,
        verified,
        broken: false,
    }
}

/// The map of one torrent, for changing it. The file is open only while it is being changed, not while the torrent
/// rests: a library has thousands of them.
pub(super) struct HaveMap<M = File> {
    path: PathBuf,
    shape: Shape,
    /// `None` while the mark stands (or was never set) and nothing has changed since.
    medium: Mutex<Option<M>>,
}

impl<M: Medium> HaveMap<M> {
    pub(super) fn new(path: &Path, shape: Shape) -> HaveMap<M> {
        HaveMap {
            path: path.to_owned(),
            shape,
            medium: Mutex::new(None),
        }
    }

    /// To be called before any data changes: durably removes the mark. Free of cost but for the first time.
    pub(super) fn unmark(&self) -> io::Result<()> {
        self.change(|_| Ok(()))
    }

    /// Writes the byte of this piece's have bit; `durably` waits for the disk.
    pub(super) fn record(&self, have: &Bits, piece: u32, durably: bool) -> io::Result<()> {
        self.change(|medium| {
            // Looked up under the lock, so that of two writers of one byte the later writes both their bits.
            let (byte, value) = have.byte_of(piece);
            medium.write_at(&[value], (BITS + byte) as u64)?;
            if durably { medium.sync() } else { Ok(()) }
        })
    }

    /// Writes how a file looks.
    pub(super) fn stamp(&self, file: u32, stamp: Stamp) -> io::Result<()> {
        self.change(|medium| medium.write_at(&stamp.to_bytes(), self.shape.stamp(file)))
    }

    /// Whether `file` looks as it was recorded.
    pub(super) fn is_stamped(&self, file: u32, stamp: Stamp) -> io::Result<bool> {
        let mut recorded = [0; STAMP];
        let offset = self.shape.stamp(file);
        match &*self.medium.lock() {
            Some(medium) => medium.read_at(&mut recorded, offset)?,
            None => M::open(&self.path)?.read_at(&mut recorded, offset)?,
        }
        Ok(recorded == stamp.to_bytes())
    }

    fn change(&self, change: impl FnOnce(&M) -> io::Result<()>) -> io::Result<()> {
        let mut slot = self.medium.lock();
        if let Some(medium) = &*slot {
            return change(medium);
        }
        let medium = M::open(&self.path)?;
        medium.write_at(&[0; MARK_LENGTH], MARK as u64)?;
        medium.sync()?;
        change(slot.insert(medium))
    }

    /// Writes everything and the mark, durable on return: from now on a start believes `verified`. The caller sees to
    /// it that the data is on disk and that nothing changes meanwhile. Does nothing where nothing was changed.
    pub(super) fn mark(&self, have: &Bits, verified: &Bits) -> io::Result<()> {
        let mut slot = self.medium.lock();
        let Some(medium) = slot.as_ref() else {
            return Ok(());
        };
        let shape = self.shape;
        let mut map = vec![0; shape.length()];
        medium.read_at(&mut map, 0)?;
        map[..MARK].copy_from_slice(&shape.header());
        map[BITS..shape.verified()].copy_from_slice(&have.bytes());
        map[shape.verified()..shape.stamps()].copy_from_slice(&verified.bytes());
        medium.write_at(&map[BITS..shape.stamps()], BITS as u64)?;
        medium.write_at(&shape.mark(&map), MARK as u64)?;
        medium.sync()?;
        *slot = None;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::rc::Rc;

    use super::*;

    const SHAPE: Shape = Shape { pieces: 21, files: 3 };

    /// A disk that loses power after so many steps. What was written since the last sync may be there or not.
    struct Failing {
        durable: RefCell<Vec<u8>>,
        pending: RefCell<Vec<(u64, Vec<u8>)>>,
        steps_left: Cell<usize>,
    }

    impl Failing {
        fn step(&self) -> io::Result<()> {
            let left = self
                .steps_left
                .get()
                .checked_sub(1)
                .ok_or_else(|| io::Error::other("power lost"))?;
            self.steps_left.set(left);
            Ok(())
        }

        /// Every state the disk may be in: any subset of the pending writes, each whole or torn in the middle.
        fn states(&self) -> Vec<Vec<u8>> {
            let pending = self.pending.borrow();
            let mut states = vec![self.durable.borrow().clone()];
            for (offset, bytes) in pending.iter() {
                for state in states.clone() {
                    for length in [bytes.len() / 2, bytes.len()] {
                        let mut state = state.clone();
                        state[*offset as usize..][..length].copy_from_slice(&bytes[..length]);
                        states.push(state);
                    }
                }
            }
            states
        }
    }

    thread_local! {
        static DISK: RefCell<Option<Rc<Failing>>> = const { RefCell::new(None) };
    }

    impl Medium for Rc<Failing> {
        fn open(_: &Path) -> io::Result<Rc<Failing>> {
            DISK.with_borrow(|disk| disk.clone())
                .ok_or_else(|| io::ErrorKind::NotFound.into())
        }

        fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
            self.step()?;
            self.pending.borrow_mut().push((offset, bytes.to_owned()));
            Ok(())
        }

        fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
            let mut all = self.durable.borrow().clone();
            for (offset, bytes) in self.pending.borrow().iter() {
                all[*offset as usize..][..bytes.len()].copy_from_slice(bytes);
            }
            bytes.copy_from_slice(&all[offset as usize..][..bytes.len()]);
            Ok(())
        }

        fn sync(&self) -> io::Result<()> {
            self.step()?;
            for (offset, bytes) in self.pending.borrow_mut().drain(..) {
                self.durable.borrow_mut()[offset as usize..][..bytes.len()].copy_from_slice(&bytes);
            }
            Ok(())
        }
    }

    fn fresh() -> Vec<u8> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("have");
        create(&path, SHAPE).unwrap();
        std::fs::read(&path).unwrap()
    }

    /// The whole life of a map: a clean start, changes, a clean stop. `changed` is told when data may change.
    fn live(changed: &Cell<bool>) -> io::Result<()> {
        let map = HaveMap::<Rc<Failing>>::new(Path::new(""), SHAPE);
        let (have, verified) = (Bits::new(SHAPE.pieces), Bits::new(SHAPE.pieces));
        have.set(1);
        verified.set(1);
        map.unmark()?;
        changed.set(true);
        for piece in [0, 3, 20] {
            have.set(piece);
            verified.set(piece);
            map.record(&have, piece, false)?;
        }
        have.clear(1);
        verified.clear(1);
        map.record(&have, 1, true)?;
        map.stamp(
            2,
            Stamp {
                size: 77,
                ..Stamp::default()
            },
        )?;
        map.mark(&have, &verified)
    }

    #[test]
    fn power_lost_at_any_step_never_makes_a_lie_believed() {
        let mut before = fresh();
        before[BITS] = 0b0100_0000;
        before[SHAPE.verified()] = 0b0100_0000;
        let mark = SHAPE.mark(&before);
        before[MARK..MARK + MARK_LENGTH].copy_from_slice(&mark);

        let mut ended = false;
        let mut dirty_states = 0;
        for steps in 0.. {
            let disk = Rc::new(Failing {
                durable: RefCell::new(before.clone()),
                pending: RefCell::default(),
                steps_left: Cell::new(steps),
            });
            DISK.set(Some(disk.clone()));
            let changed = Cell::new(false);
            let result = live(&changed);
            for state in disk.states() {
                let loaded = interpret(&state, SHAPE);
                match loaded.verified.bytes()[..] {
                    [0, 0, 0] => dirty_states += 1,
                    // As before: only while no data can have changed.
                    [0b0100_0000, 0, 0] => assert!(!changed.get(), "step {steps}"),
                    // As after: only when everything, stamps too, is as it was at the stop.
                    [0b1001_0000, 0, 0b0000_1000] => {
                        assert_eq!(loaded.have.bytes(), loaded.verified.bytes());
                        assert_eq!(state[SHAPE.stamp(2) as usize], 77);
                    }
                    ref other => panic!("step {steps}: {other:?} is believed"),
                }
            }
            if result.is_ok() {
                ended = true;
                assert_eq!(
                    interpret(&disk.durable.borrow(), SHAPE).verified.bytes(),
                    [0b1001_0000, 0, 0b0000_1000]
                );
                break;
            }
        }
        assert!(ended && dirty_states > 10);
    }

    #[test]
    fn a_map_that_makes_no_sense_is_made_anew_and_said_to_be_broken() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("have");
        for (content, broken) in [(None, false), (Some(vec![]), false), (Some(vec![0; 5000]), false)] {
            std::fs::remove_file(&path).ok();
            if let Some(content) = content {
                std::fs::write(&path, content).unwrap();
            }
            assert_eq!(load(&path, SHAPE).unwrap().broken, broken);
            assert_eq!(std::fs::read(&path).unwrap(), fresh());
        }
        std::fs::write(&path, b"something else").unwrap();
        assert!(load(&path, SHAPE).unwrap().broken);
        assert!(
            load(&path, Shape { pieces: 22, files: 3 }).unwrap().broken,
            "of another torrent"
        );
    }

    #[test]
    fn a_file_that_was_changed_and_set_back_in_time_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("have");
        create(&path, SHAPE).unwrap();
        let data = directory.path().join("data");
        std::fs::write(&data, b"abc").unwrap();
        let map = HaveMap::<File>::new(&path, SHAPE);
        let file = File::options().write(true).open(&data).unwrap();
        let stamp = Stamp::of(&file).unwrap();
        assert!(!map.is_stamped(1, stamp).unwrap());
        map.unmark().unwrap();
        map.stamp(1, stamp).unwrap();
        assert!(map.is_stamped(1, stamp).unwrap());
        let (have, verified) = (Bits::new(21), Bits::new(21));
        map.mark(&have, &verified).unwrap();
        assert!(map.is_stamped(1, Stamp::of(&file).unwrap()).unwrap());

        let modified = file.metadata().unwrap().modified().unwrap();
        // The clock of the file system ticks every few milliseconds: write until it has.
        while Stamp::of(&file).unwrap().changed == stamp.changed {
            file.write_all_at(b"x", 1).unwrap();
        }
        file.set_modified(modified).unwrap();
        assert_eq!(Stamp::of(&file).unwrap().modified, stamp.modified);
        assert!(!map.is_stamped(1, Stamp::of(&file).unwrap()).unwrap());
    }
}

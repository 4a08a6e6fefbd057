//! The filesystem without a kernel, against the bytes that the files should have: whatever arrives, fails, is closed or
//! removed in whatever order, every read is answered once, with exactly its bytes or with an error.

use std::fs::File;
use std::io;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use proptest::prelude::*;
use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::catalog::ReadError;
use crate::deadline::Limits;
use crate::fake::{Fake, FakeFile, bytes};
use crate::files::OpenAnswer;
use crate::filesystem::{Filesystem, Owner};
use crate::reads::Reads;

const ANSWER_LIMIT: Duration = Duration::from_secs(5);

type Answer = Result<Vec<u8>, Errno>;

/// A filesystem whose watcher runs; ended when dropped.
struct Served {
    fake: Arc<Fake>,
    filesystem: Arc<Filesystem<Fake, u32>>,
    reads: Arc<Reads>,
    /// Only kept.
    _runtime: tokio::runtime::Runtime,
}

impl Served {
    fn new(deadline: Duration) -> Served {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let (fake, reads) = (Fake::new(), Arc::new(Reads::default()));
        let owner = Owner {
            uid: 0,
            gid: 0,
            umask: 0,
        };
        let limits = Limits::new(deadline, 10 * deadline);
        let passthrough = Arc::new(AtomicBool::new(true));
        let filesystem = Filesystem::new(
            fake.clone(),
            owner,
            limits,
            runtime.handle().clone(),
            reads.clone(),
            passthrough,
        );
        let watched = reads.clone();
        std::thread::spawn(move || watched.watch(Duration::from_millis(5)));
        Served {
            fake,
            filesystem: Arc::new(filesystem),
            reads,
            _runtime: runtime,
        }
    }

    fn open(&self, inode: u64) -> Result<u64, Errno> {
        let (answer, answered) = mpsc::channel();
        self.filesystem.open(inode, OFlags::RDONLY, 0, Open(answer));
        answered
            .recv_timeout(ANSWER_LIMIT)
            .expect("an open is answered")
            .map(|(handle, _)| handle)
    }

    fn read(&self, handle: u64, offset: u64, length: u32, thread: u32) -> mpsc::Receiver<Answer> {
        let (answer, answered) = mpsc::channel();
        self.filesystem.read(handle, offset, length, thread, move |result| {
            // Nobody listens any more where the test does not care.
            let _ = answer.send(result.map(<[u8]>::to_vec));
        });
        answered
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.reads.finish();
    }
}

/// An open(2) whose kernel takes files over, under number 7.
struct Open(mpsc::Sender<Result<(u64, Option<u32>), Errno>>);

impl OpenAnswer<u32> for Open {
    fn register(&self, _file: &File) -> io::Result<u32> {
        Ok(7)
    }

    fn opened(self, handle: u64, backing: Option<&u32>) {
        self.0.send(Ok((handle, backing.copied()))).expect("the test waits");
    }

    fn refused(self, errno: Errno) {
        self.0.send(Err(errno)).expect("the test waits");
    }
}

/// Something that happens. Numbers pick among what there is.
#[derive(Debug, Clone)]
enum Event {
    Open {
        file: usize,
    },
    Read {
        handle: usize,
        offset: u64,
        length: u32,
        own_thread: bool,
    },
    Deliver {
        file: usize,
        start: u64,
        length: u64,
    },
    Fail {
        file: usize,
    },
    Mend {
        file: usize,
    },
    Flush {
        handle: usize,
    },
    Release {
        handle: usize,
    },
    Remove {
        file: usize,
    },
}

const FILES: usize = 3;
const SIZE: u64 = 10_000;

fn event() -> impl Strategy<Value = Event> {
    let file = 0..FILES;
    prop_oneof![
        2 => file.clone().prop_map(|file| Event::Open { file }),
        8 => (0..8_usize, 0..SIZE + 100, 0..6000_u32, any::<bool>()).prop_map(|(handle, offset, length, own_thread)| {
            Event::Read { handle, offset, length, own_thread }
        }),
        6 => (file.clone(), 0..SIZE, 1..4000_u64)
            .prop_map(|(file, start, length)| Event::Deliver { file, start, length }),
        1 => file.clone().prop_map(|file| Event::Fail { file }),
        1 => file.clone().prop_map(|file| Event::Mend { file }),
        2 => (0..8_usize).prop_map(|handle| Event::Flush { handle }),
        1 => (0..8_usize).prop_map(|handle| Event::Release { handle }),
        1 => file.prop_map(|file| Event::Remove { file }),
    ]
}

fn name(file: usize) -> String {
    format!("file {file}")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn every_read_is_answered_once_with_its_bytes_or_an_error(
        events in prop::collection::vec(event(), 1..60),
        in_memory in any::<bool>(),
        stop in any::<bool>(),
    ) {
        let served = Served::new(Duration::from_secs(60));
        let files: Vec<Arc<FakeFile>> = (0..FILES).map(|file| served.fake.add(&name(file), SIZE)).collect();
        if in_memory {
            files[0].clone().ready();
        }
        let mut removed = [false; FILES];
        let mut handles: Vec<(u64, usize)> = Vec::new();
        let mut asked = Vec::new();
        for event in events {
            match event {
                Event::Open { file } => match served.open(files[file].inode) {
                    Ok(handle) => handles.push((handle, file)),
                    Err(errno) => prop_assert!(removed[file] && errno == Errno::STALE),
                },
                Event::Read { handle, offset, length, own_thread } => {
                    let thread = if own_thread { std::process::id() } else { 0 };
                    let Some(&(handle, file)) = handles.get(handle) else { continue };
                    asked.push((file, offset, length, served.read(handle, offset, length, thread)));
                }
                Event::Deliver { file, start, length } => files[file].deliver(start..(start + length).min(SIZE)),
                Event::Fail { file } => files[file].fail(Some(ReadError::NoSpace)),
                Event::Mend { file } => files[file].fail(None),
                Event::Flush { handle } => {
                    if let Some((handle, _)) = handles.get(handle) {
                        served.filesystem.flush(*handle, std::process::id());
                    }
                }
                Event::Release { handle } if handle < handles.len() => {
                    served.filesystem.release(handles.remove(handle).0);
                }
                Event::Release { .. } => {}
                Event::Remove { file } => {
                    removed[file] = true;
                    served.fake.remove(&name(file));
                    prop_assert_eq!(served.filesystem.attributes(files[file].inode), Err(Errno::STALE));
                }
            }
        }
        if stop {
            served.reads.stop();
        } else {
            for file in &files {
                file.fail(None);
                file.deliver_all();
            }
        }
        for (file, offset, length, answered) in asked {
            let answer = answered.recv_timeout(ANSWER_LIMIT).expect("every read is answered");
            let there = u64::from(length).min(SIZE.saturating_sub(offset)) as usize;
            match answer {
                Ok(answer) => prop_assert!(answer == bytes(files[file].inode, offset, there), "wrong bytes"),
                Err(errno) => prop_assert!(matches!(errno, Errno::IO | Errno::STALE), "{}", errno),
            }
            // The sending half went with the answer, so this waits for nothing.
            prop_assert!(answered.recv_timeout(ANSWER_LIMIT).is_err(), "and only once");
        }
        prop_assert_eq!(served.reads.waiting(), 0);
        prop_assert!(files.iter().all(|file| file.waiting() == 0), "no demand is left");
    }
}

#[test]
fn reads_over_the_end_are_cut_and_unknown_handles_are_refused() {
    let served = Served::new(Duration::from_secs(60));
    let film = served.fake.add("film", 100).ready();
    let handle = served.open(film.inode).unwrap();
    let read = |handle, offset, length| {
        served
            .read(handle, offset, length, 0)
            .recv_timeout(ANSWER_LIMIT)
            .unwrap()
    };
    assert_eq!(read(handle, 90, 4096), Ok(bytes(film.inode, 90, 10)));
    assert_eq!(read(handle, 100, 4096), Ok(vec![]));
    assert_eq!(read(handle, u64::MAX, 4096), Ok(vec![]));
    assert_eq!(read(handle + 1, 0, 10), Err(Errno::BADF));
    assert_eq!(served.open(1), Err(Errno::STALE));
}

#[test]
fn opens_that_cannot_be_are_refused_by_their_flags() {
    let served = Served::new(Duration::from_secs(60));
    let film = served.fake.add("film", 100);
    let refusal = |flags| {
        let (answer, answered) = mpsc::channel();
        served.filesystem.open(film.inode, flags, 0, Open(answer));
        answered.recv_timeout(ANSWER_LIMIT).unwrap().err()
    };
    assert_eq!(refusal(OFlags::WRONLY), Some(Errno::ROFS));
    assert_eq!(refusal(OFlags::RDWR), Some(Errno::ROFS));
    assert_eq!(refusal(OFlags::RDONLY | OFlags::TRUNC), Some(Errno::ROFS));
    assert_eq!(refusal(OFlags::RDONLY | OFlags::DIRECT), Some(Errno::INVAL));
    assert_eq!(refusal(OFlags::RDONLY | OFlags::APPEND | OFlags::NONBLOCK), None);
}

#[test]
fn reads_over_the_limit_are_refused_at_once() {
    let served = Served::new(Duration::from_secs(60));
    let film = served.fake.add("film", 1 << 40);
    let handle = served.open(film.inode).unwrap();
    let waiting: Vec<_> = (0..crate::reads::WAITING_LIMIT as u64)
        .map(|at| served.read(handle, at * 4096, 4096, 0))
        .collect();
    let over = served.read(handle, 1 << 39, 4096, 0);
    assert_eq!(over.recv_timeout(ANSWER_LIMIT).unwrap(), Err(Errno::NFILE));
    served.reads.stop();
    for answered in waiting {
        assert_eq!(answered.recv_timeout(ANSWER_LIMIT).unwrap(), Err(Errno::IO));
    }
}

#[test]
fn a_read_whose_task_panics_is_not_left_in_the_books() {
    let served = Served::new(Duration::from_secs(60));
    let film = served.fake.add("film", 4096);
    let handle = served.open(film.inode).unwrap();
    let waiting = served.read(handle, 0, 4096, 0);
    assert_eq!(served.reads.waiting(), 1);
    film.panic_when_read();
    assert!(
        waiting.recv_timeout(ANSWER_LIMIT).is_err(),
        "the answer was dropped, which fuser makes an EIO"
    );
    assert_eq!(served.reads.waiting(), 0);
}

#[test]
fn a_shown_file_is_handed_over_only_while_it_is_complete_and_whole() {
    let served = Served::new(Duration::from_secs(60));
    let film = served.fake.add("film", 5);
    let stored = tempfile::NamedTempFile::new().unwrap();
    let backing = || {
        let (answer, answered) = mpsc::channel();
        served.filesystem.open(film.inode, OFlags::RDONLY, 0, Open(answer));
        let (handle, backing) = answered.recv_timeout(ANSWER_LIMIT).unwrap().unwrap();
        served.filesystem.release(handle);
        backing
    };
    assert_eq!(backing(), None, "nothing is here");
    film.backed_by(stored.path());
    assert_eq!(backing(), None, "it is shorter than the file");
    std::fs::write(stored.path(), "12345").unwrap();
    assert_eq!(backing(), Some(7));
    served.filesystem.set_passthrough(false);
    assert_eq!(backing(), None, "the kernel does not offer it");
}

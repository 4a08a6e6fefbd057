//! One daemon to a data directory.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tracing::warn;

use super::{LOCK, ShelfError};

/// Who has a data directory, for the one who wants it too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Its process.
    pub pid: u32,
    /// Where it is mounted.
    pub mountpoint: PathBuf,
    /// Its control socket.
    pub socket: PathBuf,
}

impl Holder {
    /// What the last daemon of a data directory said of itself. It may have ended since: only its socket tells.
    pub fn of(data_dir: &Path) -> Option<Holder> {
        let file = File::open(data_dir.join(LOCK)).ok()?;
        let mut json = Vec::new();
        file.take(HOLDER_LIMIT).read_to_end(&mut json).ok()?;
        serde_json::from_slice(&json).ok()
    }
}

/// Between taking the lock and saying so, a daemon needs no longer.
const INTRODUCTION_LIMIT: Duration = Duration::from_millis(500);
/// More is not read of what a holder says.
const HOLDER_LIMIT: u64 = 64 << 10;

/// Takes the data directory for as long as the file stays open, also in a process that is killed.
pub(super) fn lock(data_dir: &Path, path: &Path, holder: &Holder) -> Result<File, ShelfError> {
    let error = |action| move |source| ShelfError::new(data_dir, action, path, source);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(error("open"))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let holder = introduction(&mut file);
            return Err(ShelfError::Held {
                data_dir: data_dir.to_owned(),
                holder,
            });
        }
        Err(TryLockError::Error(source)) => return Err(error("lock")(source)),
    }
    if let Err(error) = introduce(&mut file, holder) {
        // On a full disk the library is still of use, and this is for a message only.
        warn!(%error, path = %path.display(), "cannot say who holds the data directory");
    }
    Ok(file)
}

fn introduce(file: &mut File, holder: &Holder) -> io::Result<()> {
    let json = serde_json::to_vec(holder)?;
    file.set_len(0)?;
    file.rewind()?;
    file.write_all(&json)
}

/// What the holder says of itself; it may be about to say it.
fn introduction(file: &mut File) -> Option<Holder> {
    let deadline = Instant::now() + INTRODUCTION_LIMIT;
    loop {
        let mut json = Vec::new();
        let read = file
            .rewind()
            .and_then(|()| file.take(HOLDER_LIMIT).read_to_end(&mut json));
        match read.ok().and_then(|_| serde_json::from_slice(&json).ok()) {
            Some(holder) => return Some(holder),
            None if Instant::now() >= deadline => return None,
            None => thread::sleep(Duration::from_millis(10)),
        }
    }
}

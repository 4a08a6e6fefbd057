//! A disk that fills up, or loses power, at any chosen step.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use rustix::io::Errno;

/// What is to go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Fault {
    #[default]
    None,
    /// This step, counted from 0, finds the disk full; those after it do not.
    Full(usize),
    /// Nothing from this step on happens any more.
    Crash(usize),
}

#[derive(Debug, Default)]
pub(super) struct Faults(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    fault: Fault,
    steps: usize,
    /// Changes of names that a power cut would undo, oldest first.
    loose: Vec<Loose>,
}

#[derive(Debug)]
enum Loose {
    Created(PathBuf),
    Renamed {
        from: PathBuf,
        to: PathBuf,
        replaced: Option<Vec<u8>>,
        from_synced: bool,
        to_synced: bool,
    },
}

impl Faults {
    pub(super) fn set(&self, fault: Fault) {
        *self.0.lock() = State {
            fault,
            ..State::default()
        };
    }

    /// Whether the step that was to fail was reached.
    pub(super) fn happened(&self) -> bool {
        let state = self.0.lock();
        matches!(state.fault, Fault::Full(at) | Fault::Crash(at) if state.steps > at)
    }

    pub(super) fn step(&self) -> io::Result<()> {
        let mut state = self.0.lock();
        let step = state.steps;
        state.steps += 1;
        match state.fault {
            Fault::Full(at) if step == at => Err(Errno::NOSPC.into()),
            Fault::Crash(at) if step >= at => Err(Errno::NOSPC.into()),
            _ => Ok(()),
        }
    }

    pub(super) fn created(&self, path: &Path) {
        if !path.exists() {
            self.0.lock().loose.push(Loose::Created(path.to_owned()));
        }
    }

    pub(super) fn renamed(&self, from: &Path, to: &Path) {
        let mut state = self.0.lock();
        // The names in a folder must be durable before it takes its place.
        let coming = from
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with(super::COMING));
        let inside = |path: &Path| path != from && path.starts_with(from);
        let names_inside = state.loose.iter().any(|loose| match loose {
            Loose::Created(path) => inside(path),
            Loose::Renamed { to, .. } => inside(to),
        });
        assert!(!(coming && names_inside), "{from:?} is renamed before it is synced");
        let replaced = fs::read(to).ok();
        let (from, to) = (from.to_owned(), to.to_owned());
        state.loose.push(Loose::Renamed {
            from,
            to,
            replaced,
            from_synced: false,
            to_synced: false,
        });
    }

    pub(super) fn synced(&self, dir: &Path) {
        let in_dir = |path: &Path| path.parent() == Some(dir);
        self.0.lock().loose.retain_mut(|loose| match loose {
            Loose::Created(path) => !in_dir(path),
            Loose::Renamed {
                from,
                to,
                from_synced,
                to_synced,
                ..
            } => {
                *from_synced |= in_dir(from);
                *to_synced |= in_dir(to);
                !(*from_synced && *to_synced)
            }
        });
    }

    /// Undoes what was never made durable, as a power cut may.
    pub(super) fn cut_power(&self) {
        for loose in self.0.lock().loose.drain(..).rev() {
            match loose {
                Loose::Created(path) if path.is_dir() => fs::remove_dir_all(path).unwrap(),
                Loose::Created(path) => drop(fs::remove_file(path)),
                Loose::Renamed { from, to, replaced, .. } => {
                    // A rename that failed, or whose result was removed since, has nothing to undo.
                    if to.exists() && !from.exists() {
                        fs::rename(&to, &from).unwrap();
                        replaced.into_iter().for_each(|old| fs::write(&to, old).unwrap());
                    }
                }
            }
        }
    }
}

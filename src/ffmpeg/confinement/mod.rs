//! What FFmpeg may still do while it parses a stranger's file.
//!
//! The daemon starts its own program as `magnetfs confine …`, which gives up what FFmpeg does not need and then becomes
//! FFmpeg, under the same process number. So none of our code runs between `fork` and `exec` in a process of many
//! threads, and what is given up is given up by one that has a single thread.
//!
//! In order: it dies with its parent; its memory, files and core dumps are limited, and it can write to no file; no
//! capability is left but to read; nothing that it starts can gain any; it opens its libraries and the one input
//! ([`files`], Landlock); of the system's calls it has those for reading, writing to its pipes and making threads
//! ([`calls`], seccomp). What a kernel lacks of the last two is left out, and [`offered`] says so.

mod calls;
mod files;

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use rustix::process::{Pid, Resource, Rlimit, Signal};
use rustix::thread::{CapabilitySet, CapabilitySets};

/// Beside what it allocates, a program maps its libraries: those of FFmpeg are some 300 MB of addresses.
const LIBRARIES: u64 = 2 << 30;

/// The cryptography among those libraries complains on stderr if it cannot lock 32 KiB.
const LOCKED: u64 = 64 << 10;

/// What a confined program is held to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// The process that started it, and that it must not outlive.
    pub parent: u32,
    /// The one file that it may read, beside itself and its libraries.
    pub input: PathBuf,
    /// Bytes of memory.
    pub memory: u64,
    /// Open files.
    pub files: u64,
}

impl Rules {
    /// The rules as the command line of our own program; the program to become and its arguments follow behind `--`.
    pub fn arguments(&self) -> Vec<OsString> {
        let mut input = OsString::from("--input=");
        input.push(&self.input);
        vec![
            "confine".into(),
            format!("--parent={}", self.parent).into(),
            format!("--memory={}", self.memory).into(),
            format!("--files={}", self.files).into(),
            input,
        ]
    }
}

/// Gives up what the rules do not allow, and becomes the program. It returns only if that failed, and why. The process
/// must have no other thread, since they would not be confined.
pub fn confine(rules: &Rules, program: &OsStr, arguments: &[OsString]) -> io::Error {
    match give_up(rules, program) {
        Ok(()) => Command::new(program).args(arguments).exec(),
        Err(error) => error,
    }
}

fn give_up(rules: &Rules, program: &OsStr) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    // It may have died before that was said; then nobody would ever tell.
    if rustix::process::getppid().map(Pid::as_raw_pid) != i32::try_from(rules.parent).ok() {
        return Err(io::Error::other("the process that wanted this has ended"));
    }
    // Whatever uses up the memory of the machine, this goes first. Not every system has it.
    let _ = std::fs::write("/proc/self/oom_score_adj", "500");
    limit(Resource::Data, rules.memory)?;
    limit(Resource::As, rules.memory.saturating_add(LIBRARIES))?;
    limit(Resource::Nofile, rules.files)?;
    limit(Resource::Core, 0)?;
    limit(Resource::Fsize, 0)?;
    limit(Resource::Memlock, LOCKED)?;
    drop_capabilities()?;
    rustix::thread::set_no_new_privs(true)?;
    files::confine(Some(&rules.input), program).map_err(io::Error::other)?;
    // A kernel without it is told of by `offered`; the other guards hold.
    let _ = calls::confine();
    Ok(())
}

/// Lowers a limit for good; one that is lower already stays.
fn limit(resource: Resource, most: u64) -> io::Result<()> {
    let before = rustix::process::getrlimit(resource).maximum;
    let most = Some(before.map_or(most, |before| before.min(most)));
    let lowered = Rlimit {
        current: most,
        maximum: most,
    };
    Ok(rustix::process::setrlimit(resource, lowered)?)
}

/// Root keeps the right to read what is not its own: the mount may show its files as another user's.
fn drop_capabilities() -> io::Result<()> {
    let had = rustix::thread::capabilities(None)?;
    let kept = had.permitted & CapabilitySet::DAC_READ_SEARCH;
    let sets = CapabilitySets {
        effective: kept,
        permitted: kept,
        inheritable: CapabilitySet::empty(),
    };
    Ok(rustix::thread::set_capabilities(None, sets)?)
}

/// How much of a guard this kernel offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Guard {
    /// All that is asked of it, in words.
    Whole(String),
    /// The most of it; what is missing is said.
    Part(String),
    /// Nothing, and why.
    Missing(String),
}

/// What this kernel offers to keep FFmpeg in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offered {
    /// Which files it may open (Landlock).
    pub files: Guard,
    /// Which calls of the system it has (seccomp).
    pub calls: Guard,
}

/// Tries the guards on a thread that ends then, since they cannot be taken off. Within a few milliseconds.
pub fn offered() -> Offered {
    let tried = std::thread::spawn(|| Offered {
        files: files::offered(),
        calls: calls::offered(),
    });
    tried.join().unwrap_or_else(|_| {
        let why = || Guard::Missing("it could not be tried".to_owned());
        Offered {
            files: why(),
            calls: why(),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kernels that this is tested on have both.
    #[test]
    fn the_guards_are_offered_and_bind_only_who_takes_them() {
        let offered = offered();
        assert!(matches!(offered.files, Guard::Whole(_) | Guard::Part(_)), "{offered:?}");
        assert!(matches!(offered.calls, Guard::Whole(_)), "{offered:?}");
        assert!(std::fs::read("/etc/passwd").is_ok());
        assert!(std::net::TcpListener::bind("127.0.0.1:0").is_ok());
    }

    #[test]
    fn a_confined_thread_opens_its_input_and_nothing_else_and_has_no_sockets() {
        let folder = tempfile::tempdir().unwrap();
        let (input, other) = (folder.path().join("input"), folder.path().join("other"));
        for path in [&input, &other] {
            std::fs::write(path, "text").unwrap();
        }
        let new = folder.path().join("new");
        let confined = std::thread::spawn(move || {
            files::confine(Some(&input), OsStr::new("/bin/true")).unwrap();
            calls::confine().unwrap();
            assert_eq!(std::fs::read(&input).unwrap(), b"text");
            assert!(std::fs::read(&other).is_err());
            assert!(std::fs::read("/etc/passwd").is_err());
            assert!(std::fs::read_dir("/").is_err());
            assert!(std::fs::write(&input, "changed").is_err());
            assert!(std::fs::write(&new, "new").is_err());
            assert!(std::fs::remove_file(&input).is_err());
            assert!(std::net::TcpStream::connect("127.0.0.1:9").is_err());
            assert!(std::os::unix::net::UnixStream::pair().is_err());
            assert!(Command::new("/bin/true").status().is_err());
            let own = rustix::process::getpid();
            assert!(rustix::process::kill_process(own, Signal::CONT).is_err());
            assert!(rustix::process::test_kill_process(own).is_err());
            // Threads are still made, and wait for each other.
            assert_eq!(std::thread::spawn(|| 7).join().unwrap(), 7);
        });
        confined.join().unwrap();
        assert_eq!(std::fs::read(folder.path().join("input")).unwrap(), b"text");
    }

    #[test]
    fn a_program_whose_parent_is_gone_is_not_started() {
        let rules = Rules {
            parent: u32::MAX,
            input: "/nowhere".into(),
            memory: 1 << 30,
            files: 16,
        };
        // On a thread, since the signal at its parent's end is a thread's own.
        let refused = std::thread::spawn(move || give_up(&rules, OsStr::new("/bin/true")).unwrap_err());
        assert!(refused.join().unwrap().to_string().contains("has ended"));
    }
}

//! What /proc says of a thread that waits for a read.
//!
//! The kernel offers to say that a reader was signalled (FUSE_INTERRUPT), but fuser 0.18 refuses it for good. So the
//! pending signals of the waiting threads are looked at.

use std::io::ErrorKind;

/// Signals by which a person or a supervisor ends a program. Others (a child that ended, a window that changed its
/// size, the clock of a language's scheduler) must not fail a read.
const ENDING: u64 = bit(1) | bit(2) | bit(3) | bit(9) | bit(15); // HUP, INT, QUIT, KILL, TERM

const fn bit(signal: u32) -> u64 {
    1 << (signal - 1)
}

/// What a thread looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// It cannot be seen, or it is not known which it is.
    Unknown,
    /// It has ended or is ending.
    Gone,
    /// It lives.
    Alive {
        /// The process that it belongs to.
        process: u32,
        /// A signal that would end it, or that it wants to handle, is pending.
        signalled: bool,
    },
}

impl Look {
    pub(crate) fn is_signalled(self) -> bool {
        matches!(self, Look::Alive { signalled: true, .. })
    }
}

/// Whether /proc shows a thread (or a process). Never waits.
pub(crate) fn visible(thread: u32) -> bool {
    thread != 0 && rustix::fs::access(format!("/proc/{thread}/status"), rustix::fs::Access::READ_OK).is_ok()
}

/// Looks at a thread. Never waits: neither file takes a lock that a blocked thread can hold.
pub(crate) fn look(thread: u32) -> Look {
    if thread == 0 {
        return Look::Unknown;
    }
    let status = match std::fs::read_to_string(format!("/proc/{thread}/status")) {
        Ok(status) => status,
        Err(error) if gone(&error) => return Look::Gone,
        Err(_) => return Look::Unknown,
    };
    let seen = parse_status(&status);
    if !matches!(seen, Look::Alive { .. }) {
        return seen;
    }
    match std::fs::read_to_string(format!("/proc/{thread}/stat")) {
        Ok(stat) if is_exiting(&stat) => Look::Gone,
        Err(error) if gone(&error) => Look::Gone,
        _ => seen,
    }
}

/// The process that a thread belongs to; 0 if that cannot be seen. Never waits.
pub(crate) fn process(thread: u32) -> u32 {
    match look(thread) {
        Look::Alive { process, .. } => process,
        Look::Unknown | Look::Gone => 0,
    }
}

fn gone(error: &std::io::Error) -> bool {
    error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error())
}

fn parse_status(status: &str) -> Look {
    let field = |name: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .map(|value| value.trim())
    };
    let signals = |name: &str| {
        field(name)
            .and_then(|value| u64::from_str_radix(value, 16).ok())
            .unwrap_or(0)
    };
    if field("State").is_some_and(|state| state.starts_with(['Z', 'X'])) {
        return Look::Gone;
    }
    let Some(process) = field("Tgid").and_then(|value| value.parse().ok()) else {
        return Look::Unknown;
    };
    let pending = (signals("SigPnd") | signals("ShdPnd")) & !signals("SigBlk") & !signals("SigIgn");
    Look::Alive {
        process,
        signalled: pending & ENDING != 0,
    }
}

/// Whether the flags in /proc/<thread>/stat say that the thread is on its way out (PF_EXITING). A thread that ends
/// closes its files before it leaves /proc.
fn is_exiting(stat: &str) -> bool {
    const EXITING: u32 = 0x4;
    // The name, in brackets, may hold anything; the flags are the seventh field behind it.
    let behind_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let flags = behind_name
        .split_whitespace()
        .nth(6)
        .and_then(|flags| flags.parse::<u32>().ok());
    flags.is_some_and(|flags| flags & EXITING != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(pending: u64, shared: u64, blocked: u64, ignored: u64) -> String {
        format!(
            "Name:\tdd\nState:\tD (disk sleep)\nTgid:\t41\nPid:\t42\nSigQ:\t0/1\nSigPnd:\t{pending:016x}\n\
             ShdPnd:\t{shared:016x}\nSigBlk:\t{blocked:016x}\nSigIgn:\t{ignored:016x}\nSigCgt:\t0000000000000000\n"
        )
    }

    #[test]
    fn exactly_the_ending_signals_count() {
        let ending: Vec<u32> = (1..=64)
            .filter(|signal| parse_status(&status(bit(*signal), 0, 0, 0)).is_signalled())
            .collect();
        assert_eq!(ending, [1, 2, 3, 9, 15]);
        let shared: Vec<u32> = (1..=64)
            .filter(|signal| parse_status(&status(0, bit(*signal), 0, 0)).is_signalled())
            .collect();
        assert_eq!(shared, ending);
    }

    #[test]
    fn blocked_and_ignored_signals_do_not_count() {
        assert!(!parse_status(&status(bit(2), 0, bit(2), 0)).is_signalled());
        assert!(!parse_status(&status(0, bit(1), 0, bit(1))).is_signalled());
        assert!(parse_status(&status(bit(2) | bit(15), 0, bit(2), 0)).is_signalled());
    }

    #[test]
    fn a_zombie_is_gone_and_nonsense_is_unknown() {
        assert_eq!(parse_status("State:\tZ (zombie)\nTgid:\t3\n"), Look::Gone);
        assert_eq!(parse_status("what"), Look::Unknown);
        assert_eq!(look(0), Look::Unknown);
    }

    #[test]
    fn a_thread_on_its_way_out_is_told_by_its_flags() {
        assert!(is_exiting("42 (a) b) (c) R 1 42 42 0 -1 4194308 100 0"));
        assert!(!is_exiting("42 (dd) D 1 42 42 0 -1 4194304 100 0"));
        assert!(!is_exiting("42 (dd"));
    }

    #[test]
    fn the_living_and_the_dead_are_told_apart_in_the_real_proc() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let thread = child.id();
        assert!(visible(thread));
        assert_eq!(
            look(thread),
            Look::Alive {
                process: thread,
                signalled: false
            }
        );
        child.kill().unwrap();
        let end = std::time::Instant::now() + std::time::Duration::from_secs(5);
        while look(thread) != Look::Gone && std::time::Instant::now() < end {
            std::thread::yield_now();
        }
        assert_eq!(look(thread), Look::Gone);
        child.wait().unwrap();
        assert!(!visible(thread));
    }
}

//! Which calls of the system a confined program has: seccomp.
//!
//! A list of what is allowed, not of what is forbidden: what is not on it, or not known yet, does not exist (`ENOSYS`),
//! and libraries do without. No sockets, no processes, no signals to others, no tracing, no file opened to be written.

use std::collections::BTreeMap;

use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

use super::Guard;

/// Whatever their arguments are. `execve` is for the start; after that, what may be run is for Landlock to say.
const ALLOWED: &[c_long] = &[
    // What is open is read, and written: the pipes.
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_lseek,
    libc::SYS_close,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    libc::SYS_fadvise64,
    // What is there is looked up.
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_readlinkat,
    libc::SYS_getdents64,
    libc::SYS_getcwd,
    // Memory.
    libc::SYS_brk,
    libc::SYS_mmap,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_mincore,
    libc::SYS_mlock,
    libc::SYS_membarrier,
    // Threads.
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_get_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_rseq,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_getparam,
    libc::SYS_sched_getscheduler,
    libc::SYS_sched_get_priority_max,
    libc::SYS_sched_get_priority_min,
    libc::SYS_exit,
    libc::SYS_exit_group,
    // Its own signals.
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    // Time, and who and where it is.
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_times,
    libc::SYS_getrusage,
    libc::SYS_getrandom,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_uname,
    libc::SYS_sysinfo,
    libc::SYS_execve,
];

/// The older forms of some of them, which newer architectures do not have.
#[cfg(target_arch = "x86_64")]
const ALSO_ALLOWED: &[c_long] = &[
    libc::SYS_access,
    libc::SYS_arch_prctl,
    libc::SYS_dup2,
    libc::SYS_getrlimit,
    libc::SYS_lstat,
    libc::SYS_poll,
    libc::SYS_readlink,
    libc::SYS_select,
    libc::SYS_stat,
    libc::SYS_time,
];
#[cfg(not(target_arch = "x86_64"))]
const ALSO_ALLOWED: &[c_long] = &[];

/// What opens a file for more than reading. (`O_TMPFILE` needs one of the first two.)
const TO_WRITE: u64 = (libc::O_WRONLY | libc::O_RDWR | libc::O_CREAT | libc::O_TRUNC) as u64;

/// What `fcntl` may not do: name a process that the kernel signals when a pipe is ready (`F_SETOWN`, `F_SETOWN_EX`).
const SIGNALLING: [libc::c_int; 2] = [libc::F_SETOWN, 15];

/// Confines the thread that calls this, and what it starts and becomes.
///
/// # Errors
/// When the kernel offers no seccomp, or this architecture is not known; nothing is confined then.
pub(super) fn confine() -> Result<(), seccompiler::Error> {
    seccompiler::apply_filter(&filter()?)
}

fn filter() -> Result<BpfProgram, seccompiler::BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for call in ALLOWED.iter().chain(ALSO_ALLOWED) {
        rules.insert(*call, Vec::new());
    }
    let unlike = |command: libc::c_int| {
        SeccompCondition::new(1, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, u64::from(command as u32))
    };
    let unlike = SIGNALLING.map(unlike).into_iter().collect::<Result<_, _>>()?;
    rules.insert(libc::SYS_fcntl, vec![SeccompRule::new(unlike)?]);
    // The process stays the same when it becomes another program.
    let own = u64::from(std::process::id());
    let reading = SeccompCmpOp::MaskedEq(TO_WRITE);
    let thread = libc::CLONE_THREAD as u64;
    let mut only = |call: c_long, argument, operator, value| -> Result<(), seccompiler::BackendError> {
        let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)?;
        rules.insert(call, vec![SeccompRule::new(vec![condition])?]);
        Ok(())
    };
    only(libc::SYS_openat, 2, reading.clone(), 0)?;
    #[cfg(target_arch = "x86_64")]
    only(libc::SYS_open, 1, reading, 0)?;
    // A thread, not a process. `clone3` hides its flags, so it does not exist, and `clone` is used in its place.
    only(libc::SYS_clone, 0, SeccompCmpOp::MaskedEq(thread), thread)?;
    // What `abort` does.
    only(libc::SYS_tgkill, 0, SeccompCmpOp::Eq, own)?;
    only(libc::SYS_prlimit64, 0, SeccompCmpOp::Eq, 0)?;
    only(libc::SYS_prctl, 0, SeccompCmpOp::Eq, libc::PR_SET_NAME as u64)?;
    SeccompFilter::new(
        rules,
        SeccompAction::Errno(libc::ENOSYS as u32),
        SeccompAction::Allow,
        TargetArch::try_from(std::env::consts::ARCH)?,
    )?
    .try_into()
}

/// Confines the thread that calls this, to find out.
pub(super) fn offered() -> Guard {
    match confine() {
        Ok(()) => Guard::Whole("seccomp".to_owned()),
        Err(error) => Guard::Missing(format!("seccomp failed: {error}")),
    }
}

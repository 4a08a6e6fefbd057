//! The mount point: what stands there, whether we may mount there, and how a mount goes away. What is mounted is read
//! from the kernel's table, because a look at the path itself would be a question to whoever serves it.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use rustix::fs::Access;
use rustix::io::Errno;
use rustix::mount::UnmountFlags;

use crate::attach::{DEVICE, fusermount};

/// The type that the kernel shows for our mounts.
pub(crate) const TYPE: &str = "fuse.magnetfs";

/// How long a mount may take to say whether somebody serves it.
const LOOK_LIMIT: Duration = Duration::from_secs(2);

/// Dead mounts on top of each other, one for each crash, that are cleared at once.
const CLEARED_AT_ONCE: usize = 64;

/// Why there is no mount, and what would help.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// There is nothing at the path.
    #[error("{} does not exist: create it with `mkdir -p {}`", path.display(), path.display())]
    Missing {
        /// The mount point.
        path: PathBuf,
    },
    /// There is a file.
    #[error("{} is not a directory: choose another mount point", path.display())]
    NotADirectory {
        /// The mount point.
        path: PathBuf,
    },
    /// The mount would hide what is there.
    #[error("{} is not empty, and the mount would hide what is in it: choose an empty directory", path.display())]
    NotEmpty {
        /// The mount point.
        path: PathBuf,
    },
    /// Something is mounted there.
    #[error("{0} is already a mount point (of {by}): unmount it with `fusermount3 -u {0}` or choose another", path.display())]
    AlreadyMounted {
        /// The mount point.
        path: PathBuf,
        /// The type of the filesystem that is mounted there.
        by: String,
    },
    /// The user may not mount there.
    #[error("no permission to mount on {}: choose a directory that you own and may write to", path.display())]
    NoPermission {
        /// The mount point.
        path: PathBuf,
    },
    /// There is no FUSE device.
    #[error("{DEVICE} does not exist: load the kernel module with `modprobe fuse`, or give the container the device")]
    NoDevice,
    /// The FUSE device may not be opened.
    #[error("{DEVICE} may not be opened by this user: `chmod 0666 {DEVICE}` (as root) allows it to everybody")]
    DeviceNotPermitted,
    /// The program that mounts for ordinary users is missing.
    #[error("fusermount3 is not installed, and only root can mount without it: install the package fuse3")]
    NoFusermount,
    /// Other users may not be let in.
    #[error("only root may let other users in: put a line `user_allow_other` into /etc/fuse.conf, or do without")]
    AllowOtherForbidden,
    /// fusermount3 refused.
    #[error("fusermount3 did not mount or unmount {}: {message}", path.display())]
    Fusermount {
        /// The mount point.
        path: PathBuf,
        /// What it said.
        message: String,
    },
    /// The kernel refused.
    #[error("the kernel did not mount or unmount {}: {source}", path.display())]
    Kernel {
        /// The mount point.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

/// One mount, as the kernel lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mounted {
    /// The device number, which no other mount has for as long as this one is served.
    pub(crate) device: String,
    point: PathBuf,
    pub(crate) kind: String,
}

/// The type of the filesystem that is mounted exactly at `path`, the topmost if there are several. Never asks the
/// filesystem itself, so a dead or hung one does no harm; a relative path counts from the working directory.
pub fn is_mounted(path: &Path) -> Option<String> {
    mounted(&resolve(path)).map(|mounted| mounted.kind)
}

/// Every mount point of magnetfs, served or dead, from the kernel's table; none of them is asked.
pub fn all_mounts() -> Vec<PathBuf> {
    let table = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
    let ours = parse(&table).into_iter().filter(|mounted| mounted.kind == TYPE);
    ours.map(|mounted| mounted.point).collect()
}

/// The topmost mount at a resolved path.
pub(crate) fn mounted(path: &Path) -> Option<Mounted> {
    let table = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
    parse(&table).into_iter().rfind(|mounted| mounted.point == path)
}

/// Reads /proc/self/mountinfo, whose format proc(5) describes. Lines that are not understood are left out.
fn parse(table: &[u8]) -> Vec<Mounted> {
    let line = |line: &[u8]| {
        let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
        let dash = fields.iter().position(|field| *field == b"-")?;
        Some(Mounted {
            device: String::from_utf8_lossy(fields.get(2)?).into_owned(),
            point: PathBuf::from(OsString::from_vec(unescape(fields.get(4)?))),
            kind: String::from_utf8_lossy(&unescape(fields.get(dash + 1)?)).into_owned(),
        })
    };
    table.split(|byte| *byte == b'\n').filter_map(line).collect()
}

/// Undoes the octal escapes (`\040` for a space) of the kernel's table.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, behind @ ..] = rest {
        let code = (*first == b'\\').then(|| behind.get(..3)).flatten();
        let digits = code.and_then(|code| std::str::from_utf8(code).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                plain.push(byte);
                rest = &behind[3..];
            }
            None => {
                plain.push(*first);
                rest = behind;
            }
        }
    }
    plain
}

/// The path without symbolic links and dots, as the kernel's table has it. What is mounted at the path is not asked;
/// what does not exist stays as it is.
pub(crate) fn resolve(path: &Path) -> PathBuf {
    /// As many links as the kernel follows.
    const LINKS: usize = 40;
    let mut path = path.to_path_buf();
    for _ in 0..LINKS {
        // `..`, `.` and `/` end in no name: those can only be resolved as a whole.
        let Some(name) = path.file_name().map(ToOwned::to_owned) else {
            return path.canonicalize().unwrap_or(path);
        };
        let above = match path.parent() {
            Some(above) if !above.as_os_str().is_empty() => above.to_path_buf(),
            _ => PathBuf::from("."),
        };
        let Ok(above) = above.canonicalize() else {
            return std::path::absolute(&path).unwrap_or(path);
        };
        let whole = above.join(name);
        match std::fs::read_link(&whole) {
            Ok(target) => path = above.join(target),
            Err(_) => return whole,
        }
    }
    path
}

/// Unmounts what a magnetfs that died left at `path`; says whether there was anything. A mount that is served, by
/// magnetfs or anything else, is left alone. May wait for up to 2 s for a mount that is served but does not answer.
///
/// # Errors
/// If the dead mount cannot be unmounted.
pub fn clear_dead_mount(path: &Path) -> Result<bool, MountError> {
    let path = resolve(path);
    let mut cleared = false;
    for _ in 0..CLEARED_AT_ONCE {
        match mounted(&path) {
            Some(mounted) if mounted.kind == TYPE && is_dead(&path) => {
                tracing::info!(path = %path.display(), "clearing a dead mount");
                detach(&path)?;
                cleared = true;
            }
            _ => break,
        }
    }
    Ok(cleared)
}

/// Whether nobody serves the mount at `path`. One that does not answer is not dead.
fn is_dead(path: &Path) -> bool {
    let (answer, answered) = mpsc::channel();
    let asked = path.to_path_buf();
    // Its own thread, because nobody can end the question but the one who is asked.
    let asking = std::thread::Builder::new().name("magnetfs-look".into()).spawn(move || {
        // Not stat(2), which the kernel answers from its cache for a while.
        let dead = matches!(rustix::fs::statfs(&asked), Err(Errno::NOTCONN | Errno::CONNABORTED));
        // Nobody listens any more if it took too long.
        let _ = answer.send(dead);
    });
    asking.is_ok() && answered.recv_timeout(LOOK_LIMIT).unwrap_or(false)
}

/// Checks everything that can be checked before mounting at a resolved path.
pub(crate) fn check(path: &Path, allow_other: bool) -> Result<(), MountError> {
    if let Some(Mounted { kind, .. }) = mounted(path) {
        return Err(MountError::AlreadyMounted {
            path: path.into(),
            by: kind,
        });
    }
    let refused = |error: io::Error| {
        let path = path.to_path_buf();
        match error.kind() {
            io::ErrorKind::NotFound => MountError::Missing { path },
            io::ErrorKind::NotADirectory => MountError::NotADirectory { path },
            io::ErrorKind::PermissionDenied => MountError::NoPermission { path },
            _ => MountError::Kernel { path, source: error },
        }
    };
    if !std::fs::metadata(path).map_err(refused)?.is_dir() {
        return Err(MountError::NotADirectory { path: path.into() });
    }
    if std::fs::read_dir(path).map_err(refused)?.next().is_some() {
        return Err(MountError::NotEmpty { path: path.into() });
    }
    check_device()?;
    if !rustix::process::geteuid().is_root() {
        // fusermount3 asks the same of an ordinary user.
        rustix::fs::access(path, Access::WRITE_OK).map_err(|_| MountError::NoPermission { path: path.into() })?;
        if allow_other && !user_allow_other(&std::fs::read_to_string("/etc/fuse.conf").unwrap_or_default()) {
            return Err(MountError::AllowOtherForbidden);
        }
    }
    Ok(())
}

fn check_device() -> Result<(), MountError> {
    match std::fs::metadata(DEVICE) {
        Ok(device) if device.file_type().is_char_device() => {}
        _ => return Err(MountError::NoDevice),
    }
    rustix::fs::access(DEVICE, Access::READ_OK | Access::WRITE_OK).map_err(|_| MountError::DeviceNotPermitted)
}

/// Whether /etc/fuse.conf lets ordinary users let others in.
fn user_allow_other(configuration: &str) -> bool {
    configuration
        .lines()
        .any(|line| line.split('#').next().unwrap_or_default().trim() == "user_allow_other")
}

/// Takes our mount away: gently, else by detaching it, so that it is gone for all who do not have it open. Another
/// mount that stands at the path by now is left alone.
pub(crate) fn unmount(path: &Path, device: &str) -> Result<(), MountError> {
    if mounted(path).is_none_or(|mounted| mounted.kind != TYPE || mounted.device != device) {
        return Ok(());
    }
    match rustix::mount::unmount(path, UnmountFlags::NOFOLLOW) {
        // Not mounted: somebody was quicker.
        Ok(()) | Err(Errno::INVAL | Errno::NOENT) => Ok(()),
        Err(Errno::PERM) => match fusermount(&["-u"], path) {
            Ok(()) => Ok(()),
            Err(_) => detach(path),
        },
        Err(_) => detach(path),
    }
}

/// Takes the topmost mount out of the tree at once, whoever uses it.
///
/// # Errors
/// If the user may not, or the kernel refuses. What is not mounted is no error.
pub fn detach(path: &Path) -> Result<(), MountError> {
    match rustix::mount::unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        Ok(()) | Err(Errno::INVAL | Errno::NOENT) => Ok(()),
        Err(Errno::PERM) => fusermount(&["-u", "-z"], path),
        Err(errno) => Err(MountError::Kernel {
            path: path.into(),
            source: errno.into(),
        }),
    }
}

/// Ends the connection of a detached mount that somebody still has open, so that its requests fail at once. It needs
/// the control filesystem, which is not mounted everywhere; without it those who have it open keep a mount that fails.
pub(crate) fn abort(device: &str) {
    let Some((_, minor)) = device.split_once(':') else {
        return;
    };
    let control = Path::new("/sys/fs/fuse/connections").join(minor).join("abort");
    if let Err(error) = std::fs::write(&control, "1") {
        tracing::debug!(path = %control.display(), %error, "the connection was not aborted");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[u8] = b"27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n\
        42 27 0:39 / /tmp/my\\040films ro,nosuid - fuse.magnetfs magnetfs ro,user_id=0\n\
        broken line\n\
        43 27 0:40 / /tmp/my\\040films rw shared:2 master:1 - tmpfs none rw\n";

    #[test]
    fn the_kernels_table_is_read_with_its_escapes() {
        let all = parse(TABLE);
        let line = |device: &str, point: &str, kind: &str| Mounted {
            device: device.into(),
            point: point.into(),
            kind: kind.into(),
        };
        assert_eq!(
            all,
            [
                line("254:0", "/", "ext4"),
                line("0:39", "/tmp/my films", "fuse.magnetfs"),
                line("0:40", "/tmp/my films", "tmpfs")
            ]
        );
        assert_eq!(unescape(b"a\\134b\\011\\9\\"), b"a\\b\t\\9\\");
    }

    #[test]
    fn what_is_mounted_is_found_without_a_look_at_it() {
        assert_eq!(is_mounted(Path::new("/proc")), Some("proc".into()));
        assert_eq!(is_mounted(Path::new("/usr/../proc")), Some("proc".into()));
        assert_eq!(is_mounted(Path::new("/nowhere/at/all")), None);
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("/proc", &link).unwrap();
        assert_eq!(is_mounted(&link), Some("proc".into()));
        assert_eq!(is_mounted(folder.path()), None);
    }

    #[test]
    fn a_wrong_mount_point_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let (missing, file) = (folder.path().join("missing"), folder.path().join("file"));
        std::fs::write(&file, "x").unwrap();
        assert!(matches!(check(&missing, false), Err(MountError::Missing { path }) if path == missing));
        assert!(matches!(check(&file, false), Err(MountError::NotADirectory { .. })));
        assert!(matches!(
            check(&file.join("below"), false),
            Err(MountError::NotADirectory { .. })
        ));
        assert!(matches!(check(folder.path(), false), Err(MountError::NotEmpty { .. })));
        assert!(matches!(check(Path::new("/proc"), false), Err(MountError::AlreadyMounted { by, .. }) if by == "proc"));
        let said = MountError::Missing { path: missing.clone() }.to_string();
        assert!(
            said.contains(missing.to_str().unwrap()) && said.contains("mkdir"),
            "{said}"
        );
    }

    #[test]
    fn the_line_that_lets_others_in_stands_alone() {
        assert!(user_allow_other("# comment\n user_allow_other # yes\n"));
        assert!(!user_allow_other("#user_allow_other\nmount_max = 1000\n"));
        assert!(!user_allow_other(""));
    }

    #[test]
    fn only_a_dead_mount_is_cleared() {
        assert!(!clear_dead_mount(Path::new("/proc")).unwrap());
        assert!(!clear_dead_mount(Path::new("/nowhere/at/all")).unwrap());
    }
}

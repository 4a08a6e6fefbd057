//! Mounting itself: the device and mount(2) for root, fusermount3 for everybody else.
//!
//! fuser could do it too, but as root it does not show our type in the kernel's table, and what it does at the end
//! (0.18) unmounts a path again that is no longer ours.

use std::ffi::CString;
use std::io::{self, IoSliceMut, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::MountFlags;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType, recvmsg, socketpair,
    sockopt,
};

use crate::mountpoint::{MountError, TYPE, detach, mounted};

/// Where the kernel is spoken to.
pub(crate) const DEVICE: &str = "/dev/fuse";

/// The name that the kernel's table and `df` show as the source.
const NAME: &str = "magnetfs";

/// fusermount3 does a few system calls; this is far beyond what those may take.
const HELPER_LIMIT: Duration = Duration::from_secs(10);

/// A fresh mount that nobody serves yet.
#[derive(Debug)]
pub(crate) struct Attached {
    /// The connection to the kernel.
    pub(crate) connection: OwnedFd,
    /// The device number of the mount, by which it is told from others.
    pub(crate) device: String,
}

/// Mounts at a resolved and checked path. Takes milliseconds.
pub(crate) fn attach(path: &Path, allow_other: bool) -> Result<Attached, MountError> {
    let kernel = |source: io::Error| MountError::Kernel {
        path: path.into(),
        source,
    };
    let connection = match mount(path, allow_other) {
        Ok(connection) => connection,
        Err(Failed::NotPrivileged) => mount_through_helper(path, allow_other)?,
        Err(Failed::Error(error)) => return Err(error),
    };
    match mounted(path).filter(|mounted| mounted.kind == TYPE) {
        Some(mounted) => Ok(Attached {
            connection,
            device: mounted.device,
        }),
        None => {
            detach(path)?;
            Err(kernel(io::Error::other("the new mount is not in /proc/self/mountinfo")))
        }
    }
}

enum Failed {
    /// Only root may; fusermount3 can help.
    NotPrivileged,
    Error(MountError),
}

fn mount(path: &Path, allow_other: bool) -> Result<OwnedFd, Failed> {
    if !rustix::process::geteuid().is_root() {
        return Err(Failed::NotPrivileged);
    }
    let device = rustix::fs::open(DEVICE, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).map_err(|errno| {
        Failed::Error(match errno {
            Errno::NOENT | Errno::NODEV | Errno::NXIO => MountError::NoDevice,
            Errno::ACCESS | Errno::PERM => MountError::DeviceNotPermitted,
            other => MountError::Kernel {
                path: DEVICE.into(),
                source: other.into(),
            },
        })
    })?;
    let data = format!(
        "fd={},rootmode=40000,user_id={},group_id={},default_permissions{}",
        device.as_raw_fd(),
        rustix::process::getuid().as_raw(),
        rustix::process::getgid().as_raw(),
        if allow_other { ",allow_other" } else { "" },
    );
    let kernel = |source| {
        Failed::Error(MountError::Kernel {
            path: path.into(),
            source,
        })
    };
    let data = CString::new(data).map_err(|error| kernel(error.into()))?;
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC | MountFlags::NOATIME;
    match rustix::mount::mount(NAME, path, TYPE, flags, data.as_c_str()) {
        Ok(()) => Ok(device),
        Err(Errno::PERM) => Err(Failed::NotPrivileged),
        Err(Errno::NODEV) => Err(Failed::Error(MountError::NoDevice)),
        Err(errno) => Err(kernel(errno.into())),
    }
}

/// Lets fusermount3 mount. It sends the connection over the socket that it finds as its standard input.
fn mount_through_helper(path: &Path, allow_other: bool) -> Result<OwnedFd, MountError> {
    let kernel = |errno: Errno| MountError::Kernel {
        path: path.into(),
        source: errno.into(),
    };
    let (ours, its) =
        socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).map_err(kernel)?;
    sockopt::set_socket_timeout(&ours, sockopt::Timeout::Recv, Some(HELPER_LIMIT)).map_err(kernel)?;
    let subtype = TYPE.trim_start_matches("fuse.");
    let options = format!(
        "ro,nosuid,nodev,noexec,noatime,default_permissions,fsname={NAME},subtype={subtype}{}",
        if allow_other { ",allow_other" } else { "" },
    );
    let mut command = Command::new("fusermount3");
    command
        .args(["-o", &options, "--"])
        .arg(path)
        .env("_FUSE_COMMFD", "0")
        .stdin(its);
    let child = start(command)?;
    let received = receive(&ours);
    let finished = finish(child, path);
    match received {
        Some(connection) => finished.map(|()| connection),
        // What it says is the reason that nothing came.
        None => Err(finished.err().unwrap_or_else(|| MountError::Fusermount {
            path: path.into(),
            message: "it sent no connection to the kernel".into(),
        })),
    }
}

fn receive(socket: impl AsFd) -> Option<OwnedFd> {
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    recvmsg(
        &socket,
        &mut [IoSliceMut::new(&mut byte)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )
    .ok()?;
    control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    })
}

/// Runs fusermount3 on a path and waits for it.
pub(crate) fn fusermount(options: &[&str], path: &Path) -> Result<(), MountError> {
    let mut command = Command::new("fusermount3");
    command.args(options).arg("--").arg(path).stdin(Stdio::null());
    finish(start(command)?, path)
}

fn start(mut command: Command) -> Result<Child, MountError> {
    // The command is dropped here, and with it our copy of the descriptor that the child has.
    command
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => MountError::NoFusermount,
            _ => MountError::Kernel {
                path: "fusermount3".into(),
                source: error,
            },
        })
}

fn finish(mut child: Child, path: &Path) -> Result<(), MountError> {
    let kernel = |source| MountError::Kernel {
        path: path.into(),
        source,
    };
    let end = Instant::now() + HELPER_LIMIT;
    let status = loop {
        match child.try_wait().map_err(kernel)? {
            Some(status) => break status,
            None if Instant::now() < end => std::thread::sleep(Duration::from_millis(2)),
            None => {
                child.kill().map_err(kernel)?;
                break child.wait().map_err(kernel)?;
            }
        }
    };
    if status.success() {
        return Ok(());
    }
    let mut said = String::new();
    if let Some(stderr) = child.stderr.take() {
        // It has ended, so all that it said is in the pipe; if it cannot be read, its status has to do.
        let _ = stderr.take(4096).read_to_string(&mut said);
    }
    Err(refusal(
        path,
        if said.trim().is_empty() {
            status.to_string()
        } else {
            said
        },
    ))
}

/// What fusermount3 means by its words.
fn refusal(path: &Path, said: String) -> MountError {
    let message = said.trim().trim_start_matches("fusermount3: ").to_owned();
    if message.contains("user_allow_other") {
        MountError::AllowOtherForbidden
    } else if message.contains("failed to open /dev/fuse: Permission denied") {
        MountError::DeviceNotPermitted
    } else if message.contains("device not found") {
        MountError::NoDevice
    } else if message.contains("no write access") || message.contains("not owned by user") {
        MountError::NoPermission { path: path.into() }
    } else {
        MountError::Fusermount {
            path: path.into(),
            message,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_fusermount_become_errors_with_a_remedy() {
        let of = |said: &str| refusal(Path::new("/mnt"), said.into());
        assert!(matches!(
            of("fusermount3: failed to open /dev/fuse: Permission denied"),
            MountError::DeviceNotPermitted
        ));
        assert!(matches!(
            of("fusermount3: fuse device not found, try 'modprobe fuse' first"),
            MountError::NoDevice
        ));
        assert!(matches!(
            of("fusermount3: option allow_other only allowed if 'user_allow_other' is set in /etc/fuse.conf"),
            MountError::AllowOtherForbidden
        ));
        let no_write = "fusermount3: user has no write access to mountpoint /mnt";
        assert!(matches!(of(no_write), MountError::NoPermission { .. }));
        assert!(
            matches!(of("fusermount3: too many\n"), MountError::Fusermount { message, .. } if message == "too many")
        );
    }
}

//! What mounting needs of the machine.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::Finding;
use super::child::find;
use crate::config::{Config, Surroundings};

const DEVICE: &str = "/dev/fuse";
const FUSE_CONF: &str = "/etc/fuse.conf";

/// Bit of CAP_SYS_ADMIN in the masks of /proc/self/status (capabilities(7)).
const SYS_ADMIN: u64 = 1 << 21;

/// No read is answered later than this (the ceiling of reads), so a kernel that gives up earlier breaks the mount.
const LONGEST_READ_S: u64 = 600;

pub(super) fn examine(config: Option<&Config>, surroundings: &Surroundings) -> Vec<Finding> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let privileged = field(&status, "CapEff")
        .is_some_and(|mask| u64::from_str_radix(mask, 16).is_ok_and(|mask| mask & SYS_ADMIN != 0));
    let opened = OpenOptions::new().read(true).write(true).open(DEVICE);
    let mode = fs::metadata(DEVICE)
        .map(|metadata| metadata.permissions().mode() & 0o777)
        .unwrap_or(0);
    let helper = helper(surroundings);
    let conf = fs::read_to_string(FUSE_CONF).unwrap_or_default();
    let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut findings = vec![
        device(opened.map(drop), mode, privileged),
        fusermount(helper, field(&status, "NoNewPrivs") == Some("1"), privileged),
        allow_other(&conf, config.is_some_and(|config| config.allow_other), privileged),
        passthrough(&kernel, privileged),
    ];
    for name in ["default_request_timeout", "max_request_timeout"] {
        let value = fs::read_to_string(format!("/proc/sys/fs/fuse/{name}")).unwrap_or_default();
        findings.extend(request_timeout(name, value.trim().parse().unwrap_or(0)));
    }
    findings
}

fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .map(str::trim)
}

fn device(opened: io::Result<()>, mode: u32, privileged: bool) -> Finding {
    let check = DEVICE;
    match opened {
        Ok(()) if mode & 0o006 != 0o006 && privileged => Finding::warn(
            check,
            format!("{DEVICE} is for root alone (mode {mode:04o}): other users cannot mount"),
            format!("sudo chmod 0666 {DEVICE}"),
        ),
        Ok(()) => Finding::ok(check, "there, and this user may open it"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Finding::fail(
            check,
            format!("{DEVICE} does not exist"),
            "sudo modprobe fuse (in a container: start it with --device /dev/fuse --cap-add SYS_ADMIN)",
        ),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Finding::fail(
            check,
            format!("this user may not open {DEVICE} (mode {mode:04o})"),
            format!("sudo chmod 0666 {DEVICE}"),
        ),
        Err(error) => Finding::fail(
            check,
            format!("{DEVICE} cannot be opened: {error}"),
            "sudo modprobe fuse",
        ),
    }
}

/// The helper that mounts for ordinary users, with its mode and owner.
fn helper(surroundings: &Surroundings) -> Option<(PathBuf, u32, u32)> {
    let path = find("fusermount3", surroundings)?;
    let metadata = fs::metadata(&path).ok()?;
    Some((path, metadata.permissions().mode(), metadata.uid()))
}

fn fusermount(helper: Option<(PathBuf, u32, u32)>, no_new_privileges: bool, privileged: bool) -> Finding {
    let check = "fusermount3";
    // Root mounts by itself, so for root a fault here is not one of the mount.
    let fault = |what: String, remedy: &str| {
        if privileged {
            Finding::warn(check, format!("{what}; root mounts without it, others cannot"), remedy)
        } else {
            Finding::fail(check, what, remedy)
        }
    };
    match helper {
        None => fault("not installed".to_owned(), "sudo apt-get install fuse3"),
        Some((path, mode, owner)) if mode & 0o4000 == 0 || owner != 0 => {
            let remedy = format!("sudo chown root {0} && sudo chmod u+s {0}", path.display());
            fault(format!("{} is not setuid root", path.display()), &remedy)
        }
        Some(_) if no_new_privileges && !privileged => fault(
            "this process may not gain privileges (NoNewPrivs), so a setuid program is of no use to it".to_owned(),
            "take NoNewPrivileges, and what implies it, from the service; in a container: no --security-opt no-new-privileges",
        ),
        Some((path, ..)) => Finding::ok(check, format!("{} is setuid root", path.display())),
    }
}

fn allow_other(conf: &str, wanted: bool, privileged: bool) -> Finding {
    let check = "user_allow_other";
    let allowed = conf.lines().any(|line| line.trim() == "user_allow_other");
    let remedy = format!("echo user_allow_other | sudo tee -a {FUSE_CONF}");
    match (allowed, privileged, wanted) {
        (true, ..) => Finding::ok(check, format!("{FUSE_CONF} lets every user mount with --allow-other")),
        (false, true, _) => Finding::ok(check, "not set; root may use --allow-other without it"),
        (false, false, true) => Finding::fail(
            check,
            format!("allow-other is on, and {FUSE_CONF} does not let users ask for it"),
            remedy,
        ),
        (false, false, false) => Finding::ok(
            check,
            format!("not set: other users cannot be let in (--allow-other); should they be: {remedy}"),
        ),
    }
}

fn passthrough(kernel: &str, privileged: bool) -> Finding {
    let check = "passthrough";
    let mut numbers = kernel.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let what = match (version >= (6, 9), privileged) {
        (true, true) => format!("Linux {kernel} reads complete files by itself"),
        (true, false) => "only root's mounts have it; complete files are read through the daemon".to_owned(),
        (false, _) => format!("Linux {kernel} has none (6.9 has); complete files are read through the daemon"),
    };
    Finding::ok(check, what)
}

fn request_timeout(name: &'static str, seconds: u64) -> Option<Finding> {
    (1..=LONGEST_READ_S).contains(&seconds).then(|| {
        Finding::warn(
            "request timeout",
            format!("fs.fuse.{name} = {seconds}: the kernel ends the whole mount when one read waits so long"),
            format!("sudo sysctl fs.fuse.{name}=0"),
        )
    })
}

/// The folder above, where one is looked for that does not exist yet.
pub(super) fn existing(path: &Path) -> &Path {
    path.ancestors()
        .find(|path| path.symlink_metadata().is_ok())
        .unwrap_or(Path::new("/"))
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    fn error(kind: io::ErrorKind) -> io::Result<()> {
        Err(kind.into())
    }

    #[test]
    fn the_device_is_there_for_this_user() {
        let missing = device(error(io::ErrorKind::NotFound), 0, true);
        assert_eq!(missing.level, Level::Fail);
        assert!(missing.remedy.unwrap().contains("modprobe fuse"));
        let closed = device(error(io::ErrorKind::PermissionDenied), 0o600, false);
        assert!(closed.what.contains("0600") && closed.remedy.unwrap().contains("chmod 0666"));
        assert_eq!(device(Ok(()), 0o600, true).level, Level::Warn);
        assert_eq!(device(Ok(()), 0o666, false).level, Level::Ok);
    }

    #[test]
    fn the_helper_must_be_setuid_for_who_is_not_root() {
        let helper = |mode, owner| Some((PathBuf::from("/usr/bin/fusermount3"), mode, owner));
        assert_eq!(fusermount(None, false, false).level, Level::Fail);
        assert_eq!(fusermount(None, false, true).level, Level::Warn);
        let plain = fusermount(helper(0o100_755, 0), false, false);
        assert!(plain.level == Level::Fail && plain.remedy.unwrap().contains("chmod u+s /usr/bin/fusermount3"));
        assert_eq!(fusermount(helper(0o104_755, 1000), false, false).level, Level::Fail);
        assert_eq!(fusermount(helper(0o104_755, 0), true, false).level, Level::Fail);
        assert_eq!(fusermount(helper(0o104_755, 0), false, false).level, Level::Ok);
    }

    #[test]
    fn allow_other_fails_only_where_it_is_wanted_and_forbidden() {
        assert_eq!(allow_other("#user_allow_other\n", true, false).level, Level::Fail);
        assert_eq!(allow_other("#user_allow_other\n", false, false).level, Level::Ok);
        assert_eq!(allow_other(" user_allow_other \n", true, false).level, Level::Ok);
        assert_eq!(allow_other("", true, true).level, Level::Ok);
    }

    #[test]
    fn kernels_are_told_apart() {
        assert!(passthrough("6.18.44-fc", true).what.contains("by itself"));
        assert!(passthrough("6.9.0", false).what.contains("only root"));
        assert!(passthrough("6.1.0-18-amd64", true).what.contains("6.9 has"));
        assert!(passthrough("5.10", true).what.contains("none"));
    }

    #[test]
    fn a_timeout_of_the_kernel_matters_if_a_read_can_reach_it() {
        assert_eq!(request_timeout("max_request_timeout", 0), None);
        assert_eq!(request_timeout("max_request_timeout", 3600), None);
        assert_eq!(request_timeout("max_request_timeout", 120).unwrap().level, Level::Warn);
    }

    #[test]
    fn fields_of_a_status() {
        let status = "Name:\tx\nCapEff:\t000001ffffffffff\nNoNewPrivs:\t0\n";
        assert_eq!(field(status, "CapEff"), Some("000001ffffffffff"));
        assert_eq!((field(status, "NoNewPrivs"), field(status, "Cap")), (Some("0"), None));
    }
}

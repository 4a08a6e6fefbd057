//! The data directory, and the daemon that may have it.

use std::path::Path;

use rustix::fs::{Access, access};
use rustix::process::{Resource, getrlimit};

use super::Finding;
use super::fuse::existing;
use crate::config::Config;
use crate::control::client::Client;
use crate::text;
use crate::torrents::{FreeSpace, FreeSpaceReport, Holder};

/// Stored files, peers and clients cost a descriptor each; the engine and the store together use up to about so many.
const OPEN_FILES: u64 = 4096;

pub(super) fn examine(config: Option<&Config>) -> Vec<Finding> {
    let mut findings = vec![open_files(getrlimit(Resource::Nofile).maximum)];
    let Some(config) = config else { return findings };
    let folder = existing(&config.data_dir);
    let writable = access(folder, Access::WRITE_OK | Access::EXEC_OK).is_ok();
    findings.push(data_dir(&config.data_dir, folder, writable));
    findings.push(space(FreeSpace::new(folder, config.free_space_floor).report()));
    findings.push(daemon(config));
    findings
}

fn open_files(hard: Option<u64>) -> Finding {
    let check = "open files";
    match hard {
        Some(limit) if limit < OPEN_FILES => Finding::warn(
            check,
            format!("a process may open {limit} files, and a large library with many peers needs {OPEN_FILES}"),
            "echo '* hard nofile 65536' | sudo tee /etc/security/limits.d/magnetfs.conf, and log in again \
                 (in a service: LimitNOFILE=65536)",
        ),
        Some(limit) => Finding::ok(check, format!("a process may open {limit}")),
        None => Finding::ok(check, "without limit"),
    }
}

fn data_dir(data_dir: &Path, existing: &Path, writable: bool) -> Finding {
    let check = "data directory";
    let name = text::shell_word(&existing.to_string_lossy());
    match (data_dir == existing, writable) {
        (true, true) => Finding::ok(check, format!("{} may be written", data_dir.display())),
        (false, true) => Finding::ok(check, format!("{} will be made by the first mount", data_dir.display())),
        (_, false) => Finding::fail(
            check,
            format!(
                "{} cannot be used: this user may not write to {}",
                data_dir.display(),
                existing.display()
            ),
            format!("sudo chown \"$(id -u)\" {name}, or choose another folder with --data-dir"),
        ),
    }
}

fn space(report: FreeSpaceReport) -> Finding {
    let check = "free space";
    let (free, floor) = (text::size(report.free), text::size(report.floor));
    if report.storing {
        return Finding::ok(check, format!("{free} free, floor {floor}"));
    }
    Finding::warn(
        check,
        format!("{free} free, below the floor of {floor}: nothing more is stored, and reads of what is missing fail"),
        "free some space there, or lower --free-space-floor",
    )
}

fn daemon(config: &Config) -> Finding {
    let check = "daemon";
    let held = Holder::of(&config.data_dir).filter(|_| !config.socket_named);
    let socket = held.as_ref().map_or(&config.socket, |holder| &holder.socket);
    match Client::connect(socket) {
        Ok(Some(_)) => match held {
            Some(Holder { pid, mountpoint, .. }) => Finding::ok(
                check,
                format!("runs as process {pid}, mounted at {}", mountpoint.display()),
            ),
            None => Finding::ok(check, format!("answers on {}", socket.display())),
        },
        Ok(None) => Finding::ok(check, "does not run: `magnetfs mount MOUNTPOINT` starts it"),
        Err(error) => Finding::warn(check, format!("{error:#}"), "ask as the user who mounted, or as root"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    #[test]
    fn few_open_files_are_told() {
        assert_eq!(open_files(Some(1024)).level, Level::Warn);
        assert_eq!(open_files(Some(65_536)).level, Level::Ok);
        assert_eq!(open_files(None).level, Level::Ok);
    }

    #[test]
    fn the_data_directory_must_be_writable_or_be_made() {
        let (data, above) = (Path::new("/home/a/data"), Path::new("/home"));
        assert_eq!(data_dir(data, data, true).level, Level::Ok);
        assert!(data_dir(data, above, true).what.contains("will be made"));
        let refused = data_dir(data, above, false);
        assert!(
            refused.level == Level::Fail && refused.what.contains("may not write to /home"),
            "{refused:?}"
        );
    }

    #[test]
    fn little_space_is_told() {
        let report = FreeSpaceReport {
            total: 100,
            free: 4,
            floor: 5,
            storing: false,
        };
        assert_eq!(space(report).level, Level::Warn);
        assert_eq!(
            space(FreeSpaceReport {
                storing: true,
                ..report
            })
            .level,
            Level::Ok
        );
    }
}

//! The units, as far as they can be tried where systemd does not run: readiness on a notify socket of the test's own,
//! and what `systemd-analyze` says of them.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::support::daemon::PROGRAM;
use crate::support::{DaemonOptions, Work, eventually, is_mounted, limited, report, run};

/// Waits for a datagram that holds this line.
fn told(socket: &UnixDatagram, line: &str) {
    eventually(line, Duration::from_secs(10), || {
        let mut buffer = [0; 4096];
        let length = socket.recv(&mut buffer).ok()?;
        String::from_utf8_lossy(&buffer[..length])
            .lines()
            .any(|other| other == line)
            .then_some(())
    });
}

/// "`Type=notify`, ready only when the mount is up, clean stop."
#[test]
fn systemd_is_told_when_the_mount_is_up() {
    limited(Duration::from_secs(30), || {
        let work = Work::new();
        let path = work.socket("notify");
        let socket = UnixDatagram::bind(&path).expect("a notify socket");
        socket.set_read_timeout(Some(Duration::from_secs(1))).expect("a limit");
        let mut daemon = DaemonOptions::new(&work).variable("NOTIFY_SOCKET", &path).spawn();
        told(&socket, "READY=1");
        assert!(is_mounted(daemon.mountpoint()), "ready before it has mounted");
        daemon.mounted_within(Duration::from_secs(1));
        daemon.signal(rustix::process::Signal::TERM);
        told(&socket, "STOPPING=1");
        let status = daemon.ended_within(Duration::from_secs(3));
        assert_eq!(status.and_then(|status| status.code()), Some(0), "{status:?}");
    });
}

/// All unit files, with the manager that they are for.
fn units() -> Vec<(&'static str, PathBuf)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd");
    let mut found = Vec::new();
    for kind in ["system", "user"] {
        for entry in fs::read_dir(directory.join(kind)).expect("the units").flatten() {
            found.push((kind, entry.path()));
        }
    }
    assert!(
        ["system", "user"]
            .iter()
            .all(|kind| found.iter().any(|(other, _)| other == kind)),
        "{found:?}"
    );
    found
}

/// The value of every line `key=` of a unit.
fn values<'a>(unit: &'a str, key: &str) -> Vec<&'a str> {
    unit.lines()
        .filter_map(|line| line.strip_prefix(key)?.strip_prefix('='))
        .collect()
}

/// Options that imply NoNewPrivileges for a user's manager, under which the setuid fusermount3 cannot mount.
const IMPLY_NO_NEW_PRIVILEGES: &[&str] = &[
    "NoNewPrivileges",
    "SystemCallFilter",
    "SystemCallArchitectures",
    "RestrictAddressFamilies",
    "RestrictNamespaces",
    "PrivateDevices",
    "ProtectKernelTunables",
    "ProtectKernelModules",
    "ProtectKernelLogs",
    "ProtectClock",
    "MemoryDenyWriteExecute",
    "RestrictRealtime",
    "RestrictSUIDSGID",
    "DynamicUser",
    "LockPersonality",
    "ProtectHostname",
    "SystemCallLog",
    "PrivateUsers",
];

/// Options that give the service mounts of its own, which nobody else would see.
const HIDE_THE_MOUNT: &[&str] = &[
    "PrivateMounts",
    "PrivateTmp",
    "ProtectSystem",
    "ProtectHome",
    "ReadWritePaths",
    "ReadOnlyPaths",
    "BindPaths",
    "InaccessiblePaths",
    "TemporaryFileSystem",
    "RootDirectory",
    "PrivateDevices",
    "ProtectKernelTunables",
    "ProtectKernelModules",
    "ProtectKernelLogs",
    "ProtectControlGroups",
    "ProtectProc",
    "ProcSubset",
];

/// "Hardening that neither hides the mount nor breaks it: the user unit sets no NoNewPrivileges and nothing that
/// implies it (fusermount3 is setuid), neither sets ProtectProc (the signal watcher)."
#[test]
fn the_units_neither_hide_the_mount_nor_break_it() {
    for (kind, path) in units() {
        let unit = fs::read_to_string(&path).expect("a unit");
        let name = path.display();
        assert_eq!(values(&unit, "Type"), ["notify"], "{name}");
        assert!(
            !values(&unit, "Restart").is_empty(),
            "{name} is not started again after a crash"
        );
        assert!(unit.contains("magnetfs mount"), "{name}");
        for option in HIDE_THE_MOUNT {
            let set = values(&unit, option);
            assert!(
                set.iter().all(|value| ["no", "false", "off", ""].contains(value)),
                "{name} sets {option}"
            );
        }
        if kind == "user" {
            for option in IMPLY_NO_NEW_PRIVILEGES {
                let set = values(&unit, option);
                assert!(
                    set.iter().all(|value| ["no", "false", ""].contains(value)),
                    "{name} sets {option}"
                );
            }
        }
    }
}

#[test]
fn systemd_analyze_accepts_the_units() {
    limited(Duration::from_secs(60), || {
        let work = Work::new();
        for (kind, path) in units() {
            // It looks whether the program is there: this one is, where that of the unit may not be.
            let unit = fs::read_to_string(&path)
                .expect("a unit")
                .replace("/usr/local/bin/magnetfs", PROGRAM);
            let copy = work.directory(kind).join(path.file_name().expect("a name"));
            fs::write(&copy, unit).expect("a copy of the unit");
            let mut command = Command::new("systemd-analyze");
            command.args(["verify", "--man=no", &format!("--{kind}")]).arg(&copy);
            command.env("XDG_RUNTIME_DIR", work.path());
            let outcome = run(&mut command, Duration::from_secs(20)).ok();
            // What it says of other units of the machine is not about ours.
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            let ours: Vec<&str> = outcome.stderr.lines().filter(|line| line.contains(&name)).collect();
            assert!(ours.is_empty(), "{name}: {ours:#?}");

            let mut command = Command::new("systemd-analyze");
            command.args(["security", "--offline=true", "--no-pager"]).arg(&copy);
            let outcome = run(&mut command, Duration::from_secs(20)).ok();
            let text = outcome.text();
            let verdict = text
                .lines()
                .rfind(|line| line.contains("exposure level"))
                .unwrap_or_default()
                .trim();
            report(&format!("{kind}/{name}: {verdict}"));
        }
    });
}

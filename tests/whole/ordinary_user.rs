//! "An ordinary user mounts like root does, through fusermount3." The mount, the reads, the kill and the end.
//!
//! Started by root, these tests become a user without rights inside a mount namespace of their own, where /dev/fuse is
//! open to all as it is on any desktop; on some build machines it is not.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use crate::support::daemon::PROGRAM;
use crate::support::swarm::Libtorrent;
use crate::support::torrents::{self, files_below};
use crate::support::{Background, Daemon, DaemonOptions, Outcome, Work, eventually, limited, report, run};

/// nobody
const USER: u32 = 65_534;

/// Makes a device that all may open in the place of the one that is there, and a fuse.conf that allows nothing; then
/// stays for as long as the test needs the namespace.
const NAMESPACE: &str = r#"
    set -e
    mount -t tmpfs -o mode=755 none "$1"
    mknod "$1/fuse" c 10 229
    chmod 666 "$1/fuse"
    : > "$1/fuse.conf"
    mount --bind "$1/fuse" /dev/fuse
    if [ -e /etc/fuse.conf ]; then mount --bind "$1/fuse.conf" /etc/fuse.conf; fi
    : > "$1/ready"
    exec sleep 600
"#;

/// A user without rights, and the namespace to be that user in, unless the tests run as one.
struct User {
    namespace: Option<Background>,
    program: PathBuf,
}

impl User {
    fn new(work: &Work) -> Self {
        if !rustix::process::geteuid().is_root() {
            return Self {
                namespace: None,
                program: PROGRAM.into(),
            };
        }
        let program = work.path().join("magnetfs");
        fs::copy(PROGRAM, &program).expect("a copy of the program where the user can reach it");
        fs::set_permissions(work.path(), fs::Permissions::from_mode(0o755)).expect("a directory open to all");
        let device = work.directory("device");
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--propagation", "private", "sh", "-c", NAMESPACE, "sh"])
            .arg(&device);
        let mut namespace = Background::spawn(&mut command);
        let ready = format!("/proc/{}/root{}/ready", namespace.pid(), device.display());
        eventually("the namespace is made", Duration::from_secs(10), || {
            assert!(namespace.is_running(), "a mount namespace cannot be made");
            Path::new(&ready).exists().then_some(())
        });
        Self {
            namespace: Some(namespace),
            program,
        }
    }

    /// A command that this user runs.
    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let Some(namespace) = &self.namespace else {
            return Command::new(program);
        };
        let mut command = Command::new("nsenter");
        command.args([
            "--mount",
            "--target",
            &namespace.pid().to_string(),
            "setpriv",
            "--reuid",
            &USER.to_string(),
        ]);
        command
            .args(["--regid", &USER.to_string(), "--clear-groups"])
            .arg(program);
        command
    }

    /// What the test made belongs to the user.
    fn own(&self, path: &Path) {
        if self.namespace.is_some() {
            chown(path, Some(USER), Some(USER)).expect("a directory of the user's own");
        }
    }

    /// The directories of a daemon, which are this user's.
    fn options(&self, work: &Work) -> DaemonOptions {
        for name in ["mount", "home", "data"] {
            self.own(&work.directory(name));
        }
        let runtime = work.directory("runtime");
        self.own(&runtime);
        DaemonOptions::new(work).socket(&runtime.join("control"))
    }

    fn spawn(&self, options: &DaemonOptions) -> Daemon {
        let mut command = self.command(&self.program);
        command.arg("mount").args(options.mount_arguments());
        let original = options.command();
        command.envs(original.get_envs().filter_map(|(name, value)| Some((name, value?))));
        options.spawn_as(command)
    }

    fn start(&self, options: &DaemonOptions) -> Daemon {
        let mut daemon = self.spawn(options);
        daemon.mounted_within(Duration::from_secs(10));
        daemon
    }

    /// Whether something is mounted there, where the user is.
    fn sees_mount(&self, path: &Path) -> bool {
        let pid = self
            .namespace
            .as_ref()
            .map_or_else(|| "self".to_owned(), |namespace| namespace.pid().to_string());
        let table = fs::read_to_string(format!("/proc/{pid}/mountinfo")).expect("the table of mounts");
        table.contains(&format!(" {} ", path.display()))
    }

    fn stop(&self, mut daemon: Daemon) {
        daemon.signal(Signal::TERM);
        let status = daemon.ended_within(Duration::from_secs(3));
        assert_eq!(
            status.and_then(|status| status.code()),
            Some(0),
            "{status:?}\n{}",
            daemon.log()
        );
        assert!(!self.sees_mount(daemon.mountpoint()), "the mount is left");
    }

    fn run(&self, program: &str, arguments: &[&std::ffi::OsStr]) -> Outcome {
        run(self.command(program).args(arguments), Duration::from_secs(30))
    }
}

#[test]
fn a_user_mounts_and_reads() {
    limited(Duration::from_secs(90), || {
        let work = Work::public();
        let user = User::new(&work);
        let torrent = torrents::folder(&work, "folder", &[("a.bin", 5 << 20), ("b/c", 100), ("d", 0)], 65_536);
        let seeder = Libtorrent::seed(&[&torrent]);
        let options = user.options(&work).torrent(&torrent).peer(seeder.address);
        let daemon = user.start(&options);
        assert!(user.sees_mount(daemon.mountpoint()));
        for file in files_below(&torrent.source()) {
            let (shown, source) = (daemon.path("folder").join(&file), torrent.source().join(&file));
            user.run("cmp", &[shown.as_os_str(), source.as_os_str()]).ok();
        }
        if user.namespace.is_some() {
            let pid = daemon.pid();
            let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("its status");
            assert!(
                status.contains(&format!("Uid:\t{USER}\t{USER}")),
                "it does not run as the user\n{status}"
            );
        }
        user.stop(daemon);
    });
}

/// The kill and unmount tests: a blocked reader dies, the daemon leaves within 3 s, `fusermount3 -u` is a clean end,
/// and a dead mount is cleared by the next start.
#[test]
fn a_user_kills_and_unmounts() {
    limited(Duration::from_secs(90), || {
        let work = Work::public();
        let user = User::new(&work);
        let dead = torrents::without_source(&work, "dead.bin", 64 << 20, 1 << 20);
        let options = user.options(&work);
        let blocked = |daemon: &Daemon, already: u64| {
            let reader = Background::spawn(user.command("head").arg("-c1").arg(daemon.path("dead.bin")));
            eventually("the read waits", Duration::from_secs(10), || {
                (daemon.json(&["status"])["waiting_reads"].as_u64()? > already).then_some(())
            });
            reader
        };

        let daemon = user.start(&options.clone().torrent(&dead));
        let mut reader = blocked(&daemon, 0);
        reader.signal(Signal::KILL);
        assert!(
            reader.ended_within(Duration::from_secs(1)).is_some(),
            "a reader survives SIGKILL for a second"
        );
        let mut ffmpeg = user.command("ffmpeg");
        ffmpeg
            .args(["-nostdin", "-v", "error", "-i"])
            .arg(daemon.path("dead.bin"))
            .args(["-f", "null", "-"]);
        let mut ffmpeg = Background::spawn(&mut ffmpeg);
        eventually("ffmpeg reads", Duration::from_secs(10), || {
            (daemon.json(&["status"])["waiting_reads"].as_u64()? > 0).then_some(())
        });
        ffmpeg.signal(Signal::INT);
        assert!(
            ffmpeg.ended_within(Duration::from_secs(1)).is_some(),
            "ffmpeg stays for a second after SIGINT"
        );
        let mut reader = blocked(&daemon, 0);
        user.stop(daemon);
        assert!(
            reader.ended_within(Duration::from_secs(2)).is_some(),
            "a reader outlives the mount"
        );

        let mut daemon = user.start(&options);
        user.run("fusermount3", &["-u".as_ref(), daemon.mountpoint().as_os_str()])
            .ok();
        let status = daemon.ended_within(Duration::from_secs(3));
        assert_eq!(status.and_then(|status| status.code()), Some(0), "{status:?}");

        let daemon = user.start(&options);
        let mountpoint = daemon.mountpoint().to_owned();
        let mut reader = blocked(&daemon, 0);
        daemon.crash();
        assert!(
            reader.ended_within(Duration::from_secs(1)).is_some(),
            "a reader outlives the daemon"
        );
        assert!(
            user.sees_mount(&mountpoint),
            "a crash leaves the mount, or this shows nothing"
        );
        let daemon = user.start(&options);
        let listing = user.run("ls", &[mountpoint.as_os_str()]).ok().text();
        assert_eq!(listing, "dead.bin\n");
        user.stop(daemon);
    });
}

/// "`--allow-other` refused with a clear word where fuse.conf forbids it."
#[test]
fn allow_other_is_refused_where_it_is_forbidden() {
    limited(Duration::from_secs(30), || {
        let work = Work::public();
        let user = User::new(&work);
        let allowed = fs::read_to_string("/etc/fuse.conf")
            .is_ok_and(|text| text.lines().any(|line| line.trim() == "user_allow_other"));
        if user.namespace.is_none() && allowed {
            report("skipped: /etc/fuse.conf allows it, and only root can hide that");
            return;
        }
        let options = user.options(&work).argument("--allow-other");
        let mut daemon = user.spawn(&options);
        let status = daemon.ended_within(Duration::from_secs(10)).expect("it is refused");
        assert_eq!(status.code(), Some(1));
        let log = daemon.log();
        assert!(
            log.contains("user_allow_other") && log.contains("/etc/fuse.conf"),
            "{log}"
        );
    });
}

/// "Mountpoint … no permission": it belongs to another.
#[test]
fn a_mount_point_of_another_is_refused() {
    limited(Duration::from_secs(30), || {
        let work = Work::public();
        let user = User::new(&work);
        let theirs = work.directory("theirs");
        fs::set_permissions(&theirs, fs::Permissions::from_mode(0o555)).expect("a directory that is not the user's");
        let mut daemon = user.spawn(&user.options(&work).mountpoint(&theirs));
        let status = daemon.ended_within(Duration::from_secs(10)).expect("it is refused");
        assert_eq!(status.code(), Some(1));
        let log = daemon.log();
        assert!(
            log.contains(&theirs.display().to_string()) && log.to_lowercase().contains("permi"),
            "{log}"
        );
    });
}

/// "Where /dev/fuse is 0600 … `doctor` names the fault", and so does `mount`.
#[test]
fn a_device_for_root_alone_is_named() {
    limited(Duration::from_secs(30), || {
        let work = Work::public();
        let user = User::new(&work);
        let Some(namespace) = &user.namespace else {
            report("skipped, not root: the mode of /dev/fuse cannot be changed");
            return;
        };
        let mut close = Command::new("nsenter");
        close.args([
            "--mount",
            "--target",
            &namespace.pid().to_string(),
            "chmod",
            "600",
            "/dev/fuse",
        ]);
        run(&mut close, Duration::from_secs(5)).ok();
        let doctor = user.run(&user.program.to_string_lossy(), &["doctor".as_ref()]);
        assert!(
            doctor.text().contains("/dev/fuse"),
            "doctor does not name it\n{}",
            doctor.text()
        );
        let mut daemon = user.spawn(&user.options(&work));
        let status = daemon.ended_within(Duration::from_secs(10)).expect("it cannot mount");
        assert_eq!(status.code(), Some(1));
        assert!(daemon.log().contains("/dev/fuse"), "{}", daemon.log());
    });
}

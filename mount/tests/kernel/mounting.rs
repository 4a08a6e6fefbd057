//! Mounting, unmounting, and what is left when something dies.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use magnetfs_mount::{Mount, MountError, clear_dead_mount, is_mounted};
use rustix::process::Signal;
use tokio::signal::unix::SignalKind;

use crate::fake::Fake;
use crate::support::{
    MountPoint, Running, Server, limit, options, read, run, runtime, sh, soon, start, start_command, start_python,
};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn the_kernel_shows_a_read_only_mount_of_ours_and_stop_takes_it_away() {
    limit(30, || {
        let mut server = Server::new();
        let path = server.point.path.clone();
        assert_eq!(is_mounted(&path), Some("fuse.magnetfs".into()));
        let table = read("/proc/self/mountinfo");
        let line = table
            .lines()
            .find(|line| line.contains(&path.to_str().unwrap().replace(' ', "\\040")))
            .unwrap();
        assert!(
            line.contains(" ro,nosuid,nodev,noexec,noatime ") && line.contains("- fuse.magnetfs magnetfs "),
            "{line}"
        );
        assert!(
            line.contains("default_permissions") && !line.contains("allow_other"),
            "{line}"
        );
        let start = Instant::now();
        server.mount.take().unwrap().stop().unwrap();
        assert!(start.elapsed() < SECOND / 2, "{:?}", start.elapsed());
        assert_eq!(is_mounted(&path), None);

        // And again at the same place.
        let mut options = options(&server.point);
        options.allow_other = true;
        let mount = Mount::start(server.fake.clone(), options, server.runtime.handle().clone()).unwrap();
        assert!(read("/proc/self/mountinfo").contains("allow_other"));
        drop(mount);
        assert_eq!(is_mounted(&path), None, "dropping unmounts too");
    });
}

#[test]
fn wrong_mount_points_are_refused_and_nothing_is_mounted() {
    limit(30, || {
        let server = Server::new();
        let start = |path: &Path| {
            let options = magnetfs_mount::MountOptions {
                mountpoint: path.into(),
                ..options(&server.point)
            };
            Mount::start(Fake::new(), options, server.runtime.handle().clone()).map(drop)
        };
        let beside = server.point.beside.path();
        assert!(matches!(
            start(&beside.join("missing")),
            Err(MountError::Missing { .. })
        ));
        assert!(matches!(start(beside), Err(MountError::NotEmpty { .. })));
        assert!(
            matches!(start(&server.point.path), Err(MountError::AlreadyMounted { by, .. }) if by == "fuse.magnetfs")
        );
        // Through a symbolic link it is the same mount point.
        let link = beside.join("link");
        std::os::unix::fs::symlink(&server.point.path, &link).unwrap();
        assert!(matches!(start(&link), Err(MountError::AlreadyMounted { .. })));
        std::fs::write(beside.join("file"), "").unwrap();
        assert!(matches!(
            start(&beside.join("file")),
            Err(MountError::NotADirectory { .. })
        ));
        run("ls", &[server.point.path.to_str().unwrap()]).ok();
    });
}

/// Readers in every state: two that wait, one idle with a file open, one whose working directory is in the mount.
fn busy(server: &Server) -> Vec<Running> {
    let film = server.fake.add("film", 1 << 30);
    server.fake.add("idle", 1000).ready();
    server.fake.add_group(&[("folder", None)]);
    let readers = vec![
        start("cat", &[&server.path("film")]),
        start_python(
            "import os, sys; print(os.pread(os.open(sys.argv[1], os.O_RDONLY), 1, 9999999))",
            &[&server.path("film")],
        ),
        start(
            "sh",
            &[
                "-c",
                r#"exec 3<"$1"; echo ready; exec sleep 60"#,
                "sh",
                &server.path("idle"),
            ],
        ),
        start(
            "sh",
            &[
                "-c",
                r#"cd "$1" && echo ready && exec sleep 60"#,
                "sh",
                &server.path("folder"),
            ],
        ),
    ];
    soon("all are where they should be", || {
        film.waiting() >= 2 && readers[2..].iter().all(|reader| reader.output().starts_with(b"ready"))
    });
    readers
}

#[test]
fn stop_under_blocked_and_idle_readers_is_quick_and_fails_them() {
    limit(30, || {
        let mut server = Server::new();
        let mut readers = busy(&server);
        let start = Instant::now();
        server.mount.take().unwrap().stop().unwrap();
        assert!(start.elapsed() < 3 * SECOND, "{:?}", start.elapsed());
        assert_eq!(is_mounted(&server.point.path), None);
        let rest = readers.split_off(2);
        for reader in readers {
            let done = reader.end_within(SECOND);
            assert!(done.text().contains("nput/output error"), "{}", done.text());
        }
        for mut reader in rest {
            assert!(reader.is_running(), "who only has something open is not disturbed");
        }
    });
}

#[test]
fn fail_reads_fails_reads_and_serves_the_rest() {
    limit(30, || {
        let server = Server::new();
        let mut readers = busy(&server);
        server.mount().fail_reads();
        for reader in readers.drain(..2) {
            assert!(reader.end_within(SECOND).text().contains("nput/output error"));
        }
        assert_eq!(server.mount().waiting_reads(), 0);
        run("ls", &["-lR", server.point.path.to_str().unwrap()]).ok();
        // New reads fail too, also of what is here; at once, however often they are tried.
        assert!(run("cat", &[&server.path("idle")]).text().contains("nput/output error"));
        assert!(run("cat", &[&server.path("film")]).text().contains("nput/output error"));
    });
}

#[test]
fn an_unmount_from_outside_ends_the_session() {
    limit(30, || {
        let mut server = Server::new();
        server.fake.add("film", 1000).ready();
        run("cat", &[&server.path("film")]).ok();
        let mut mount = server.mount.take().unwrap();
        let ended = server
            .runtime
            .block_on(async { tokio::time::timeout(SECOND / 5, mount.ended()).await });
        assert!(ended.is_err(), "not before");
        run("fusermount3", &["-u", server.point.path.to_str().unwrap()]).ok();
        let ended = server
            .runtime
            .block_on(async { tokio::time::timeout(5 * SECOND, mount.ended()).await });
        assert!(ended.is_ok());

        // What is mounted there by now is not ours to unmount.
        run("mount", &["-t", "tmpfs", "none", server.point.path.to_str().unwrap()]).ok();
        mount.stop().unwrap();
        assert_eq!(is_mounted(&server.point.path), Some("tmpfs".into()));
    });
}

#[test]
fn a_lazy_unmount_with_a_blocked_reader_ends_when_the_reader_does() {
    limit(30, || {
        let mut server = Server::new();
        let readers = busy(&server);
        run("fusermount3", &["-uz", server.point.path.to_str().unwrap()]).ok();
        for reader in &readers {
            reader.signal(Signal::KILL);
        }
        let mut mount = server.mount.take().unwrap();
        let ended = server
            .runtime
            .block_on(async { tokio::time::timeout(5 * SECOND, mount.ended()).await });
        assert!(ended.is_ok());
        mount.stop().unwrap();
    });
}

/// Set to the mount point for the process that serves one and is killed.
const VICTIM: &str = "MAGNETFS_TEST_VICTIM";

/// Not a test by itself: the process that [`serve_elsewhere`] starts.
#[test]
fn serve_until_killed() {
    let Some(mountpoint) = std::env::var_os(VICTIM) else {
        return;
    };
    let (fake, runtime) = (Fake::new(), runtime());
    fake.add("film", 1000);
    fake.add("ready", 1000).ready();
    let options = magnetfs_mount::MountOptions {
        mountpoint: mountpoint.into(),
        allow_other: std::env::var_os("MAGNETFS_TEST_ALLOW_OTHER").is_some(),
        uid: None,
        gid: None,
        umask: 0o022,
        read_deadline: 60 * SECOND,
        read_ceiling: 60 * SECOND,
    };
    match Mount::start(fake, options, runtime.handle().clone()) {
        Ok(mut mount) => {
            println!("\nserving, passthrough {}", mount.passthrough());
            runtime.block_on(async {
                let mut asked_to_stop = tokio::signal::unix::signal(SignalKind::terminate()).unwrap();
                tokio::select! {
                    () = mount.ended() => {}
                    _ = asked_to_stop.recv() => {}
                }
            });
            println!("\nended: {:?}", mount.stop());
        }
        Err(error) => println!("\nrefused: {error}"),
    }
}

fn has_said(child: &Running, word: &str) -> bool {
    String::from_utf8_lossy(&child.output()).contains(word)
}

fn serve_elsewhere(point: &MountPoint) -> Running {
    let arguments = ["--exact", "mounting::serve_until_killed", "--nocapture"];
    start_command(
        Command::new(std::env::current_exe().unwrap())
            .args(arguments)
            .env(VICTIM, &point.path),
    )
}

#[test]
fn what_a_killed_daemon_leaves_is_cleared_at_the_next_start() {
    limit(60, || {
        let point = MountPoint::new();
        let path = point.path.to_str().unwrap().to_owned();
        let served = || run("stat", &["-c", "%s", &format!("{path}/film")]).text() == "1000";
        for _ in 0..2 {
            let victim = serve_elsewhere(&point);
            soon("it serves", || has_said(&victim, "serving"));
            assert!(served());
            assert!(
                !clear_dead_mount(&point.path).unwrap(),
                "a mount that is served is not dead"
            );
            let reader = start("cat", &[&format!("{path}/film")]);
            soon("the reader waits", || {
                read(format!("/proc/{}/status", reader.id())).contains("State:\tD")
            });
            victim.signal(Signal::KILL);
            victim.end_within(SECOND);
            let done = reader.end_within(SECOND);
            assert!(!done.status.success());
            assert_eq!(
                is_mounted(&point.path),
                Some("fuse.magnetfs".into()),
                "the dead mount is still there"
            );
            assert!(run("ls", &[&path]).text().contains("not connected"));
        }
        let (fake, runtime) = (Fake::new(), runtime());
        fake.add("film", 1000);
        let mount = Mount::start(fake, options(&point), runtime.handle().clone()).unwrap();
        assert!(served());
        mount.stop().unwrap();
        assert_eq!(is_mounted(&point.path), None, "no dead mount is left below");
        assert!(!clear_dead_mount(&point.path).unwrap());
    });
}

#[test]
fn a_hung_daemon_does_not_hang_the_next_start() {
    limit(30, || {
        let point = MountPoint::new();
        let victim = serve_elsewhere(&point);
        soon("it serves", || has_said(&victim, "serving"));
        victim.signal(Signal::STOP);
        let start = Instant::now();
        let (fake, runtime) = (Fake::new(), runtime());
        let refused = Mount::start(fake, options(&point), runtime.handle().clone()).map(drop);
        assert!(matches!(refused, Err(MountError::AlreadyMounted { .. })), "{refused:?}");
        assert!(start.elapsed() < 4 * SECOND, "{:?}", start.elapsed());
        victim.signal(Signal::KILL);
        drop(victim);
    });
}

/// Runs the serving process as an ordinary user, in a mount namespace where /dev/fuse has the given permissions.
fn serve_as_nobody(point: &MountPoint, device_mode: &str, extra: &str) -> Running {
    // Where the user can reach it.
    let program = point.beside.path().join("test");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    sh(
        r#"chmod 0755 "$1" "$1/test"; chown nobody "$1" "$2""#,
        &[point.beside.path().to_str().unwrap(), point.path.to_str().unwrap()],
    )
    .ok();
    let script = r#"
rm -f "$1/fuse"; mknod "$1/fuse" c 10 229 && chmod "$3" "$1/fuse" && mount --bind "$1/fuse" /dev/fuse || exit 9
cd / && exec setpriv --reuid=65534 --regid=65534 --clear-groups env HOME=/ "$4" MAGNETFS_TEST_VICTIM="$2" \
    "$1/test" --exact mounting::serve_until_killed --nocapture"#;
    let arguments = [
        point.beside.path().to_str().unwrap(),
        point.path.to_str().unwrap(),
        device_mode,
        extra,
    ];
    start(
        "unshare",
        &[&["-m", "sh", "-c", script, "sh"], arguments.as_slice()].concat(),
    )
}

#[test]
fn an_ordinary_user_mounts_through_fusermount3() {
    if !rustix::process::geteuid().is_root() {
        // The other tests have done so already.
        return;
    }
    limit(60, || {
        let point = MountPoint::new();
        let server = serve_as_nobody(&point, "0666", "A=b");
        soon("it serves", || has_said(&server, "serving"));
        let process = server.id().to_string();
        let inside = |script: &str| {
            let as_nobody = "exec setpriv --reuid=65534 --regid=65534 --clear-groups sh -c \"$1\" sh \"$2\"";
            let path = point.path.to_str().unwrap();
            run(
                "nsenter",
                &["-t", &process, "-m", "sh", "-c", as_nobody, "sh", script, path],
            )
        };
        assert!(
            inside(r#"grep magnetfs /proc/self/mountinfo"#)
                .ok()
                .contains("fuse.magnetfs magnetfs")
        );
        assert_eq!(inside(r#"cat "$1/ready" | wc -c"#).ok(), "1000");
        assert_eq!(
            inside(r#"timeout -s INT 0.3 dd if="$1/film"; ls "$1""#)
                .ok()
                .lines()
                .last(),
            Some("ready")
        );
        inside(r#"fusermount3 -u "$1""#).ok();
        let output = server.end_within(5 * SECOND).ok();
        assert!(
            output.contains("ended: Ok(())") && output.contains("passthrough"),
            "{output}"
        );

        // Busy, it is detached.
        let server = serve_as_nobody(&point, "0666", "A=b");
        soon("it serves", || has_said(&server, "serving"));
        let process = server.id().to_string();
        let path = point.path.to_str().unwrap();
        let script = r#"exec 3<"$1/ready"; echo open; exec cat "$1/film""#;
        let as_nobody = r#"exec setpriv --reuid=65534 --regid=65534 --clear-groups sh -c "$1" sh "$2""#;
        let reader = start(
            "nsenter",
            &["-t", &process, "-m", "sh", "-c", as_nobody, "sh", script, path],
        );
        soon("the reader waits", || {
            has_said(&reader, "open") && read(format!("/proc/{}/status", reader.id())).contains("State:\tD")
        });
        server.signal(Signal::TERM);
        let output = server.end_within(5 * SECOND).ok();
        assert!(output.contains("ended: Ok(())"), "{output}");
        assert!(reader.end_within(SECOND).text().contains("nput/output error"));

        let output = serve_as_nobody(&point, "0600", "A=b").end_within(5 * SECOND).ok();
        assert!(
            output.contains("refused: /dev/fuse may not be opened") && output.contains("chmod 0666"),
            "{output}"
        );
        let output = serve_as_nobody(&point, "0666", "MAGNETFS_TEST_ALLOW_OTHER=1")
            .end_within(5 * SECOND)
            .ok();
        let allowed = read("/etc/fuse.conf")
            .lines()
            .any(|line| line.trim() == "user_allow_other");
        assert!(allowed || output.contains("user_allow_other"), "{output}");
        // Nothing of it is seen outside its namespace.
        assert_eq!(is_mounted(&point.path), None);
    });
}

//! Every read ends, and one that waits holds up no other.

use std::time::{Duration, Instant};

use magnetfs_mount::ReadError;

use crate::support::{Running, Server, limit, python, run, sh, soon, start, start_python, stays, within};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_read_without_progress_fails_at_its_deadline_and_only_once() {
    limit(30, || {
        let server = Server::with(|options| options.read_deadline = SECOND);
        let film = server.fake.add("film", 10_000_000);
        let start = Instant::now();
        let done = run(
            "dd",
            &[
                &format!("if={}", server.path("film")),
                "bs=1M",
                "count=1",
                "status=none",
            ],
        );
        // The kernel asks again for the first page alone: that must not wait for a second deadline.
        assert!((SECOND..2 * SECOND).contains(&start.elapsed()), "{:?}", start.elapsed());
        assert!(done.text().contains("Input/output error"), "{}", done.text());
        assert_eq!((film.waiting(), server.mount().waiting_reads()), (0, 0));

        // Whoever opens the file anew gets another try, although the second has not passed.
        let again = self::start("head", &["-c1", &server.path("film")]);
        soon("the new reader waits", || film.waiting() > 0);
        film.deliver_all();
        again.end_within(5 * SECOND).ok();
    });
}

#[test]
fn the_owner_hears_which_process_opens_also_if_a_thread_of_it_does() {
    limit(30, || {
        let server = Server::new();
        let film = server.fake.add("film", 4096).ready();
        let program = "import os, sys, threading\n\
                       thread = threading.Thread(target=lambda: open(sys.argv[1]).close())\n\
                       thread.start(); thread.join(); print(os.getpid())";
        let done = run("python3", &["-c", program, &server.path("film")]);
        assert_eq!(format!("{:?}", film.openers()), format!("[{}]", done.text().trim()));
    });
}

#[test]
fn progress_extends_the_deadline_and_the_ceiling_ends_what_trickles() {
    limit(30, || {
        let server = Server::with(|options| {
            options.read_deadline = SECOND;
            options.read_ceiling = 3 * SECOND;
        });
        let film = server.fake.add("film", 4096);
        let start = Instant::now();
        let mut reader = self::start("cat", &[&server.path("film")]);
        let ended = within(5 * SECOND, || {
            film.progress();
            !reader.is_running()
        });
        assert!(ended, "it reads on");
        assert!(
            (3 * SECOND..4 * SECOND).contains(&start.elapsed()),
            "{:?}",
            start.elapsed()
        );
        assert!(reader.end_within(SECOND).text().contains("Input/output error"));
    });
}

#[test]
fn progress_just_before_the_deadline_counts_from_there() {
    limit(30, || {
        let server = Server::with(|options| options.read_deadline = SECOND);
        let film = server.fake.add("film", 4096);
        let mut reader = start("cat", &[&server.path("film")]);
        soon("it waits", || film.waiting() > 0);
        stays("it waits", Duration::from_millis(700), || film.waiting() > 0);
        film.progress();
        let last = Instant::now();
        soon("its end", || !reader.is_running());
        assert!(
            last.elapsed() >= Duration::from_millis(950),
            "{:?} after the last progress",
            last.elapsed()
        );
        reader.end_within(SECOND);
    });
}

#[test]
fn errors_of_the_owner_reach_the_reader_at_once() {
    limit(30, || {
        let server = Server::new();
        let film = server.fake.add("film", 1_000_000);
        for error in [
            ReadError::NoSpace,
            ReadError::Paused,
            ReadError::Engine("it broke".into()),
        ] {
            film.fail(Some(error));
            assert!(
                run("cat", &[&server.path("film")])
                    .text()
                    .contains("Input/output error")
            );
        }
        film.fail(None);
        film.deliver_all();
        run("cat", &[&server.path("film")]).ok();
    });
}

/// Reads the first byte of one file each, in many processes at once; killed together when dropped.
fn blocked_readers(server: &Server, count: usize) -> Vec<Running> {
    let files: Vec<_> = (0..count)
        .map(|number| server.fake.add(&format!("dead {number}"), 1 << 30))
        .collect();
    let readers: Vec<_> = (0..count)
        .map(|number| start("cat", &[&server.path(&format!("dead {number}"))]))
        .collect();
    soon("all wait", || files.iter().all(|file| file.waiting() > 0));
    readers
}

#[test]
fn two_hundred_blocked_readers_hold_up_nothing() {
    limit(60, || {
        let server = Server::new();
        let healthy = server.fake.add("healthy", 20_000_000).ready();
        let slow = server.fake.add("slow", 5_000_000);
        slow.deliver_all();
        let readers = blocked_readers(&server, 200);
        assert!(server.mount().waiting_reads() >= 200);

        let start = Instant::now();
        run(
            "cmp",
            &[&server.path("healthy"), server.reference(&healthy).to_str().unwrap()],
        )
        .ok();
        run(
            "cmp",
            &[&server.path("slow"), server.reference(&slow).to_str().unwrap()],
        )
        .ok();
        let root = server.point.path.to_str().unwrap();
        assert_eq!(
            sh(
                r#"ls -l "$1" | wc -l; find "$1" -type f | wc -l; du -s "$1" >&2; df "$1" >&2"#,
                &[root]
            )
            .status
            .code(),
            Some(0)
        );
        // A second open of a file with a blocked read returns, and stat of it too.
        let script =
            "import os, sys; os.close(os.open(sys.argv[1], os.O_RDONLY)); os.stat(sys.argv[1]); print('opened')";
        assert_eq!(python(script, &[&server.path("dead 7")]).ok(), "opened");
        assert!(start.elapsed() < 5 * SECOND, "{:?}", start.elapsed());

        let start = Instant::now();
        for reader in &readers {
            reader.signal(rustix::process::Signal::KILL);
        }
        for reader in readers {
            reader.end_within(2 * SECOND);
        }
        assert!(start.elapsed() < 2 * SECOND, "{:?}", start.elapsed());
        soon("no demand is left", || server.mount().waiting_reads() == 0);
    });
}

#[test]
fn two_thousand_requests_in_the_background_do_not_stop_a_healthy_read() {
    limit(60, || {
        let server = Server::new();
        let dead = server.fake.add("dead", 1 << 32);
        let healthy = server.fake.add("healthy", 4_000_000).ready();
        // Each call makes the kernel read ahead there and does not wait for it.
        let script = "
import os, sys, time
fd = os.open(sys.argv[1], os.O_RDONLY)
for at in range(2000): os.posix_fadvise(fd, at << 20, 65536, os.POSIX_FADV_WILLNEED)
print('asked', flush=True)
time.sleep(60)
";
        let reader = start_python(script, &[&server.path("dead")]);
        soon("all are asked", || server.mount().waiting_reads() >= 2000);
        let start = Instant::now();
        run(
            "cmp",
            &[&server.path("healthy"), server.reference(&healthy).to_str().unwrap()],
        )
        .ok();
        assert!(start.elapsed() < SECOND, "{:?}", start.elapsed());
        drop(reader);
        soon("no demand is left", || {
            dead.waiting() == 0 && server.mount().waiting_reads() == 0
        });
    });
}

#[test]
fn a_reader_that_asks_again_and_again_is_answered_at_once_each_time() {
    limit(30, || {
        let server = Server::with(|options| options.read_deadline = SECOND);
        let film = server.fake.add("film", 1_000_000);
        let script = "
import os, sys, time
fd = os.open(sys.argv[1], os.O_RDONLY)
def fails():
    try: os.pread(fd, 4096, 0)
    except OSError as error: return error.errno
print(fails())
start = time.monotonic()
print(*{fails() for _ in range(100)}, time.monotonic() - start < 0.5)
";
        assert_eq!(python(script, &[&server.path("film")]).ok(), "5\n5 True");
        assert_eq!(film.waiting(), 0);
    });
}

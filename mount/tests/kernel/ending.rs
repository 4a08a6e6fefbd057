//! Who is killed or interrupted leaves at once, and takes nobody with him.

use std::time::Duration;

use rustix::process::Signal;

use crate::support::{Running, Server, ended_by, limit, sh, soon, start, start_python, stays, within};

const SECOND: Duration = Duration::from_secs(1);

/// Reads, with a handler for a signal that raises an exception, and says what happened.
const READ_WITH_HANDLER: &str = "
import os, signal, sys
class Caught(Exception): pass
def handler(number, frame): raise Caught
for number in sys.argv[2:]: signal.signal(int(number), handler)
fd = os.open(sys.argv[1], os.O_RDONLY)
print('open', flush=True)
try: print(os.pread(fd, 10, 0).hex(), flush=True)
except Caught: print('caught', flush=True)
";

#[test]
fn a_killed_reader_dies_at_once_and_its_demand_is_withdrawn() {
    limit(30, || {
        let server = Server::new();
        let film = server.fake.add("film", 1 << 30);
        for program in ["cat", "md5sum"] {
            let reader = start(program, &[&server.path("film")]);
            soon("it waits", || film.waiting() > 0);
            reader.signal(Signal::KILL);
            assert!(ended_by(&reader.end_within(SECOND), Signal::KILL));
            soon("its demand is withdrawn", || {
                film.waiting() == 0 && server.mount().waiting_reads() == 0
            });
        }
    });
}

#[test]
fn a_reader_with_a_handler_leaves_on_each_of_the_ending_signals() {
    limit(60, || {
        let server = Server::new();
        for signal in [Signal::HUP, Signal::INT, Signal::QUIT, Signal::TERM] {
            let film = server.fake.add(&format!("film {}", signal.as_raw()), 1 << 30);
            let path = server.path(&format!("film {}", signal.as_raw()));
            let reader = start_python(READ_WITH_HANDLER, &[&path, &signal.as_raw().to_string()]);
            soon("it waits", || film.waiting() > 0);
            reader.signal(signal);
            assert_eq!(reader.end_within(SECOND).ok(), "open\ncaught");
            soon("its demand is withdrawn", || film.waiting() == 0);
        }
    });
}

#[test]
fn a_reader_without_a_handler_dies_of_its_signal() {
    limit(30, || {
        let server = Server::new();
        let film = server.fake.add("film", 1 << 30);
        for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
            let reader = start("cat", &[&server.path("film")]);
            soon("it waits", || film.waiting() > 0);
            reader.signal(signal);
            assert!(ended_by(&reader.end_within(SECOND), signal));
            soon("its demand is withdrawn", || film.waiting() == 0);
        }
    });
}

/// Sends signals to a reader that must go on waiting, and then gets its bytes.
fn goes_on(server: &Server, name: &str, reader: Running, signals: &[Signal], expected: &str) {
    let film = server.fake.add(name, 4096);
    soon("it waits", || film.waiting() > 0);
    for signal in signals {
        reader.signal(*signal);
    }
    // Long enough for the watcher to look at it more than twice.
    stays("it waits", Duration::from_millis(700), || {
        film.waiting() > 0 && film.asked().len() == 1
    });
    film.deliver_all();
    assert_eq!(reader.end_within(5 * SECOND).ok(), expected);
}

const WAIT_FOR_FILE: &str = "
import os, time, sys
while not os.path.exists(sys.argv[1]): time.sleep(0.01)
";

/// Whether a reader that said that it is about to read sleeps in the kernel: it waits for the page.
fn waits(reader: &Running) -> bool {
    let status = || crate::support::read(format!("/proc/{}/status", reader.id()));
    reader.output().starts_with(b"open") && status().contains("State:\tD")
}

fn first_bytes(inode: u64) -> String {
    crate::fake::bytes(inode, 0, 10)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[test]
fn signals_that_end_nobody_fail_no_read() {
    limit(30, || {
        let server = Server::new();
        // Handled ones: they stay pending for as long as the read waits.
        let signals = [Signal::CHILD, Signal::WINCH, Signal::URG, Signal::USR1, Signal::ALARM];
        let script = format!(
            "{WAIT_FOR_FILE}
import signal
for number in {:?}: signal.signal(number, lambda *_: None)
fd = os.open(sys.argv[1], os.O_RDONLY)
print(os.pread(fd, 10, 0).hex())
",
            signals.map(Signal::as_raw)
        );
        let reader = start_python(&script, &[&server.path("film")]);
        goes_on(&server, "film", reader, &signals, &first_bytes(2));
    });
}

#[test]
fn blocked_and_ignored_signals_fail_no_read() {
    limit(30, || {
        let server = Server::new();
        let script = format!(
            "{WAIT_FOR_FILE}
import signal
signal.signal(signal.SIGHUP, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGTERM])
fd = os.open(sys.argv[1], os.O_RDONLY)
print(os.pread(fd, 10, 0).hex(), flush=True)
os._exit(0)
"
        );
        let reader = start_python(&script, &[&server.path("film")]);
        goes_on(
            &server,
            "film",
            reader,
            &[Signal::HUP, Signal::INT, Signal::TERM],
            &first_bytes(2),
        );
    });
}

#[test]
fn a_reader_that_goes_on_after_its_handler_gets_its_bytes() {
    limit(30, || {
        let server = Server::new();
        let film = server.fake.add("film", 1_000_000);
        let script = "
import os, signal, sys
signal.signal(signal.SIGHUP, lambda *_: print('again', flush=True))
fd = os.open(sys.argv[1], os.O_RDONLY)
print(os.pread(fd, 10, 0).hex())
";
        let reader = start_python(script, &[&server.path("film")]);
        soon("it waits", || film.waiting() > 0);
        reader.signal(Signal::HUP);
        soon("its handler ran", || reader.output().starts_with(b"again"));
        // Python asks again, and that read waits as if nothing had been.
        assert!(within(SECOND / 2, || film.waiting() > 0), "it waits again, at once");
        film.deliver_all();
        assert_eq!(reader.end_within(SECOND).ok(), format!("again\n{}", first_bytes(2)));
    });
}

#[test]
fn a_mapped_page_that_is_read_alone_can_be_killed() {
    limit(30, || {
        let server = Server::new();
        let film = server.fake.add("film", 1 << 20);
        for advice in ["MADV_NORMAL", "MADV_RANDOM"] {
            let script = format!(
                "
import mmap, os, sys
file = mmap.mmap(os.open(sys.argv[1], os.O_RDONLY), 0, prot=mmap.PROT_READ)
file.madvise(mmap.{advice})
print(file[500000])
"
            );
            let reader = start_python(&script, &[&server.path("film")]);
            soon("it waits", || film.waiting() > 0);
            reader.signal(Signal::KILL);
            assert!(ended_by(&reader.end_within(SECOND), Signal::KILL), "{advice}");
            soon("its demand is withdrawn", || film.waiting() == 0);
        }
    });
}

#[test]
fn a_child_that_exits_does_not_take_the_read_of_its_sibling_along() {
    limit(30, || {
        let server = Server::new();
        let film = server.fake.add("film", 100_000);
        let script = r#"exec 3<"$1"; head -c1 <&3 & true <&3; echo flushed; wait"#;
        let shell = start("sh", &["-c", script, "sh", &server.path("film")]);
        soon("one reads and the other is gone", || {
            film.waiting() > 0 && shell.output().starts_with(b"flushed")
        });
        stays("the read goes on", SECOND / 2, || film.waiting() > 0);
        film.deliver_all();
        let done = shell.end_within(SECOND);
        assert_eq!(
            done.output,
            [b"flushed\n".as_slice(), &crate::fake::bytes(2, 0, 1)].concat()
        );
        assert_eq!(film.asked().len(), 1, "nobody had to ask again");
    });
}

#[test]
fn of_two_readers_of_a_page_the_survivor_gets_its_bytes() {
    limit(60, || {
        let server = Server::new();
        for (name, killed) in [("first", 0), ("second", 1)] {
            let film = server.fake.add(name, 1_000_000);
            let script = "
import os, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
print('open', flush=True)
print(os.pread(fd, 10, 0).hex(), flush=True)
";
            let mut readers: Vec<Running> = Vec::new();
            for _ in 0..2 {
                let reader = start_python(script, &[&server.path(name)]);
                soon("it waits", || film.waiting() > 0 && waits(&reader));
                readers.push(reader);
            }
            let asked = film.asked().len();
            let dead = readers.remove(killed);
            dead.signal(Signal::KILL);
            assert!(ended_by(&dead.end_within(SECOND), Signal::KILL));
            // The survivor, who may have asked nothing himself, need not ask again.
            stays("the read goes on", SECOND / 2, || {
                film.waiting() > 0 && film.asked().len() == asked
            });
            film.deliver_all();
            let survivor = readers.remove(0).end_within(SECOND);
            assert_eq!(survivor.ok(), format!("open\n{}", first_bytes(film.inode)));

            // And once both are gone, so is the demand.
            let late = server.fake.add(&format!("{name} late"), 1_000_000);
            let two = [0, 1].map(|_| start("cat", &[&server.path(&format!("{name} late"))]));
            soon("they wait", || late.waiting() > 0);
            for reader in two {
                reader.signal(Signal::KILL);
                reader.end_within(SECOND);
            }
            soon("the demand is withdrawn", || late.waiting() == 0);
        }
    });
}

#[test]
fn a_handle_that_is_read_after_a_duplicate_was_closed_is_in_use() {
    limit(30, || {
        let server = Server::new();
        let film = server.fake.add("film", 1_000_000);
        film.deliver(0..450_000);
        let first = start_python(READ_AT, &[&server.path("film"), "500000"]);
        soon("it waits", || film.waiting() > 0 && waits(&first));
        // It closes a duplicate, reads what is here, and waits for the page that the first has asked for.
        let second = start_python(READ_AT, &[&server.path("film"), "0", "500000"]);
        soon("it waits too", || waits(&second));
        let asked = film.asked().len();
        first.signal(Signal::KILL);
        assert!(ended_by(&first.end_within(SECOND), Signal::KILL));
        stays("the read goes on", SECOND / 2, || {
            film.waiting() > 0 && film.asked().len() == asked
        });
        film.deliver_all();
        second.end_within(SECOND).ok();
    });
}

const READ_AT: &str = "
import os, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
os.close(os.dup(fd))
for at in sys.argv[2:-1]: os.pread(fd, 10, int(at))
print('open', flush=True)
os.pread(fd, 10, int(sys.argv[-1]))
";

#[test]
fn an_interrupted_reader_of_a_shared_page_does_not_fail_the_other() {
    limit(30, || {
        let server = Server::new();
        let film = server.fake.add("film", 1_000_000);
        let mut interrupted = start_python(READ_WITH_HANDLER, &[&server.path("film"), "2"]);
        soon("it waits", || film.waiting() > 0);
        let innocent = start_python(READ_WITH_HANDLER, &[&server.path("film"), "15"]);
        soon("both wait", || waits(&innocent));
        let asked = film.asked().len();
        interrupted.signal(Signal::INT);
        // Both wake up when the read of the first is given up. Either the interrupted one finds that out first and
        // leaves; or the other asks for the page again, and the interrupted one waits for that, which nobody can tell.
        soon("one leaves or the other asks", || {
            !interrupted.is_running() || film.asked().len() > asked
        });
        soon("the other asks for itself", || film.waiting() > 0);
        film.deliver_all();
        assert_eq!(innocent.end_within(SECOND).ok(), format!("open\n{}", first_bytes(2)));
        assert_eq!(interrupted.end_within(SECOND).ok(), "open\ncaught");
    });
}

#[test]
fn closed_duplicates_and_forked_children_do_not_harm_a_reader() {
    limit(30, || {
        let server = Server::new();
        let film = server.fake.add("film", 1_000_000);
        let script = "
import os, sys, threading, time
fd = os.open(sys.argv[1], os.O_RDONLY)
os.close(os.dup(fd))
def read(): print(os.pread(fd, 10, 0).hex(), flush=True)
reader = threading.Thread(target=read)
reader.start()
def state(task): return open(f'/proc/self/task/{task}/stat').read().split(') ')[1][0]
while 'D' not in map(state, os.listdir('/proc/self/task')): time.sleep(0.01)
for _ in range(5):
    os.close(os.dup(fd))
    child = os.fork()
    if child == 0: os._exit(0)
    os.waitpid(child, 0)
print('closed', flush=True)
reader.join()
";
        let reader = start_python(script, &[&server.path("film")]);
        soon("all is closed", || reader.output().starts_with(b"closed"));
        stays("the read goes on", SECOND / 2, || film.waiting() > 0);
        film.deliver_all();
        assert_eq!(reader.end_within(SECOND).ok(), format!("closed\n{}", first_bytes(2)));
        assert!(film.asked().iter().all(|(offset, _)| *offset < 1_000_000));
    });
}

#[test]
fn an_interrupted_pipeline_leaves_nothing_behind() {
    limit(30, || {
        let server = Server::new();
        let film = server.fake.add("film", 1 << 30);
        film.deliver(0..200_000);
        let done = sh(
            r#"timeout -s INT 0.5 dd if="$1" bs=4096 | wc -c"#,
            &[&server.path("film")],
        );
        assert!(
            done.text().contains("records in"),
            "dd printed its summary on SIGINT: {}",
            done.text()
        );
        soon("no demand is left", || {
            film.waiting() == 0 && server.mount().waiting_reads() == 0
        });
    });
}

//! Complete files are handed to the kernel where it takes them, and every obstacle means that we serve them.

use std::path::Path;

use crate::support::{Server, limit, python, run, soon, start};

/// Passthrough wants root and a kernel that offers it (6.9); elsewhere there is nothing to try.
fn offered(server: &Server) -> bool {
    server.mount().passthrough() && rustix::process::geteuid().is_root()
}

#[test]
fn a_complete_file_is_read_round_us_by_all_its_readers() {
    limit(30, || {
        let server = Server::new();
        if !offered(&server) {
            return;
        }
        let film = server.fake.add("film", 3_000_001).ready();
        let reference = server.reference(&film);
        film.backed_by(&reference);
        let reference = reference.to_str().unwrap();
        run("cmp", &[&server.path("film"), reference]).ok();
        // Several at once share one backing; a mapping works too.
        let script = "
import mmap, os, sys
files = [os.open(sys.argv[1], os.O_RDONLY) for _ in range(5)]
want = open(sys.argv[2], 'rb').read()
for fd in files: assert os.pread(fd, len(want) + 1, 0) == want
assert mmap.mmap(files[0], 0, prot=mmap.PROT_READ)[:] == want
for fd in files[:4]: os.close(fd)
again = os.open(sys.argv[1], os.O_RDONLY)
assert os.pread(again, 10, 3000000) == want[-1:]
";
        python(script, &[&server.path("film"), reference]).ok();
        assert_eq!(film.asked(), [], "we were never asked");
        assert!(server.mount().passthrough());
        assert_eq!(run("stat", &["-c", "%s", &server.path("film")]).ok(), "3000001");
    });
}

#[test]
fn the_way_a_file_is_served_is_fixed_while_it_is_open() {
    limit(30, || {
        let server = Server::new();
        if !offered(&server) {
            return;
        }
        let film = server.fake.add("film", 1_000_000).ready();
        let reference = server.reference(&film);
        let holder = start(
            "sh",
            &[
                "-c",
                r#"exec 3<"$1"; echo open; exec sleep 60"#,
                "sh",
                &server.path("film"),
            ],
        );
        soon("it is open, through us", || holder.output().starts_with(b"open"));
        film.backed_by(&reference);
        run("cmp", &[&server.path("film"), reference.to_str().unwrap()]).ok();
        let asked = film.asked().len();
        assert!(asked > 0, "another open goes through us as well");

        drop(holder);
        // What was read is in the page cache now; so it takes an open that goes round it to tell.
        soon("closed by all, it is handed over", || {
            run("cmp", &[&server.path("film"), reference.to_str().unwrap()]).ok();
            film.asked().len() == asked
        });
    });
}

#[test]
fn whatever_is_in_the_way_we_serve_the_file_ourselves() {
    limit(30, || {
        let server = Server::new();
        let beside = server.point.beside.path().to_path_buf();
        let short = beside.join("short");
        std::fs::write(&short, "short").unwrap();
        let ways = [
            ("missing", beside.join("missing")),
            ("short", short),
            ("folder", beside.clone()),
            ("device", Path::new("/dev/null").into()),
        ];
        for (name, backing) in &ways {
            let film = server.fake.add(name, 300_000).ready();
            film.backed_by(backing);
            run("cmp", &[&server.path(name), server.reference(&film).to_str().unwrap()]).ok();
            assert!(!film.asked().is_empty(), "{name}");
        }
        // On /proc, say, the kernel itself refuses; the file's size is right, but it is not a file to hand over.
        let memory = Path::new("/dev/shm");
        if memory.is_dir() {
            let film = server.fake.add("memory", 300_000).ready();
            let stored = tempfile::NamedTempFile::new_in(memory).unwrap();
            std::fs::write(stored.path(), crate::fake::bytes(film.inode, 0, 300_000)).unwrap();
            film.backed_by(stored.path());
            run(
                "cmp",
                &[&server.path("memory"), server.reference(&film).to_str().unwrap()],
            )
            .ok();
        }
    });
}

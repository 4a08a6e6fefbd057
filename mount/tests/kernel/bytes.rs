//! A read gives the file's bytes or an error: never others, never fewer.

use std::sync::Arc;
use std::time::Duration;

use crate::support::{Server, limit, python, run, sh, soon, start, start_python};

#[test]
fn whole_files_are_equal_however_they_are_read() {
    limit(60, || {
        let server = Server::new();
        let size = 3 * 1024 * 1024 + 4321;
        let ready = server.fake.add("ready", size).ready();
        let stored = server.fake.add("stored", size);
        stored.deliver_all();
        for (name, file) in [("ready", &ready), ("stored", &stored)] {
            let (path, reference) = (server.path(name), server.reference(file));
            let reference = reference.to_str().unwrap();
            let beside = server.point.beside.path().to_str().unwrap();
            run("cmp", &[&path, reference]).ok();
            sh(
                r#"cp "$1" "$3/copy" && cmp "$3/copy" "$2""#,
                &[&path, reference, beside],
            )
            .ok();
            // At odd offsets, and over the end of the file.
            for (block, skip, count) in [
                (1, 4095, 3),
                (4097, 1, 5),
                (65_537, 40, 9),
                (1_000_003, 2, 4),
                (7, 449_900, 999),
            ] {
                let dd = format!("dd bs={block} skip={skip} count={count} status=none");
                let script = format!(r#"{dd} if="$1" of="$3/a" && {dd} if="$2" of="$3/b" && cmp "$3/a" "$3/b""#);
                sh(&script, &[&path, reference, beside]).ok();
            }
        }
        assert!(!ready.asked().is_empty() && !stored.asked().is_empty());
    });
}

const SAME: &str = "
import mmap, os, random, sys
path, reference, way = sys.argv[1:]
want = open(reference, 'rb').read()
fd = os.open(path, os.O_RDONLY)
if way == 'mmap':
    got = mmap.mmap(fd, 0, prot=mmap.PROT_READ)
    for at in range(len(want) - 1, 0, -70001):
        assert got[at] == want[at], at
    assert got[:] == want
else:
    places = list(range(0, len(want), 10007))
    if way == 'backwards': places.reverse()
    else: random.Random(7).shuffle(places)
    for at in places:
        assert os.pread(fd, 10007, at) == want[at:at + 10007], at
assert os.pread(fd, 100, len(want)) == b''
assert os.pread(fd, 100, len(want) - 10) == want[-10:]
";

#[test]
fn out_of_order_mapped_and_by_many_at_once_the_bytes_are_the_same() {
    limit(60, || {
        let server = Server::new();
        let files: Vec<_> = (0..3)
            .map(|number| server.fake.add(&format!("f{number}"), 2_000_003))
            .collect();
        files[0].clone().ready();
        let readers: Vec<_> = files
            .iter()
            .enumerate()
            .flat_map(|(number, file)| {
                let (path, reference) = (server.path(&format!("f{number}")), server.reference(file));
                ["mmap", "backwards", "random"]
                    .map(|way| start_python(SAME, &[&path, reference.to_str().unwrap(), way]))
            })
            .collect();
        // The pieces of the others come late and in no order.
        for piece in [5_u64, 1, 9, 0, 3, 2, 8, 4, 7, 6] {
            for file in &files[1..] {
                soon("somebody waits", || file.waiting() > 0);
                file.deliver(piece * 200_001..(piece + 1) * 200_001);
            }
        }
        for reader in readers {
            reader.end_within(Duration::from_secs(20)).ok();
        }
    });
}

#[test]
fn an_answer_that_is_too_short_is_an_error_and_does_not_shrink_the_file() {
    limit(30, || {
        let server = Server::new();
        let file = server.fake.add("film", 1_000_000);
        file.deliver_all();
        file.answer_short();
        let done = run("cat", &[&server.path("film")]);
        assert!(
            !done.status.success() && done.text().contains("Input/output error"),
            "{}",
            done.text()
        );
        assert_eq!(run("stat", &["-c", "%s", &server.path("film")]).ok(), "1000000");
    });
}

#[test]
fn empty_files_and_folders_read_as_such() {
    limit(30, || {
        let server = Server::new();
        server.fake.add_group(&[("folder", None), ("folder/empty", Some(0))]);
        assert_eq!(run("cat", &[&server.path("folder/empty")]).ok(), "");
        assert_eq!(run("stat", &["-c", "%s %b", &server.path("folder/empty")]).ok(), "0 0");
        assert!(run("cat", &[&server.path("folder")]).text().contains("Is a directory"));
        assert!(run("cat", &[&server.path("nothing")]).text().contains("No such file"));
    });
}

#[test]
fn what_was_read_once_is_served_from_the_page_cache() {
    limit(30, || {
        let server = Server::new();
        let film = server.fake.add("film", 1_000_000).ready();
        run("cat", &[&server.path("film")]).ok();
        let asked = film.asked().len();
        assert!(asked > 0);
        run("cat", &[&server.path("film")]).ok();
        assert_eq!(film.asked().len(), asked, "a second open and read asks nothing");
    });
}

#[test]
fn what_would_write_or_go_round_the_page_cache_is_refused() {
    limit(30, || {
        let server = Server::new();
        server.fake.add("film", 1000).ready();
        let script = "
import errno, os, sys
def refused(flags):
    try: os.close(os.open(sys.argv[1], flags))
    except OSError as error: return errno.errorcode[error.errno]
print(*map(refused, [os.O_RDONLY | os.O_DIRECT, os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_TRUNC, os.O_RDONLY]))
";
        assert_eq!(
            python(script, &[&server.path("film")]).ok(),
            "EINVAL EROFS EROFS EROFS None"
        );
        for program in ["rm", "touch", "mkdir new; mkdir"] {
            let done = sh(
                &format!(r#"cd "$(dirname "$1")" && {program} "$1""#),
                &[&server.path("film")],
            );
            assert!(
                !done.status.success() && done.text().contains("Read-only file system"),
                "{}",
                done.text()
            );
        }
    });
}

#[test]
fn a_file_that_is_not_here_yet_shows_no_holes_and_some_blocks() {
    limit(30, || {
        let server = Server::new();
        let film = server.fake.add("film", 1_000_000);
        assert_eq!(run("stat", &["-c", "%b %B", &server.path("film")]).ok(), "1 512");
        film.deliver(0..51_200);
        soon("the blocks follow", || {
            run("stat", &["-c", "%b", &server.path("film")]).ok() == "100"
        });
        let script = "
import os, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
print(os.lseek(fd, 0, os.SEEK_DATA), os.lseek(fd, 0, os.SEEK_HOLE), os.lseek(fd, 100, os.SEEK_DATA), os.isatty(fd))
";
        assert_eq!(python(script, &[&server.path("film")]).ok(), "0 1000000 100 False");
    });
}

#[test]
fn a_content_that_panics_fails_its_own_reads_only() {
    limit(30, || {
        let server = Server::new();
        let bad = server.fake.add("bad", 1000);
        bad.panic_when_read();
        let good: Arc<_> = server.fake.add("good", 1000);
        let reader = start("cat", &[&server.path("good")]);
        assert!(run("cat", &[&server.path("bad")]).text().contains("Input/output error"));
        good.deliver_all();
        reader.end_within(Duration::from_secs(5)).ok();
        assert_eq!(server.mount().waiting_reads(), 0);
    });
}

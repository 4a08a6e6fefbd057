//! Names and attributes: at once, right, and in step with the catalog.

use std::time::Duration;

use magnetfs_mount::Space;

use crate::fake::MODIFIED;
use crate::support::{Server, limit, python, run, sh, soon, start, start_python};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn everything_is_shown_with_its_size_times_owner_and_permissions() {
    limit(30, || {
        let server = Server::with(|options| (options.uid, options.gid, options.umask) = (Some(1234), Some(567), 0o027));
        let name = "Ünïcode, \"quotes\" and spaces\n.mkv";
        server.fake.add_group(&[
            ("show", None),
            ("show/one", None),
            ("show/one/a.mkv", Some(1 << 40)),
            ("show/b", Some(5)),
        ]);
        server.fake.add(name, 7);
        let root = server.point.path.to_str().unwrap();
        let stat = |path: &str| run("stat", &["-c", "%F %s %a %u %g %Y %X %Z %i", &server.path(path)]).ok();
        let time = MODIFIED.as_secs();
        assert_eq!(
            stat("show/one/a.mkv"),
            format!("regular file {} 440 1234 567 {time} {time} {time} 4", 1_u64 << 40)
        );
        assert_eq!(
            stat("show/one"),
            format!("directory 0 550 1234 567 {time} {time} {time} 3")
        );
        assert_eq!(stat(""), format!("directory 0 550 1234 567 {time} {time} {time} 1"));
        assert_eq!(run("ls", &["-1U", root]).output, format!("show\n{name}\n").as_bytes());
        let found = sh(r#"cd "$1" && find . -printf '%p %y %i\n' | sort | head -4"#, &[root]).ok();
        assert_eq!(found, ". d 1\n./show d 2\n./show/b f 5\n./show/one d 3");
        assert_eq!(run("ls", &["-a1", &server.path("show/one")]).ok(), ".\n..\na.mkv");
        assert_eq!(run("stat", &["-c", "%i", &server.path("show/one/..")]).ok(), "2");
    });
}

#[test]
fn what_is_added_is_there_at_once_and_what_is_removed_is_gone_at_once() {
    limit(30, || {
        let server = Server::new();
        let root = server.point.path.to_str().unwrap().to_owned();
        for round in 0..20 {
            let name = format!("film {round}");
            assert!(!run("stat", &[&server.path(&name)]).status.success());
            server
                .fake
                .add_group(&[(&name, None), (&format!("{name}/a"), Some(10))])[0]
                .clone()
                .ready();
            assert_eq!(sh(r#"cat "$1/$2/a" | wc -c"#, &[&root, &name]).ok(), "10");
            server.fake.remove(&name);
            // The folder first, whose attributes the kernel keeps for long: it must be told that the name is gone.
            for path in ["", "/a"] {
                let gone = || sh(r#"test ! -e "$1/$2$3""#, &[&root, &name, path]).status.success();
                soon("the kernel forgets the name", gone);
            }
            assert_eq!(run("ls", &[&root]).ok(), "");
        }
    });
}

#[test]
fn a_name_that_comes_again_is_the_new_file() {
    limit(30, || {
        let server = Server::new();
        server.fake.add("film", 1000).ready();
        let old = run("sha1sum", &[&server.path("film")]).ok();
        server.fake.remove("film");
        let film = server.fake.add("film", 2000).ready();
        soon("the size is the new one", || {
            run("stat", &["-c", "%s %i", &server.path("film")]).ok() == format!("2000 {}", film.inode)
        });
        assert_ne!(run("sha1sum", &[&server.path("film")]).ok(), old);
        run(
            "cmp",
            &[&server.path("film"), server.reference(&film).to_str().unwrap()],
        )
        .ok();
    });
}

#[test]
fn reads_of_what_was_removed_fail_as_stale_whether_they_wait_or_come_later() {
    limit(30, || {
        let server = Server::new();
        let film = server.fake.add("film", 1_000_000);
        let script = "
import errno, os, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
for at in (0, 500000):
    try: print(os.pread(fd, 10, at))
    except OSError as error: print(errno.errorcode[error.errno], flush=True)
";
        let reader = start_python(script, &[&server.path("film")]);
        soon("it waits", || film.waiting() > 0);
        server.fake.remove("film");
        assert_eq!(reader.end_within(SECOND).ok(), "ESTALE\nESTALE");
        assert_eq!((film.waiting(), server.mount().waiting_reads()), (0, 0));
    });
}

#[test]
fn a_removal_is_not_held_up_by_a_busy_folder() {
    limit(30, || {
        let server = Server::new();
        let names: Vec<String> = (0..300).map(|number| format!("film {number}")).collect();
        for name in &names {
            server.fake.add(name, 10);
        }
        let lister = start(
            "sh",
            &[
                "-c",
                r#"while :; do ls -l "$1" >/dev/null; done"#,
                "sh",
                server.point.path.to_str().unwrap(),
            ],
        );
        for name in &names[..299] {
            server.fake.remove(name);
        }
        soon("only one is left", || {
            run("ls", &[server.point.path.to_str().unwrap()]).ok() == "film 299"
        });
        drop(lister);
    });
}

#[test]
fn a_folder_of_twenty_thousand_files_lists_each_once() {
    limit(60, || {
        let server = Server::new();
        let names: Vec<String> = (0..20_000).map(|number| format!("big/file {number:05}")).collect();
        let mut paths = vec![("big", None)];
        paths.extend(names.iter().map(|name| (name.as_str(), Some(1))));
        server.fake.add_group(&paths);
        let script = r#"ls -f "$1" | sort | uniq | wc -l; find "$1" -type f -size 1 | wc -l; ls -lU "$1" | wc -l"#;
        assert_eq!(sh(script, &[&server.path("big")]).ok(), "20002\n20000\n20001");
    });
}

#[test]
fn extended_attributes_and_free_space_are_the_owners() {
    limit(30, || {
        let server = Server::new();
        let film = server.fake.add("film", 1000);
        film.set_attributes(&[("user.magnetfs.progress", "0.2500"), ("user.magnetfs.state", "active")]);
        *server.fake.space.lock() = Space {
            used: 3 << 30,
            available: 5 << 30,
        };
        let script = "
import errno, os, sys
path = sys.argv[1]
print(sorted(os.listxattr(path)), os.getxattr(path, 'user.magnetfs.progress'))
try: os.getxattr(path, 'user.other')
except OSError as error: print(errno.errorcode[error.errno])
try: os.setxattr(path, 'user.other', b'x')
except OSError as error: print(errno.errorcode[error.errno])
print(os.listxattr(os.path.dirname(path)))
s = os.statvfs(path)
print(*(blocks * s.f_frsize >> 30 for blocks in (s.f_blocks, s.f_bavail, s.f_bfree)), s.f_files, s.f_namemax)
";
        let expected = "['user.magnetfs.progress', 'user.magnetfs.state'] b'0.2500'\nENODATA\nEROFS\n[]\n8 5 5 1 255";
        assert_eq!(python(script, &[&server.path("film")]).ok(), expected);
    });
}

//! A complete file read through the mount, with passthrough and without, against the same bytes read directly.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::support::swarm::Libtorrent;
use crate::support::torrents::{self, files_below};
use crate::support::{Background, Daemon, DaemonOptions, Work, eventually, run};
use crate::table;

const SIZE: usize = 1 << 30;

/// USER_HZ, which Linux shows to programs as 100 whatever it counts in.
const TICKS_PER_SECOND: f64 = 100.0;

pub(crate) fn compare() {
    let work = Work::new();
    let torrent = torrents::single_file(&work, "large.bin", SIZE, 1 << 20);
    let seeder = Libtorrent::seed(&[&torrent]);
    let daemon = DaemonOptions::new(&work).torrent(&torrent).peer(seeder.address).start();
    let path = daemon.path(&torrent.name);
    // While one handle from before the file was complete is open, the mount serves all of them itself.
    let holder = Background::spawn(
        Command::new("sh")
            .args(["-c", "exec sleep 900 <\"$1\"", "sh"])
            .arg(&path),
    );
    let mut command = Command::new("cmp");
    run(command.arg(&path).arg(torrent.source()), Duration::from_secs(600)).ok();
    eventually("all is verified", Duration::from_secs(30), || {
        (daemon.listed(&torrent.name)?["state"] == "complete").then_some(())
    });
    drop(seeder);
    let stored = stored(&daemon);
    run(&mut Command::new("sync"), Duration::from_secs(300)).ok();

    let passthrough = daemon.json(&["status"])["passthrough"] == true;
    let mut rows = vec![
        measured("the file itself, page cache dropped", &daemon, &stored, &[&stored]),
        measured(
            "through the mount, both caches dropped",
            &daemon,
            &path,
            &[&path, &stored],
        ),
        measured("through the mount, the file's cache warm", &daemon, &path, &[&path]),
    ];
    drop(holder);
    if passthrough {
        rows.push(measured(
            "passthrough, page cache dropped",
            &daemon,
            &path,
            &[&path, &stored],
        ));
        rows.push(measured("passthrough, the file's cache warm", &daemon, &path, &[]));
    }
    rows.push(measured("the file itself, cache warm", &daemon, &stored, &[]));
    table(
        "A complete file of 1 GiB",
        &["sequential MiB/s", "CPU s/GiB", "random 64K µs", "99 % µs"],
        &rows,
    );
    if !passthrough {
        println!("  Passthrough needs root and Linux 6.9: it was not there to be measured.");
    }
    daemon.stop();
}

fn stored(daemon: &Daemon) -> PathBuf {
    let files = daemon.data_dir().join("files");
    let all = files_below(&files);
    files.join(all.first().expect("the stored file"))
}

fn drop_cache(path: &Path) {
    let mut command = Command::new("dd");
    command
        .arg(format!("if={}", path.display()))
        .args(["iflag=nocache", "count=0", "status=none"]);
    run(&mut command, Duration::from_secs(30)).ok();
}

fn measured(name: &str, daemon: &Daemon, path: &Path, cold: &[&Path]) -> (String, Vec<String>) {
    cold.iter().for_each(|path| drop_cache(path));
    let before = ticks(daemon);
    let mut command = Command::new("dd");
    command
        .arg(format!("if={}", path.display()))
        .args(["of=/dev/null", "bs=1M", "status=none"]);
    let took = run(&mut command, Duration::from_secs(300)).ok().took;
    let ticks = ticks(daemon) - before;
    let sequential = (SIZE >> 20) as f64 / took.as_secs_f64();

    cold.iter().for_each(|path| drop_cache(path));
    let mut command = Command::new("fio");
    command.args([
        "--name=random",
        "--rw=randread",
        "--bs=64k",
        "--io_size=128m",
        "--ioengine=psync",
        "--readonly",
        "--invalidate=0",
        "--allow_file_create=0",
        "--output-format=json",
    ]);
    command.arg(format!("--filename={}", path.display()));
    let text = run(&mut command, Duration::from_secs(60)).ok().text();
    let answer: serde_json::Value = serde_json::from_str(&text).expect("fio's JSON");
    let percentile = |name: &str| {
        let nanoseconds = answer["jobs"][0]["read"]["clat_ns"]["percentile"][name]
            .as_f64()
            .unwrap_or(f64::NAN);
        format!("{:.1}", nanoseconds / 1e3)
    };
    let cpu = ticks as f64 / TICKS_PER_SECOND * (1 << 30) as f64 / SIZE as f64;
    let values = vec![
        format!("{sequential:.0}"),
        format!("{cpu:.2}"),
        percentile("50.000000"),
        percentile("99.000000"),
    ];
    (name.to_owned(), values)
}

/// CPU time of the daemon, and of the children of this process that have ended, in the kernel's ticks.
fn ticks(daemon: &Daemon) -> u64 {
    let field = |stat: &str, number: usize| -> u64 {
        // The name in the second field may hold spaces; it ends with the last parenthesis.
        let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        rest.split_whitespace()
            .nth(number - 3)
            .and_then(|text| text.parse().ok())
            .expect("a number of ticks")
    };
    let stat = |pid: &str| fs::read_to_string(format!("/proc/{pid}/stat")).expect("its times");
    let (daemon, ours) = (stat(&daemon.pid().to_string()), stat("self"));
    field(&daemon, 14) + field(&daemon, 15) + field(&ours, 16) + field(&ours, 17)
}

//! What viewers cost who watch at the pace of the film: processor time and memory of the daemon and all its FFmpegs.

use std::fs;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::swarm::Libtorrent;
use crate::support::torrents::{Torrent, metainfo_of};
use crate::support::trials::watched;
use crate::support::web::Web;
use crate::support::{Daemon, DaemonOptions, Work, report};
use crate::table;

/// How long they watch.
const SECONDS: u64 = 40;
/// Processor time is counted in these.
const TICKS_PER_SECOND: f64 = 100.0;

/// What a daemon and its children have used so far, and have in memory now.
#[derive(Debug, Clone, Copy, Default)]
struct Usage {
    cpu_s: f64,
    own_kib: u64,
    all_kib: u64,
}

pub(crate) fn compare() {
    let mut rows = Vec::new();
    for films in [1, 3, 8] {
        let (cpu, most, late) = watch(films);
        rows.push((
            format!("{films} at {SECONDS} s each"),
            vec![
                format!("{:.1} %", cpu * 100.0 / films as f64),
                format!("{} MB", most.own_kib / 1000),
                format!("{} MB", most.all_kib / 1000),
                format!("{:.2} s", late.as_secs_f64()),
            ],
        ));
    }
    table(
        "Viewers of films of 5 Mbit/s, each of another film",
        &["core each", "daemon", "with FFmpegs", "latest segment"],
        &rows,
    );
}

/// The share of a core that all of them took, the most memory, and how late a segment came at worst.
fn watch(count: usize) -> (f64, Usage, Duration) {
    let work = Work::new();
    let torrents: Vec<Torrent> = (0..count).map(|number| another(&work, number)).collect();
    let seeder = Libtorrent::seed(&torrents.iter().collect::<Vec<_>>());
    let mut options = DaemonOptions::new(&work).peer(seeder.address);
    for torrent in &torrents {
        options = options.torrent(torrent);
    }
    let daemon = options.start();
    let web = Web::of(&daemon);
    let (before, began) = (usage(&daemon), Instant::now());
    let (mut most, mut late) = (Usage::default(), Duration::ZERO);
    thread::scope(|scope| {
        // Each viewer holds it; nothing is ever sent.
        let (watching, ended) = mpsc::channel::<()>();
        let viewer = |torrent| {
            let watching = watching.clone();
            scope.spawn(move || {
                let late = view(web, torrent, began);
                drop(watching);
                late
            })
        };
        let viewers: Vec<_> = torrents.iter().map(viewer).collect();
        drop(watching);
        while ended.recv_timeout(Duration::from_millis(100)) == Err(RecvTimeoutError::Timeout) {
            let now = usage(&daemon);
            most.own_kib = most.own_kib.max(now.own_kib);
            most.all_kib = most.all_kib.max(now.all_kib);
        }
        for viewer in viewers {
            late = late.max(viewer.join().expect("a viewer"));
        }
    });
    let cpu = (usage(&daemon).cpu_s - before.cpu_s) / began.elapsed().as_secs_f64();
    daemon.stop();
    report(&format!("{count} viewers: {:.1} % of a core, {most:?}", cpu * 100.0));
    (cpu, most, late)
}

/// The same film under another name, which makes it another torrent.
fn another(work: &Work, number: usize) -> Torrent {
    let film = watched(false);
    let directory = work.directory("films");
    let name = format!("film-{number}.mkv");
    let path = directory.join(&name);
    fs::hard_link(film.source(), &path).expect("another name");
    let (metainfo, info_hash) = metainfo_of(&path, 1 << 20);
    let torrent = directory.join(format!("{name}.torrent"));
    fs::write(&torrent, metainfo).expect("a .torrent file");
    Torrent {
        path: torrent,
        directory,
        name,
        info_hash,
    }
}

/// Watches a film from its beginning at its own pace, and gives how late its latest segment was.
fn view(web: Web, torrent: &Torrent, began: Instant) -> Duration {
    let base = format!("hls/{}/{}/", torrent.info_hash, torrent.name);
    web.get(&format!("{base}master.m3u8")).ok();
    let list = web.get(&format!("{base}video.m3u8")).ok().text();
    let lengths = list.lines().filter_map(|line| line.strip_prefix("#EXTINF:"));
    let (mut due, mut late) = (Duration::ZERO, Duration::ZERO);
    for (number, length) in lengths.enumerate() {
        if due > Duration::from_secs(SECONDS) {
            break;
        }
        thread::sleep(due.saturating_sub(began.elapsed()));
        let asked = Instant::now();
        for track in ["video", "audio-0"] {
            web.get(&format!("{base}{track}/{number}.m4s")).ok();
        }
        // The first one is the start, which another part of the bench measures.
        if number > 0 {
            late = late.max(asked.elapsed());
        }
        due += Duration::from_secs_f64(length.trim_end_matches(',').parse().expect("a length"));
    }
    late
}

fn usage(daemon: &Daemon) -> Usage {
    let mut usage = Usage::default();
    for entry in fs::read_dir("/proc").expect("the table of processes").flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
            continue;
        };
        let Some((_, rest)) = stat.rsplit_once(") ") else {
            continue;
        };
        let fields: Vec<u64> = rest.split(' ').map(|field| field.parse().unwrap_or(0)).collect();
        let is_own = pid == daemon.pid();
        if !is_own && fields[1] != u64::from(daemon.pid()) {
            continue;
        }
        // Of its own and, of the daemon, of the children that are gone (proc(5): utime, stime, cutime, cstime).
        let ticks: u64 = fields[11..if is_own { 15 } else { 13 }].iter().sum();
        usage.cpu_s += ticks as f64 / TICKS_PER_SECOND;
        let kib = fields[21] * 4;
        usage.all_kib += kib;
        if is_own {
            usage.own_kib = kib;
        }
    }
    usage
}

//! From the request to the first segment, and from a seek to its segment, on a swarm of 8 Mbit/s and a film of 5:
//! our HLS against stock FFmpeg's own HLS muxer on a path of the same mount, and against the same FFmpeg on rqbit's
//! HTTP stream, where rqbit is installed; and against the line, which has to carry every piece that the segment needs,
//! and what the same cold seeders give a bare client that knows these pieces beforehand.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::start::{Swarm, bare, median};
use crate::support::torrents::{self, Torrent};
use crate::support::trials::watched;
use crate::support::web::Web;
use crate::support::{Background, DaemonOptions, Work, eventually, report, run, shell};
use crate::table;

const ROUNDS: usize = 3;
const PATIENCE: Duration = Duration::from_secs(90);
/// Where the viewer seeks to, in seconds.
const SEEK: u32 = 90;
/// 8 Mbit/s, in bytes a second.
const LINE: f64 = 1e6;
/// Of the films, in bytes. The muxer is compared on the smaller ones.
const PIECES: [u64; 2] = [256 << 10, 1 << 20];

/// Segments of 4 s as FFmpeg makes them, from `$2` seconds on, of `$1`, into `$3`.
const HLS_MUXER: &str = r#"cd "$3" && exec ffmpeg -nostdin -v error -ss "$2" -i "$1" -map 0:v -map 0:a -c copy -f hls \
    -hls_time 4 -hls_segment_type fmp4 -hls_flags temp_file -hls_list_size 0 list.m3u8"#;

/// The times to the first segment and to one after a seek; none for what took too long.
type Times = [Option<Duration>; 2];

type Measure<'a> = dyn Fn(&Torrent) -> Times + 'a;

pub(crate) fn compare() {
    let mut rows = Vec::new();
    for (index_last, piece) in [true, false]
        .into_iter()
        .flat_map(|last| PIECES.map(|piece| (last, piece)))
    {
        let work = Work::new();
        let film = torrents::make(&work, &watched(index_last).source(), piece);
        let name = format!("{} in {} KiB", film.name, piece >> 10);
        let needed = needed(&film, piece);
        let line = needed.each_ref().map(|needed| format!("{:.1}", needed.seconds));
        report(&format!(
            "{name}, what the line takes: {} s, after a seek {} s",
            line[0], line[1]
        ));
        rows.push((format!("{name}, the pieces over the line"), line.to_vec()));
        let bare = |film: &Torrent| bare(film, needed.each_ref().map(|needed| &needed.pieces)).map(Some);
        let bars: [(&str, &Measure<'_>); 4] = [
            ("a bare client that knows them", &bare),
            ("magnetfs, HLS", &ours),
            ("ffmpeg's muxer on our mount", &muxer_on_mount),
            ("ffmpeg's muxer on rqbit's stream", &muxer_on_rqbit),
        ];
        for (what, measure) in bars {
            if what.contains("muxer") && piece != PIECES[0] {
                continue;
            }
            if what.contains("rqbit") && Command::new("rqbit").arg("--version").output().is_err() {
                report("rqbit is not installed and is left out: cargo install rqbit --version 9.1.0");
                continue;
            }
            let rounds: Vec<_> = (0..ROUNDS).map(|_| measure(&film)).collect();
            let [first, sought] = [0, 1].map(|place| median(rounds.iter().map(|round| round[place]).collect()));
            report(&format!("{name}, {what}: {first} s, after a seek {sought} s"));
            rows.push((format!("{name}, {what}"), vec![first, sought]));
        }
    }
    table(
        "HLS of a film of 5 Mbit/s on a swarm of 8 Mbit/s: seconds to a segment of video",
        &["first", "after a seek"],
        &rows,
    );
}

/// Pieces that a segment needs, and what the line takes for them.
struct Needed {
    pieces: BTreeSet<u64>,
    seconds: f64,
}

/// What a first segment needs at least, with the index, and one after a seek.
fn needed(film: &Torrent, piece: u64) -> [Needed; 2] {
    let path = film.source();
    let size = path.metadata().expect("the film").len();
    let mut command = Command::new("ffprobe");
    command.args("-v error -select_streams v -of csv=p=0 -show_entries packet=pts_time,size,pos,flags".split(' '));
    let packets = run(command.arg(&path), PATIENCE).ok().text();
    let packets: Vec<(f64, Range<u64>, bool)> = packets
        .lines()
        .map(|line| {
            let fields: Vec<&str> = line.split(',').collect();
            let [time, length, start] = [0, 1, 2].map(|at| fields[at].parse::<f64>().expect("a number"));
            (time, start as u64..(start + length) as u64, fields[3].starts_with('K'))
        })
        .collect();
    let end = packets.iter().map(|(_, bytes, _)| bytes.end).max().expect("a packet");
    // FFmpeg ends a segment when it has read the keyframe behind it.
    let segment = |from: f64| {
        let keys = || packets.iter().filter(|(time, _, key)| *key && *time >= from);
        let (begun, first, _) = keys().next().expect("a keyframe");
        let (_, behind, _) = keys()
            .find(|(time, ..)| *time >= begun + 3.9)
            .expect("a keyframe behind");
        first.start..behind.end
    };
    let needed = |ranges: &[Range<u64>]| {
        let pieces = ranges
            .iter()
            .flat_map(|bytes| bytes.start / piece..bytes.end.div_ceil(piece));
        let pieces: BTreeSet<u64> = pieces.collect();
        let bytes: u64 = pieces.iter().map(|index| piece.min(size - index * piece)).sum();
        let seconds = bytes as f64 / LINE;
        Needed { pieces, seconds }
    };
    [
        needed(&[0..1, segment(0.0), end..size]),
        needed(&[segment(f64::from(SEEK) - 2.0)]),
    ]
}

/// From the request of the master playlist to the last byte of the first segment, and from a seek to its segment's.
fn ours(film: &Torrent) -> Times {
    let work = Work::new();
    let swarm = Swarm::new(&work, film);
    let options = DaemonOptions::new(&work).option("--trackers", "on");
    let daemon = options.argument(&swarm.torrent).start();
    let web = Web::of(&daemon).patient(PATIENCE);
    // The tracker's URL is outside the info dictionary: the info hash is the plain torrent's.
    let base = format!("hls/{}/{}/", film.info_hash, film.name);
    let began = Instant::now();
    web.get(&format!("{base}master.m3u8")).ok();
    let list = web.get(&format!("{base}video.m3u8")).ok().text();
    let (segments, lengths) = segments(&list);
    web.get(&format!("{base}{}", segments[0])).ok();
    let first = began.elapsed();
    let mut end = 0.0;
    let place = lengths.iter().position(|length| {
        end += length;
        end > f64::from(SEEK)
    });
    let began = Instant::now();
    web.get(&format!("{base}{}", segments[place.expect("a segment there")]))
        .ok();
    let sought = began.elapsed();
    daemon.stop();
    [Some(first), Some(sought)]
}

fn segments(list: &str) -> (Vec<&str>, Vec<f64>) {
    let lengths = list.lines().filter_map(|line| line.strip_prefix("#EXTINF:"));
    let lengths = lengths.filter_map(|length| length.trim_end_matches(',').parse().ok());
    let uris = list.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    (uris.collect(), lengths.collect())
}

fn muxer_on_mount(film: &Torrent) -> Times {
    let work = Work::new();
    let swarm = Swarm::new(&work, film);
    let options = DaemonOptions::new(&work).option("--trackers", "on");
    let daemon = options.argument(&swarm.torrent).start();
    let path = daemon.path(&film.name);
    let times = [0, SEEK].map(|start| muxed(&work, &path, start));
    daemon.stop();
    times
}

fn muxer_on_rqbit(film: &Torrent) -> Times {
    let work = Work::new();
    let swarm = Swarm::new(&work, film);
    let api = crate::support::swarm::free_address();
    let mut command = Command::new("rqbit");
    command.args([
        "--disable-dht",
        "--disable-upnp-port-forward",
        "--disable-lsd",
        "--http-api-listen-addr",
    ]);
    command
        .arg(api.to_string())
        .args(["server", "start", "--disable-persistence"])
        .arg(work.directory("rqbit"));
    let mut client = Background::spawn(&mut command);
    let web = Web::at(api).patient(PATIENCE);
    eventually("rqbit answers", Duration::from_secs(20), || {
        assert!(client.is_running(), "rqbit ended");
        std::net::TcpStream::connect(api).ok()
    });
    let torrent = std::fs::read(&swarm.torrent).expect("a .torrent file");
    web.request("POST", "torrents?overwrite=true", &[], &torrent).ok();
    let stream = format!("http://{api}/torrents/0/stream/0");
    [0, SEEK].map(|start| muxed(&work, Path::new(&stream), start))
}

/// The time until FFmpeg's muxer has put its first segment in place.
fn muxed(work: &Work, source: &Path, start: u32) -> Option<Duration> {
    let folder = work.directory(&format!("muxed-{start}"));
    let start = start.to_string();
    let arguments = [source.as_os_str(), start.as_ref(), folder.as_os_str()];
    let began = Instant::now();
    let mut muxer = Background::spawn(&mut shell(HLS_MUXER, &arguments));
    let mut came = None;
    while came.is_none() && began.elapsed() < PATIENCE && muxer.is_running() {
        came = ["list0.m4s", "list1.m4s"]
            .iter()
            .any(|name| folder.join(name).exists())
            .then(|| began.elapsed());
        std::thread::sleep(Duration::from_millis(5));
    }
    came
}

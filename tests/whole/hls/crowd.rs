//! Many viewers: those of one place share an FFmpeg, and those who are everywhere meet a limit.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use super::ends::children_of;
use super::show::Show;
use crate::support::swarm::Libtorrent;
use crate::support::trials::{Trial, watched};
use crate::support::web::Web;
use crate::support::{DaemonOptions, Work, eventually, limited, report};

/// "50 viewers of one place of a film share one FFmpeg; too many places at once are refused with the time to come again."
#[test]
fn viewers_of_one_place_share_a_run() {
    limited(Duration::from_secs(120), || {
        let torrent = watched(true);
        let seeder = Libtorrent::seed(&[&torrent]);
        let work = Work::new();
        let options = DaemonOptions::new(&work);
        let daemon = options.torrent(&torrent).peer(seeder.address).start();
        let web = Web::of(&daemon);
        let show = Show::open(web, &torrent);

        thread::scope(|scope| {
            let (show, pid) = (&show, daemon.pid());
            // Each viewer holds it; nothing is ever sent.
            let (watching, ended) = mpsc::channel::<()>();
            let watch = scope.spawn(move || {
                let mut seen = BTreeSet::new();
                while ended.recv_timeout(Duration::from_millis(5)) == Err(RecvTimeoutError::Timeout) {
                    seen.extend(children_of(pid).iter().map(|child| child.pid));
                }
                seen.len()
            });
            for viewer in 0..50 {
                let watching = watching.clone();
                scope.spawn(move || {
                    let segments = &show.video().segments;
                    let begin = viewer % 5;
                    segments[begin..segments.len() / 4].iter().for_each(|(uri, _)| {
                        show.get(uri).ok();
                    });
                    drop(watching);
                });
            }
            drop(watching);
            let started = watch.join().expect("who watches");
            report(&format!("50 viewers of one place: {started} FFmpegs were started"));
            // Who comes first may come for a later segment than who comes next, for whom another then begins.
            assert!(started <= 3, "{started} FFmpegs served them");
        });
        eventually("one FFmpeg is left", Duration::from_secs(5), || {
            (children_of(daemon.pid()).len() == 1).then_some(())
        });
        daemon.stop();
    });
}

#[test]
fn viewers_who_are_everywhere_meet_a_limit() {
    limited(Duration::from_secs(150), || {
        let trials = [
            Trial::Mp4IndexFirst,
            Trial::Mp4IndexLast,
            Trial::Matroska,
            Trial::MatroskaByMkvmerge,
            Trial::Vp9Opus,
            Trial::Av1,
            Trial::Hevc,
            Trial::LongGop,
            Trial::VariableFrameRate,
            Trial::Aac44100,
        ];
        let torrents = trials.map(Trial::torrent);
        let seeder = Libtorrent::seed(&torrents.iter().collect::<Vec<_>>());
        let work = Work::new();
        let mut options = DaemonOptions::new(&work).peer(seeder.address);
        for torrent in &torrents {
            options = options.torrent(torrent);
        }
        let daemon = options.start();
        let web = Web::of(&daemon);
        let shows: Vec<Show> = torrents.iter().map(|torrent| Show::open(web, torrent)).collect();
        let (served, refused) = (AtomicUsize::new(0), AtomicUsize::new(0));
        thread::scope(|scope| {
            for show in &shows {
                for part in 0..5 {
                    let (served, refused) = (&served, &refused);
                    scope.spawn(move || {
                        let segments = &show.video().segments;
                        let answer = show.get(&segments[part * segments.len() / 5].0);
                        match answer.status {
                            200 => served.fetch_add(1, Ordering::Relaxed),
                            503 => {
                                let again = answer.header("retry-after").and_then(|after| after.parse::<u32>().ok());
                                assert!(again.is_some_and(|after| (1..=60).contains(&after)), "{again:?}");
                                refused.fetch_add(1, Ordering::Relaxed)
                            }
                            other => panic!("answered by {other}: {}", answer.text()),
                        };
                    });
                }
            }
        });
        let (served, refused) = (served.into_inner(), refused.into_inner());
        report(&format!(
            "50 viewers of ten films at five places each: {served} served, {refused} told to come again"
        ));
        assert!(served > 0 && refused > 0, "the limit was not met");
        daemon.stop();
    });
}

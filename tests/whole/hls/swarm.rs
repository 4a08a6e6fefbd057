//! HLS while the film is on the network: what a first segment and a far seek cost, and what becomes of a viewer while
//! nobody sends anything.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use super::show::Show;
use crate::support::swarm::{Libtorrent, Seeding};
use crate::support::torrents::Torrent;
use crate::support::trials::watched;
use crate::support::web::Web;
use crate::support::{Daemon, DaemonOptions, Work, eventually, limited, report};

/// 8 Mbit/s.
const LINE: u64 = 1_000_000;

fn seed(torrent: &Torrent) -> Libtorrent {
    let slow = Seeding {
        upload_limit: LINE,
        ..Seeding::default()
    };
    Libtorrent::seed_with(&[torrent], &slow)
}

fn daemon(work: &Work, torrent: &Torrent, seeder: &Libtorrent) -> Daemon {
    let options = DaemonOptions::new(work);
    options.torrent(torrent).peer(seeder.address).start()
}

#[test]
fn an_mp4_with_its_index_last_starts_and_seeks() {
    starts_and_seeks(true);
}

#[test]
fn a_matroska_with_its_cues_last_starts_and_seeks() {
    starts_and_seeks(false);
}

/// "The whole timeline of a film is there before 1 % of it is downloaded, and the first segment follows before 10 MB."
fn starts_and_seeks(index_last: bool) {
    limited(Duration::from_secs(120), || {
        let torrent = watched(index_last);
        let size = torrent.source().metadata().expect("the film").len();
        let seeder = seed(&torrent);
        let work = Work::new();
        let daemon = daemon(&work, &torrent, &seeder);
        let web = Web::of(&daemon);

        let began = Instant::now();
        let show = Show::open(web, &torrent);
        let (listed, cost_of_list) = (began.elapsed(), seeder.uploaded());
        assert!(
            cost_of_list < size / 100,
            "the timeline cost {cost_of_list} bytes of {size}"
        );
        let total: f64 = show.video().segments.iter().map(|(_, length)| length).sum();
        assert!((475.0..485.0).contains(&total), "the timeline is {total} s long");
        show.get(show.video().init.as_ref().expect("an init segment")).ok();
        show.get(&show.video().segments[0].0).ok();
        let (first, cost) = (began.elapsed(), seeder.uploaded());
        assert!(cost < 10_000_000, "the first segment cost {cost} bytes");

        let far = show.video().at(90.0);
        let began = Instant::now();
        show.get(&show.video().segments[far].0).ok();
        let (sought, cost_of_seek) = (began.elapsed(), seeder.uploaded() - cost);
        assert!(cost_of_seek < 10_000_000, "a seek cost {cost_of_seek} bytes");
        report(&format!(
            "{}, {:.1} MB: timeline after {:.2} s and {:.2} MB ({:.1} %), first segment {:.2} s, {:.2} MB, seek {:.2} s, {:.2} MB",
            torrent.name,
            size as f64 / 1e6,
            listed.as_secs_f64(),
            cost_of_list as f64 / 1e6,
            cost_of_list as f64 / size as f64 * 100.0,
            first.as_secs_f64(),
            cost as f64 / 1e6,
            sought.as_secs_f64(),
            cost_of_seek as f64 / 1e6,
        ));
        daemon.stop();
    });
}

/// "When every seeder is gone for 30 s, a segment that is waited for comes after all."
#[test]
fn a_viewer_outlasts_30_s_without_a_seeder() {
    limited(Duration::from_secs(160), || {
        let torrent = watched(false);
        let seeder = seed(&torrent);
        let work = Work::new();
        let daemon = daemon(&work, &torrent, &seeder);
        let show = Show::open(Web::of(&daemon).patient(Duration::from_secs(100)), &torrent);
        let segments = show.video().segments.clone();
        show.get(&segments[0].0).ok();

        let address = seeder.address;
        drop(seeder);
        let far = show.video().at(90.0);
        let (answers, answer) = mpsc::channel();
        thread::spawn(move || {
            let answer = show.get(&segments[far].0);
            answers.send((answer.status, Instant::now()))
        });
        let state = || {
            let web = Web::of(&daemon);
            let report = web
                .get(&format!("api/films/{}/{}", torrent.info_hash, torrent.name))
                .ok()
                .text();
            let report: serde_json::Value = serde_json::from_str(&report).expect("JSON");
            report["state"].as_str().expect("a state").to_owned()
        };
        let gone = Instant::now();
        eventually("the film is said to stall", Duration::from_secs(30), || {
            (state() == "stalled").then_some(())
        });
        assert_eq!(
            answer.recv_timeout(Duration::from_secs(30).saturating_sub(gone.elapsed())),
            Err(RecvTimeoutError::Timeout),
            "a segment came, or failed, without a seeder"
        );
        let returned = Instant::now();
        let _seeder = Libtorrent::seed_with(
            &[&torrent],
            &Seeding {
                address: Some(address),
                ..Seeding::default()
            },
        );
        let (status, came) = answer.recv_timeout(Duration::from_secs(60)).expect("an answer");
        assert_eq!(status, 200);
        report(&format!(
            "the segment came {:.1} s after the seeder",
            (came - returned).as_secs_f64()
        ));
        eventually("the film streams again", Duration::from_secs(10), || {
            ["streaming", "completed"].contains(&state().as_str()).then_some(())
        });
        daemon.stop();
    });
}

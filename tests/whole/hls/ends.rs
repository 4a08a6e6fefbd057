//! FFmpeg that dies, and a daemon that dies before it: nothing wrong is served, and nothing is left running.

use std::path::PathBuf;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use super::show::Show;
use crate::support::limit::kill;
use crate::support::swarm::Libtorrent;
use crate::support::trials::{Trial, watched};
use crate::support::web::Web;
use crate::support::{Daemon, DaemonOptions, Work, eventually, limited, report};

/// A process of FFmpeg.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Child {
    pub(crate) pid: u32,
    pub(crate) is_zombie: bool,
}

/// The daemon's children that are FFmpeg, dead ones that nobody has reaped among them.
pub(crate) fn children_of(daemon: u32) -> Vec<Child> {
    processes()
        .into_iter()
        .filter_map(|(pid, stat)| {
            let (name, rest) = stat.split_once('(')?.1.rsplit_once(") ")?;
            let mut fields = rest.split(' ');
            let (state, parent) = (fields.next()?, fields.next()?.parse::<u32>().ok()?);
            (parent == daemon && name == "ffmpeg").then(|| Child {
                pid,
                is_zombie: state == "Z",
            })
        })
        .collect()
}

fn processes() -> Vec<(u32, String)> {
    let all = std::fs::read_dir("/proc")
        .expect("the table of processes")
        .filter_map(|entry| {
            let pid = entry.ok()?.file_name().to_str()?.parse().ok()?;
            Some((
                pid,
                std::fs::read_to_string(PathBuf::from(format!("/proc/{pid}/stat"))).ok()?,
            ))
        });
    all.collect()
}

fn daemon(work: &Work, seeder: &Libtorrent, torrent: &crate::support::torrents::Torrent) -> Daemon {
    let options = DaemonOptions::new(work);
    options.torrent(torrent).peer(seeder.address).start()
}

/// "FFmpeg may be killed at any moment: no wrong byte is served, and playback goes on." `KILLS` makes it longer.
#[test]
fn ffmpeg_killed_under_play_costs_no_byte() {
    let wanted: usize = std::env::var("KILLS")
        .ok()
        .and_then(|kills| kills.parse().ok())
        .unwrap_or(12);
    limited(Duration::from_secs(60 + 5 * wanted as u64), || {
        let torrent = watched(false);
        let seeder = Libtorrent::seed(&[&torrent]);
        let calm = Work::new();
        let started = daemon(&calm, &seeder, &torrent);
        let show = Show::open(Web::of(&started), &torrent);
        let uris: Vec<String> = show.video().segments.iter().map(|(uri, _)| uri.clone()).collect();
        let expected: Vec<Vec<u8>> = uris.iter().map(|uri| show.get(uri).ok().body).collect();
        started.stop();

        let (mut kills, mut failures, mut rounds) = (0, 0, 0);
        while kills < wanted {
            rounds += 1;
            assert!(
                rounds <= 2 * wanted,
                "{kills} of {wanted} kills in {rounds} rounds: FFmpeg is hardly met"
            );
            let work = Work::new();
            let started = daemon(&work, &seeder, &torrent);
            let show = Show::open(Web::of(&started), &torrent);
            let pid = started.pid();
            let mut random = fastrand::Rng::with_seed(rounds as u64);
            thread::scope(|scope| {
                // Dropped when the film was played, also if a segment is wrong: the scope waits for the killer.
                let (playing, played) = mpsc::channel::<()>();
                let killer = scope.spawn(move || {
                    let mut kills = 0;
                    // Long enough, now and then, for an FFmpeg to start on a busy machine.
                    let mut pause = || Duration::from_millis(random.u64(20..400));
                    while played.recv_timeout(pause()) == Err(RecvTimeoutError::Timeout) {
                        for child in children_of(pid).iter().filter(|child| !child.is_zombie) {
                            kill(child.pid, Signal::KILL);
                            kills += 1;
                        }
                    }
                    kills
                });
                for (uri, expected) in uris.iter().zip(&expected) {
                    // A second death in the same segment is told to the client, which asks again.
                    let body = eventually("a segment comes in the end", Duration::from_secs(20), || {
                        let answer = show.get(uri);
                        match answer.status {
                            200 => Some(answer.body),
                            500 | 503 => {
                                failures += 1;
                                assert!(!answer.body.is_empty(), "a failure is said without a word");
                                None
                            }
                            other => panic!("{uri} is answered by {other}: {}", answer.text()),
                        }
                    });
                    assert!(body == *expected, "{uri} has other bytes than without a kill");
                }
                drop(playing);
                kills += killer.join().expect("the killer");
            });
            eventually("no zombie is left", Duration::from_secs(5), || {
                children_of(started.pid())
                    .iter()
                    .all(|child| !child.is_zombie)
                    .then_some(())
            });
            started.stop();
        }
        report(&format!(
            "{kills} kills in {rounds} plays of {} segments: {failures} requests had to be asked again",
            uris.len()
        ));
    });
}

/// "SIGTERM of the daemon leaves no mount and no process within 3 s, whoever is blocked", and neither does its sudden
/// death.
#[test]
fn a_daemon_that_ends_takes_its_ffmpegs_along() {
    limited(Duration::from_secs(100), || {
        let torrent = watched(false);
        let seeder = Libtorrent::seed(&[&torrent]);
        for signal in [Signal::TERM, Signal::KILL] {
            let work = Work::new();
            let started = daemon(&work, &seeder, &torrent);
            let show = Show::open(Web::of(&started), &torrent);
            show.get(&show.video().segments[0].0).ok();
            // It is 30 s ahead now and waits for the viewer, or is on its way there.
            let children = eventually("FFmpeg runs", Duration::from_secs(10), || {
                let children = children_of(started.pid());
                (!children.is_empty()).then_some(children)
            });
            if signal == Signal::TERM {
                started.stop();
            } else {
                started.crash();
            }
            eventually("no FFmpeg is left", Duration::from_secs(3), || {
                let left = processes();
                children
                    .iter()
                    .all(|child| left.iter().all(|(pid, _)| *pid != child.pid))
                    .then_some(())
            });
        }
    });
}

/// What is paused by back-pressure for as long as nobody fetches ends by itself.
#[test]
fn a_run_that_nobody_asks_of_ends() {
    limited(Duration::from_secs(150), || {
        let torrent = Trial::Matroska.torrent();
        let seeder = Libtorrent::seed(&[&torrent]);
        let work = Work::new();
        let started = daemon(&work, &seeder, &torrent);
        let show = Show::open(Web::of(&started), &torrent);
        show.get(&show.video().segments[0].0).ok();
        eventually("FFmpeg ends", Duration::from_secs(120), || {
            children_of(started.pid()).is_empty().then_some(())
        });
        started.stop();
    });
}

/// What was made of it stays for when it comes back, and is given out no more.
#[test]
fn a_film_that_was_removed_is_gone() {
    limited(Duration::from_secs(60), || {
        let torrent = Trial::Matroska.torrent();
        let seeder = Libtorrent::seed(&[&torrent]);
        let work = Work::new();
        let started = daemon(&work, &seeder, &torrent);
        let show = Show::open(Web::of(&started), &torrent);
        let (first, _) = &show.video().segments[0];
        show.get(first).ok();
        started.control(&["remove", &torrent.info_hash]).ok();
        assert_eq!(show.get(first).status, 404);
        started.stop();
    });
}

/// What was made of a film takes no room when its torrent is removed, whatever is kept of the torrent itself.
#[test]
fn a_removed_torrent_leaves_no_segments() {
    limited(Duration::from_secs(60), || {
        let torrent = Trial::Mp4IndexFirst.torrent();
        let work = Work::new();
        let seeder = Libtorrent::seed(&[&torrent]);
        let daemon = daemon(&work, &seeder, &torrent);
        let show = Show::open(Web::of(&daemon), &torrent);
        show.get(&show.video().segments[2].0).ok();
        let segments = daemon.data_dir().join("streams").join("segments");
        let count = || std::fs::read_dir(&segments).expect("a folder").count();
        assert!(count() > 0);
        daemon.control(&["remove", &torrent.info_hash]).ok();
        eventually("nothing is left", Duration::from_secs(20), || {
            (count() == 0).then_some(())
        });
        daemon.stop();
    });
}

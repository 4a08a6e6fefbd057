//! Text subtitles over HLS: a cue is in every segment that it touches, also after a seek.

use std::process::Command;
use std::time::Duration;

use super::show::{Kind, Rendition, Show};
use crate::support::swarm::Libtorrent;
use crate::support::trials::{CUES, SUBTITLES, Trial, cue, cue_times};
use crate::support::web::Web;
use crate::support::{DaemonOptions, Work, eventually, limited, run};

#[test]
fn cues_are_in_every_segment_that_they_touch() {
    limited(Duration::from_secs(120), || {
        let torrent = Trial::ManyTracks.torrent();
        let seeder = Libtorrent::seed(&[&torrent]);
        let work = Work::new();
        let daemon = DaemonOptions::new(&work);
        let daemon = daemon.torrent(&torrent).peer(seeder.address).start();
        let show = Show::open(Web::of(&daemon), &torrent);
        let renditions: Vec<&Rendition> = show.of(Kind::Subtitles).collect();
        assert_eq!(renditions.len(), SUBTITLES.len(), "{}", show.master);

        // The long cue runs from 17 to 33 s. A viewer who comes in at 30 s, while nothing before is here, may miss it;
        // then nobody keeps what he got.
        let seek = renditions[0].at(30.0);
        let (uri, _) = &renditions[0].segments[seek];
        let answer = show.get(uri).ok();
        let is_kept = answer
            .header("cache-control")
            .is_some_and(|kept| kept.contains("immutable"));
        assert!(
            is_kept || answer.header("cache-control") == Some("no-store"),
            "{answer:?}"
        );
        assert!(
            !is_kept || answer.text().contains(&cue(SUBTITLES[0], 3)),
            "{}",
            answer.text()
        );
        for (language, rendition) in SUBTITLES.iter().zip(&renditions) {
            (0..rendition.segments.len()).for_each(|number| has_cues(&show, language, rendition, number));
        }
        daemon.stop();
    });
}

/// "A cue that begins before the seek point is there", as soon as the film is.
#[test]
fn a_cue_that_began_before_a_seek_is_there() {
    limited(Duration::from_secs(120), || {
        let torrent = Trial::ManyTracks.torrent();
        let seeder = Libtorrent::seed(&[&torrent]);
        let work = Work::new();
        let daemon = DaemonOptions::new(&work).torrent(&torrent).peer(seeder.address).start();
        let mut copy = Command::new("cmp");
        run(
            copy.arg(daemon.path(&torrent.name)).arg(torrent.source()),
            Duration::from_secs(60),
        )
        .ok();
        let show = Show::open(Web::of(&daemon), &torrent);
        let rendition = show.of(Kind::Subtitles).next().expect("subtitles");
        has_cues(&show, SUBTITLES[0], rendition, rendition.at(30.0));
        daemon.stop();
    });
}

/// One segment has the cues that touch it, and no others.
fn has_cues(show: &Show, language: &str, rendition: &Rendition, number: usize) {
    let begin: f64 = rendition.segments[..number].iter().map(|(_, length)| length).sum();
    let (uri, length) = &rendition.segments[number];
    // What a run that began shortly before gave is replaced by what one from further back gives.
    let answer = eventually("a segment is kept", Duration::from_secs(20), || {
        let answer = show.get(uri).ok();
        let is_kept = answer
            .header("cache-control")
            .is_some_and(|kept| kept.contains("immutable"));
        is_kept.then_some(answer)
    });
    let text = answer.text();
    assert!(text.starts_with("WEBVTT"), "{uri}: {text}");
    for cue_number in 0..CUES {
        let (from, to) = cue_times(cue_number);
        // Boundaries are not whole seconds: a cue that only just touches may be in or not.
        let (inside, outside) = (
            f64::from(from) + 0.1 < begin + length && f64::from(to) - 0.1 > begin,
            f64::from(from) - 0.1 > begin + length || f64::from(to) + 0.1 < begin,
        );
        let is_there = text.lines().any(|line| line == cue(language, cue_number));
        assert!(!inside || is_there, "{uri} ({begin} s) lacks cue {cue_number}\n{text}");
        assert!(!outside || !is_there, "{uri} ({begin} s) has cue {cue_number}\n{text}");
    }
}

//! Films of more tracks than anybody chooses from.

use std::time::Duration;

use super::show::{Kind, Rendition, Show};
use crate::support::swarm::Libtorrent;
use crate::support::trials::{CROWD, SUBTITLES, Trial, cue};
use crate::support::web::Web;
use crate::support::{DaemonOptions, Work, limited};

/// One FFmpeg has a pipe for each of 91 tracks, and is kept in all the same.
#[test]
fn a_film_of_thirty_audio_tracks_and_sixty_of_subtitles_plays() {
    limited(Duration::from_secs(120), || {
        let torrent = Trial::Crowd.torrent();
        let seeder = Libtorrent::seed(&[&torrent]);
        let work = Work::new();
        let daemon = DaemonOptions::new(&work).torrent(&torrent).peer(seeder.address).start();
        let show = Show::open(Web::of(&daemon), &torrent);
        let audio: Vec<&Rendition> = show.of(Kind::Audio).collect();
        let subtitles: Vec<&Rendition> = show.of(Kind::Subtitles).collect();
        assert_eq!((audio.len(), subtitles.len()), (CROWD, 2 * CROWD));
        let last = show.video().segments.len() - 1;
        // From the beginning, from the middle, and the end that comes only if all tracks were read to theirs.
        for number in [0, last / 2, last] {
            for rendition in [show.video(), audio[0], audio[CROWD / 2], audio[CROWD - 1]] {
                let init = rendition.init.as_ref().expect("an init segment");
                assert!(!show.get(init).ok().body.is_empty());
                assert!(!show.get(&rendition.segments[number].0).ok().body.is_empty());
            }
            for rendition in [subtitles[0], subtitles[2 * CROWD - 1]] {
                let text = show.get(&rendition.segments[number].0).ok().text();
                assert!(text.starts_with("WEBVTT"), "{text}");
                // The first cue is from 2 s to 5 s.
                assert!(number > 0 || text.contains(&cue(SUBTITLES[0], 0)), "{text}");
            }
        }
        daemon.stop();
    });
}

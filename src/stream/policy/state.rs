//! What the policy knows of a run and of a want.

use std::sync::Arc;
use std::time::Duration;

use super::kinds::{Ask, Place, RunId, Shape};

/// So far behind its next segment a run still is a wait shorter than a new run, whatever has to be downloaded.
const NEAR: u32 = 2;

/// So far if every byte between is here: a second of copying. About 30 s of film, the distance within which viewers
/// share a run.
pub(in crate::stream) const FAR: u32 = 8;

/// A run that has made no second segment is replaced by one a little earlier only before this age; after it, the
/// request begins a run of its own.
const YOUNG: Duration = Duration::from_secs(10);

/// A track that stays so far behind the leading one has gaps or has ended, and holds nobody up unless it is asked for.
/// Twice the interleaving that is met in files.
const SPREAD_S: f64 = 60.0;

/// Bounds differ from what FFmpeg says by less than this.
const ROUNDING_S: f64 = 0.25;

#[derive(Debug)]
pub(super) struct Run {
    pub(super) film: Arc<Shape>,
    pub(super) place: Place,
    pub(super) started: Duration,
    /// FFmpeg is being started: its place is fixed.
    pub(super) launched: bool,
    pub(super) tracks: Vec<Track>,
    /// The furthest segment that was asked of it.
    pub(super) front: Option<u32>,
    /// When it was last asked for something.
    pub(super) asked: Duration,
    /// Who asked last has hung up.
    pub(super) abandoned: bool,
}

#[derive(Debug, Clone)]
pub(super) struct Track {
    pub(super) next: u32,
    pub(super) init: bool,
    pub(super) reached_s: f64,
    pub(super) ended: bool,
}

#[derive(Debug)]
pub(super) struct Want {
    pub(super) ask: Ask,
    pub(super) since: Duration,
    pub(super) run: RunId,
    /// The run's next segment of this track when the want was given to it.
    pub(super) mark: u32,
    pub(super) strikes: u32,
}

impl Run {
    pub(super) fn asked_for(&mut self, now: Duration, number: Option<u32>) {
        self.asked = now;
        self.abandoned = false;
        self.front = self.front.max(number);
    }

    pub(super) fn is_young(&self, now: Duration) -> bool {
        let begun = self.tracks.iter().any(|track| track.next > self.place.first + 1);
        !self.launched || (!begun && now.saturating_sub(self.started) < YOUNG)
    }

    /// Every track that still comes is far enough ahead of the viewer. One that nobody has asked for a segment is.
    pub(super) fn is_ahead(&self, ahead_s: f64) -> bool {
        let Some(front) = self.front else { return true };
        let edge_s = self.film.edges_s.get(front as usize).copied().unwrap_or(f64::MAX);
        let target_s = edge_s + ahead_s;
        let slowest = self
            .tracks
            .iter()
            .zip(&self.film.tracks)
            .filter(|(track, shape)| !shape.text && !track.ended && track.reached_s < shape.end_s - ROUNDING_S);
        let slowest = slowest.map(|(track, _)| track.reached_s).fold(f64::MAX, f64::min);
        let leader = self.tracks.iter().map(|track| track.reached_s).fold(0.0, f64::max);
        slowest >= target_s || leader >= target_s + SPREAD_S
    }
}

/// Whether a run that makes a segment so far away comes there soon.
pub(super) fn reaches(distance: u32, local: bool) -> bool {
    distance <= NEAR || (distance <= FAR && local)
}

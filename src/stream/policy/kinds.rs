//! What the policy is told and what it says.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// What is counted, and until where.
#[derive(Debug, Clone)]
pub(in crate::stream) struct Limits {
    pub(in crate::stream) runs: usize,
    pub(in crate::stream) wants: usize,
    /// A run that is so far ahead of its viewer pauses.
    pub(in crate::stream) ahead_s: f64,
    /// A run that nobody asks of ends after this.
    pub(in crate::stream) idle: Duration,
}

/// What is the same for all runs of a film.
#[derive(Debug)]
pub(in crate::stream) struct Shape {
    /// Of its content: two shapes of one key are the same film.
    pub(in crate::stream) key: [u8; 20],
    /// Bounds of the segments in seconds: one more than there are segments.
    pub(in crate::stream) edges_s: Vec<f64>,
    /// In the order of a run's outputs.
    pub(in crate::stream) tracks: Vec<TrackShape>,
}

/// One output of a run.
#[derive(Debug, Clone)]
pub(in crate::stream) struct TrackShape {
    /// Subtitles: they come when somebody speaks, so they say nothing of how far a run is.
    pub(in crate::stream) text: bool,
    /// No data comes after this, in seconds.
    pub(in crate::stream) end_s: f64,
}

/// A part of a track.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::stream) enum Part {
    /// The initialisation segment.
    Init,
    /// Counted from 0.
    Segment(u32),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::stream) struct RunId(pub(super) u64);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::stream) struct WantId(pub(super) u64);

/// A request for a part that is not in the cache.
#[derive(Debug, Clone)]
pub(in crate::stream) struct Ask {
    pub(in crate::stream) film: Arc<Shape>,
    pub(in crate::stream) track: usize,
    pub(in crate::stream) part: Part,
    /// The segments around it whose bytes are all here, as far as [`FAR`](super::FAR) to both sides.
    pub(in crate::stream) local: Range<u32>,
    /// A run that is begun for this seeks so many segments before it.
    pub(in crate::stream) earlier: u32,
}

impl Place {
    /// The beginning of a film.
    pub(in crate::stream) const START: Place = Place { first: 0, earlier: 0 };
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::stream) enum Action {
    /// Begin a run; [`Policy::launch`](super::Policy::launch) says where once it is about to start FFmpeg.
    Start(RunId),
    /// Kill it. Its end is not reported back.
    Stop(RunId),
    /// The request gets no answer from a run.
    Refuse(WantId, Refusal),
}

/// Why a request gets no bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::stream) enum Refusal {
    /// Every run has somebody who waits or plays.
    Busy,
    /// It was tried twice without progress.
    Failed,
}

/// How a run ended that was not told to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::stream) enum End {
    /// All segments to the end of the film are made, or it failed.
    Over,
    /// Its first fragment lies behind the wanted bound.
    LandedLate,
}

/// What a run does now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::stream) struct Orders {
    /// Its pipes are read.
    pub(in crate::stream) open: bool,
    /// Somebody waits for it.
    pub(in crate::stream) urgent: bool,
}

/// Where a run begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::stream) struct Place {
    /// The first segment that it makes.
    pub(in crate::stream) first: u32,
    /// FFmpeg seeks for a segment so many before that.
    pub(in crate::stream) earlier: u32,
}

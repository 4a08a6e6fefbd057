//! What one pipe of one run of FFmpeg gives, cut into segments.
//!
//! "The same segment has the same bytes whatever was asked before it": whatever depends on where a run began is left
//! out (what comes before its first segment) or made anew from what does not (decoding times, sequence numbers, the
//! durations of last samples, times of audio that a container has rounded).

use std::sync::Arc;

use bytes::Bytes;

use super::audio::AudioCutter;
use super::fragments::FragmentError;
use super::plan::{Plan, RenditionId};
use super::subtitles::SubtitleCutter;
use super::timeline::Timeline;
use super::video::VideoCutter;

/// What FFmpeg adds to every time of its fragments (`-output_ts_offset`), so that none is negative.
pub(super) const OFFSET_S: i64 = 10;

/// What came whole out of a pipe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cut {
    /// The rendition's header. It is the same in every run.
    Init(Bytes),
    /// One segment.
    Segment {
        /// Which one.
        number: u32,
        /// All of it.
        bytes: Bytes,
        /// Whether a run that began earlier could have more in it. Such a segment may be given to who waits for it, but
        /// not be kept. Only subtitles are ever provisional.
        provisional: bool,
    },
    /// FFmpeg began after the first segment's beginning, so that one cannot be made in this run, and nothing more will
    /// come of this cutter. Another run has to begin at an earlier segment: see [`Cutter::begun_at`].
    LandedLate {
        /// The segment that lacks its beginning.
        number: u32,
    },
}

impl Cut {
    /// Bytes of it in memory.
    pub(super) fn held(&self) -> u64 {
        match self {
            Cut::Init(bytes) | Cut::Segment { bytes, .. } => bytes.len() as u64,
            Cut::LandedLate { .. } => 0,
        }
    }
}

/// Why a pipe gives no more segments.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CutError {
    /// FFmpeg's output is not what it should be.
    #[error(transparent)]
    Fragments(#[from] FragmentError),
    /// There is no keyframe where the index of the file says that there is one.
    #[error("segment {number} does not begin with a keyframe, as the index of the file says it does")]
    IndexIsWrong {
        /// The segment.
        number: u32,
    },
    /// FFmpeg's WebVTT has a line or a number of cues that no film has.
    #[error("the subtitles are larger than the {limit} bytes that are taken")]
    Subtitles {
        /// In bytes.
        limit: usize,
    },
}

/// Cuts one output of one run. It holds at most one segment, one fragment and what was pushed last.
#[derive(Debug)]
pub struct Cutter {
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Video(VideoCutter),
    Audio(Box<AudioCutter>),
    Subtitles(SubtitleCutter),
    /// The plan has no such rendition.
    Nothing,
}

impl Cutter {
    /// For the output of `rendition` in a run that was started with [`Timeline::start_job`] of segment `first`, and of
    /// which the segments from `first` on are wanted.
    pub fn new(plan: &Plan, timeline: &Arc<Timeline>, rendition: RenditionId, first: u32) -> Cutter {
        let timeline = Arc::clone(timeline);
        let kind = match (rendition, plan.rendition(rendition)) {
            (RenditionId::Video, _) => Kind::Video(VideoCutter::new(timeline, plan, first)),
            (RenditionId::Audio(_), Some(audio)) => {
                Kind::Audio(Box::new(AudioCutter::new(timeline, plan, audio, first)))
            }
            (RenditionId::Subtitles(_), Some(_)) => Kind::Subtitles(SubtitleCutter::new(timeline, first)),
            (RenditionId::Audio(_) | RenditionId::Subtitles(_), None) => Kind::Nothing,
        };
        Cutter { kind }
    }

    /// Says that the run was started for an earlier segment than the first that is wanted: after [`Cut::LandedLate`],
    /// or so that subtitles are final ([`Timeline::subtitle_start`]).
    pub fn begun_at(mut self, segment: u32) -> Cutter {
        match &mut self.kind {
            Kind::Video(video) => video.begun = segment,
            Kind::Audio(audio) => audio.begun = segment,
            Kind::Subtitles(subtitles) => subtitles.begun = segment,
            Kind::Nothing => {}
        }
        self
    }

    /// Takes what the pipe gave, in pieces of any size, and gives what is whole with it.
    ///
    /// # Errors
    /// Nothing more can be made of this pipe, and the whole run is worth nothing more. What was given before stays
    /// good.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Vec<Cut>, CutError> {
        match &mut self.kind {
            Kind::Video(video) => video.push(bytes),
            Kind::Audio(audio) => audio.push(bytes),
            Kind::Subtitles(subtitles) => subtitles.push(bytes),
            Kind::Nothing => Ok(Vec::new()),
        }
    }

    /// Says how far the video of the same run has come, as its [`reached_s`](Cutter::reached_s) tells. Subtitles (and
    /// sound that has ended or pauses) say nothing of where they are; their segments are whole when the video is past
    /// them. To be called when the pipe of this cutter has just been read empty.
    ///
    /// # Errors
    /// As for [`push`](Cutter::push).
    pub fn passed(&mut self, seconds: f64) -> Result<Vec<Cut>, CutError> {
        match &mut self.kind {
            Kind::Audio(audio) => audio.passed(seconds),
            Kind::Subtitles(subtitles) => Ok(subtitles.passed(seconds)),
            Kind::Video(_) | Kind::Nothing => Ok(Vec::new()),
        }
    }

    /// What is left when the pipe has ended. `complete` says that FFmpeg came to the end of the film without any read
    /// having failed; else the tail is not known to be whole, and nothing is made of it.
    ///
    /// # Errors
    /// As for [`push`](Cutter::push).
    pub fn finish(self, complete: bool) -> Result<Vec<Cut>, CutError> {
        if !complete {
            return Ok(Vec::new());
        }
        match self.kind {
            Kind::Video(video) => video.finish(),
            Kind::Audio(audio) => audio.finish(),
            Kind::Subtitles(subtitles) => subtitles.finish(),
            Kind::Nothing => Ok(Vec::new()),
        }
    }

    /// Bytes that it holds of what is not whole yet.
    pub(super) fn held(&self) -> u64 {
        match &self.kind {
            Kind::Video(video) => video.held(),
            Kind::Audio(audio) => audio.held(),
            Kind::Subtitles(subtitles) => subtitles.held(),
            Kind::Nothing => 0,
        }
    }

    /// How far the pipe has come, in seconds of the container; the beginning of the run's first segment until then.
    pub fn reached_s(&self) -> f64 {
        match &self.kind {
            Kind::Video(video) => video.reached_s,
            Kind::Audio(audio) => audio.reached_s,
            Kind::Subtitles(subtitles) => subtitles.reached_s,
            Kind::Nothing => f64::INFINITY,
        }
    }
}

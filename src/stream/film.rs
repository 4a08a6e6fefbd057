//! One film: its playlists, and its parts as they are asked for.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use parking_lot::Mutex;
use sha1::{Digest, Sha1};
use tokio_util::sync::CancellationToken;

use super::cache::Key;
use super::error::StreamError;
use super::house::House;
use super::plan::{NotPlayable, Plan, RenditionId};
use super::playlist;
use super::policy::{FAR, Part, Place, Shape, TrackShape};
use super::source::{FileName, Source, shelf_mark};
use super::state::{FilmReport, Situation, TrackReport, spans};
use super::timeline::Timeline;
use crate::ffmpeg::Job;
use crate::media::{Container, Index};

/// Of what segments are made of and how: another number makes other keys, so that nothing is mixed.
const LAYOUT: u32 = 1;

/// The most segments of a film: three days of it. An index may claim a million, each with its line in every playlist.
const MOST_SEGMENTS: u32 = 1 << 16;

/// Ends differ from what the header of an MP4 says by less than this.
const END_TOLERANCE_S: f64 = 2.0;

/// The packet that ends a fragment is a keyframe, some 100 KiB of a film of 5 Mbit/s, and the kernel reads 128 KiB ahead.
const NEXT_PACKET: u64 = 256 << 10;

/// A film whose index is known. Holding it keeps no FFmpeg and no file open.
pub struct Film<S: Source> {
    pub(super) house: Arc<House<S>>,
    pub(super) facts: Arc<Facts>,
}

/// All that is known of a film, and does not change.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) name: FileName,
    size: u64,
    pub(super) plan: Plan,
    pub(super) timeline: Arc<Timeline>,
    pub(super) shape: Arc<Shape>,
    /// Cancelled once a run has asked for what it will read.
    pub(super) begun: CancellationToken,
    /// When a run last gave anything.
    pub(super) heard: Mutex<Option<Instant>>,
}

impl<S: Source> Film<S> {
    /// The master playlist; its URIs are relative to it.
    pub fn master(&self) -> String {
        playlist::master(&self.facts.plan, &self.facts.timeline)
    }

    /// The media playlist of a rendition, if there is such a one.
    pub fn media(&self, rendition: &RenditionId) -> Option<String> {
        playlist::media(&self.facts.plan, &self.facts.timeline, *rendition)
    }

    /// The initialisation segment of a rendition; waits as [`Film::segment`] does.
    ///
    /// # Errors
    /// See [`StreamError`]; subtitles have none: unknown.
    pub async fn init(self: &Arc<Self>, rendition: &RenditionId) -> Result<Bytes, StreamError> {
        if matches!(rendition, RenditionId::Subtitles(_)) {
            return Err(StreamError::Unknown);
        }
        let track = self.facts.track(*rendition).ok_or(StreamError::Unknown)?;
        self.house.part(&self.facts, track, Part::Init).await
    }

    /// A segment, counted from 0. From the cache at once; else it waits for FFmpeg, which waits for the swarm: as long
    /// as data still arrives. Dropping it withdraws the request. What FFmpeg gives of subtitles may still lack a cue
    /// that began before, see [`SUBTITLE_LEAD_S`](super::SUBTITLE_LEAD_S).
    ///
    /// # Errors
    /// See [`StreamError`].
    pub async fn segment(self: &Arc<Self>, rendition: &RenditionId, number: u32) -> Result<Bytes, StreamError> {
        let track = self.facts.track(*rendition).ok_or(StreamError::Unknown)?;
        if number >= self.facts.timeline.count() {
            return Err(StreamError::Unknown);
        }
        self.house.part(&self.facts, track, Part::Segment(number)).await
    }

    /// Whether a segment that was given as `bytes` may yet come with others: one of subtitles, from a run that began
    /// too shortly before it to have met every cue in it. The final one may have been made since it was given.
    pub fn is_provisional(&self, rendition: &RenditionId, number: u32, bytes: &Bytes) -> bool {
        let subtitles = matches!(rendition, RenditionId::Subtitles(_));
        let track = self.facts.track(*rendition);
        let kept = track.and_then(|track| self.house.kept(&self.facts, track, Part::Segment(number)));
        subtitles && kept.as_ref() != Some(bytes)
    }

    /// What is to be told of it now.
    pub(super) fn report(&self) -> FilmReport {
        let facts = &*self.facts;
        let ranges: Vec<_> = (0..facts.timeline.count()).map(|number| facts.bytes(number)).collect();
        let source = &self.house.source;
        let here = source.here(&facts.name, &ranges);
        let (waiting, longest, runs) = self.house.work_on(&facts.shape.key);
        let whole = source.here(&facts.name, std::slice::from_ref(&(0..facts.size)));
        let situation = match longest {
            Some((part, waited)) => Situation::Part {
                at_s: match part {
                    Part::Init => 0.0,
                    Part::Segment(number) => facts.timeline.start_s(number) - facts.timeline.start_s(0),
                },
                waited,
                silent: self.house.last_came(facts).map(|last| last.elapsed()),
            },
            None if whole == [true] => Situation::Complete,
            None => Situation::Fed,
        };
        let (state, words) = situation.told();
        let zero_s = facts.timeline.start_s(0);
        let edges_s: Vec<f64> = facts.shape.edges_s.iter().map(|edge_s| edge_s - zero_s).collect();
        FilmReport {
            state,
            words,
            duration_s: Some(facts.timeline.film_s()),
            here: spans(&edges_s, &here),
            tracks: facts.tracks(),
            left_out: facts.plan.left_out().to_vec(),
            runs,
            waiting,
        }
    }
}

impl Facts {
    /// # Errors
    /// There is nothing that can be played, in words.
    pub(super) fn of(name: &FileName, size: u64, index: &Index) -> Result<Facts, NotPlayable> {
        let plan = Plan::of(index)?;
        let timeline = Arc::new(Timeline::of(&plan));
        if timeline.count() > MOST_SEGMENTS {
            let count = timeline.count();
            let why =
                format!("This file would have {count} segments, and {MOST_SEGMENTS} are the most that are served.");
            return Err(NotPlayable(why));
        }
        let tracks = plan.renditions().iter().map(|rendition| TrackShape {
            text: matches!(rendition.id, RenditionId::Subtitles(_)),
            end_s: rendition.track.end as f64 / f64::from(rendition.track.timescale.max(1)),
        });
        let shape = Shape {
            key: key(name, index),
            edges_s: (0..=timeline.count()).map(|number| timeline.start_s(number)).collect(),
            tracks: tracks.collect(),
        };
        Ok(Facts {
            name: name.clone(),
            size,
            plan: plan.without_keyframes(),
            timeline,
            shape: Arc::new(shape),
            begun: CancellationToken::new(),
            heard: Mutex::new(None),
        })
    }

    pub(super) fn cached(&self, track: usize, part: Part) -> Key {
        Key {
            torrent: shelf_mark(&self.name.info_hash),
            film: self.shape.key,
            track,
            part,
        }
    }

    /// What FFmpeg is to do for a run.
    pub(super) fn job(&self, input: std::path::PathBuf, place: Place) -> Job {
        Job {
            input,
            demuxer: self.plan.container().demuxer(),
            start: self.timeline.start_job(place.first - place.earlier),
            outputs: self.plan.outputs(),
        }
    }

    /// The bytes of the file that a run reads for its first segment, and the packet behind it, which ends it for FFmpeg.
    pub(super) fn first_bytes(&self, place: Place) -> Range<u64> {
        let bytes = self.timeline.run_bytes(place.first - place.earlier, place.first);
        let end = bytes.end.saturating_add(NEXT_PACKET).min(self.size);
        bytes.start.min(end)..end
    }

    /// The segments around one, as far as [`FAR`], whose bytes are all here.
    pub(super) fn local<S: Source>(&self, source: &S, part: Part) -> Range<u32> {
        let Part::Segment(number) = part else { return 0..0 };
        let first = number.saturating_sub(FAR);
        let last = number.saturating_add(FAR).min(self.timeline.count() - 1);
        let ranges: Vec<_> = (first..=last).map(|number| self.bytes(number)).collect();
        let here = source.here(&self.name, &ranges);
        let (before, after) = here.split_at(((number - first) as usize).min(here.len()));
        let run = |here: &mut dyn Iterator<Item = &bool>| u32::try_from(here.take_while(|here| **here).count());
        let before = run(&mut before.iter().rev()).unwrap_or(0);
        let after = run(&mut after.iter()).unwrap_or(0);
        number - before..number + after
    }

    /// So many segments before one of subtitles a run is to begin that is begun for it: as many as make it final, if
    /// they are here. Nothing is downloaded for that.
    pub(super) fn lead(&self, track: usize, part: Part, local: &Range<u32>) -> u32 {
        match part {
            Part::Segment(number) if self.shape.tracks[track].text => {
                let start = self.timeline.subtitle_start(number);
                if local.start <= start { number - start } else { 0 }
            }
            _ => 0,
        }
    }

    /// Whether a run that came so far, without an error, has come to the end of the film.
    pub(super) fn is_end(&self, reached_s: f64) -> bool {
        let count = self.timeline.count();
        match self.plan.container() {
            Container::Mp4 => reached_s >= self.timeline.start_s(count) - END_TOLERANCE_S,
            // The header tells only the end of the longest track, so this says only that it is the last segment.
            Container::Matroska | Container::Webm => reached_s >= self.timeline.start_s(count - 1),
        }
    }

    fn track(&self, rendition: RenditionId) -> Option<usize> {
        self.plan.renditions().iter().position(|known| known.id == rendition)
    }

    fn bytes(&self, number: u32) -> Range<u64> {
        let Range { start, end } = self.timeline.bytes(number);
        start.min(self.size)..end.min(self.size)
    }

    fn tracks(&self) -> Vec<TrackReport> {
        let report = |rendition: &super::plan::Rendition| TrackReport {
            rendition: rendition.id.to_string(),
            language: rendition.language.clone(),
            name: rendition.name.clone(),
        };
        self.plan.renditions().iter().map(report).collect()
    }
}

impl<S: Source> fmt::Debug for Film<S> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Film")
            .field("name", &self.facts.name)
            .finish_non_exhaustive()
    }
}

/// By content: the torrent and the file in it are content, and so is the index that the plan is made of.
fn key(name: &FileName, index: &Index) -> [u8; 20] {
    let mut hash = Sha1::new();
    let index = serde_json::to_vec(index).unwrap_or_default();
    let parts: [&[u8]; 4] = [
        &LAYOUT.to_be_bytes(),
        name.info_hash.as_bytes(),
        name.path.as_bytes(),
        &index,
    ];
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

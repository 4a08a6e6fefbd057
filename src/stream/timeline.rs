//! Where a film is cut: at keyframes of its index, about every four seconds.

use std::ops::Range;

use crate::ffmpeg::Start;
use crate::media::{Container, Kind, Video};

use super::plan::Plan;

/// How long segments are meant to be. With longer groups of pictures they are longer, since they begin with keyframes.
pub const SEGMENT_S: i64 = 4;

/// A segment of subtitles is what it always will be only in a run that began this long before it (or with the film):
/// what is shown at the segment's beginning may have been read that long before.
pub const SUBTITLE_LEAD_S: f64 = 30.0;

/// How far a fragment's keyframe may be from the index's word: less than a frame at 240 a second, more than any rounding.
const TOLERANCE_US: i128 = 4_000;

/// The cuts of one film. Times are the container's, as FFmpeg's `-copyts` shows them.
#[derive(Debug, Clone, PartialEq)]
pub struct Timeline {
    /// Ticks a second of `cuts`.
    timescale: i64,
    /// Where each segment begins, and where the last one ends; strictly rising.
    cuts: Vec<i64>,
    /// The byte of the file at which each segment's keyframe begins.
    offsets: Vec<u64>,
    /// Added to a keyframe's time, so that FFmpeg lands on it, or before it where that is how it has to be.
    nudge_us: i64,
}

impl Timeline {
    /// The cuts for the video of a plan.
    pub fn of(plan: &Plan) -> Timeline {
        let track = &plan.video().track;
        let keyframes = match &track.kind {
            Kind::Video(Video { keyframes, .. }) => keyframes.as_slice(),
            _ => &[],
        };
        let reordered = matches!(&track.kind, Kind::Video(video) if video.reordered);
        let timescale = i64::from(track.timescale.max(1));
        let mut keyframes: Vec<_> = keyframes
            .iter()
            .map(|keyframe| (keyframe.pts, keyframe.offset))
            .collect();
        keyframes.sort_unstable();
        keyframes.dedup_by_key(|(pts, _)| *pts);
        // What an edit list hides comes before 0 and is only there to be decoded: the film begins at 0.
        let hidden = keyframes.iter().take_while(|(pts, _)| *pts <= 0).count();
        if hidden > 0 {
            keyframes.drain(..hidden - 1);
            keyframes[0].0 = 0;
        }
        let chosen = cuts(&keyframes, track.end, timescale);
        let mut cuts: Vec<i64> = chosen.iter().map(|&at| keyframes[at].0).collect();
        let offsets = chosen.iter().map(|&at| keyframes[at].1).collect();
        if cuts.is_empty() {
            cuts.push(0);
        }
        // A header may state less than what is there, and a keyframe is at least shown.
        let last = keyframes.last().map_or(0, |(pts, _)| *pts);
        cuts.push(track.end.max(last.saturating_add((timescale / 25).max(1))));
        Timeline {
            timescale,
            cuts,
            offsets,
            // FFmpeg's Matroska seeks 3/23 s early if pictures are reordered. The first fragment of a run has guessed decoding
            // times there, so landing a keyframe early and dropping it is wanted. Elsewhere K itself lands early by rounding.
            nudge_us: match plan.container() {
                Container::Matroska | Container::Webm if reordered => 0,
                Container::Mp4 | Container::Matroska | Container::Webm => 1_000,
            },
        }
    }

    /// How many segments every rendition has; at least 1.
    pub fn count(&self) -> u32 {
        u32::try_from(self.cuts.len() - 1).unwrap_or(u32::MAX)
    }

    /// When segment `number` begins, in seconds of the container; the end of the film for any number beyond the last.
    pub fn start_s(&self, number: u32) -> f64 {
        self.cut(number) as f64 / self.timescale as f64
    }

    /// How long segment `number` is, in seconds; 0 beyond the last.
    pub fn duration_s(&self, number: u32) -> f64 {
        self.duration_us(number) as f64 / 1e6
    }

    /// The same, in microseconds. The durations add up to the film's exactly: both ends are rounded, not the distance.
    pub fn duration_us(&self, number: u32) -> i64 {
        self.cut_us(number.saturating_add(1)) - self.cut_us(number)
    }

    /// From the first segment's beginning to the last one's end, in seconds.
    pub fn film_s(&self) -> f64 {
        (self.cut_us(self.count()) - self.cut_us(0)) as f64 / 1e6
    }

    /// The longest segment, as `EXT-X-TARGETDURATION` wants it: rounded to the nearest second, at least 1.
    pub fn target_duration_s(&self) -> i64 {
        let rounded = (0..self.count()).map(|number| (self.duration_us(number) + 500_000) / 1_000_000);
        rounded.max().unwrap_or(1).max(1)
    }

    /// The segment that shows this second of the container; the first or last one for what is outside of the film.
    pub fn segment_at(&self, seconds: f64) -> u32 {
        // A cast of a float saturates, and makes 0 of NaN.
        self.segment_of((seconds * 1e6).floor() as i64, 1_000_000)
    }

    /// Where a run has to begin that is to give segment `number` whole; with the film if it is the first.
    ///
    /// FFmpeg may land a keyframe or more before that. If it lands later, which the [cutter](super::Cutter) tells, begin at
    /// an earlier segment.
    pub fn start_job(&self, number: u32) -> Option<Start> {
        (number > 0).then(|| Start {
            at_us: self.cut_us(number).saturating_add(self.nudge_us),
        })
    }

    /// The segment at which a run has to begin for the subtitles of segment `number` to be final: [`SUBTITLE_LEAD_S`] before
    /// it, or the film's first.
    pub fn subtitle_start(&self, number: u32) -> u32 {
        let latest = self.start_s(number) - SUBTITLE_LEAD_S;
        let lead = self.segment_at(latest);
        // Rounding must not cost the lead.
        if self.start_s(lead) > latest {
            lead.saturating_sub(1)
        } else {
            lead
        }
    }

    /// Whether the subtitles of segment `number` are final in a run that began at segment `begun`.
    pub fn subtitles_final(&self, begun: u32, number: u32) -> bool {
        begun == 0 || begun <= self.subtitle_start(number)
    }

    /// The bytes of the file that hold segment `number` of the video; with interleaved tracks, of all of them. The last one
    /// ends at `u64::MAX`, which is to be cut to the size of the file.
    pub fn bytes(&self, number: u32) -> Range<u64> {
        let Some(&start) = self.offsets.get(number as usize) else {
            return u64::MAX..u64::MAX;
        };
        // Two keyframes may share a cluster of a Matroska.
        let later = self.offsets[number as usize..].iter().find(|offset| **offset > start);
        start..later.copied().unwrap_or(u64::MAX)
    }

    /// The most bits a second that any segment but the last has in the file, with whatever else lies between.
    pub fn peak_bits(&self) -> Option<u64> {
        let rate = |number| {
            let bytes = self.bytes(number);
            let us = u64::try_from(self.duration_us(number)).ok().filter(|us| *us > 0)?;
            (bytes.end != u64::MAX).then(|| rate_of(bytes.end - bytes.start, us))
        };
        (0..self.count()).filter_map(rate).max()
    }

    /// The bits a second of all segments but the last, as [`peak_bits`](Timeline::peak_bits) counts them.
    pub fn average_bits(&self) -> Option<u64> {
        let last = self.count() - 1;
        let us = u64::try_from(self.cut_us(last) - self.cut_us(0))
            .ok()
            .filter(|us| *us > 0)?;
        let (first, end) = (self.offsets.first()?, self.offsets.last()?);
        end.checked_sub(*first).map(|bytes| rate_of(bytes, us))
    }

    /// The segment in which a sample at `ticks` of `timescale` lies, by the letter.
    pub(super) fn segment_of(&self, ticks: i64, timescale: u32) -> u32 {
        self.segment_with(ticks, timescale, 0)
    }

    /// The segment to which a fragment with this keyframe belongs, which may be off by a rounding.
    pub(super) fn segment_of_keyframe(&self, ticks: i64, timescale: u32) -> u32 {
        self.segment_with(ticks, timescale, TOLERANCE_US)
    }

    /// Whether the keyframe is the one that segment `number` begins with.
    pub(super) fn begins(&self, number: u32, ticks: i64, timescale: u32) -> bool {
        let away = self.cut_in(number, timescale) - i128::from(ticks) * i128::from(self.timescale);
        away.abs() * 1_000_000 <= TOLERANCE_US * i128::from(timescale) * i128::from(self.timescale)
    }

    /// Whether a sample at `ticks` of `timescale` comes before segment `number`.
    pub(super) fn before(&self, ticks: i64, timescale: u32, number: u32) -> bool {
        i128::from(ticks) * i128::from(self.timescale) < self.cut_in(number, timescale)
    }

    /// The tick of `timescale` nearest to the beginning of segment `number`.
    pub(super) fn start_ticks(&self, number: u32, timescale: u32) -> i64 {
        let ticks = self.cut_in(number, timescale);
        let half = i128::from(self.timescale) / 2;
        i64::try_from((ticks + half).div_euclid(i128::from(self.timescale))).unwrap_or(i64::MAX)
    }

    fn segment_with(&self, ticks: i64, timescale: u32, tolerance_us: i128) -> u32 {
        // As a fraction of the product of both timescales and a million, so that nothing is rounded. It cannot overflow: 63
        // bits of time, 32 of timescale and 20 of a million are less than 127.
        let scale = i128::from(self.timescale) * 1_000_000;
        let at = i128::from(ticks) * scale + tolerance_us * i128::from(timescale) * i128::from(self.timescale);
        let begun = |cut: &i64| i128::from(*cut) * i128::from(timescale) * 1_000_000 <= at;
        let after = self.cuts[..self.cuts.len() - 1].partition_point(begun);
        u32::try_from(after.saturating_sub(1)).unwrap_or(u32::MAX)
    }

    fn cut_in(&self, number: u32, timescale: u32) -> i128 {
        i128::from(self.cut(number)) * i128::from(timescale)
    }

    fn cut(&self, number: u32) -> i64 {
        self.cuts[(number as usize).min(self.cuts.len() - 1)]
    }

    fn cut_us(&self, number: u32) -> i64 {
        let (cut, timescale) = (i128::from(self.cut(number)), i128::from(self.timescale));
        let us = (cut * 1_000_000 + timescale / 2).div_euclid(timescale);
        i64::try_from(us).unwrap_or(i64::MAX)
    }
}

fn rate_of(bytes: u64, us: u64) -> u64 {
    u64::try_from(u128::from(bytes) * 8_000_000 / u128::from(us)).unwrap_or(u64::MAX)
}

/// Which keyframes begin segments: of each cut's successors the one nearest to the wanted length.
fn cuts(keyframes: &[(i64, u64)], end: i64, timescale: i64) -> Vec<usize> {
    let target = SEGMENT_S * timescale;
    let mut chosen = Vec::new();
    let Some(&(mut start, _)) = keyframes.first() else {
        return chosen;
    };
    chosen.push(0);
    for (at, &(pts, _)) in keyframes.iter().enumerate().skip(1) {
        let length = pts.saturating_sub(start);
        let next = keyframes.get(at + 1).map_or(end, |(pts, _)| *pts);
        let longer = next.saturating_sub(start);
        if length >= target || (target - length < longer.saturating_sub(target)) {
            chosen.push(at);
            start = pts;
        }
    }
    chosen
}

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

/// How far a fragment's keyframe may be from the index's word: less than a frame at 240 a second, more than any
/// rounding.
const TOLERANCE_US: i128 = 4_000;

/// The cuts of one film. Times are the container's, as FFmpeg's `-copyts` shows them.
#[derive(Debug, Clone, PartialEq)]
pub struct Timeline {
    /// Ticks a second of `cuts`.
    timescale: i64,
    /// Where each segment begins, and where the last one ends; strictly rising.
    cuts: Vec<i64>,
    /// The last keyframe of each segment, by the index.
    lasts: Vec<i64>,
    /// Whether the index has every keyframe that the video has. Cues need not.
    exhaustive: bool,
    /// The byte of the file at which each segment's keyframe begins.
    offsets: Vec<u64>,
    /// The byte at which the next one begins that lies behind it.
    ends: Vec<u64>,
    /// The byte at which FFmpeg begins to read for each segment: its keyframe, or the one before it.
    landings: Vec<u64>,
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
        let behind = chosen.iter().skip(1).copied().chain([keyframes.len()]);
        let lasts = behind.filter_map(|at| keyframes.get(at.wrapping_sub(1)));
        let lasts = lasts.map(|(pts, _)| *pts).collect();
        let offsets: Vec<u64> = chosen.iter().map(|&at| keyframes[at].1).collect();
        // FFmpeg's Matroska seeks 3/23 s early if pictures are reordered. The first fragment of a run has guessed
        // decoding times there, so landing a keyframe early and dropping it is wanted. Elsewhere K itself lands early
        // by rounding.
        let (early, nudge_us) = match plan.container() {
            Container::Matroska | Container::Webm if reordered => (1, 0),
            Container::Mp4 | Container::Matroska | Container::Webm => (0, 1_000),
        };
        let landings = chosen.iter().map(|at| keyframes[at.saturating_sub(early)].1).collect();
        if cuts.is_empty() {
            cuts.push(0);
        }
        // A header may state less than what is there, and a keyframe is at least shown.
        let last = keyframes.last().map_or(0, |(pts, _)| *pts);
        cuts.push(track.end.max(last.saturating_add((timescale / 25).max(1))));
        Timeline {
            timescale,
            cuts,
            lasts,
            exhaustive: plan.container() == Container::Mp4,
            ends: ends(&offsets),
            offsets,
            landings,
            nudge_us,
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
        let rounded = (0..self.count()).map(|number| self.duration_us(number).saturating_add(500_000) / 1_000_000);
        rounded.max().unwrap_or(1).max(1)
    }

    /// The segment that shows this second of the container; the first or last one for what is outside of the film.
    pub fn segment_at(&self, seconds: f64) -> u32 {
        // A cast of a float saturates, and makes 0 of NaN.
        self.segment_of((seconds * 1e6).floor() as i64, 1_000_000)
    }

    /// Where a run has to begin that is to give segment `number` whole; with the film if it is the first.
    ///
    /// FFmpeg may land a keyframe or more before that. If it lands later, which the [cutter](super::Cutter) tells,
    /// begin at an earlier segment.
    pub fn start_job(&self, number: u32) -> Option<Start> {
        (number > 0).then(|| Start {
            at_us: self.cut_us(number).saturating_add(self.nudge_us),
        })
    }

    /// The segment at which a run has to begin for the subtitles of segment `number` to be final: [`SUBTITLE_LEAD_S`]
    /// before it, or the film's first.
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

    /// The bytes of the file that hold segment `number` of the video; with interleaved tracks, of all of them. The last
    /// one ends at `u64::MAX`, which is to be cut to the size of the file.
    pub fn bytes(&self, number: u32) -> Range<u64> {
        let number = number as usize;
        match (self.offsets.get(number), self.ends.get(number)) {
            (Some(start), Some(end)) => *start..*end,
            _ => u64::MAX..u64::MAX,
        }
    }

    /// The bytes that a run which begins at segment `begun` reads until segment `number` is whole, as [`Timeline::bytes`]
    /// tells them. The container's head and index, which it reads before, are not among them.
    pub fn run_bytes(&self, begun: u32, number: u32) -> Range<u64> {
        let end = self.bytes(number).end;
        let start = self.landings.get(begun as usize).copied().unwrap_or(end);
        start.min(end)..end
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

    /// Whether the keyframe is the last one of segment `number`, which is not the film's last, by the index.
    pub(super) fn ends(&self, number: u32, ticks: i64, timescale: u32) -> bool {
        let Some(last) = self.lasts.get(number as usize).filter(|_| number + 1 < self.count()) else {
            return false;
        };
        let away = i128::from(*last) * i128::from(timescale) - i128::from(ticks) * i128::from(self.timescale);
        away.abs() * 1_000_000 <= TOLERANCE_US * i128::from(timescale) * i128::from(self.timescale)
    }

    /// Whether there may be keyframes between those of the index.
    pub(super) fn is_sparse(&self) -> bool {
        !self.exhaustive
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
        // As a fraction of the product of both timescales and a million, so that nothing is rounded. It cannot
        // overflow: 63 bits of time, 32 of timescale and 20 of a million are less than 127.
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

/// For each offset the first of the later ones that is larger: two keyframes may share a cluster of a Matroska. Each is
/// looked at twice, since all of a film of many segments may be the same.
fn ends(offsets: &[u64]) -> Vec<u64> {
    let mut ends = vec![u64::MAX; offsets.len()];
    let mut larger: Vec<u64> = Vec::new();
    for (end, offset) in ends.iter_mut().zip(offsets).rev() {
        while larger.last().is_some_and(|later| later <= offset) {
            larger.pop();
        }
        *end = larger.last().copied().unwrap_or(u64::MAX);
        larger.push(*offset);
    }
    ends
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::media::{Keyframe, Track};
    use crate::stream::tests::indexes::{film_of, index, video};

    fn starts(keyframes_s: &[i64], end_s: i64) -> Vec<f64> {
        let (_, timeline) = film_of(keyframes_s, end_s);
        (0..=timeline.count()).map(|number| timeline.start_s(number)).collect()
    }

    #[test]
    fn segments_are_about_four_seconds_and_begin_with_keyframes() {
        assert_eq!(starts(&[0, 2, 4, 6, 8, 10], 11), [0.0, 4.0, 8.0, 11.0]);
        // The nearest, not the next after.
        assert_eq!(starts(&[0, 3, 9, 12, 17], 20), [0.0, 3.0, 9.0, 12.0, 17.0, 20.0]);
        assert_eq!(starts(&[0, 10, 20], 25), [0.0, 10.0, 20.0, 25.0]);
        assert_eq!(starts(&[5], 9), [5.0, 9.0]);
        // Out of order, twice, hidden by an edit list.
        assert_eq!(starts(&[8, 4, -8, -2, 4], 12), [0.0, 4.0, 8.0, 12.0]);
        // A header that states less than there is.
        assert_eq!(starts(&[0, 4, 8], 0), [0.0, 4.0, 8.0, 8.04]);
    }

    #[test]
    fn a_run_begins_where_ffmpeg_lands_on_the_keyframe_or_before_it() {
        let start = |container, reordered| {
            let mut track = video(&[0, 4, 8], 12);
            if let Kind::Video(video) = &mut track.kind {
                video.reordered = reordered;
            }
            let timeline = Timeline::of(&Plan::of(&index(container, vec![track])).unwrap());
            assert_eq!(timeline.start_job(0), None);
            timeline.start_job(2).unwrap().at_us
        };
        assert_eq!(start(Container::Mp4, true), 8_001_000);
        assert_eq!(start(Container::Matroska, true), 8_000_000);
        assert_eq!(start(Container::Matroska, false), 8_001_000);
        assert_eq!(start(Container::Webm, false), 8_001_000);
    }

    #[test]
    fn a_segment_ends_where_the_next_one_begins_that_lies_behind_it() {
        let none = u64::MAX;
        assert!(ends(&[]).is_empty());
        assert_eq!(ends(&[5, 5, 9, 7, 8, 2]), [9, 9, none, 8, none, none]);
        // A film may claim that all of its segments lie at one place.
        let began = std::time::Instant::now();
        assert_eq!(ends(&vec![7; 1 << 20]), vec![none; 1 << 20]);
        assert!(began.elapsed() < std::time::Duration::from_secs(10));
    }

    #[test]
    fn a_time_has_its_segment_and_a_segment_its_bytes() {
        let (_, timeline) = film_of(&[0, 4, 8], 12);
        for (seconds, number) in [
            (-5.0, 0),
            (0.0, 0),
            (3.999, 0),
            (4.0, 1),
            (8.5, 2),
            (99.0, 2),
            (f64::NAN, 0),
        ] {
            assert_eq!(timeline.segment_at(seconds), number, "{seconds}");
        }
        assert_eq!(timeline.bytes(0), 1_000_000..2_000_000);
        assert_eq!(timeline.bytes(2), 3_000_000..u64::MAX);
        assert_eq!(timeline.bytes(9), u64::MAX..u64::MAX);
        assert_eq!(
            (timeline.peak_bits(), timeline.average_bits()),
            (Some(2_000_000), Some(2_000_000))
        );
    }

    #[test]
    fn subtitles_are_final_30_s_after_the_beginning_of_their_run() {
        let (_, timeline) = film_of(&[0, 4, 8, 12, 40, 44, 50], 60);
        let begins: Vec<_> = (0..7).map(|number| timeline.subtitle_start(number)).collect();
        assert_eq!(begins, [0, 0, 0, 0, 2, 3, 3]);
        assert!(timeline.subtitles_final(0, 1) && timeline.subtitles_final(2, 4) && !timeline.subtitles_final(3, 4));
    }

    proptest! {
        #[test]
        fn whatever_an_index_says_there_is_a_timeline(
            keyframes in prop::collection::vec((any::<i64>(), any::<u64>()), 1..50),
            shift in 0..60_u32,
            timescale in any::<u32>(),
            end in any::<i64>(),
            seconds in any::<f64>(),
        ) {
            let keyframes = keyframes.into_iter().map(|(pts, offset)| Keyframe { pts: pts >> shift, offset }).collect();
            let mut track = Track { timescale, end, ..video(&[0], 0) };
            if let Kind::Video(video) = &mut track.kind {
                video.keyframes = keyframes;
            }
            let timeline = Timeline::of(&Plan::of(&index(Container::Mp4, vec![track])).unwrap());
            prop_assert!(timeline.count() >= 1);
            let sum: i128 = (0..timeline.count()).map(|number| i128::from(timeline.duration_us(number))).sum();
            prop_assert_eq!(sum as f64 / 1e6, timeline.film_s());
            let number = timeline.segment_at(seconds);
            prop_assert!(number < timeline.count());
            for number in 0..timeline.count() {
                prop_assert!(timeline.duration_us(number) >= 0);
                prop_assert_eq!(timeline.segment_of(timeline.cuts[number as usize], timescale.max(1)), number);
                prop_assert!(timeline.begins(number, timeline.cuts[number as usize], timescale.max(1)));
                prop_assert!(timeline.subtitle_start(number) <= number);
                let bytes = timeline.bytes(number);
                prop_assert!(bytes.start <= bytes.end);
            }
        }
    }
}

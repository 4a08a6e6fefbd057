//! Fragments of video into segments.

use std::sync::Arc;

use bytes::Bytes;

use super::cutter::{Cut, CutError, OFFSET_S};
use super::fragments::{
    self, Coded, Fragment, FragmentError, FragmentReader, LARGEST_FRAGMENT, Piece, SAMPLE_COST, Sample,
};
use super::plan::Plan;
use super::timeline::Timeline;

/// Pictures of a fragment that tell how near to each other they can be.
const ENOUGH_PICTURES: usize = 8;

/// Containers round the times of pictures to a part of a second: a thousandth, up at one end and down at the other.
const ROUNDING: u32 = 500;

/// Cuts the video of one run: each fragment begins with a keyframe, and each segment with one of the timeline's.
#[derive(Debug)]
pub(super) struct VideoCutter {
    timeline: Arc<Timeline>,
    reader: FragmentReader,
    /// The segment for which the run was started.
    pub(super) begun: u32,
    /// The first that is wanted.
    first: u32,
    /// Ticks a second of the file, and of the fragments.
    ticks: u32,
    timescale: u32,
    landed: bool,
    landed_late: bool,
    /// The segment that is being gathered, and the one after it.
    gathered: Option<Gathered>,
    next: u32,
    pub(super) reached_s: f64,
}

#[derive(Debug)]
struct Gathered {
    number: u32,
    samples: Vec<Sample>,
    data: Vec<Bytes>,
    bytes: u64,
}

impl VideoCutter {
    pub(super) fn new(timeline: Arc<Timeline>, plan: &Plan, first: u32) -> VideoCutter {
        VideoCutter {
            reached_s: timeline.start_s(first),
            timeline,
            reader: FragmentReader::default(),
            begun: first,
            first,
            ticks: plan.video().track.timescale,
            timescale: 1,
            landed: false,
            landed_late: false,
            gathered: None,
            next: first,
        }
    }

    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<Vec<Cut>, CutError> {
        let mut cuts = Vec::new();
        if self.landed_late {
            return Ok(cuts);
        }
        for piece in self.reader.push(bytes)? {
            match piece {
                Piece::Init { bytes, timescale } => {
                    self.timescale = timescale;
                    cuts.push(Cut::Init(bytes));
                }
                Piece::Fragment(fragment) => self.take(fragment, &mut cuts)?,
            }
            if self.landed_late {
                break;
            }
        }
        Ok(cuts)
    }

    pub(super) fn held(&self) -> u64 {
        self.reader.held() + self.gathered.as_ref().map_or(0, |gathered| gathered.bytes)
    }

    pub(super) fn finish(mut self) -> Result<Vec<Cut>, CutError> {
        match self.gathered.take() {
            Some(gathered) => Ok(vec![self.cut(gathered, None)?]),
            None => Ok(Vec::new()),
        }
    }

    fn take(&mut self, mut fragment: Fragment, cuts: &mut Vec<Cut>) -> Result<(), CutError> {
        // Where FFmpeg had to guess decoding times, it moves pictures by a tick or two of its own, finer clock.
        let finer = i64::from(self.timescale / self.ticks.max(1));
        if finer > 1 && self.timescale.is_multiple_of(self.ticks) {
            for sample in &mut fragment.samples {
                sample.pts = sample.pts.saturating_add(finer / 2).div_euclid(finer) * finer;
            }
        }
        let Some(key) = fragment.samples.first().map(|sample| sample.pts) else {
            return Ok(());
        };
        let key_in_film = key - OFFSET_S * i64::from(self.timescale);
        let number = self.timeline.segment_of_keyframe(key_in_film, self.timescale);
        if !self.landed {
            self.landed = true;
            let late = number > self.first
                || number == self.first && !self.timeline.begins(self.first, key_in_film, self.timescale);
            if self.begun > 0 && late {
                self.landed_late = true;
                cuts.push(Cut::LandedLate { number: self.first });
                return Ok(());
            }
        }
        if number < self.first {
            return Ok(());
        }
        self.reach(&fragment.samples);
        let last = self.is_last(number, key_in_film, &fragment.samples);
        match &mut self.gathered {
            Some(gathered) if gathered.number == number => gathered.add(fragment)?,
            // Decoding order is not broken by a keyframe, so one that is shown before the last is a damaged file's.
            Some(gathered) if gathered.number > number => return Err(CutError::IndexIsWrong { number }),
            _ => {
                if let Some(gathered) = self.gathered.take() {
                    cuts.push(self.cut(gathered, Some(key))?);
                }
                // The next one, and from its beginning; the film's first may begin where it likes.
                let expected = self.next;
                if number != expected || number > 0 && !self.timeline.begins(number, key_in_film, self.timescale) {
                    return Err(CutError::IndexIsWrong { number: expected });
                }
                self.next = number + 1;
                let mut gathered = Gathered {
                    number,
                    samples: Vec::new(),
                    data: Vec::new(),
                    bytes: 0,
                };
                gathered.add(fragment)?;
                self.gathered = Some(gathered);
            }
        }
        if let Some(gathered) = self.gathered.take_if(|_| last) {
            let next = self.timeline.start_ticks(number + 1, self.timescale) + OFFSET_S * i64::from(self.timescale);
            cuts.push(self.cut(gathered, Some(next))?);
        }
        Ok(())
    }

    /// Whether the fragment is surely the last one of its segment: the next one would tell, but FFmpeg gives it only
    /// when it has read all of it, which on a slow line is seconds later.
    fn is_last(&self, number: u32, key: i64, samples: &[Sample]) -> bool {
        if !self.timeline.ends(number, key, self.timescale) {
            return false;
        }
        if !self.timeline.is_sparse() {
            return true;
        }
        // A keyframe that the index does not have could begin one more: not where no picture has room.
        let mut shown: Vec<i64> = samples.iter().map(|sample| sample.pts).collect();
        shown.sort_unstable();
        let steps = shown.windows(2).map(|pair| pair[1] - pair[0]);
        let (Some(step), Some(latest)) = (steps.min(), shown.last()) else {
            return false;
        };
        let cut = self.timeline.start_ticks(number + 1, self.timescale) + OFFSET_S * i64::from(self.timescale);
        shown.len() >= ENOUGH_PICTURES && cut - latest <= step + i64::from(self.timescale / ROUNDING)
    }

    fn reach(&mut self, samples: &[Sample]) {
        let end = samples
            .iter()
            .map(|sample| sample.pts.saturating_add(i64::from(sample.duration)))
            .max();
        let reached = end.unwrap_or(0) as f64 / f64::from(self.timescale) - OFFSET_S as f64;
        self.reached_s = self.reached_s.max(reached);
    }

    /// `next` is the time of the keyframe after it, if there is one.
    fn cut(&self, gathered: Gathered, next: Option<i64>) -> Result<Cut, CutError> {
        let Gathered {
            number,
            mut samples,
            data,
            ..
        } = gathered;
        if number == 0 {
            hide_before(&mut samples, OFFSET_S * i64::from(self.timescale));
        }
        let (dts, coded) = code(&samples, next)?;
        let bytes = fragments::segment(number, dts, &coded, &data)?;
        Ok(Cut::Segment {
            number,
            bytes,
            provisional: false,
        })
    }
}

impl Gathered {
    fn add(&mut self, fragment: Fragment) -> Result<(), CutError> {
        self.bytes += fragment.data.len() as u64 + fragment.samples.len() as u64 * SAMPLE_COST;
        if self.bytes > LARGEST_FRAGMENT {
            let limit = LARGEST_FRAGMENT;
            return Err(FragmentError::TooLarge {
                what: "a segment",
                bytes: self.bytes,
                limit,
            }
            .into());
        }
        self.samples.extend(fragment.samples);
        self.data.push(fragment.data);
        Ok(())
    }
}

/// How far pictures are reordered: the most places by which one is decoded after its turn of being shown, and the order
/// of showing.
fn reordering(samples: &[Sample]) -> (usize, Vec<i64>) {
    let mut order: Vec<usize> = (0..samples.len()).collect();
    order.sort_by_key(|&at| samples[at].pts);
    let delays = order
        .iter()
        .enumerate()
        .map(|(turn, &decoded)| decoded.saturating_sub(turn));
    let delay = delays.max().unwrap_or(0);
    (delay, order.into_iter().map(|at| samples[at].pts).collect())
}

/// Pictures that an edit list hides, before `zero`, have to be decoded for those after them. They keep their order and
/// are crowded into the few ticks before the first one that is to be seen.
fn hide_before(samples: &mut [Sample], zero: i64) {
    let Some(seen) = samples.iter().map(|sample| sample.pts).filter(|pts| *pts >= zero).min() else {
        return;
    };
    let mut hidden: Vec<usize> = (0..samples.len()).filter(|&at| samples[at].pts < zero).collect();
    hidden.sort_by_key(|&at| samples[at].pts);
    for (back, &at) in hidden.iter().rev().enumerate() {
        samples[at].pts = seen - (back as i64 + 1);
    }
}

/// Decoding times for samples in the order of decoding, from their presentation times alone: FFmpeg's own depend on
/// where a run began. The first is decoded when the first is shown, since some players place a segment by the one and
/// some by the other; or a tick for each picture earlier that is decoded before the first one that is shown (in open
/// groups). No sample is decoded after it is shown.
fn code(samples: &[Sample], next: Option<i64>) -> Result<(u64, Vec<Coded>), FragmentError> {
    let impossible = |_| FragmentError::Malformed("times that are too far apart");
    let (delay, shown) = reordering(samples);
    let first = samples.iter().zip(0..).map(|(sample, turn)| sample.pts - turn).min();
    let Some(first) = first else {
        return Ok((0, Vec::new()));
    };
    let start = u64::try_from(first).map_err(|_| FragmentError::Malformed("a time before all films"))?;
    let mut decoded = Vec::with_capacity(samples.len() + 1);
    let mut earliest = first;
    for at in 0..samples.len() {
        let time = at.checked_sub(delay).map_or(earliest, |at| shown[at].max(earliest));
        decoded.push(time);
        earliest = time + 1;
    }
    let last_duration = samples.last().map_or(0, |sample| i64::from(sample.duration));
    let after = match samples.len().checked_sub(delay).and_then(|at| shown.get(at)) {
        Some(&time) => time,
        None => next.unwrap_or_else(|| earliest - 1 + last_duration),
    };
    decoded.push(after.max(earliest));
    let coded = samples.iter().zip(decoded.windows(2)).map(|(sample, times)| {
        Ok(Coded {
            duration: u32::try_from(times[1] - times[0]).map_err(impossible)?,
            size: sample.size,
            flags: sample.flags,
            offset: i32::try_from(sample.pts - times[0]).map_err(impossible)?,
        })
    });
    Ok((start, coded.collect::<Result<_, FragmentError>>()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn samples(pts: &[i64]) -> Vec<Sample> {
        let sample = |&pts| Sample {
            pts,
            duration: 100,
            size: 1,
            flags: 0,
        };
        pts.iter().map(sample).collect()
    }

    fn decoded(pts: &[i64], next: Option<i64>) -> Vec<i64> {
        let (start, coded) = code(&samples(pts), next).unwrap();
        let mut times = vec![start as i64];
        times.extend(coded.iter().scan(start as i64, |time, sample| {
            *time += i64::from(sample.duration);
            Some(*time)
        }));
        times
    }

    #[test]
    fn decoding_begins_when_showing_begins() {
        assert_eq!(decoded(&[1000, 1100, 1200], Some(1300)), [1000, 1100, 1200, 1300]);
        assert_eq!(decoded(&[1000, 1100, 1200], None), [1000, 1100, 1200, 1300]);
        // Reordered by two: the first times are a tick apart, and then each picture is decoded two places early.
        let reordered = [1000, 1400, 1200, 1100, 1300, 1500];
        assert_eq!(
            decoded(&reordered, Some(1600)),
            [1000, 1001, 1002, 1100, 1200, 1300, 1400]
        );
        // An open group: what is shown first is decoded second.
        assert_eq!(decoded(&[1100, 1000, 1200], Some(1300)), [999, 1000, 1100, 1200]);
    }

    #[test]
    fn hidden_pictures_are_crowded_before_the_first_that_is_seen() {
        let mut hidden = samples(&[600, 900, 700, 800, 1100, 1000]);
        hide_before(&mut hidden, 1000);
        let pts: Vec<_> = hidden.iter().map(|sample| sample.pts).collect();
        assert_eq!(pts, [996, 999, 997, 998, 1100, 1000]);
        let mut all = samples(&[600, 700]);
        hide_before(&mut all, 1000);
        assert_eq!(all, samples(&[600, 700]));
    }

    proptest! {
        #[test]
        fn nothing_is_decoded_after_it_is_shown(
            pts in prop::collection::btree_set(1000..100_000_i64, 1..60).prop_map(Vec::from_iter).prop_shuffle(),
            next in prop::option::of(100_000..200_000_i64),
        ) {
            let (start, coded) = code(&samples(&pts), next).unwrap();
            let mut time = start as i64;
            for (sample, pts) in coded.iter().zip(&pts) {
                prop_assert!(sample.duration > 0);
                prop_assert!(sample.offset >= 0);
                prop_assert_eq!(time + i64::from(sample.offset), *pts);
                time += i64::from(sample.duration);
            }
        }
    }
}

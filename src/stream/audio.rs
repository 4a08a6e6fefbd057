//! Fragments of audio, each of one frame, into segments.

use std::sync::Arc;

use bytes::Bytes;

use crate::media::{Container, Kind, Track};

use super::cutter::{Cut, CutError, OFFSET_S};
use super::fragments::{
    self, Coded, Fragment, FragmentError, FragmentReader, LARGEST_FRAGMENT, Piece, SAMPLE_COST, Sample,
};
use super::plan::{Plan, Rendition};
use super::timeline::Timeline;

/// Sound that has said nothing for so long while the video went on pauses: no file that can be played has its tracks
/// further apart.
const PAUSE_S: f64 = 60.0;

/// Cuts the audio of one run. A segment has the frames that begin in it.
#[derive(Debug)]
pub(super) struct AudioCutter {
    timeline: Arc<Timeline>,
    reader: FragmentReader,
    track: Track,
    /// When the track ends, where its index says so exactly.
    end: Option<i64>,
    /// The segment for which the run was started.
    pub(super) begun: u32,
    /// The next that is cut.
    next: u32,
    timescale: u32,
    grid: Option<Grid>,
    /// The end of the last frame; none before the first.
    last_end: Option<i64>,
    landed_late: bool,
    samples: Vec<Sample>,
    data: Vec<Bytes>,
    bytes: u64,
    pub(super) reached_s: f64,
}

impl AudioCutter {
    pub(super) fn new(timeline: Arc<Timeline>, plan: &Plan, audio: &Rendition, first: u32) -> AudioCutter {
        AudioCutter {
            reached_s: timeline.start_s(first),
            timeline,
            reader: FragmentReader::default(),
            track: audio.track.clone(),
            end: (plan.container() == Container::Mp4).then_some(audio.track.end),
            begun: first,
            next: first,
            timescale: 1,
            grid: None,
            last_end: None,
            landed_late: false,
            samples: Vec::new(),
            data: Vec::new(),
            bytes: 0,
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
                    self.grid = Grid::of(&self.track, timescale);
                    cuts.push(Cut::Init(bytes));
                }
                Piece::Fragment(fragment) => self.take(&fragment, &mut cuts)?,
            }
            if self.landed_late {
                break;
            }
        }
        Ok(cuts)
    }

    pub(super) fn passed(&mut self, seconds: f64) -> Result<Vec<Cut>, CutError> {
        let mut cuts = Vec::new();
        while self.next < self.last() && seconds > self.timeline.start_s(self.next + 1) + PAUSE_S && !self.landed_late {
            self.cut(None, &mut cuts)?;
        }
        Ok(cuts)
    }

    pub(super) fn held(&self) -> u64 {
        self.reader.held() + self.bytes
    }

    pub(super) fn finish(mut self) -> Result<Vec<Cut>, CutError> {
        let mut cuts = Vec::new();
        while self.next < self.timeline.count() && !self.landed_late {
            self.cut(None, &mut cuts)?;
        }
        Ok(cuts)
    }

    fn last(&self) -> u32 {
        self.timeline.count() - 1
    }

    fn take(&mut self, fragment: &Fragment, cuts: &mut Vec<Cut>) -> Result<(), CutError> {
        let zero = OFFSET_S * i64::from(self.timescale);
        let mut place = 0;
        for sample in &fragment.samples {
            let data = fragment.data.slice(place..place + sample.size as usize);
            place += sample.size as usize;
            let mut sample = Sample {
                pts: sample.pts - zero,
                ..*sample
            };
            if let Some(grid) = &self.grid {
                sample.pts = grid.snap(sample.pts);
                sample.duration = grid.frame;
            }
            let end = sample.pts.saturating_add(i64::from(sample.duration));
            // What an edit list hides, and what only lets the decoder settle.
            if end <= 0 {
                continue;
            }
            if self.last_end.is_none() && self.lands_late(&sample) {
                self.landed_late = true;
                cuts.push(Cut::LandedLate { number: self.next });
                return Ok(());
            }
            self.last_end = Some(end);
            self.reached_s = self.reached_s.max(end as f64 / f64::from(self.timescale));
            let number = self.timeline.segment_of(sample.pts, self.timescale);
            while self.next < number {
                self.cut(Some(sample.pts), cuts)?;
            }
            if number == self.next && self.next <= self.last() {
                self.bytes += data.len() as u64 + SAMPLE_COST;
                if self.bytes > LARGEST_FRAGMENT {
                    let (bytes, limit) = (self.bytes, LARGEST_FRAGMENT);
                    return Err(FragmentError::TooLarge {
                        what: "a segment",
                        bytes,
                        limit,
                    }
                    .into());
                }
                self.samples.push(sample);
                self.data.push(data);
            }
            self.end_early(end, cuts)?;
        }
        Ok(())
    }

    /// Whether frames of the first segment may lie before the run's first frame.
    fn lands_late(&self, sample: &Sample) -> bool {
        // A run that began at an earlier segment has shown that there is none.
        if self.begun == 0 || self.begun < self.next {
            return false;
        }
        let before = sample.pts.saturating_sub(i64::from(sample.duration));
        let starts = i128::from(self.track.start) * i128::from(self.timescale);
        let starts_here = i128::from(before) * i128::from(self.track.timescale) <= starts;
        !self.timeline.before(before, self.timescale, self.next) && !starts_here
    }

    /// After the last frame that the index knows of, no other has to be waited for.
    fn end_early(&mut self, end: i64, cuts: &mut Vec<Cut>) -> Result<(), CutError> {
        let Some(known) = self.end else {
            return Ok(());
        };
        let ticks = i128::from(known) * i128::from(self.timescale) / i128::from(self.track.timescale.max(1));
        // Two times are rounded on the way.
        while i128::from(end) + 2 >= ticks && self.next <= self.last() {
            self.cut(None, cuts)?;
        }
        Ok(())
    }

    /// Cuts the next segment; `after` is the time of the frame after it.
    fn cut(&mut self, after: Option<i64>, cuts: &mut Vec<Cut>) -> Result<(), CutError> {
        let samples = std::mem::take(&mut self.samples);
        let data = std::mem::take(&mut self.data);
        self.bytes = 0;
        let number = self.next;
        self.next += 1;
        let zero = OFFSET_S * i64::from(self.timescale);
        let start = samples
            .first()
            .map_or_else(|| self.timeline.start_ticks(number, self.timescale), |first| first.pts);
        let dts = u64::try_from(start.saturating_add(zero))
            .map_err(|_| FragmentError::Malformed("a time before all films"))?;
        let bytes = fragments::segment(number, dts, &code(&samples, after), &data)?;
        cuts.push(Cut::Segment {
            number,
            bytes,
            provisional: false,
        });
        Ok(())
    }
}

/// Frames last until the next one. The last of a segment does so only if the next one is near: it is not known in every
/// run how long a pause is, but whether there is one.
fn code(samples: &[Sample], after: Option<i64>) -> Vec<Coded> {
    let ends = samples.iter().skip(1).map(|next| Some(next.pts)).chain([after]);
    let coded = samples.iter().zip(ends).enumerate().map(|(at, (sample, end))| {
        let own = i64::from(sample.duration);
        let distance = end.map_or(own, |end| end.saturating_sub(sample.pts));
        let last = at + 1 == samples.len();
        let duration = if last && distance > 2 * own { own } else { distance };
        Coded {
            duration: u32::try_from(duration).unwrap_or(0),
            size: sample.size,
            flags: sample.flags,
            offset: 0,
        }
    });
    coded.collect()
}

/// The places of frames in a container whose clock is too coarse for them.
///
/// Matroska rounds times to milliseconds, and FFmpeg smooths them again, differently in every run. Frames of one length
/// follow each other without a gap, so their true times are known from the first one's. Where a file has gaps, frames
/// are off that grid by any amount; so thirds of a frame are taken, which is wider than all rounding (mkvmerge's laces,
/// of which FFmpeg guesses the times within, are off by up to 2 ms) and finer than what anyone hears.
#[derive(Debug, Clone, Copy)]
struct Grid {
    start: i64,
    /// The length of a frame in ticks, rounded.
    frame: u32,
    /// The length of a third of a frame in ticks, as a fraction.
    step: (i128, i128),
}

impl Grid {
    fn of(track: &Track, timescale: u32) -> Option<Grid> {
        let Kind::Audio(audio) = &track.kind else { return None };
        let samples = audio.frame_samples.filter(|samples| *samples > 0)?;
        if audio.sample_rate == 0 || track.timescale == 0 || track.timescale >= audio.sample_rate {
            return None;
        }
        let length = i128::from(samples) * i128::from(timescale);
        let rate = i128::from(audio.sample_rate);
        Some(Grid {
            start: rounded(
                i128::from(track.start) * i128::from(timescale),
                i128::from(track.timescale),
            ),
            frame: u32::try_from(rounded(length, rate)).ok()?,
            step: (length, 3 * rate),
        })
    }

    fn snap(&self, pts: i64) -> i64 {
        let (length, rate) = self.step;
        let step = rounded(i128::from(pts.saturating_sub(self.start)) * rate, length);
        self.start.saturating_add(rounded(i128::from(step) * length, rate))
    }
}

/// To the nearest; both halves up.
fn rounded(numerator: i128, denominator: i128) -> i64 {
    let quotient = (2 * numerator + denominator).div_euclid(2 * denominator);
    i64::try_from(quotient).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::{Audio, Codec};
    use crate::stream::tests::indexes::audio;

    fn grid(start: i64) -> Grid {
        let sound = Audio {
            channels: 2,
            sample_rate: 44_100,
            frame_samples: Some(1024),
            delay: 0,
        };
        let track = Track {
            start,
            kind: Kind::Audio(sound),
            ..audio(Codec::Aac)
        };
        Grid::of(&track, 44_100).unwrap()
    }

    #[test]
    fn rounded_times_are_put_back_on_their_grid() {
        let grid = grid(7);
        let start = 309;
        for frame in 0..1_000_000_i64 {
            let truth = start + frame * 1024;
            // Up to 3.1 ms to either side, in steps that meet every remainder.
            let jitter = frame * 7 % 273 - 136;
            assert_eq!(grid.snap(truth + jitter), truth);
        }
    }

    #[test]
    fn a_gap_is_kept_to_a_third_of_a_frame() {
        let grid = grid(0);
        assert_eq!(grid.snap(10_240 + 300), 10_240 + 341);
        assert_eq!(grid.snap(10_240 + 513), 10_240 + 683);
        assert_eq!(grid.snap(-1024), -1024);
    }

    #[test]
    fn times_that_are_fine_enough_are_left() {
        let fine = Track {
            timescale: 44_100,
            ..audio(Codec::Aac)
        };
        assert!(Grid::of(&fine, 44_100).is_none());
        assert!(Grid::of(&audio(Codec::Opus), 48_000).is_none());
    }

    #[test]
    fn the_last_frame_of_a_segment_does_not_last_through_a_pause() {
        let sample = |pts| Sample {
            pts,
            duration: 100,
            size: 1,
            flags: 0,
        };
        let durations = |after| -> Vec<u32> {
            code(&[sample(0), sample(110), sample(900)], after)
                .iter()
                .map(|coded| coded.duration)
                .collect()
        };
        assert_eq!(durations(Some(1005)), [110, 790, 105]);
        assert_eq!(durations(Some(90_000)), [110, 790, 100]);
        assert_eq!(durations(None), [110, 790, 100]);
    }
}

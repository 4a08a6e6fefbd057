//! Edit lists (ISO/IEC 14496-12 8.6.6), with the result that FFmpeg's demuxer comes to: what is cut away at the front
//! stays, before the film, from the keyframe on that it needs.

use super::boxes::below;
use super::samples::{Sample, Samples, Tables};
use super::{KEYFRAME_LIMIT, Left};
use crate::media::fields::Fields;
use crate::media::{Keyframe, MediaError};

/// Nothing real has so many; each costs a walk.
const EDIT_LIMIT: usize = 64;

/// One entry, in ticks of the track; `media` is -1 for a pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Edit {
    pub(super) duration: i64,
    pub(super) media: i64,
}

/// The edits of a `trak`.
pub(super) fn edits(trak: &[u8], timescale: u32, movie_timescale: u32) -> Vec<Edit> {
    let read = || {
        let mut fields = Fields(below(trak, &[b"edts", b"elst"])?);
        let wide = fields.u8()? == 1;
        fields.take(3)?;
        let count = fields.u32()?.min(EDIT_LIMIT as u32);
        let mut edits = Vec::new();
        for _ in 0..count {
            let (duration, media) = if wide {
                (fields.u64()?, fields.u64()?.cast_signed())
            } else {
                (u64::from(fields.u32()?), i64::from(fields.u32()?.cast_signed()))
            };
            fields.u32()?;
            let scale = u128::from(movie_timescale.max(1));
            let ticks = (u128::from(duration) * u128::from(timescale) + scale / 2) / scale;
            edits.push(Edit {
                // So that no sum of a few of them can overflow.
                duration: i64::try_from(ticks).unwrap_or(i64::MAX).min(1 << 60),
                media: media.clamp(-1, 1 << 60),
            });
        }
        Some(edits)
    };
    read().unwrap_or_default()
}

/// What a walk over the samples of a track gives.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Shown {
    /// Of the first in time, what comes before the film too.
    pub(super) start: i64,
    pub(super) end: i64,
    /// Only of a video.
    pub(super) keyframes: Vec<Keyframe>,
    /// The order of decoding is not that of presentation.
    pub(super) reordered: bool,
}

/// What kind of walk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Walk {
    Video,
    Audio,
    Other,
}

/// Walks over all samples.
///
/// # Errors
/// What is `left`, which is counted down, does not suffice.
pub(super) fn show(
    tables: &Tables<'_>,
    edits: &[Edit],
    walk: Walk,
    timescale: u32,
    left: &mut Left,
) -> Result<Shown, MediaError> {
    let mut walker = Walker {
        walk,
        shift: tables.shift(),
        left,
        keyframes: Vec::new(),
        reordered: false,
        latest: i64::MIN,
        first: i64::MAX,
        end: i64::MIN,
        first_shown: -1,
    };
    let mut pauses = 0_i64;
    if edits.is_empty() {
        let mut samples = tables.samples();
        while let Some(sample) = samples.next() {
            walker.charge(&mut samples)?;
            walker.place(sample, sample.dts.saturating_add(sample.composition), true)?;
        }
    } else {
        let mut begin = -walker.shift;
        let mut before_any = true;
        for edit in edits {
            let counter = begin;
            begin = begin.saturating_add(edit.duration);
            if before_any && edit.media == -1 {
                pauses = pauses.saturating_add(edit.duration);
                continue;
            }
            walker.edit(tables, *edit, counter, before_any, timescale)?;
            before_any = false;
        }
    }
    // Pictures that were held back for those that are decoded before them begin at the begin all the same.
    let late = match walk {
        Walk::Video => walker.first_shown.saturating_sub(pauses).max(0),
        _ => 0,
    };
    let moved = |pts: i64| pts.saturating_sub(late);
    if walker.first == i64::MAX {
        return Ok(Shown::default());
    }
    let mut keyframes = walker.keyframes;
    keyframes
        .iter_mut()
        .for_each(|keyframe| keyframe.pts = moved(keyframe.pts));
    keyframes.sort_by_key(|keyframe| keyframe.pts);
    keyframes.dedup_by_key(|keyframe| keyframe.pts);
    let start = moved(walker.first);
    Ok(Shown {
        start,
        end: if walker.end == i64::MIN {
            start
        } else {
            moved(walker.end)
        },
        keyframes,
        reordered: walker.reordered,
    })
}

struct Walker<'a> {
    walk: Walk,
    shift: i64,
    left: &'a mut Left,
    keyframes: Vec<Keyframe>,
    reordered: bool,
    latest: i64,
    first: i64,
    end: i64,
    /// The earliest presentation within an edit, or -1, as FFmpeg's `min_corrected_pts`.
    first_shown: i64,
}

impl Walker<'_> {
    fn charge(&mut self, samples: &mut Samples<'_>) -> Result<(), MediaError> {
        self.left.step(samples.work())
    }

    /// A packet that comes out at this time.
    fn place(&mut self, sample: Sample, pts: i64, within: bool) -> Result<(), MediaError> {
        self.reordered |= pts < self.latest;
        self.latest = self.latest.max(pts);
        self.first = self.first.min(pts);
        if within {
            self.end = self.end.max(pts.saturating_add(sample.duration));
        }
        if self.walk == Walk::Video && sample.sync {
            self.left.keyframe()?;
            self.keyframes.push(Keyframe {
                pts,
                offset: sample.place,
            });
        }
        Ok(())
    }

    /// One edit, as `mov_fix_index` does it.
    fn edit(
        &mut self,
        tables: &Tables<'_>,
        edit: Edit,
        counter: i64,
        first: bool,
        timescale: u32,
    ) -> Result<(), MediaError> {
        let audio = self.walk == Walk::Audio;
        let until = edit.media.saturating_add(edit.duration);
        let mut samples = self.seek(tables, edit, timescale)?;
        // The time of decoding that the next sample within the edit gets.
        let mut dts = counter;
        let mut entered = false;
        // What comes before it, with the time from the first of them; it is placed backwards from the edit's begin.
        let mut early: Vec<(Sample, i64)> = Vec::new();
        let mut early_length = 0_i64;
        let mut after_end = false;
        let mut next = samples.next();
        while let Some(sample) = next {
            next = samples.next();
            self.charge(&mut samples)?;
            let length = if next.is_some() { sample.duration } else { edit.duration };
            let shown = sample.dts.saturating_add(sample.composition);
            let within = shown >= edit.media && shown < until;
            let cut = audio && first && shown < edit.media && shown.saturating_add(length) > edit.media;
            if (within || cut) && !entered {
                entered = true;
                if cut {
                    dts = dts.saturating_sub(edit.media - shown);
                }
                for (sample, from_first) in early.drain(..) {
                    let at = dts.saturating_sub(early_length).saturating_add(from_first);
                    self.place(sample, self.shifted(at, sample), false)?;
                }
            }
            if within {
                let pts = self.shifted(dts, sample);
                self.first_shown = if self.first_shown < 0 {
                    pts
                } else {
                    self.first_shown.min(pts)
                };
            }
            if entered {
                self.place(sample, self.shifted(dts, sample), within || cut)?;
                dts = dts.saturating_add(length);
            } else if early.is_empty() || sample.sync && self.walk == Walk::Video || early.len() < 32 {
                // The first few tell when the track starts; of the others only keyframes count.
                if early.len() >= KEYFRAME_LIMIT {
                    break;
                }
                early.push((sample, early_length));
            }
            if !entered {
                early_length = early_length.saturating_add(length);
            }
            if shown.saturating_add(length) >= until && (sample.sync || audio) {
                if tables.composed() && !audio && !after_end {
                    after_end = true;
                    continue;
                }
                break;
            }
        }
        Ok(())
    }

    fn shifted(&self, dts: i64, sample: Sample) -> i64 {
        dts.saturating_add(self.shift).saturating_add(sample.composition)
    }

    /// The samples from the last keyframe on that is shown no later than the edit begins; of sound from one second
    /// before.
    fn seek<'t>(&mut self, tables: &Tables<'t>, edit: Edit, timescale: u32) -> Result<Samples<'t>, MediaError> {
        let time = match self.walk {
            Walk::Audio => edit.media.saturating_sub(i64::from(timescale)).max(0),
            _ => edit.media,
        };
        let all = tables.samples();
        let mut found = all.clone();
        let mut same = None;
        let mut next = all;
        loop {
            let here = next.clone();
            let Some(sample) = next.next() else { break };
            self.charge(&mut next)?;
            if sample.dts > time {
                break;
            }
            if sample.sync && sample.dts.saturating_add(sample.composition) <= time && same != Some(sample.dts) {
                same = Some(sample.dts);
                found = here;
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::tests::full;
    use super::*;

    #[test]
    fn pauses_longer_than_all_time_are_survived() {
        let stbl = [
            full(b"stts", &[1, 1, 1]),
            full(b"stsz", &[100, 1]),
            full(b"stsc", &[1, 1, 1, 1]),
            full(b"stco", &[1, 0]),
        ];
        let stbl = stbl.concat();
        let tables = Tables::read(&stbl).expect("tables");
        let pause = Edit {
            duration: 1 << 60,
            media: -1,
        };
        let mut edits = vec![pause; 9];
        edits.push(Edit { duration: 1, media: 0 });
        let shown = show(&tables, &edits, Walk::Video, 1000, &mut Left::all()).expect("a walk");
        assert!(shown.start <= shown.end, "{shown:?}");
    }

    #[test]
    fn all_tracks_together_have_so_many_keyframes() {
        const COUNT: u32 = 700_000;
        let stbl = [
            full(b"stts", &[1, COUNT, 1]),
            full(b"stsz", &[1, COUNT]),
            full(b"stsc", &[1, 1, COUNT, 1]),
            full(b"stco", &[1, 0]),
        ];
        let stbl = stbl.concat();
        let tables = Tables::read(&stbl).expect("tables");
        let mut left = Left::all();
        let mut walk = || show(&tables, &[], Walk::Video, 1000, &mut left);
        assert_eq!(walk().expect("the first track").keyframes.len(), COUNT as usize);
        let second = walk();
        assert!(
            matches!(second, Err(MediaError::TooLarge { what: "keyframes", .. })),
            "{second:?}"
        );
    }
}

//! FFmpeg's WebVTT into segments of WebVTT (W3C WebVTT, RFC 8216 section 3.5).

use std::collections::VecDeque;
use std::fmt::Write;
use std::sync::Arc;

use bytes::Bytes;

use super::cutter::{Cut, CutError};
use super::timeline::{SUBTITLE_LEAD_S, Timeline};

/// The most bytes of cues that are held, and of one cue. A film's subtitles are some 100 KiB in all.
const LARGEST: usize = 4 << 20;

/// What a line or a cue takes in memory besides its text: there may be little of that.
const COST: usize = 64;

/// How far the video has to be past a segment before the cues in it are all there: they stand in the file beside the
/// pictures that they belong to, about.
const INTERLEAVE_S: f64 = 1.0;

/// A cue that began longer before a segment is not in it, though it may last: whether a run has read it depends on
/// where the run began, and a segment's bytes must not.
const LONGEST_MS: i64 = (SUBTITLE_LEAD_S * 1000.0) as i64;

/// Times in the cues are the film's; [`OFFSET_S`](super::cutter::OFFSET_S) is added to those of the video.
const HEAD: &str = "WEBVTT\nX-TIMESTAMP-MAP=MPEGTS:900000,LOCAL:00:00:00.000\n";

/// Cuts the subtitles of one run. A segment has every cue that is shown in it, so a cue can be in several.
#[derive(Debug)]
pub(super) struct SubtitleCutter {
    timeline: Arc<Timeline>,
    /// The segment for which the run was started.
    pub(super) begun: u32,
    /// The next segment of which every cue has been read.
    next: u32,
    /// The next segment to be given at all.
    given: u32,
    /// When the latest cue that was read begins. They come in this order, so there are no others before.
    heard_ms: i64,
    /// The line that is coming in.
    line: Vec<u8>,
    /// The block of lines that is coming in.
    block: Vec<String>,
    cues: VecDeque<Cue>,
    /// What all of them have.
    bytes: usize,
    pub(super) reached_s: f64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Cue {
    start_ms: i64,
    end_ms: i64,
    /// What stands behind the times, and the lines below.
    settings: String,
    text: Vec<String>,
}

impl SubtitleCutter {
    pub(super) fn new(timeline: Arc<Timeline>, first: u32) -> SubtitleCutter {
        SubtitleCutter {
            reached_s: timeline.start_s(first),
            timeline,
            begun: first,
            next: first,
            given: first,
            heard_ms: i64::MIN,
            line: Vec::new(),
            block: Vec::new(),
            cues: VecDeque::new(),
            bytes: 0,
        }
    }

    /// Gives each segment that ends before a cue that has come: nothing more can come for it.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<Vec<Cut>, CutError> {
        let mut cuts = Vec::new();
        for &byte in bytes {
            if byte == b'\n' {
                let line = std::mem::take(&mut self.line);
                self.bytes -= line.len();
                self.take_line(String::from_utf8_lossy(&line).trim_end_matches('\r').replace('\r', " "));
                while self.next < self.timeline.count() - 1 && self.start_ms(self.next + 1) <= self.heard_ms {
                    cuts.push(self.cut());
                }
            } else {
                self.line.push(byte);
                self.bytes += 1;
            }
            if self.bytes > LARGEST {
                return Err(CutError::Subtitles { limit: LARGEST });
            }
        }
        Ok(cuts)
    }

    /// Gives, provisionally, each segment that the video is past: FFmpeg writes each of its outputs from a thread of
    /// its own, so a cue may be on its way still. A cue that comes later makes it final, or the end.
    pub(super) fn passed(&mut self, seconds: f64) -> Vec<Cut> {
        let mut cuts = Vec::new();
        self.reached_s = self.reached_s.max(seconds - INTERLEAVE_S);
        while self.given < self.timeline.count() - 1 && self.timeline.start_s(self.given + 1) <= self.reached_s {
            cuts.push(Cut::Segment {
                number: self.given,
                bytes: self.text(self.given),
                provisional: true,
            });
            self.given += 1;
        }
        cuts
    }

    pub(super) fn held(&self) -> u64 {
        self.bytes as u64
    }

    pub(super) fn finish(mut self) -> Result<Vec<Cut>, CutError> {
        // The last block may lack the empty line that ends the others.
        let mut cuts = self.push(b"\n\n")?;
        while self.next < self.timeline.count() {
            cuts.push(self.cut());
        }
        Ok(cuts)
    }

    fn take_line(&mut self, line: String) {
        if !line.is_empty() {
            self.bytes += line.len() + COST;
            self.block.push(line);
            return;
        }
        let block = std::mem::take(&mut self.block);
        self.bytes -= held(&block);
        let Some(cue) = cue(block) else { return };
        self.heard_ms = self.heard_ms.max(cue.start_ms);
        if self.wanted(&cue) {
            self.bytes += cue.bytes();
            self.cues.push_back(cue);
        }
    }

    /// Whether any segment that is still to be cut shows it.
    fn wanted(&self, cue: &Cue) -> bool {
        self.is_in_or_after(cue, self.next)
    }

    /// Whether a segment or one behind it shows a cue.
    fn is_in_or_after(&self, cue: &Cue, number: u32) -> bool {
        let start = self.start_ms(number);
        number == 0 || cue.end_ms.max(cue.start_ms + 1) > start && cue.start_ms >= start - LONGEST_MS
    }

    fn cut(&mut self) -> Cut {
        let number = self.next;
        let bytes = self.text(number);
        self.next += 1;
        self.given = self.given.max(self.next);
        let mut kept = std::mem::take(&mut self.cues);
        kept.retain(|cue| self.wanted(cue));
        self.cues = kept;
        self.bytes = self.line.len() + held(&self.block) + self.cues.iter().map(Cue::bytes).sum::<usize>();
        Cut::Segment {
            number,
            bytes,
            provisional: !self.timeline.subtitles_final(self.begun, number),
        }
    }

    /// A segment, of the cues that have been read.
    fn text(&self, number: u32) -> Bytes {
        let end = if number + 1 < self.timeline.count() {
            self.start_ms(number + 1)
        } else {
            i64::MAX
        };
        let mut text = String::from(HEAD);
        let shown = |cue: &&Cue| cue.start_ms < end && self.is_in_or_after(cue, number);
        let mut shown: Vec<&Cue> = self.cues.iter().filter(shown).collect();
        // A run that began later may have read the same ones in the same order, but not after others.
        shown.sort_by_key(|cue| (cue.start_ms, cue.end_ms));
        for cue in shown {
            cue.write(&mut text);
        }
        Bytes::from(text)
    }

    fn start_ms(&self, number: u32) -> i64 {
        self.timeline.start_ticks(number, 1000)
    }
}

impl Cue {
    fn bytes(&self) -> usize {
        self.settings.len() + held(&self.text) + COST
    }

    fn write(&self, text: &mut String) {
        text.push('\n');
        time(text, self.start_ms);
        text.push_str(" --> ");
        time(text, self.end_ms);
        text.push_str(&self.settings);
        text.push('\n');
        for line in &self.text {
            text.push_str(line);
            text.push('\n');
        }
    }
}

/// Bytes that lines take.
fn held(lines: &[String]) -> usize {
    lines.iter().map(|line| line.len() + COST).sum()
}

fn time(text: &mut String, ms: i64) {
    let (seconds, ms) = (ms / 1000, ms % 1000);
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    // Writing to a string cannot fail.
    let _ = write!(text, "{hours:02}:{minutes:02}:{seconds:02}.{ms:03}");
}

/// What a block of lines says; none if it is no cue, as the header, notes and styles are none.
fn cue(mut block: Vec<String>) -> Option<Cue> {
    let at = block.iter().take(2).position(|line| line.contains(" --> "))?;
    let text = block.split_off(at + 1);
    let times = block.pop()?;
    let (start, rest) = times.split_once(" --> ")?;
    let (end, settings) = rest.find(' ').map_or((rest, ""), |space| rest.split_at(space));
    Some(Cue {
        start_ms: milliseconds(start)?,
        end_ms: milliseconds(end)?,
        settings: settings.to_owned(),
        text,
    })
}

/// `[HH:]MM:SS.mmm`
fn milliseconds(time: &str) -> Option<i64> {
    let (clock, ms) = time.trim().split_once('.')?;
    let mut seconds: i64 = 0;
    let mut parts = 0;
    for part in clock.split(':') {
        if part.is_empty() || part.len() > 6 || !part.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        seconds = seconds.checked_mul(60)?.checked_add(part.parse().ok()?)?;
        parts += 1;
    }
    let ms: i64 = (ms.len() == 3 && ms.bytes().all(|byte| byte.is_ascii_digit())).then(|| ms.parse().ok())??;
    ((2..=3).contains(&parts)).then_some(seconds * 1000 + ms)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::tests::indexes::film_of;

    fn cutter(first: u32) -> SubtitleCutter {
        SubtitleCutter::new(film_of(&[0, 4, 8, 12, 40, 44, 50], 60).1, first)
    }

    fn text(cut: &Cut) -> (u32, &str, bool) {
        match cut {
            Cut::Segment {
                number,
                bytes,
                provisional,
            } => (*number, std::str::from_utf8(bytes).unwrap(), *provisional),
            other => panic!("{other:?}"),
        }
    }

    const SAID: &str = "WEBVTT\n\n00:01.000 --> 00:03.500 line:5%\nfirst\nof two\n\n\
        00:03.900 --> 00:08.000\nover a cut\n\n\
        NOTE nothing\n\n7\n00:00:41.000 --> 01:00:00.000\nto the end\n\nno cue\n\nx --> y\n\n";

    #[test]
    fn a_cue_is_in_every_segment_that_shows_it() {
        let mut cutter = cutter(0);
        let cuts = cutter.push(SAID.as_bytes()).unwrap();
        assert_eq!(cuts.len(), 4, "those before the cue at 41 s");
        let first = "WEBVTT\nX-TIMESTAMP-MAP=MPEGTS:900000,LOCAL:00:00:00.000\n\n\
            00:00:01.000 --> 00:00:03.500 line:5%\nfirst\nof two\n\n\
            00:00:03.900 --> 00:00:08.000\nover a cut\n";
        assert_eq!(text(&cuts[0]), (0, first, false));
        assert!(text(&cuts[1]).1.contains("over a cut") && !text(&cuts[1]).1.contains("first"));
        assert_eq!(text(&cuts[2]), (2, HEAD, false));
        assert_eq!(text(&cuts[3]), (3, HEAD, false));
        let rest = cutter.finish().unwrap();
        let shows: Vec<_> = rest.iter().map(|cut| text(cut).1.contains("to the end")).collect();
        assert_eq!(shows, [true, true, true]);
        assert!(
            text(&rest[2])
                .1
                .ends_with("00:00:41.000 --> 01:00:00.000\nto the end\n")
        );
    }

    #[test]
    fn a_segment_waits_until_the_video_is_past_it() {
        let mut cutter = cutter(0);
        assert!(cutter.passed(4.5).is_empty());
        assert_eq!(cutter.passed(5.0).len(), 1);
        assert!(cutter.passed(f64::NAN).is_empty());
        // The last one only ends with the film.
        assert_eq!(cutter.passed(f64::INFINITY).len(), 5);
        assert_eq!(cutter.finish().unwrap().len(), 7);
    }

    /// The video can be read before a cue that was written before it.
    #[test]
    fn what_the_video_is_past_is_provisional_until_a_later_cue_comes() {
        let mut cutter = cutter(0);
        assert_eq!(text(&cutter.passed(6.0)[0]), (0, HEAD, true));
        assert!(
            cutter
                .push(b"WEBVTT\n\n00:01.000 --> 00:02.000\nlate\n\n")
                .unwrap()
                .is_empty()
        );
        let cuts = cutter.push(b"00:04.000 --> 00:05.000\nnext\n\n").unwrap();
        assert_eq!(cuts.len(), 1);
        let (number, shown, provisional) = text(&cuts[0]);
        assert!(number == 0 && shown.contains("late") && !shown.contains("next") && !provisional);
        assert!(text(&cutter.passed(9.0)[0]).1.contains("next"));
    }

    #[test]
    fn what_began_less_than_30_s_before_is_provisional() {
        let mut late = cutter(3);
        let provisional = |cuts: Vec<Cut>| cuts.iter().map(|cut| text(cut).2).collect::<Vec<_>>();
        const LATER: &[u8] = b"WEBVTT\n\n00:55.000 --> 00:56.000\nlater\n\n";
        // From 12 s: 40 s is 28 s later, 44 s is 32 s later.
        assert_eq!(provisional(late.push(LATER).unwrap()), [true, true, false]);
        let mut early = cutter(4);
        early.begun = 2;
        assert_eq!(provisional(early.push(LATER).unwrap()), [false, false]);
    }

    #[test]
    fn what_began_longer_before_a_segment_is_left_to_those_before_it() {
        let mut cutter = cutter(0);
        let mut cuts = cutter.push(b"WEBVTT\n\n00:09.000 --> 00:59.000\nlong\n\n").unwrap();
        cuts.extend(cutter.finish().unwrap());
        let shows: Vec<_> = cuts.iter().map(|cut| text(cut).1.contains("long")).collect();
        assert_eq!(shows, [false, false, true, true, false, false, false]);
    }

    #[test]
    fn more_than_any_film_has_is_refused() {
        let limit = CutError::Subtitles { limit: LARGEST };
        for much in [vec![b'x'; LARGEST + 1], b"x\n".repeat(LARGEST / COST)] {
            assert_eq!(cutter(0).push(&much), Err(limit.clone()));
        }
    }

    proptest::proptest! {
        #[test]
        fn nothing_breaks_it_and_pieces_do_not_matter(
            words in proptest::collection::vec(
                "(\\PC|[0-9:.\r\n]| --> |\n\n|00:0[0-9].000 --> 00:1[0-9].500\n){0,4}",
                0..20,
            ),
            size in 1..30_usize,
        ) {
            let bytes = words.concat().into_bytes();
            let (mut whole, mut parts) = (cutter(0), cutter(0));
            let mut of_whole = whole.push(&bytes).unwrap();
            of_whole.extend(whole.finish().unwrap());
            let mut of_parts = Vec::new();
            for piece in bytes.chunks(size) {
                of_parts.extend(parts.push(piece).unwrap());
            }
            of_parts.extend(parts.finish().unwrap());
            proptest::prop_assert_eq!(of_whole, of_parts);
        }
    }
}

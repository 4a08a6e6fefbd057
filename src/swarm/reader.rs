//! From the reads of one open handle to what the swarm is asked for.
//!
//! A read that waits is asked for at once. Once reads follow each other, the seconds after them are asked for as well:
//! a window that starts small, so that a player that only probes a file is not held up by what it will not read, grows
//! with what was read in sequence, and ends at what the reader consumes in half a minute. After the first read the head
//! and the tail of the file are asked for too, since every player comes to its index.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use crate::swarm::picker::{Band, DemandKey, Picker, Want};
use crate::swarm::shape::{Shape, Time};

/// Reads this far from where a sequence ended still belong to it: the kernel reads ahead, and out of order.
const TOLERANCE: u64 = 1024 * 1024;
/// What must have been read in sequence before anything is fetched ahead: less is a probe.
const PROBE: u64 = 512 * 1024;
/// Seconds of the reader's consumption that are fetched ahead.
const WINDOW_S: u64 = 30;
/// For so long after a seek it is twice that: a reader that stalls after a seek stalls soon.
const BOOST: Duration = Duration::from_secs(10);
/// The most that is fetched ahead of one sequence, in bytes.
const MAX_WINDOW: u64 = 256 * 1024 * 1024;
/// The head and the tail of a file that are fetched once it was read from, in bytes each.
const EDGE: u64 = 256 * 1024;
/// What a reader that works ahead of its viewer asks for has so much more time: what others will read next comes before.
const LEISURE: Duration = Duration::from_secs(60);
/// How long after a sequence began they come before what is read later than that: the index that a seek needs is there
/// before the viewer seeks, even if the line is hardly quicker than the reader.
const EDGE_WITHIN: Duration = Duration::from_secs(3);
/// Sequences that one handle may interleave (badly muxed files are read at two places in turn).
const MAX_SEQUENCES: usize = 4;
/// A sequence that is not the latest is forgotten after this long without a read.
const SEQUENCE_IDLE: Duration = Duration::from_secs(10);
/// Consumption is measured over about this time.
const MEMORY: Duration = Duration::from_secs(8);
/// ...and believed after this time.
const LEAST_MEMORY: Duration = Duration::from_secs(2);
/// No reader is taken to consume less than this (bytes a second): a paused player will go on.
const LEAST_PACE: u64 = 128 * 1024;
/// Reads that may wait at once on one handle.
pub const MAX_READS: usize = 256;

/// Names a read until it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReadKey(u64);

/// A read that waits.
#[derive(Debug, Clone)]
struct Read {
    bytes: Range<u64>,
    begun: Time,
    /// Somebody waits for its reader, too.
    urgent: bool,
}

/// Reads that follow each other.
#[derive(Debug, Clone)]
struct Sequence {
    /// Where it has come to, in the torrent.
    position: u64,
    /// Bytes read in sequence since it began.
    run: u64,
    begun: Time,
    last: Time,
    /// Consumption: bytes over a time that ends at `last`.
    bytes: f64,
    seconds: f64,
}

impl Sequence {
    fn pace(&self) -> Option<u64> {
        (self.seconds >= LEAST_MEMORY.as_secs_f64()).then(|| ((self.bytes / self.seconds) as u64).max(LEAST_PACE))
    }

    fn advance(&mut self, now: Time, end: u64) {
        let bytes = end.saturating_sub(self.position);
        self.position = self.position.max(end);
        self.run += bytes;
        self.bytes += bytes as f64;
        self.seconds += (now - self.last).as_secs_f64();
        self.last = now;
        let memory = MEMORY.as_secs_f64();
        if self.seconds > memory {
            self.bytes *= memory / self.seconds;
            self.seconds = memory;
        }
    }
}

/// One open handle: turns its reads into demands. [`close`](Reader::close) it, or its demands stay.
#[derive(Debug)]
pub struct Reader {
    shape: Shape,
    file: Range<u64>,
    reads: BTreeMap<ReadKey, Read>,
    next_read: u64,
    /// The latest last.
    sequences: Vec<Sequence>,
    answered: bool,
    /// What is sure to be read next, and when.
    expected: Option<(Range<u64>, Time)>,
    /// Whether more is asked for than what reads wait for.
    ahead: bool,
    /// Whether it works ahead of its viewer, as its latest read was.
    leisurely: bool,
    held: Vec<(Want, DemandKey)>,
}

impl Reader {
    /// A handle on the bytes `file` of a torrent of `shape`.
    pub fn new(shape: Shape, file: Range<u64>) -> Reader {
        Reader {
            shape,
            file: file.start.min(shape.total())..file.end.min(shape.total()),
            reads: BTreeMap::new(),
            next_read: 0,
            sequences: Vec::new(),
            answered: false,
            expected: None,
            ahead: true,
            leisurely: false,
            held: Vec::new(),
        }
    }

    /// A read of `bytes` (of the torrent) begins, whether or not they are here. `None` if [`MAX_READS`] wait already.
    /// [`update`](Reader::update) puts it into effect.
    pub fn begin(&mut self, now: Time, bytes: Range<u64>) -> Option<ReadKey> {
        if self.reads.len() >= MAX_READS {
            return None;
        }
        self.follow(now, &bytes);
        self.next_read += 1;
        let key = ReadKey(self.next_read);
        let read = Read {
            bytes,
            begun: now,
            urgent: true,
        };
        self.reads.insert(key, read);
        Some(key)
    }

    /// Whether a read is urgent, as it is from its beginning. One of a reader that works ahead of its viewer is not: it
    /// stands behind what is fetched ahead of others. [`update`](Reader::update) puts it into effect.
    pub fn set_urgent(&mut self, key: ReadKey, urgent: bool) {
        self.leisurely = !urgent;
        if let Some(read) = self.reads.get_mut(&key) {
            read.urgent = urgent;
        }
    }

    /// A read ended: it was answered, or nobody waits for it any more.
    pub fn end(&mut self, key: ReadKey, answered: bool) {
        self.reads.remove(&key);
        self.answered |= answered;
    }

    /// These bytes (of the torrent) are sure to be read from `due` on, and in order, whoever reads them: they are asked
    /// for at once, after what reads wait for. It takes the place of what was expected before.
    /// [`update`](Reader::update) puts it into effect.
    pub fn expect(&mut self, bytes: Range<u64>, due: Time) {
        let bytes = bytes.start.max(self.file.start)..bytes.end.min(self.file.end);
        self.expected = (!bytes.is_empty()).then_some((bytes, due));
    }

    /// Whether anything is asked for that no read waits for; it is, from the beginning. [`update`](Reader::update) puts it
    /// into effect.
    pub fn fetch_ahead(&mut self, ahead: bool) {
        self.ahead = ahead;
    }

    /// Brings the picker's demands in line with the reads. To be called after [`begin`](Reader::begin) and
    /// [`end`](Reader::end), and now and then while the handle is open (once a second is plenty).
    pub fn update(&mut self, now: Time, picker: &mut Picker) {
        let wants = self.wants(now, picker.line_rate());
        let mut old = std::mem::take(&mut self.held);
        for want in wants {
            let same = old.iter().position(|(held, _)| is_same(held, &want));
            let kept = same.map(|place| old.swap_remove(place));
            // A new demand comes before the old one goes, so that nothing between them is cancelled.
            let held = kept.or_else(|| picker.add_demand(now, &want).map(|key| (want, key)));
            self.held.extend(held);
        }
        for (_, key) in old {
            picker.remove_demand(key);
        }
    }

    /// Withdraws everything that this handle asks for.
    pub fn close(self, picker: &mut Picker) {
        for (_, key) in self.held {
            picker.remove_demand(key);
        }
    }

    /// What the handle asks for, if all peers together deliver `line_rate` bytes a second.
    fn wants(&mut self, now: Time, line_rate: u64) -> Vec<Want> {
        let mut wants: Vec<Want> = self
            .reads
            .values()
            .map(|read| {
                let (band, leisure) = if read.urgent {
                    (Band::Waiting, Duration::ZERO)
                } else {
                    (Band::Soon, LEISURE)
                };
                Want {
                    band,
                    deadline: Some(read.begun + leisure),
                    ..Want::now(read.bytes.clone())
                }
            })
            .collect();
        if !self.ahead {
            return wants;
        }
        wants.extend(self.expected.iter().map(|(bytes, due)| Want {
            bytes: bytes.clone(),
            band: Band::Soon,
            deadline: Some(*due),
            pace: None,
        }));
        if let Some(latest) = self.sequences.last().map(|latest| latest.last) {
            self.sequences
                .retain(|sequence| sequence.last == latest || now - sequence.last < SEQUENCE_IDLE);
        }
        wants.extend(
            self.sequences
                .iter()
                .filter_map(|sequence| self.ahead(now, sequence, line_rate)),
        );
        if self.answered {
            let head = self.file.start..self.file.end.min(self.file.start + EDGE);
            let tail = self.file.start.max(self.file.end.saturating_sub(EDGE))..self.file.end;
            let playing = self.sequences.iter().filter(|sequence| sequence.run >= PROBE);
            let (band, deadline) = match playing.map(|sequence| sequence.begun).min() {
                Some(begun) => (Band::Soon, begun + EDGE_WITHIN),
                None => (Band::Edge, Time::ZERO),
            };
            let edge = |bytes| Want {
                bytes,
                band,
                deadline: Some(deadline),
                pace: None,
            };
            wants.extend([head, tail].map(edge));
        }
        wants
    }

    /// The window ahead of a sequence, in whole pieces.
    fn ahead(&self, now: Time, sequence: &Sequence, line_rate: u64) -> Option<Want> {
        if sequence.run < PROBE {
            return None;
        }
        let piece = u64::from(self.shape.piece_length());
        let pace = sequence.pace().unwrap_or(line_rate.max(LEAST_PACE));
        let seconds = if now - sequence.begun < BOOST {
            2 * WINDOW_S
        } else {
            WINDOW_S
        };
        let window = (pace * seconds)
            .min(2 * sequence.run)
            .clamp(piece, MAX_WINDOW.max(piece));
        let start = sequence.position / piece * piece;
        let end = (sequence.position + window).div_ceil(piece) * piece;
        let bytes = start.max(self.file.start)..end.min(self.file.end);
        let leisure = if self.leisurely { LEISURE } else { Duration::ZERO };
        let want = Want {
            bytes,
            band: Band::Soon,
            deadline: Some(now + leisure),
            pace: Some(pace),
        };
        (!want.bytes.is_empty()).then_some(want)
    }

    /// Puts a read into the sequence that it continues, or begins a new one.
    fn follow(&mut self, now: Time, bytes: &Range<u64>) {
        let near = |sequence: &Sequence| {
            bytes.start <= sequence.position.saturating_add(TOLERANCE)
                && bytes.end.saturating_add(TOLERANCE) >= sequence.position
        };
        let mut sequence = match self.sequences.iter().rposition(near) {
            Some(place) => self.sequences.remove(place),
            None => {
                if self.sequences.len() >= MAX_SEQUENCES {
                    self.sequences.remove(0);
                }
                let position = bytes.start;
                Sequence {
                    position,
                    run: 0,
                    begun: now,
                    last: now,
                    bytes: 0.0,
                    seconds: 0.0,
                }
            }
        };
        sequence.advance(now, bytes.end);
        self.sequences.push(sequence);
    }
}

/// Whether a demand that is held says what is wanted now, well enough not to be replaced.
fn is_same(held: &Want, want: &Want) -> bool {
    let near = |one: u64, other: u64, share: u64| one.abs_diff(other) <= one.max(other) / share;
    let same_pace = match (held.pace, want.pace) {
        (Some(one), Some(other)) => near(one, other, 2),
        (one, other) => one == other,
    };
    let same_leisure = match (held.deadline, want.deadline) {
        (Some(held), Some(want)) => want < held + LEISURE / 2 && held < want + LEISURE / 2,
        (held, want) => held == want,
    };
    held.bytes == want.bytes && held.band == want.band && same_pace && same_leisure
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::swarm::picker::{Action, Settings};
    use crate::swarm::shape::PieceSet;

    const MIB: u64 = 1 << 20;
    const READ: u64 = 128 * 1024;

    fn at(millis: u64) -> Time {
        Time::from_micros(millis * 1000)
    }

    fn reader() -> Reader {
        Reader::new(Shape::new(1 << 20, 4096 * MIB).unwrap(), 0..4096 * MIB)
    }

    /// Begin and end of each window, in MiB.
    fn soon(wants: &[Want]) -> Vec<(u64, u64)> {
        let windows = wants
            .iter()
            .filter(|want| want.band == Band::Soon && want.pace.is_some());
        windows
            .map(|want| (want.bytes.start / MIB, want.bytes.end / MIB))
            .collect()
    }

    /// Reads `bytes` in sequence, all of them answered at once, at `rate` bytes a second; gives when it ended.
    fn stream(reader: &mut Reader, mut now: Time, bytes: Range<u64>, rate: u64) -> Time {
        for start in (bytes.start..bytes.end).step_by(READ as usize) {
            let key = reader.begin(now, start..start + READ).unwrap();
            reader.end(key, true);
            now = now + Duration::from_micros(READ * 1_000_000 / rate);
        }
        now
    }

    #[test]
    fn a_probe_asks_for_nothing_but_its_bytes_and_then_the_edges() {
        let mut reader = reader();
        let key = reader.begin(at(0), 0..READ).unwrap();
        assert_eq!(
            reader.wants(at(0), 5 * MIB),
            [Want {
                deadline: Some(at(0)),
                ..Want::now(0..READ)
            }]
        );
        reader.end(key, true);
        let wants = reader.wants(at(1), 5 * MIB);
        assert_eq!(
            wants.iter().map(|want| want.band).collect::<Vec<_>>(),
            [Band::Edge, Band::Edge]
        );
        assert_eq!(wants[1].bytes, 4096 * MIB - EDGE..4096 * MIB);
        let key = reader.begin(at(2), 4000 * MIB..4000 * MIB + READ).unwrap();
        reader.end(key, true);
        assert_eq!(soon(&reader.wants(at(3), 5 * MIB)), []);
    }

    #[test]
    fn the_window_grows_with_the_sequence_up_to_what_is_consumed_in_half_a_minute() {
        let mut reader = reader();
        let now = stream(&mut reader, at(0), 0..MIB, MIB);
        assert_eq!(soon(&reader.wants(now, 5 * MIB)), [(1, 3)]);
        let now = stream(&mut reader, now, MIB..9 * MIB, MIB);
        assert_eq!(soon(&reader.wants(now, 5 * MIB)), [(9, 27)]);
        let now = stream(&mut reader, now, 9 * MIB..200 * MIB, MIB);
        let window = soon(&reader.wants(now, 5 * MIB))[0];
        assert!((229..=232).contains(&window.1), "{window:?}");
    }

    #[test]
    fn what_is_expected_comes_after_what_is_waited_for_and_before_what_may_be_read() {
        let mut reader = reader();
        reader.expect(10 * MIB..14 * MIB, at(0));
        reader.begin(at(5), 2000 * MIB..2000 * MIB + READ).unwrap();
        let now = stream(&mut reader, at(10), 0..MIB, MIB);
        let mut wants = reader.wants(now, 5 * MIB);
        wants.sort_by_key(|want| (want.band, want.deadline));
        let first: Vec<_> = wants.iter().take(3).map(|want| want.bytes.start / MIB).collect();
        assert_eq!(first, [2000, 10, 1]);

        reader.expect(5000 * MIB..6000 * MIB, at(20));
        let wants = reader.wants(now, 5 * MIB);
        assert!(
            wants
                .iter()
                .all(|want| want.bytes.start < 5000 * MIB && want.bytes.start != 10 * MIB),
            "what lies outside of the file is not asked for, nor what was expected before: {wants:?}"
        );
    }

    #[test]
    fn the_edges_come_before_the_later_part_of_the_window_once_a_sequence_runs() {
        let mut reader = reader();
        let now = stream(&mut reader, at(1000), 0..MIB, MIB);
        let wants = reader.wants(now, 5 * MIB);
        let tail = wants.iter().find(|want| want.bytes.end == 4096 * MIB).unwrap();
        assert_eq!((tail.band, tail.deadline), (Band::Soon, Some(at(4000))));
    }

    #[test]
    fn for_ten_seconds_after_a_seek_the_window_is_twice_as_long() {
        let mut reader = reader();
        let now = stream(&mut reader, at(0), 1000 * MIB..1009 * MIB, 2 * MIB);
        let pace_of = |wants: &[Want]| wants.iter().find_map(|want| want.pace).unwrap();
        let boosted = reader
            .ahead(
                now,
                &Sequence {
                    run: u64::MAX / 4,
                    ..reader.sequences[0].clone()
                },
                0,
            )
            .unwrap();
        let later = now + BOOST;
        let plain = reader
            .ahead(
                later,
                &Sequence {
                    run: u64::MAX / 4,
                    ..reader.sequences[0].clone()
                },
                0,
            )
            .unwrap();
        let length = |want: &Want| (want.bytes.end - want.bytes.start) / MIB;
        assert!(length(&boosted) >= 2 * length(&plain) - 3, "{boosted:?} {plain:?}");
        assert!((pace_of(&[plain]) / MIB).abs_diff(2) <= 1);
    }

    #[test]
    fn reads_out_of_order_and_at_two_places_are_sequences_all_the_same() {
        let mut reader = reader();
        let mut now = at(0);
        for step in 0..16 {
            for base in [0, 2000 * MIB] {
                let swapped = step ^ 1;
                let key = reader
                    .begin(now, base + swapped * READ..base + (swapped + 1) * READ)
                    .unwrap();
                reader.end(key, true);
                now = now + Duration::from_millis(1);
            }
        }
        let wants = soon(&reader.wants(now, 5 * MIB));
        assert_eq!(wants, [(2, 6), (2002, 2006)]);
        let wants = soon(&reader.wants(now + Duration::from_secs(20), 5 * MIB));
        assert_eq!(wants.len(), 1, "a sequence that was left is forgotten: {wants:?}");
    }

    /// The pieces that a peer is asked for that comes now, the first request first.
    fn asked_of_another(picker: &mut Picker, now: Time) -> Vec<u32> {
        let key = picker.add_peer(true, 8).unwrap();
        picker.have_all(key);
        picker.choke(key, false);
        let mut actions = Vec::new();
        picker.decide(now, &mut actions);
        let requests = actions.into_iter().filter_map(|action| match action {
            Action::Request { peer, block } if peer == key => Some(block.piece),
            _ => None,
        });
        requests.collect()
    }

    #[test]
    fn what_works_ahead_of_its_viewer_gives_way_until_it_is_urgent() {
        let shape = Shape::new(1 << 20, 4096 * MIB).unwrap();
        let mut picker = Picker::new(shape, PieceSet::new(4096), Settings::default(), 1);
        let (mut ahead, mut viewer) = (reader(), reader());
        let early = ahead.begin(at(0), 0..READ).unwrap();
        ahead.set_urgent(early, false);
        ahead.update(at(0), &mut picker);
        viewer.begin(at(1), 100 * MIB..100 * MIB + READ).unwrap();
        viewer.update(at(1), &mut picker);
        let requests = asked_of_another(&mut picker, at(1));
        let viewers = |requests: &[u32]| !requests.is_empty() && requests.iter().all(|piece| *piece == 100);
        assert!(viewers(&requests), "{requests:?}");

        ahead.set_urgent(early, true);
        ahead.update(at(2), &mut picker);
        let requests = asked_of_another(&mut picker, at(2));
        assert_eq!(requests.first(), Some(&0), "what began first goes first: {requests:?}");
        ahead.set_urgent(early, false);
        ahead.update(at(3), &mut picker);
        let requests = asked_of_another(&mut picker, at(3));
        assert!(viewers(&requests), "{requests:?}");
        picker.assert_consistent(at(3));
    }

    #[test]
    fn the_window_of_what_works_ahead_comes_after_a_viewers() {
        let window = |reader: &mut Reader, now| {
            let windows = reader.wants(now, 0).into_iter().filter(|want| want.pace.is_some());
            windows.map(|want| want.deadline.unwrap()).next().unwrap()
        };
        let (mut ahead, mut viewer) = (reader(), reader());
        let now = stream(&mut ahead, at(0), 0..8 * MIB, 8 * MIB);
        let key = ahead.begin(now, 8 * MIB..8 * MIB + READ).unwrap();
        ahead.set_urgent(key, false);
        let later = stream(&mut viewer, now, 100 * MIB..108 * MIB, MIB);
        assert!(window(&mut ahead, now) > window(&mut viewer, later));
        ahead.set_urgent(key, true);
        assert!(window(&mut ahead, now) < window(&mut viewer, later));
    }

    #[test]
    fn demands_follow_the_reads_and_go_with_the_handle() {
        let shape = Shape::new(1 << 20, 4096 * MIB).unwrap();
        let mut picker = Picker::new(shape, PieceSet::new(4096), Settings::default(), 1);
        let mut reader = reader();
        let mut keys = Vec::new();
        for step in 0..MAX_READS as u64 {
            keys.push(reader.begin(at(step), step * READ..(step + 1) * READ).unwrap());
            reader.update(at(step), &mut picker);
        }
        assert_eq!(reader.begin(at(9), 0..1), None);
        picker.assert_consistent(at(300));
        assert!(picker.is_wanting());
        for key in keys {
            reader.end(key, false);
        }
        reader.update(at(300), &mut picker);
        assert!(picker.is_wanting(), "the window is still asked for");
        reader.close(&mut picker);
        assert!(!picker.is_wanting());
        picker.assert_consistent(at(300));
    }
}

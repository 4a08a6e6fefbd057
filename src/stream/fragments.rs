//! Fragmented MP4 (ISO/IEC 14496-12): FFmpeg's fragments in, segments of ours out.
//!
//! What comes in was made of a stranger's file by a program that may have been taken over, so nothing is believed: no
//! box is nested deeper than is looked for, none is larger than its limit, and nothing is reserved by a size that is
//! only claimed.

use bytes::{Buf, Bytes, BytesMut};
use mp4_atom::{DecodeAtom, Encode, FourCC, Header, Mdhd, Mfhd, Moof, Tfdt, Tfhd, Traf, Trun, TrunEntry};

/// The most bytes of a fragment's data, and of a segment. A group of pictures of 10 s at 200 Mbit/s fits.
pub const LARGEST_FRAGMENT: u64 = 256 << 20;
/// What each sample of a segment counts among these besides its data, since it may have none: its place in memory,
/// which is more than its place in the table.
pub(super) const SAMPLE_COST: u64 = 64;
/// The most bytes of a header: FFmpeg's are a few KiB.
pub(super) const LARGEST_INIT: u64 = 1 << 20;
/// The most bytes of a fragment's tables: ten minutes at 600 frames a second, which is more than one group has.
const LARGEST_TABLE: u64 = 8 << 20;
/// The most samples of a fragment, which tables without a size each could claim for nothing.
const MOST_SAMPLES: usize = 1 << 20;

/// What is wrong with FFmpeg's output.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FragmentError {
    /// It is no fragmented MP4 as FFmpeg writes it.
    #[error("FFmpeg's fragments are damaged: {0}")]
    Malformed(&'static str),
    /// A box that is larger than any that is taken.
    #[error("a fragment has {what} of {bytes} bytes, and {limit} are taken")]
    TooLarge {
        /// Which part.
        what: &'static str,
        /// How much.
        bytes: u64,
        /// Of how much at most.
        limit: u64,
    },
}

use FragmentError::Malformed;

/// A piece of the stream, whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    /// The header (`ftyp` and `moov`), which comes before all fragments.
    Init {
        /// As it is served.
        bytes: Bytes,
        /// Ticks a second of all the fragments after it.
        timescale: u32,
    },
    /// A fragment of at least one sample.
    Fragment(Fragment),
}

/// A `moof` with its `mdat`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fragment {
    /// In the order of decoding; their sizes add up to the data.
    pub(super) samples: Vec<Sample>,
    /// All samples' data.
    pub(super) data: Bytes,
}

/// One sample as it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sample {
    /// Presentation time in ticks, with FFmpeg's offset in it.
    pub(super) pts: i64,
    /// In ticks.
    pub(super) duration: u32,
    /// In bytes.
    pub(super) size: u32,
    /// As in a `trun`.
    pub(super) flags: u32,
}

/// Takes a stream apart, in whatever pieces it comes.
#[derive(Debug, Default)]
pub(super) struct FragmentReader {
    buffer: BytesMut,
    /// Bytes still to come of a box that nobody wants.
    skip: u64,
    /// What has come of the header.
    header: BytesMut,
    timescale: Option<u32>,
    /// The tables of the fragment whose data comes next.
    table: Option<Vec<Sample>>,
}

impl FragmentReader {
    /// Takes what comes next, and gives what is whole with it.
    ///
    /// # Errors
    /// What comes is no fragmented MP4, or too large; nothing more can be made of the stream.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<Vec<Piece>, FragmentError> {
        self.buffer.extend_from_slice(bytes);
        let mut pieces = Vec::new();
        loop {
            let skipped = self.skip.min(self.buffer.len() as u64);
            self.buffer.advance(skipped as usize);
            self.skip -= skipped;
            if self.skip > 0 {
                return Ok(pieces);
            }
            let Some((kind, header, size)) = box_header(&self.buffer)? else {
                return Ok(pieces);
            };
            let limit = match &kind {
                b"ftyp" | b"moov" => LARGEST_INIT,
                b"moof" => LARGEST_TABLE,
                b"mdat" => LARGEST_FRAGMENT,
                _ => {
                    self.skip = size;
                    continue;
                }
            };
            if size > limit {
                let what = if kind == *b"mdat" { "data" } else { "tables" };
                return Err(FragmentError::TooLarge {
                    what,
                    bytes: size,
                    limit,
                });
            }
            let size = size as usize;
            if self.buffer.len() < size {
                return Ok(pieces);
            }
            let whole = self.buffer.split_to(size).freeze();
            pieces.extend(self.take(kind, header, whole)?);
        }
    }

    /// Bytes that wait for the rest of their piece.
    pub(super) fn held(&self) -> u64 {
        let samples = self.table.as_ref().map_or(0, Vec::len) as u64;
        (self.buffer.len() + self.header.len()) as u64 + samples * SAMPLE_COST
    }

    fn take(&mut self, kind: [u8; 4], header: usize, whole: Bytes) -> Result<Option<Piece>, FragmentError> {
        match (&kind, self.timescale) {
            (b"ftyp", None) if self.header.is_empty() => {
                self.header.extend_from_slice(&whole);
                Ok(None)
            }
            (b"moov", None) => {
                self.header.extend_from_slice(&whole);
                let timescale = timescale(&whole[header..])?;
                self.timescale = Some(timescale);
                let bytes = std::mem::take(&mut self.header).freeze();
                Ok(Some(Piece::Init { bytes, timescale }))
            }
            (b"moof", Some(_)) if self.table.is_none() => {
                self.table = Some(table(&whole[header..], whole.len())?);
                Ok(None)
            }
            (b"mdat", Some(_)) => {
                let samples = self.table.take().ok_or(Malformed("data without tables"))?;
                let data = whole.slice(header..);
                if samples.iter().map(|sample| u64::from(sample.size)).sum::<u64>() != data.len() as u64 {
                    return Err(Malformed("the sizes of the samples do not add up to the data"));
                }
                Ok((!samples.is_empty()).then_some(Piece::Fragment(Fragment { samples, data })))
            }
            _ => Err(Malformed("boxes are out of order")),
        }
    }
}

/// Kind, length of the header and of the whole, if the header is there.
fn box_header(bytes: &[u8]) -> Result<Option<([u8; 4], usize, u64)>, FragmentError> {
    let (Some(size), Some(kind)) = (bytes.first_chunk::<4>(), bytes.get(4..8)) else {
        return Ok(None);
    };
    let kind = [kind[0], kind[1], kind[2], kind[3]];
    let (header, size) = match u32::from_be_bytes(*size) {
        1 => match bytes.get(8..).and_then(|bytes| bytes.first_chunk::<8>()) {
            Some(size) => (16, u64::from_be_bytes(*size)),
            None => return Ok(None),
        },
        // 0 would be "to the end of the stream", which nothing that is streamed in pieces has.
        size => (8, u64::from(size)),
    };
    if size < header as u64 {
        return Err(Malformed("a box is smaller than its header"));
    }
    Ok(Some((kind, header, size)))
}

/// The boxes directly inside of another, each with its body.
fn children(mut bytes: &[u8]) -> impl Iterator<Item = Result<([u8; 4], &[u8]), FragmentError>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let found = match box_header(bytes) {
            Ok(Some((kind, header, size))) if size <= bytes.len() as u64 => {
                let (whole, rest) = bytes.split_at(size as usize);
                bytes = rest;
                return Some(Ok((kind, &whole[header..])));
            }
            Ok(_) => Malformed("a box is longer than what it is in"),
            Err(error) => error,
        };
        bytes = &[];
        Some(Err(found))
    })
}

/// The one child of that kind.
fn child<'a>(bytes: &'a [u8], wanted: &[u8; 4], missing: &'static str) -> Result<&'a [u8], FragmentError> {
    for found in children(bytes) {
        let (kind, body) = found?;
        if kind == *wanted {
            return Ok(body);
        }
    }
    Err(Malformed(missing))
}

/// Of the body of a `moov` with one track.
fn timescale(moov: &[u8]) -> Result<u32, FragmentError> {
    let track = child(moov, b"trak", "a header without a track")?;
    let media = child(track, b"mdia", "a track without media")?;
    let header: Mdhd = decode(child(media, b"mdhd", "media without a header")?, b"mdhd")?;
    if header.timescale == 0 {
        return Err(Malformed("a track without a clock"));
    }
    Ok(header.timescale)
}

/// The samples that the body of a `moof` of `whole` bytes lists.
fn table(moof: &[u8], whole: usize) -> Result<Vec<Sample>, FragmentError> {
    let traf = child(moof, b"traf", "a fragment without a track")?;
    let head: Tfhd = decode(child(traf, b"tfhd", "a track without a header")?, b"tfhd")?;
    let time: Tfdt = decode(child(traf, b"tfdt", "a track without a time")?, b"tfdt")?;
    let too_late = Malformed("a time is beyond all films");
    // An eighth of what fits, so that no sum of a sample's times can overflow.
    let latest = i64::MAX / 8;
    // What an edit list hides can begin before FFmpeg's offset; it writes that as a number beyond all others.
    let mut dts = time.base_media_decode_time.cast_signed();
    if dts < -latest {
        return Err(too_late);
    }
    let mut samples = Vec::new();
    let mut place = (whole + 8) as u64;
    for found in children(traf) {
        let (kind, body) = found?;
        if kind != *b"trun" {
            continue;
        }
        let run: Trun = decode(body, b"trun")?;
        // FFmpeg writes data in one piece right behind the tables, with a header of 8 bytes.
        if run.data_offset.is_some_and(|offset| u64::try_from(offset) != Ok(place)) {
            return Err(Malformed("data is not where it is said to be"));
        }
        if run.samples.len() > MOST_SAMPLES - samples.len() {
            return Err(Malformed("a fragment with too many samples"));
        }
        samples.reserve(run.samples.len());
        for entry in run.samples.iter() {
            let sample = sample(entry, &head, dts);
            dts += i64::from(sample.duration);
            if dts > latest {
                return Err(too_late);
            }
            place += u64::from(sample.size);
            samples.push(sample);
        }
    }
    Ok(samples)
}

fn sample(entry: TrunEntry, head: &Tfhd, dts: i64) -> Sample {
    Sample {
        pts: dts.saturating_add(entry.cts.unwrap_or(0)),
        duration: entry.duration.or(head.default_sample_duration).unwrap_or(0),
        size: entry.size.or(head.default_sample_size).unwrap_or(0),
        flags: entry.flags.or(head.default_sample_flags).unwrap_or(0),
    }
}

fn decode<A: DecodeAtom>(body: &[u8], kind: &[u8; 4]) -> Result<A, FragmentError> {
    let header = Header {
        kind: FourCC::new(kind),
        size: Some(body.len()),
    };
    A::decode_atom(&header, &mut &*body).map_err(|_| Malformed("a table cannot be read"))
}

/// One sample as it goes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Coded {
    /// Until the next one is decoded, in ticks.
    pub(super) duration: u32,
    /// In bytes.
    pub(super) size: u32,
    /// As in a `trun`.
    pub(super) flags: u32,
    /// From its decoding to its presentation, in ticks.
    pub(super) offset: i32,
}

/// One segment: a `moof` and a `mdat`. Its bytes depend on nothing but the arguments. Without samples it only says when
/// it would begin.
///
/// # Errors
/// It would be larger than [`LARGEST_FRAGMENT`].
pub(super) fn segment(number: u32, dts: u64, samples: &[Coded], data: &[Bytes]) -> Result<Bytes, FragmentError> {
    let bytes: u64 = data.iter().map(|chunk| chunk.len() as u64).sum();
    if bytes > LARGEST_FRAGMENT {
        let limit = LARGEST_FRAGMENT;
        return Err(FragmentError::TooLarge {
            what: "data",
            bytes,
            limit,
        });
    }
    let entry = |sample: &Coded| TrunEntry {
        duration: Some(sample.duration),
        size: Some(sample.size),
        flags: Some(sample.flags),
        cts: Some(i64::from(sample.offset)),
    };
    let entries: Vec<TrunEntry> = samples.iter().map(entry).collect();
    let mut moof = Moof {
        mfhd: Mfhd {
            sequence_number: number.saturating_add(1),
        },
        traf: vec![Traf {
            // FFmpeg's number of the only track of a pipe.
            tfhd: Tfhd {
                track_id: 1,
                default_base_is_moof: true,
                ..Tfhd::default()
            },
            tfdt: Some(Tfdt {
                base_media_decode_time: dts,
            }),
            trun: vec![Trun {
                data_offset: Some(0),
                samples: entries.into(),
            }],
            ..Traf::default()
        }],
    };
    let unwritable = |_| Malformed("a segment cannot be written");
    let mut text = Vec::new();
    moof.encode(&mut text).map_err(unwritable)?;
    moof.traf[0].trun[0].data_offset = i32::try_from(text.len() + 8).ok();
    text.clear();
    moof.encode(&mut text).map_err(unwritable)?;
    let mut segment = BytesMut::with_capacity(text.len() + 8 + bytes as usize);
    segment.extend_from_slice(&text);
    segment.extend_from_slice(&(bytes as u32 + 8).to_be_bytes());
    segment.extend_from_slice(b"mdat");
    for chunk in data {
        segment.extend_from_slice(chunk);
    }
    Ok(segment.freeze())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn boxed(kind: &[u8; 4], body: &[u8]) -> Vec<u8> {
        let mut bytes = (body.len() as u32 + 8).to_be_bytes().to_vec();
        bytes.extend_from_slice(kind);
        bytes.extend_from_slice(body);
        bytes
    }

    /// A header of which nothing is there but the clock.
    fn header(timescale: u32) -> Vec<u8> {
        let mdhd = [&[0; 12][..], &timescale.to_be_bytes(), &[0; 8]].concat();
        let moov = boxed(b"trak", &boxed(b"mdia", &boxed(b"mdhd", &mdhd)));
        [boxed(b"ftyp", b"iso5"), boxed(b"moov", &moov)].concat()
    }

    fn sample_of(size: u32, duration: u32, offset: i32) -> Coded {
        Coded {
            duration,
            size,
            flags: 0x0200_0000,
            offset,
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let data = [Bytes::from_static(b"abc"), Bytes::from_static(b"defgh")];
        let samples = [sample_of(3, 10, 0), sample_of(1, 20, 5), sample_of(4, 30, -5)];
        let segment = segment(6, 1 << 40, &samples, &data).unwrap();
        let mut reader = FragmentReader::default();
        let init = header(90_000);
        // A box that nobody wants, of which most is never held.
        let skipped = boxed(b"free", &[0; 5000]);
        let pieces = reader.push(&[&init[..], &skipped, &segment].concat()).unwrap();
        let base = 1_i64 << 40;
        let read = |pts, duration, size| Sample {
            pts: base + pts,
            duration,
            size,
            flags: 0x0200_0000,
        };
        let fragment = Fragment {
            samples: vec![read(0, 10, 3), read(15, 20, 1), read(25, 30, 4)],
            data: Bytes::from_static(b"abcdefgh"),
        };
        assert_eq!(
            pieces,
            [
                Piece::Init {
                    bytes: init.into(),
                    timescale: 90_000
                },
                Piece::Fragment(fragment)
            ]
        );
        let place = segment.windows(4).position(|four| four == b"mfhd").unwrap();
        assert_eq!(segment[place + 8..place + 12], 7_u32.to_be_bytes());
    }

    #[test]
    fn a_segment_can_be_empty() {
        let segment = segment(0, 5, &[], &[]).unwrap();
        let mut reader = FragmentReader::default();
        reader.push(&header(1000)).unwrap();
        assert_eq!(reader.push(&segment), Ok(vec![]));
    }

    #[test]
    fn what_is_too_large_is_refused_before_it_comes() {
        let mut reader = FragmentReader::default();
        let claim = [&(LARGEST_FRAGMENT as u32 + 9).to_be_bytes()[..], b"mdat"].concat();
        let error = reader.push(&claim).unwrap_err();
        assert!(matches!(error, FragmentError::TooLarge { what: "data", .. }), "{error}");
        let claim = [&1_u32.to_be_bytes()[..], b"moof", &u64::MAX.to_be_bytes()].concat();
        let error = FragmentReader::default().push(&claim).unwrap_err();
        assert!(
            matches!(error, FragmentError::TooLarge { what: "tables", .. }),
            "{error}"
        );
        // A count of samples that take no bytes.
        let trun = [&[0, 0, 0, 0][..], &u32::MAX.to_be_bytes()].concat();
        let tfhd = [&[0, 2, 0, 0][..], &1_u32.to_be_bytes()].concat();
        let parts = [boxed(b"tfhd", &tfhd), boxed(b"tfdt", &[0; 8]), boxed(b"trun", &trun)].concat();
        let bytes = [header(1000), boxed(b"moof", &boxed(b"traf", &parts))].concat();
        let error = FragmentReader::default().push(&bytes).unwrap_err();
        assert_eq!(error, Malformed("a fragment with too many samples"));
    }

    #[test]
    fn what_is_out_of_order_is_refused() {
        for bytes in [
            boxed(b"moof", b""),
            boxed(b"mdat", b""),
            [header(1000), header(1000)].concat(),
            [header(1000), boxed(b"mdat", b"x")].concat(),
            header(0),
            boxed(b"moov", b""),
            vec![0, 0, 0, 0, b'm', b'd', b'a', b't'],
            vec![0, 0, 0, 7, b'f', b'r', b'e', b'e'],
        ] {
            assert!(
                matches!(FragmentReader::default().push(&bytes), Err(Malformed(_))),
                "{bytes:x?}"
            );
        }
    }

    const KINDS: [&[u8; 4]; 9] = [
        b"ftyp", b"moov", b"moof", b"mdat", b"traf", b"tfhd", b"tfdt", b"trun", b"free",
    ];

    proptest! {
        #[test]
        fn nothing_breaks_it(
            boxes in prop::collection::vec(
                (prop::sample::select(&KINDS[..]), prop::collection::vec(any::<u8>(), 0..60)),
                0..12,
            ),
            tail in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            // Each inside of the one before it, and behind one another.
            let inside = |inner: Vec<u8>, (kind, body): &(&[u8; 4], Vec<u8>)| boxed(kind, &[body, &inner[..]].concat());
            let nested = boxes.iter().rev().fold(tail.clone(), inside);
            let flat = boxes.iter().flat_map(|(kind, body)| boxed(kind, body)).chain(tail).collect::<Vec<_>>();
            for bytes in [nested, flat] {
                let _ = FragmentReader::default().push(&bytes);
                let _ = FragmentReader::default().push(&[header(1000), bytes].concat());
            }
        }
    }
}

//! The tables of samples (ISO/IEC 14496-12 8.6, 8.7), walked one sample at a time: a table may claim four milliard
//! samples in sixteen bytes, so nothing is made of its counts.

use super::boxes::child;
use crate::media::fields::{Fields, entry};

/// The tables of a track, as they lie in the file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tables<'a> {
    durations: &'a [u8],
    /// Composition offsets; none where every sample is shown when it is decoded.
    offsets: Option<&'a [u8]>,
    sizes: Sizes<'a>,
    chunks_of: &'a [u8],
    chunks: &'a [u8],
    chunk_width: usize,
    /// Numbers of the samples that can be decoded alone; none where all can.
    sync: Option<&'a [u8]>,
    /// Those of QuickTime that begin an open group.
    partial_sync: &'a [u8],
}

#[derive(Debug, Clone, Copy)]
struct Sizes<'a> {
    /// Bits of an entry; 0 where all are `fixed`.
    bits: usize,
    fixed: u64,
    count: u64,
    table: &'a [u8],
}

impl Sizes<'_> {
    fn of(&self, n: u64) -> Option<u64> {
        if n >= self.count {
            return None;
        }
        let n = usize::try_from(n).ok()?;
        match self.bits {
            0 => Some(self.fixed),
            4 => {
                let byte = *self.table.get(n / 2)?;
                Some(u64::from(if n % 2 == 0 { byte >> 4 } else { byte & 15 }))
            }
            bits => entry(self.table, bits / 8, n)?.number(bits / 8),
        }
    }
}

/// A full box's version, flags and number of entries, and the entries.
fn table<'a>(body: &'a [u8], kind: &[u8; 4]) -> Option<&'a [u8]> {
    child(body, kind)?.get(8..)
}

impl<'a> Tables<'a> {
    /// None where one of those is missing that must be there.
    pub(super) fn read(stbl: &'a [u8]) -> Option<Tables<'a>> {
        let (chunks, chunk_width) = match table(stbl, b"stco") {
            Some(chunks) => (chunks, 4),
            None => (table(stbl, b"co64")?, 8),
        };
        let sizes = match child(stbl, b"stsz") {
            Some(body) => {
                let mut fields = Fields(body.get(4..)?);
                let (fixed, count) = (fields.u32()?, fields.u32()?);
                Sizes {
                    bits: if fixed == 0 { 32 } else { 0 },
                    fixed: u64::from(fixed),
                    count: u64::from(count),
                    table: fields.0,
                }
            }
            None => {
                let mut fields = Fields(child(stbl, b"stz2")?.get(4..)?);
                let (bits, count) = (fields.u32()? & 255, fields.u32()?);
                Sizes {
                    bits: [4, 8, 16].into_iter().find(|known| *known == bits as usize)?,
                    fixed: 0,
                    count: u64::from(count),
                    table: fields.0,
                }
            }
        };
        Some(Tables {
            durations: table(stbl, b"stts")?,
            offsets: table(stbl, b"ctts").filter(|offsets| plausible(offsets)),
            sizes,
            chunks_of: table(stbl, b"stsc")?,
            chunks,
            chunk_width,
            sync: table(stbl, b"stss"),
            partial_sync: table(stbl, b"stps").unwrap_or_default(),
        })
    }

    /// Whether there is no sample at all, as in the head of a fragmented file.
    pub(super) fn empty(&self) -> bool {
        self.sizes.count == 0 || self.chunks.is_empty()
    }

    /// Whether the samples have offsets of composition.
    pub(super) fn composed(&self) -> bool {
        self.offsets.is_some()
    }

    /// How far FFmpeg moves the times of decoding back, because offsets are negative (`dts_shift`).
    pub(super) fn shift(&self) -> i64 {
        let offsets = self.offsets.unwrap_or_default();
        let count = offsets.len() / 8;
        let each = (0..count.saturating_sub(2)).filter_map(|n| offset(offsets, n));
        each.map(|(_, offset)| -offset).max().unwrap_or(0).max(0)
    }

    /// Uncompressed sound, one frame in each sample, has no samples worth a walk.
    pub(super) fn raw_sound(&self) -> bool {
        self.durations.len() < 16 && duration(self.durations, 0).is_some_and(|(_, ticks)| ticks == 1)
    }

    /// Sum of all durations in ticks, and how many samples those are.
    pub(super) fn total(&self) -> (u64, u64) {
        let entries = (0..self.durations.len() / 8).filter_map(|n| duration(self.durations, n));
        entries.fold((0, 0), |(ticks, samples): (u64, u64), (count, each)| {
            let (count, each) = (u64::from(count), u64::from(each));
            (
                ticks.saturating_add(count.saturating_mul(each)),
                samples.saturating_add(count),
            )
        })
    }

    /// Sum of the sizes of all samples; of a table that lies it is nonsense, but quick.
    pub(super) fn bytes(&self) -> u64 {
        match self.sizes.bits {
            0 => self.sizes.fixed.saturating_mul(self.sizes.count),
            _ => {
                let claimed = self.sizes.count.min(self.sizes.table.len() as u64 * 2);
                (0..claimed)
                    .map_while(|n| self.sizes.of(n))
                    .fold(0, u64::saturating_add)
            }
        }
    }

    pub(super) fn samples(&self) -> Samples<'a> {
        Samples {
            tables: *self,
            number: 0,
            dts: 0,
            duration: Run::default(),
            offset: Run::default(),
            chunk: None,
            chunk_left: 0,
            group: 0,
            place: 0,
            sync: 0,
            partial_sync: 0,
            work: 0,
        }
    }
}

/// FFmpeg ignores a table with an offset this far back that is not among its last two.
fn plausible(offsets: &[u8]) -> bool {
    let count = offsets.len() / 8;
    (0..count.saturating_sub(2)).all(|n| offset(offsets, n).is_none_or(|(_, offset)| offset.abs() <= 1 << 28))
}

fn duration(table: &[u8], n: usize) -> Option<(u32, u32)> {
    let mut fields = entry(table, 8, n)?;
    Some((fields.u32()?, fields.u32()?))
}

fn offset(table: &[u8], n: usize) -> Option<(u32, i64)> {
    let mut fields = entry(table, 8, n)?;
    Some((fields.u32()?, i64::from(fields.u32()?.cast_signed())))
}

/// One sample. Times are the media's, before any edit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sample {
    /// Of decoding, from 0 on.
    pub(super) dts: i64,
    /// From decoding to presentation.
    pub(super) composition: i64,
    pub(super) duration: i64,
    /// Where it lies in the file.
    pub(super) place: u64,
    /// It can be decoded without another.
    pub(super) sync: bool,
}

/// A place in a table of runs.
#[derive(Debug, Clone, Copy, Default)]
struct Run {
    next: usize,
    left: u32,
    value: i64,
}

impl Run {
    /// The value for the next sample; entries of no samples are passed, each once.
    fn step(&mut self, work: &mut u64, read: impl Fn(usize) -> Option<(u32, i64)>) -> Option<i64> {
        while self.left == 0 {
            *work += 1;
            (self.left, self.value) = read(self.next)?;
            self.next += 1;
        }
        self.left -= 1;
        Some(self.value)
    }
}

/// The samples of a track in the order of decoding. It ends where a table does.
#[derive(Debug, Clone)]
pub(super) struct Samples<'a> {
    tables: Tables<'a>,
    number: u64,
    dts: i64,
    duration: Run,
    offset: Run,
    chunk: Option<usize>,
    chunk_left: u32,
    group: usize,
    place: u64,
    sync: usize,
    partial_sync: usize,
    work: u64,
}

impl Samples<'_> {
    /// Entries of tables looked at since the last call; those of no samples count too.
    pub(super) fn work(&mut self) -> u64 {
        std::mem::take(&mut self.work)
    }

    /// Enters the next chunk that has samples.
    fn enter_chunk(&mut self) -> Option<()> {
        let group = |n: usize| {
            let mut fields = entry(self.tables.chunks_of, 12, n)?;
            Some((fields.u32()? as usize, fields.u32()?))
        };
        let chunk = self.chunk.map_or(0, |chunk| chunk + 1);
        let mut here = self.group;
        while group(here + 1).is_some_and(|(first, _)| first <= chunk + 1) {
            here += 1;
        }
        let left = group(here)?.1;
        let width = self.tables.chunk_width;
        self.place = entry(self.tables.chunks, width, chunk)?.number(width)?;
        (self.chunk, self.chunk_left, self.group) = (Some(chunk), left, here);
        Some(())
    }

    /// Whether the sample of this number, counted from 0, is in a table of numbers; the place in it goes on.
    fn listed(table: &[u8], place: &mut usize, number: u64) -> bool {
        // Some writers count from 0.
        let zero_based = entry(table, 4, 0).and_then(|mut first| first.u32()) == Some(0);
        let number = number + u64::from(!zero_based);
        while let Some(listed) = entry(table, 4, *place).and_then(|mut listed| listed.u32()) {
            if u64::from(listed) >= number {
                return u64::from(listed) == number;
            }
            *place += 1;
        }
        false
    }
}

impl Iterator for Samples<'_> {
    type Item = Sample;

    fn next(&mut self) -> Option<Sample> {
        let tables = self.tables;
        let size = tables.sizes.of(self.number)?;
        self.work += 1;
        while self.chunk_left == 0 {
            self.work += 1;
            self.enter_chunk()?;
        }
        self.chunk_left -= 1;
        let ticks = |n| duration(tables.durations, n).map(|(count, ticks)| (count, i64::from(ticks)));
        let duration = self.duration.step(&mut self.work, ticks)?;
        let composition = match tables.offsets {
            Some(table) => self.offset.step(&mut self.work, |n| offset(table, n)).unwrap_or(0),
            None => 0,
        };
        let sync = match tables.sync {
            None => true,
            Some([]) => self.number == 0,
            Some(table) => Samples::listed(table, &mut self.sync, self.number),
        };
        let sync = sync || Samples::listed(tables.partial_sync, &mut self.partial_sync, self.number);
        let sample = Sample {
            dts: self.dts,
            composition,
            duration,
            place: self.place,
            sync,
        };
        self.number += 1;
        // At most four milliard samples of four milliard ticks.
        self.dts = self.dts.saturating_add(duration);
        self.place = self.place.saturating_add(size);
        Some(sample)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A full box of these fields.
    pub(in crate::media::mp4) fn full(kind: &[u8; 4], fields: &[u32]) -> Vec<u8> {
        let mut bytes = (12 + 4 * fields.len() as u32).to_be_bytes().to_vec();
        bytes.extend(kind);
        bytes.extend([0; 4]);
        bytes.extend(fields.iter().flat_map(|field| field.to_be_bytes()));
        bytes
    }

    #[test]
    fn samples_lie_in_chunks_beyond_four_gibibytes() {
        let stbl = [
            full(b"stts", &[2, 3, 10, 2, 20]),
            full(b"ctts", &[3, 1, 5, 0, 9, 4, -5_i32 as u32]),
            full(b"stsz", &[0, 5, 100, 200, 300, 400, 500]),
            full(b"stsc", &[2, 1, 2, 1, 2, 1, 1]),
            full(b"co64", &[4, 1, 0, 2, 0, 0, 7, 0, 8]),
            full(b"stss", &[2, 1, 4]),
        ];
        let stbl = stbl.concat();
        let tables = Tables::read(&stbl).expect("tables");
        let samples: Vec<Sample> = tables.samples().collect();
        let gib = 1_u64 << 32;
        let places = [gib, gib + 100, 2 * gib, 7, 8];
        assert_eq!(samples.iter().map(|sample| sample.place).collect::<Vec<_>>(), places);
        assert_eq!(
            samples.iter().map(|sample| sample.dts).collect::<Vec<_>>(),
            [0, 10, 20, 30, 50]
        );
        let offsets: Vec<i64> = samples.iter().map(|sample| sample.composition).collect();
        assert_eq!(offsets, [5, -5, -5, -5, -5]);
        let sync: Vec<bool> = samples.iter().map(|sample| sample.sync).collect();
        assert_eq!(sync, [true, false, false, true, false]);
        assert_eq!((tables.total(), tables.bytes()), ((70, 5), 1500));
    }

    #[test]
    fn sizes_may_be_half_bytes() {
        let mut sizes = full(b"stz2", &[4, 3]);
        sizes.extend([0x12, 0x30]);
        let length = sizes.len() as u32;
        sizes[..4].copy_from_slice(&length.to_be_bytes());
        let stbl = [
            full(b"stts", &[1, 3, 1]),
            sizes,
            full(b"stsc", &[1, 1, 3, 1]),
            full(b"stco", &[1, 1000]),
        ];
        let stbl = stbl.concat();
        let tables = Tables::read(&stbl).expect("tables");
        let places: Vec<u64> = tables.samples().map(|sample| sample.place).collect();
        assert_eq!((places, tables.bytes()), (vec![1000, 1001, 1003], 6));
        assert!(tables.samples().all(|sample| sample.sync));
    }
}

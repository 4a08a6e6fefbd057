//! HEVC: the `hvcC` (ISO/IEC 14496-15 8.3.3.1) and what its sequence parameter set says (H.265 7.3.2.2).

use std::fmt::Write as _;

use super::{Picture, unescaped};
use crate::media::fields::{Bits, Fields};

/// Of an `hvcC`. The string begins with `hvc1`: what is sent out has its parameter sets in the header.
pub(in crate::media) fn hevc(config: &[u8]) -> Option<Picture> {
    let mut fields = Fields(config);
    // Files of before the standard have version 0, with the same fields.
    if fields.u8()? > 1 {
        return None;
    }
    let profile = fields.u8()?;
    let compatibility = fields.u32()?;
    let constraints = fields.take(6)?;
    let level = fields.u8()?;
    let space = ["", "A", "B", "C"][usize::from(profile >> 6)];
    let tier = if profile & 32 == 0 { 'L' } else { 'H' };
    let mut string = format!(
        "hvc1.{space}{}.{:X}.{tier}{level}",
        profile & 31,
        compatibility.reverse_bits()
    );
    let meant = constraints
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |last| last + 1);
    for byte in &constraints[..meant] {
        let _ = write!(string, ".{byte:X}");
    }
    let mut picture = Picture {
        string: Some(string),
        ..Picture::default()
    };
    fields.take(4)?;
    picture.bit_depth = Some((fields.u8()? & 7) + 8);
    fields.take(4)?;
    picture.reordered = reordered(fields);
    Some(picture)
}

/// Looks for the sequence parameter set in the arrays of NAL units.
fn reordered(mut fields: Fields<'_>) -> Option<bool> {
    const SEQUENCE: u8 = 33;
    for _ in 0..fields.u8()? {
        let kind = fields.u8()? & 63;
        for _ in 0..fields.u16()? {
            let length = fields.u16()?;
            let unit = fields.take(usize::from(length))?;
            if kind == SEQUENCE {
                return Some(reorder_depth(&unescaped(unit.get(2..)?))? > 0);
            }
        }
    }
    None
}

/// `sps_max_num_reorder_pics` of the highest sub-layer.
fn reorder_depth(set: &[u8]) -> Option<u32> {
    let mut bits = Bits::new(set);
    bits.skip(4)?;
    let layers = bits.bits(3)?;
    bits.bit()?;
    bits.skip(88 + 8)?;
    let mut present = [(false, false); 8];
    for layer in present.iter_mut().take(layers as usize) {
        *layer = (bits.bit()?, bits.bit()?);
    }
    if layers > 0 {
        bits.skip(2 * (8 - layers as usize))?;
    }
    for (profile, level) in present.iter().take(layers as usize) {
        bits.skip(88 * usize::from(*profile) + 8 * usize::from(*level))?;
    }
    bits.unsigned()?;
    if bits.unsigned()? == 3 {
        bits.bit()?;
    }
    bits.unsigned()?;
    bits.unsigned()?;
    if bits.bit()? {
        for _ in 0..4 {
            bits.unsigned()?;
        }
    }
    for _ in 0..3 {
        bits.unsigned()?;
    }
    let written = if bits.bit()? { layers } else { 0 };
    let mut depth = 0;
    for _ in 0..=written {
        bits.unsigned()?;
        depth = bits.unsigned()?;
        bits.unsigned()?;
    }
    Some(depth)
}

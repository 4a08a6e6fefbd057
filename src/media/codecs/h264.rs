//! H.264: the `avcC` (ISO/IEC 14496-15 5.3.3.1) and what its sequence parameter set says (H.264 7.3.2.1.1, E.1.1).

use super::{Picture, unescaped};
use crate::media::fields::{Bits, Fields};

/// Of an `avcC`.
pub(in crate::media) fn h264(config: &[u8]) -> Option<Picture> {
    let mut fields = Fields(config);
    if fields.u8()? != 1 {
        return None;
    }
    let (profile, compatibility, level) = (fields.u8()?, fields.u8()?, fields.u8()?);
    let _length_size = fields.u8()?;
    let mut picture = Picture {
        string: Some(format!("avc1.{profile:02x}{compatibility:02x}{level:02x}")),
        ..Picture::default()
    };
    if fields.u8()? & 31 > 0
        && let Some(length) = fields.u16()
        && let Some(set) = fields.take(usize::from(length))
        && let Some(parameters) = parameters(set)
    {
        picture.bit_depth = Some(parameters.bit_depth);
        picture.reordered = parameters.reordered;
    }
    Some(picture)
}

struct Parameters {
    bit_depth: u8,
    reordered: Option<bool>,
}

fn parameters(unit: &[u8]) -> Option<Parameters> {
    let bytes = unescaped(unit.get(1..)?);
    let mut bits = Bits::new(&bytes);
    let profile = bits.bits(8)?;
    bits.skip(16)?;
    bits.unsigned()?;
    let mut bit_depth = 8;
    if matches!(
        profile,
        100 | 110 | 122 | 244 | 44 | 83 | 86 | 118 | 128 | 138 | 139 | 134 | 135
    ) {
        let chroma = bits.unsigned()?;
        if chroma == 3 {
            bits.bit()?;
        }
        bit_depth = u8::try_from(bits.unsigned()?).ok()?.checked_add(8)?;
        bits.unsigned()?;
        bits.bit()?;
        if bits.bit()? {
            scaling_lists(&mut bits, if chroma == 3 { 12 } else { 8 })?;
        }
    }
    bits.unsigned()?;
    let order = bits.unsigned()?;
    match order {
        0 => {
            bits.unsigned()?;
        }
        1 => {
            bits.bit()?;
            bits.signed()?;
            bits.signed()?;
            for _ in 0..bits.unsigned()?.min(256) {
                bits.signed()?;
            }
        }
        _ => {}
    }
    // Order type 2 is the order of decoding, and the baseline has no pictures that look ahead.
    let in_order = order == 2 || profile == 66;
    let reordered = match usable(&mut bits) {
        _ if in_order => Some(false),
        Some(Some(depth)) => Some(depth > 0),
        _ => None,
    };
    Some(Parameters { bit_depth, reordered })
}

fn scaling_lists(bits: &mut Bits<'_>, count: usize) -> Option<()> {
    for list in 0..count {
        if !bits.bit()? {
            continue;
        }
        let (mut last, mut next) = (8, 8);
        for _ in 0..if list < 6 { 16 } else { 64 } {
            if next != 0 {
                next = (last + bits.signed()?.clamp(-128, 127) + 256) % 256;
            }
            last = if next == 0 { last } else { next };
        }
    }
    Some(())
}

/// `max_num_reorder_frames`, from the rest of the set: none within where the set does not tell.
fn usable(bits: &mut Bits<'_>) -> Option<Option<u32>> {
    bits.unsigned()?;
    bits.bit()?;
    bits.unsigned()?;
    bits.unsigned()?;
    if !bits.bit()? {
        bits.bit()?;
    }
    bits.bit()?;
    if bits.bit()? {
        for _ in 0..4 {
            bits.unsigned()?;
        }
    }
    if !bits.bit()? {
        return Some(None);
    }
    const EXTENDED_RATIO: u32 = 255;
    if bits.bit()? && bits.bits(8)? == EXTENDED_RATIO {
        bits.skip(32)?;
    }
    if bits.bit()? {
        bits.bit()?;
    }
    if bits.bit()? {
        bits.skip(4)?;
        if bits.bit()? {
            bits.skip(24)?;
        }
    }
    if bits.bit()? {
        bits.unsigned()?;
        bits.unsigned()?;
    }
    if bits.bit()? {
        bits.skip(65)?;
    }
    let nal = bits.bit()?;
    if nal {
        reference_decoder(bits)?;
    }
    let vcl = bits.bit()?;
    if vcl {
        reference_decoder(bits)?;
    }
    if nal || vcl {
        bits.bit()?;
    }
    bits.bit()?;
    if !bits.bit()? {
        return Some(None);
    }
    bits.bit()?;
    for _ in 0..4 {
        bits.unsigned()?;
    }
    Some(Some(bits.unsigned()?))
}

/// `hrd_parameters()`, E.1.2.
fn reference_decoder(bits: &mut Bits<'_>) -> Option<()> {
    let count = bits.unsigned()?.min(31);
    bits.skip(8)?;
    for _ in 0..=count {
        bits.unsigned()?;
        bits.unsigned()?;
        bits.bit()?;
    }
    bits.skip(20)
}

//! AV1 and VP9, and what all pictures have in common.

use crate::media::Video;
use crate::media::fields::{Bits, Fields};

/// What a decoder's configuration says of the pictures.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::media) struct Picture {
    /// RFC 6381.
    pub(in crate::media) string: Option<String>,
    /// Coded in another order than shown; none where it does not tell.
    pub(in crate::media) reordered: Option<bool>,
    /// Bits of a sample.
    pub(in crate::media) bit_depth: Option<u8>,
}

/// Of an `av1C` (AV1 in ISO-BMFF 2.3.3).
pub(in crate::media) fn av1(config: &[u8]) -> Option<Picture> {
    let mut bits = Bits::new(config);
    if bits.bits(8)? != 0x81 {
        return None;
    }
    let (profile, level) = (bits.bits(3)?, bits.bits(5)?);
    let (tier, high, twelve) = (bits.bit()?, bits.bit()?, bits.bit()?);
    let depth = match (high, twelve && profile == 2) {
        (false, _) => 8,
        (true, false) => 10,
        (true, true) => 12,
    };
    Some(Picture {
        string: Some(format!(
            "av01.{profile}.{level:02}{}.{depth:02}",
            if tier { 'H' } else { 'M' }
        )),
        reordered: Some(false),
        bit_depth: Some(depth),
    })
}

/// Of a `vpcC` with its version and flags (VP Codec ISO Media File Format Binding 1.0).
pub(in crate::media) fn vp9(config: &[u8]) -> Option<Picture> {
    let mut fields = Fields(config);
    let _version_and_flags = fields.u32()?;
    let (profile, level, depth) = (fields.u8()?, fields.u8()?, fields.u8()? >> 4);
    Some(vp9_picture(profile, level, depth))
}

/// Matroska seldom has a configuration for VP9: the profile from the depth of the colours, the lowest level from size
/// and rate (the table of levels on webmproject.org).
pub(in crate::media) fn vp9_guess(
    private: &[u8],
    size: (u32, u32),
    frame_rate: Option<(u32, u32)>,
    depth: Option<u8>,
) -> Picture {
    // CodecPrivate, if any: identifier, length, value; 1 is the profile, 2 the level, 3 the depth.
    let (mut profile, mut level, mut depth) = (None, None, depth);
    let mut fields = Fields(private);
    while let (Some(id), Some(length)) = (fields.u8(), fields.u8()) {
        let Some(value) = fields.take(usize::from(length)).and_then(|value| value.first()) else {
            break;
        };
        match id {
            1 => profile = Some(*value),
            2 => level = Some(*value),
            3 => depth = Some(*value),
            _ => {}
        }
    }
    let depth = depth.filter(|depth| matches!(depth, 8 | 10 | 12)).unwrap_or(8);
    let level = level.unwrap_or_else(|| vp9_level(size, frame_rate));
    vp9_picture(profile.unwrap_or(if depth > 8 { 2 } else { 0 }), level, depth)
}

/// Of the first picture of a video (VP9 bitstream specification 6.2), whose profile and depth no header of Matroska
/// has. None where it is none that can be decoded alone.
pub(in crate::media) fn vp9_frame(frame: &[u8], video: &Video) -> Option<Picture> {
    const SYNC: u32 = 0x49_8342;
    let mut bits = Bits::new(frame);
    if bits.bits(2)? != 2 {
        return None;
    }
    let profile = u8::from(bits.bit()?) | u8::from(bits.bit()?) << 1;
    if profile == 3 && bits.bit()? {
        return None;
    }
    let (repeated, dependent) = (bits.bit()?, bits.bit()?);
    bits.skip(2)?;
    if repeated || dependent || bits.bits(24)? != SYNC {
        return None;
    }
    let depth = match profile {
        0 | 1 => 8,
        _ if bits.bit()? => 12,
        _ => 10,
    };
    let level = vp9_level((video.width, video.height), video.frame_rate);
    Some(vp9_picture(profile, level, depth))
}

/// The lowest level that allows this (the table of levels on webmproject.org); 30 frames a second where nothing tells.
fn vp9_level((width, height): (u32, u32), frame_rate: Option<(u32, u32)>) -> u8 {
    const LEVELS: [(u8, f64, u64); 14] = [
        (10, 829_440.0, 36_864),
        (11, 2_764_800.0, 73_728),
        (20, 4_608_000.0, 122_880),
        (21, 9_216_000.0, 245_760),
        (30, 20_736_000.0, 552_960),
        (31, 36_864_000.0, 983_040),
        (40, 83_558_400.0, 2_228_224),
        (41, 160_432_128.0, 2_228_224),
        (50, 311_951_360.0, 8_912_896),
        (51, 588_251_136.0, 8_912_896),
        (52, 1_176_502_272.0, 8_912_896),
        (60, 1_176_502_272.0, 35_651_584),
        (61, 2_353_004_544.0, 35_651_584),
        (62, 4_706_009_088.0, 35_651_584),
    ];
    let (frames, seconds) = frame_rate.unwrap_or((30, 1));
    let rate = f64::from(frames) / f64::from(seconds);
    let area = u64::from(width) * u64::from(height);
    let fits = |(_, speed, size): &&(u8, f64, u64)| area <= *size && area as f64 * rate <= *speed;
    LEVELS.iter().find(fits).map_or(62, |level| level.0)
}

fn vp9_picture(profile: u8, level: u8, depth: u8) -> Picture {
    Picture {
        string: Some(format!("vp09.{profile:02}.{level:02}.{depth:02}")),
        reordered: Some(false),
        bit_depth: Some(depth),
    }
}

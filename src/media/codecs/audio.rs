//! AAC, AC-3, E-AC-3, FLAC, Opus, and the descriptors of MPEG-4.

use crate::media::fields::{Bits, Fields};

/// What a decoder's configuration says of the sound; 0 or none where it does not tell.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::media) struct Sound {
    /// RFC 6381.
    pub(in crate::media) string: Option<String>,
    pub(in crate::media) channels: u16,
    pub(in crate::media) sample_rate: u32,
    /// Samples in each packet.
    pub(in crate::media) frame_samples: Option<u32>,
    /// Samples at the beginning that are not to be heard.
    pub(in crate::media) delay: i64,
}

/// Object type and decoder configuration of an `esds` without version and flags (ISO/IEC 14496-1 7.2.6).
pub(in crate::media) fn es_descriptor(bytes: &[u8]) -> Option<(u8, &[u8])> {
    const ES: u8 = 3;
    const DECODER: u8 = 4;
    const SPECIFIC: u8 = 5;
    let mut outer = descriptor(&mut Fields(bytes), ES)?;
    outer.u16()?;
    let flags = outer.u8()?;
    if flags & 0x80 != 0 {
        outer.u16()?;
    }
    if flags & 0x40 != 0 {
        let length = outer.u8()?;
        outer.take(usize::from(length))?;
    }
    if flags & 0x20 != 0 {
        outer.u16()?;
    }
    let mut decoder = descriptor(&mut outer, DECODER)?;
    let object = decoder.u8()?;
    decoder.take(12)?;
    let specific = descriptor(&mut decoder, SPECIFIC).map_or(&[][..], |specific| specific.0);
    Some((object, specific))
}

/// The body of the next descriptor, which has this tag; what goes past the end is cut.
fn descriptor<'a>(fields: &mut Fields<'a>, tag: u8) -> Option<Fields<'a>> {
    if fields.u8()? != tag {
        return None;
    }
    let mut length = 0_usize;
    for _ in 0..4 {
        let byte = fields.u8()?;
        length = length << 7 | usize::from(byte & 127);
        if byte & 128 == 0 {
            break;
        }
    }
    let length = length.min(fields.0.len());
    fields.take(length).map(Fields)
}

const AAC_RATES: [u32; 13] = [
    96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350,
];

/// Of an AudioSpecificConfig (ISO/IEC 14496-3 1.6.2.1). Spectral band replication that is signalled doubles rate and
/// frame; implicit signalling is not seen, as by nobody who reads only headers.
pub(in crate::media) fn mpeg4_audio(config: &[u8]) -> Option<Sound> {
    const REPLICATION: u32 = 5;
    const PARAMETRIC_STEREO: u32 = 29;
    let mut bits = Bits::new(config);
    let told = object_type(&mut bits)?;
    let mut sample_rate = rate(&mut bits)?;
    let mut channels = match bits.bits(4)? {
        7 => 8,
        count => count as u16,
    };
    let mut object = told;
    let core_rate = sample_rate;
    if told == REPLICATION || told == PARAMETRIC_STEREO {
        sample_rate = rate(&mut bits)?;
        object = object_type(&mut bits)?;
        if told == PARAMETRIC_STEREO {
            channels = 2;
        }
    }
    let short = matches!(object, 1..=4 | 6 | 7 | 17 | 19..=23) && bits.bit().unwrap_or(false);
    let frame = match (object, short) {
        (23 | 39, true) => 480,
        (23 | 39, false) => 512,
        (_, true) => 960,
        (_, false) => 1024,
    };
    let doubled = core_rate > 0 && sample_rate / core_rate == 2;
    Some(Sound {
        string: Some(format!("mp4a.40.{told}")),
        channels,
        sample_rate,
        frame_samples: Some(if doubled { 2 * frame } else { frame }),
        delay: 0,
    })
}

fn object_type(bits: &mut Bits<'_>) -> Option<u32> {
    Some(match bits.bits(5)? {
        31 => 32 + bits.bits(6)?,
        object => object,
    })
}

fn rate(bits: &mut Bits<'_>) -> Option<u32> {
    match bits.bits(4)? {
        15 => bits.bits(24),
        index => AAC_RATES.get(index as usize).copied(),
    }
}

/// Of a `dOps` (Opus in ISO-BMFF 4.3.2), or of what follows `OpusHead` (RFC 7845 5.1), whose numbers are little-endian.
pub(in crate::media) fn opus(config: &[u8]) -> Option<Sound> {
    let (config, little) = match config.strip_prefix(b"OpusHead") {
        Some(config) => (config, true),
        None => (config, false),
    };
    let mut fields = Fields(config);
    let _version = fields.u8()?;
    let channels = u16::from(fields.u8()?);
    let skip = fields.u16()?;
    Some(Sound {
        string: Some("opus".to_owned()),
        channels,
        sample_rate: 48_000,
        frame_samples: None,
        delay: i64::from(if little { skip.swap_bytes() } else { skip }),
    })
}

/// Of a STREAMINFO (RFC 9639 8.2), with what comes before it in a `dfLa`, or after `fLaC` in Matroska.
pub(in crate::media) fn flac(config: &[u8]) -> Option<Sound> {
    let config = config.strip_prefix(b"fLaC").or_else(|| config.get(4..))?;
    let info = config.get(4..)?;
    let mut fields = Fields(info);
    let (smallest, largest) = (fields.u16()?, fields.u16()?);
    fields.take(6)?;
    let mut bits = Bits::new(fields.0);
    let sample_rate = bits.bits(20)?;
    let channels = bits.bits(3)? as u16 + 1;
    Some(Sound {
        string: Some("fLaC".to_owned()),
        channels,
        sample_rate,
        frame_samples: (smallest == largest).then_some(u32::from(largest)),
        delay: 0,
    })
}

/// Of a `dac3` (ETSI TS 102 366 F.4).
pub(in crate::media) fn ac3(config: &[u8]) -> Option<Sound> {
    let mut bits = Bits::new(config);
    let sample_rate = [48_000, 44_100, 32_000, 0][bits.bits(2)? as usize];
    bits.skip(8)?;
    let mode = bits.bits(3)?;
    let low = bits.bit()?;
    Some(Sound {
        string: Some("ac-3".to_owned()),
        channels: dolby_channels(mode, low),
        sample_rate,
        frame_samples: Some(1536),
        delay: 0,
    })
}

/// Of a `dec3` (ETSI TS 102 366 F.6): its first substream.
pub(in crate::media) fn eac3(config: &[u8]) -> Option<Sound> {
    let mut bits = Bits::new(config);
    bits.skip(16)?;
    let sample_rate = [48_000, 44_100, 32_000, 0][bits.bits(2)? as usize];
    bits.skip(5 + 1 + 1 + 3)?;
    let mode = bits.bits(3)?;
    let low = bits.bit()?;
    Some(Sound {
        string: Some("ec-3".to_owned()),
        channels: dolby_channels(mode, low),
        sample_rate,
        frame_samples: Some(1536),
        delay: 0,
    })
}

fn dolby_channels(mode: u32, low: bool) -> u16 {
    [2, 1, 2, 3, 3, 4, 4, 5][mode as usize & 7] + u16::from(low)
}

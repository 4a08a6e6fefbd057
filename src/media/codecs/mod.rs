//! What the configuration of a decoder says, as MP4 and Matroska both carry it, and the strings of RFC 6381.

mod audio;
mod h264;
mod hevc;
mod video;

pub(super) use audio::{Sound, ac3, eac3, es_descriptor, flac, mpeg4_audio, opus};
pub(super) use h264::h264;
pub(super) use hevc::hevc;
pub(super) use video::{Picture, av1, vp9, vp9_frame, vp9_guess};

/// A NAL unit without the bytes that keep start codes out of it (H.264 7.4.1).
fn unescaped(unit: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(unit.len());
    let mut zeros = 0;
    for byte in unit {
        if zeros >= 2 && *byte == 3 {
            zeros = 0;
            continue;
        }
        zeros = if *byte == 0 { zeros + 1 } else { 0 };
        bytes.push(*byte);
    }
    bytes
}

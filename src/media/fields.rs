//! Numbers out of bytes. Nothing here panics: what is not there is `None`.

/// A cursor over bytes, big-endian.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    /// An unsigned number of up to eight bytes.
    pub(super) fn number(&mut self, length: usize) -> Option<u64> {
        let bytes = self.take(length)?;
        Some(bytes.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.number(1).map(|value| value as u8)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.number(2).map(|value| value as u16)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.number(4).map(|value| value as u32)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.number(8)
    }
}

/// The big-endian number of the n-th entry of `width` bytes in a table.
pub(super) fn entry(table: &[u8], width: usize, n: usize) -> Option<Fields<'_>> {
    let at = n.checked_mul(width)?;
    Some(Fields(table.get(at..at.checked_add(width)?)?))
}

/// A cursor over bits, the highest first, as H.264 and AAC write them.
#[derive(Debug, Clone)]
pub(super) struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Bits<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Bits<'a> {
        Bits { bytes, at: 0 }
    }

    pub(super) fn bit(&mut self) -> Option<bool> {
        let byte = self.bytes.get(self.at / 8)?;
        let bit = byte >> (7 - self.at % 8) & 1;
        self.at += 1;
        Some(bit == 1)
    }

    /// A number of up to 32 bits.
    pub(super) fn bits(&mut self, count: u32) -> Option<u32> {
        (0..count).try_fold(0_u32, |value, _| Some(value << 1 | u32::from(self.bit()?)))
    }

    pub(super) fn skip(&mut self, count: usize) -> Option<()> {
        self.at = self.at.checked_add(count)?;
        (self.at <= self.bytes.len() * 8).then_some(())
    }

    /// `ue(v)` of H.264 9.1.
    pub(super) fn unsigned(&mut self) -> Option<u32> {
        let mut zeros = 0;
        while !self.bit()? {
            zeros += 1;
            if zeros > 31 {
                return None;
            }
        }
        Some((1_u32 << zeros) - 1 + self.bits(zeros)?)
    }

    /// `se(v)` of H.264 9.1.1.
    pub(super) fn signed(&mut self) -> Option<i32> {
        let code = i64::from(self.unsigned()?);
        Some(if code % 2 == 1 { (code + 1) / 2 } else { -(code / 2) } as i32)
    }
}

/// Printable words of a file: at most 200 characters, no control characters; none when nothing is left.
pub(super) fn words(bytes: &[u8]) -> Option<String> {
    const LIMIT: usize = 200;
    let until = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    // Four bytes are the longest character, so no more of them can matter.
    let text = String::from_utf8_lossy(&bytes[..until.min(LIMIT * 4)]);
    let text: String = text.chars().filter(|c| !c.is_control()).take(LIMIT).collect();
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

/// So many frames in so many seconds, where times are rounded: a usual rate if one is as near as that.
pub(super) fn frame_rate(frames: u64, seconds: u64) -> Option<(u32, u32)> {
    const USUAL: [(u32, u32); 12] = [
        (24_000, 1001),
        (24, 1),
        (25, 1),
        (30_000, 1001),
        (30, 1),
        (48_000, 1001),
        (48, 1),
        (50, 1),
        (60_000, 1001),
        (60, 1),
        (120_000, 1001),
        (120, 1),
    ];
    let stated = frames as f64 / seconds as f64;
    let near = |(numerator, denominator): &(u32, u32)| {
        let usual = f64::from(*numerator) / f64::from(*denominator);
        (usual - stated).abs() < usual * 1e-4
    };
    USUAL.into_iter().find(near).or_else(|| fraction(frames, seconds))
}

/// A fraction of numbers that fit, in its lowest terms; none of nothing.
fn fraction(numerator: u64, denominator: u64) -> Option<(u32, u32)> {
    let (mut a, mut b) = (numerator, denominator);
    while b != 0 {
        (a, b) = (b, a % b);
    }
    let (mut numerator, mut denominator) = (numerator.checked_div(a)?, denominator.checked_div(a)?);
    while numerator > u64::from(u32::MAX) || denominator > u64::from(u32::MAX) {
        (numerator, denominator) = (numerator >> 1, denominator >> 1);
    }
    (numerator > 0 && denominator > 0).then_some((numerator as u32, denominator as u32))
}

//! Boxes within boxes (ISO/IEC 14496-12 4.2).

use crate::media::fields::Fields;

/// The boxes of a body, one after the other. What goes past the end is cut there, as FFmpeg does.
#[derive(Debug, Clone, Copy)]
pub(super) struct Boxes<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for Boxes<'a> {
    type Item = ([u8; 4], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let header = Header::read(self.0)?;
        let length = match header.length {
            0 => self.0.len(),
            length => usize::try_from(length).unwrap_or(usize::MAX).min(self.0.len()),
        };
        let (whole, rest) = self.0.split_at(length);
        self.0 = rest;
        Some((header.kind, whole.get(header.size..)?))
    }
}

/// The first child of this kind.
pub(super) fn child<'a>(body: &'a [u8], kind: &[u8; 4]) -> Option<&'a [u8]> {
    Boxes(body).find(|(found, _)| found == kind).map(|(_, body)| body)
}

/// The body below a path of kinds.
pub(super) fn below<'a>(body: &'a [u8], path: &[&[u8; 4]]) -> Option<&'a [u8]> {
    path.iter().try_fold(body, |body, kind| child(body, kind))
}

/// The header of a box.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) kind: [u8; 4],
    /// Of the whole box; 0 means to the end of what it lies in.
    pub(super) length: u64,
    /// Of the header itself.
    pub(super) size: usize,
}

impl Header {
    /// None where there are too few bytes, or the length is impossible.
    pub(super) fn read(bytes: &[u8]) -> Option<Header> {
        let mut fields = Fields(bytes);
        let short = fields.u32()?;
        let kind = fields.take(4)?.try_into().ok()?;
        let (length, size) = match short {
            1 => (fields.u64()?, 16),
            length => (u64::from(length), 8),
        };
        (length == 0 || length >= size as u64).then_some(Header { kind, length, size })
    }
}

//! Elements within elements (RFC 8794).

use crate::media::fields::Fields;

/// The header of an element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) id: u32,
    /// Of the body; none when it goes on until an element comes that does not belong in it.
    pub(super) length: Option<u64>,
    /// Of the header itself.
    pub(super) size: u64,
}

/// No header is longer.
pub(super) const LONGEST_HEADER: u64 = 12;

impl Header {
    /// None where there are too few bytes, or they are no header.
    pub(super) fn read(bytes: &[u8]) -> Option<Header> {
        let mut fields = Fields(bytes);
        let id_length = width(&fields)?;
        if id_length > 4 {
            return None;
        }
        let id = fields.number(id_length)? as u32;
        let (length, length_size) = variable(&mut fields)?;
        Some(Header {
            id,
            length,
            size: (id_length + length_size) as u64,
        })
    }
}

/// How many bytes the number has whose first byte comes next.
fn width(fields: &Fields<'_>) -> Option<usize> {
    let zeros = fields.0.first()?.leading_zeros() as usize;
    (zeros < 8).then_some(zeros + 1)
}

/// A number of variable size and how many bytes it took; none within when all its bits are set.
pub(super) fn variable(fields: &mut Fields<'_>) -> Option<(Option<u64>, usize)> {
    let width = width(fields)?;
    let all = (1_u64 << (7 * width)) - 1;
    let value = fields.number(width)? & all;
    Some(((value != all).then_some(value), width))
}

/// The elements of a body. What goes past the end, or has no length, is cut there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Elements<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for Elements<'a> {
    type Item = (u32, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let header = Header::read(self.0)?;
        let body = self.0.get(header.size as usize..)?;
        let length = header.length.map_or(body.len(), |length| {
            body.len().min(length.min(usize::MAX as u64) as usize)
        });
        let (body, rest) = body.split_at(length);
        self.0 = rest;
        Some((header.id, body))
    }
}

/// The first child with this identifier.
pub(super) fn child(body: &[u8], id: u32) -> Option<&[u8]> {
    Elements(body).find(|(found, _)| *found == id).map(|(_, body)| body)
}

/// An unsigned number; of more than eight bytes none.
pub(super) fn unsigned(body: &[u8]) -> Option<u64> {
    (body.len() <= 8).then(|| Fields(body).number(body.len()))?
}

/// A number with a fraction, finite.
pub(super) fn float(body: &[u8]) -> Option<f64> {
    let value = match body.len() {
        4 => f64::from(f32::from_bits(Fields(body).u32()?)),
        8 => f64::from_bits(Fields(body).u64()?),
        _ => return None,
    };
    value.is_finite().then_some(value)
}

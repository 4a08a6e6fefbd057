//! Reading bencode in place. Numbers and lengths never overflow, nesting never exhausts the stack, and nothing is
//! copied.

use super::MetainfoError;

/// Values nest no deeper in what is passed over. The engine's own limit is 128, and what we read by name is 5 deep.
const DEPTH_LIMIT: usize = 100;

/// A position in bencoded bytes.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { bytes, at: 0 }
    }

    /// Bytes read so far.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// The first byte of the next value: `i`, `l`, `d`, a digit, or `e` for the end of a list or dictionary.
    pub(super) fn peek(&self) -> Result<u8, MetainfoError> {
        self.bytes
            .get(self.at)
            .copied()
            .ok_or_else(|| self.truncated("a list or dictionary"))
    }

    pub(super) fn malformed(&self, what: &'static str) -> MetainfoError {
        MetainfoError::Malformed { at: self.at, what }
    }

    fn truncated(&self, what: &'static str) -> MetainfoError {
        MetainfoError::Truncated {
            at: self.bytes.len(),
            what,
        }
    }

    /// Reads a number; `field` is what it is for.
    pub(super) fn integer(&mut self, field: &'static str) -> Result<i64, MetainfoError> {
        if self.peek()? != b'i' {
            return Err(MetainfoError::Field {
                field,
                expected: "a number",
            });
        }
        self.any_integer()
    }

    fn any_integer(&mut self) -> Result<i64, MetainfoError> {
        self.at += 1;
        let (end, text) = self.until(b'e', "a number")?;
        // `parse` would take a plus sign.
        let number = if text.starts_with(b"+") {
            None
        } else {
            std::str::from_utf8(text).ok()
        };
        let number = number.and_then(|text| text.parse().ok());
        let number = number.ok_or_else(|| self.malformed("not a number of 64 bits"))?;
        self.at = end + 1;
        Ok(number)
    }

    /// Reads a byte string; `field` is what it is for.
    pub(super) fn string(&mut self, field: &'static str) -> Result<&'a [u8], MetainfoError> {
        if !self.peek()?.is_ascii_digit() {
            return Err(MetainfoError::Field {
                field,
                expected: "text",
            });
        }
        self.any_string()
    }

    fn any_string(&mut self) -> Result<&'a [u8], MetainfoError> {
        let (colon, digits) = self.until(b':', "the length of a string")?;
        let mut length = 0usize;
        for digit in digits {
            let digit = usize::from(digit.wrapping_sub(b'0'));
            let longer = if digit > 9 {
                None
            } else {
                length.checked_mul(10).and_then(|ten| ten.checked_add(digit))
            };
            length = longer.ok_or_else(|| self.malformed("not the length of a string"))?;
        }
        let start = colon + 1;
        let end = start.checked_add(length).filter(|end| *end <= self.bytes.len());
        let end = end.ok_or_else(|| self.truncated("a string"))?;
        self.at = end;
        Ok(&self.bytes[start..end])
    }

    /// What stands before the mark, which is not far: no number has more than 20 digits and a sign.
    fn until(&self, mark: u8, what: &'static str) -> Result<(usize, &'a [u8]), MetainfoError> {
        let window = &self.bytes[self.at..self.bytes.len().min(self.at + 22)];
        match window.iter().position(|byte| *byte == mark) {
            Some(0) => Err(self.malformed("no digits")),
            Some(length) => Ok((self.at + length, &window[..length])),
            None if window.len() < 22 && window.iter().all(|byte| matches!(byte, b'-' | b'0'..=b'9')) => {
                Err(self.truncated(what))
            }
            None => Err(self.malformed("not a value")),
        }
    }

    /// Reads a list; `item` reads each of its values.
    pub(super) fn list(
        &mut self,
        field: &'static str,
        mut item: impl FnMut(&mut Self) -> Result<(), MetainfoError>,
    ) -> Result<(), MetainfoError> {
        if self.peek()? != b'l' {
            return Err(MetainfoError::Field {
                field,
                expected: "a list",
            });
        }
        self.at += 1;
        while self.peek()? != b'e' {
            item(self)?;
        }
        self.at += 1;
        Ok(())
    }

    /// Reads a dictionary; `value` reads the value of each key.
    pub(super) fn dictionary(
        &mut self,
        field: &'static str,
        mut value: impl FnMut(&mut Self, &'a [u8]) -> Result<(), MetainfoError>,
    ) -> Result<(), MetainfoError> {
        if self.peek()? != b'd' {
            return Err(MetainfoError::Field {
                field,
                expected: "a dictionary",
            });
        }
        self.at += 1;
        while self.peek()? != b'e' {
            let key = self.string("key")?;
            value(self, key)?;
        }
        self.at += 1;
        Ok(())
    }

    /// Passes over a value.
    pub(super) fn skip(&mut self) -> Result<(), MetainfoError> {
        self.skip_within(DEPTH_LIMIT)
    }

    fn skip_within(&mut self, depth: usize) -> Result<(), MetainfoError> {
        let deeper = depth
            .checked_sub(1)
            .ok_or_else(|| self.malformed("values are nested too deep"));
        match self.peek()? {
            b'i' => self.any_integer().map(drop),
            b'0'..=b'9' => self.any_string().map(drop),
            b'l' => {
                let deeper = deeper?;
                self.list("", |reader| reader.skip_within(deeper))
            }
            b'd' => {
                let deeper = deeper?;
                self.dictionary("", |reader, _| reader.skip_within(deeper))
            }
            _ => Err(self.malformed("not a value")),
        }
    }
}

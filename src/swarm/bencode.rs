//! Bencoded values from a peer, read in place: nothing is copied, nesting is bounded, and no number overflows.
//!
//! `librqbit-bencode` reads integers and lengths with arithmetic that panics on overflow in a build with overflow
//! checks, and refuses a whole dictionary for one value of an unexpected type; a peer's extension messages need neither.

/// Deepest nesting that is followed: the messages of peers have 2.
const DEPTH_LIMIT: usize = 32;

/// The bytes of one whole value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Value<'a>(&'a [u8]);

impl<'a> Value<'a> {
    /// The value at the front of `bytes`, and what follows it. `None` if there is no whole one.
    pub(super) fn split(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let mut rest = bytes;
        let mut depth = 0usize;
        loop {
            match rest.first()? {
                b'd' | b'l' => {
                    depth += 1;
                    if depth > DEPTH_LIMIT {
                        return None;
                    }
                    rest = &rest[1..];
                }
                b'e' => {
                    depth = depth.checked_sub(1)?;
                    rest = &rest[1..];
                }
                b'i' => rest = integer(rest)?.1,
                _ => rest = string(rest)?.1,
            }
            if depth == 0 {
                let length = bytes.len() - rest.len();
                return Some((Self(&bytes[..length]), rest));
            }
        }
    }

    /// The integer that it is.
    pub(super) fn integer(self) -> Option<i64> {
        integer(self.0).map(|(value, _)| value)
    }

    /// The byte string that it is.
    pub(super) fn bytes(self) -> Option<&'a [u8]> {
        string(self.0).map(|(value, _)| value)
    }

    /// The entries of the dictionary that it is, in the order in which they lie, up to the first that is malformed;
    /// nothing for any other value.
    pub(super) fn entries(self) -> impl Iterator<Item = (&'a [u8], Value<'a>)> {
        let mut rest = self.0.strip_prefix(b"d").unwrap_or_default();
        std::iter::from_fn(move || {
            let (key, after_key) = string(rest)?;
            let (value, after_value) = Value::split(after_key)?;
            rest = after_value;
            Some((key, value))
        })
    }

    /// Whether it is a dictionary.
    pub(super) fn is_dictionary(self) -> bool {
        self.0.first() == Some(&b'd')
    }
}

/// `i…e`. `None` too for a number beyond 64 bits.
fn integer(bytes: &[u8]) -> Option<(i64, &[u8])> {
    let digits = bytes.strip_prefix(b"i")?;
    let end = digits.iter().take(24).position(|byte| *byte == b'e')?;
    let value = std::str::from_utf8(&digits[..end]).ok()?.parse().ok()?;
    Some((value, &digits[end + 1..]))
}

/// `length:bytes`.
fn string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = bytes.iter().take(12).position(|byte| *byte == b':')?;
    let digits = &bytes[..colon];
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let length = std::str::from_utf8(digits).ok()?.parse().ok()?;
    bytes[colon + 1..].split_at_checked(length)
}

/// Appends a byte string.
pub(super) fn put_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(bytes.len().to_string().as_bytes());
    out.push(b':');
    out.extend_from_slice(bytes);
}

/// Appends an entry of a dictionary whose value is an integer.
pub(super) fn put_integer(key: &str, value: u64, out: &mut Vec<u8>) {
    put_bytes(key.as_bytes(), out);
    out.extend_from_slice(format!("i{value}e").as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_values_of_each_kind() {
        let (value, rest) = Value::split(b"d1:ai-7e1:bl1:xi0eee tail").unwrap();
        assert_eq!(rest, b" tail");
        assert!(value.is_dictionary());
        let entries: Vec<_> = value.entries().collect();
        assert_eq!(entries[0].0, b"a");
        assert_eq!(entries[0].1.integer(), Some(-7));
        assert_eq!(entries[1].1, Value(b"l1:xi0ee"));
        assert_eq!(entries[1].1.bytes(), None);
        assert_eq!(entries.len(), 2);
    }

    #[test]
    fn refuses_what_is_cut_or_absurd() {
        let deep = "l".repeat(100_000);
        let huge = format!("i{}e", "9".repeat(60));
        for bytes in [
            "",
            "d",
            "i",
            "ie",
            "i5",
            "5:abc",
            "99999999999999999999:a",
            "e",
            "-1:a",
            "+1:a",
            &deep,
            &huge,
        ] {
            assert_eq!(Value::split(bytes.as_bytes()), None, "{bytes:.20}");
        }
        assert_eq!(Value::split(b"i9223372036854775808e"), None);
    }

    #[test]
    fn a_malformed_entry_ends_the_dictionary() {
        let (value, _) = Value::split(b"d1:ai1ei2e1:be").unwrap();
        assert_eq!(value.entries().count(), 1);
    }
}

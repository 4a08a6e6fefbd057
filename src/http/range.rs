//! Which bytes of a file a request asks for, and whether it has them already (RFC 9110, 13 and 14). Pure.

use std::ops::Range;

use axum::http::HeaderMap;
use axum::http::header::{IF_MATCH, IF_NONE_MATCH, IF_RANGE, RANGE};

/// What is to be sent of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wanted {
    /// All of it: 200.
    Whole,
    /// These bytes, at least one: 206.
    Part(Range<u64>),
    /// Bytes that it does not have: 416.
    OutOfRange,
    /// Nothing, the client has it: 304.
    NotModified,
    /// Nothing, the client means another file: 412.
    Mismatch,
}

/// What a request for a file of `size` bytes wants. `etag` is the file's strong one, in quotes. Several ranges at once
/// get the whole file, which a server may always do: no player asks for them, and a multipart answer would let a short
/// request ask for a long one. What cannot be understood is as if it were not there.
pub(super) fn wanted(headers: &HeaderMap, etag: &str, size: u64) -> Wanted {
    if headers.contains_key(IF_MATCH) && !lists(headers, IF_MATCH, etag, false) {
        return Wanted::Mismatch;
    }
    if headers.contains_key(IF_NONE_MATCH) && lists(headers, IF_NONE_MATCH, etag, true) {
        return Wanted::NotModified;
    }
    // A date is never equal to ours, which has none; a weak tag never matches here.
    if headers
        .get(IF_RANGE)
        .is_some_and(|value| value.as_bytes() != etag.as_bytes())
    {
        return Wanted::Whole;
    }
    let mut ranges = headers.get_all(RANGE).iter();
    match (ranges.next().and_then(|value| value.to_str().ok()), ranges.next()) {
        (Some(value), None) => range(value, size),
        _ => Wanted::Whole,
    }
}

/// Whether one of the tags of a header is this one, or stands for any. Weak ones count only where `weakly`.
fn lists(headers: &HeaderMap, name: axum::http::HeaderName, etag: &str, weakly: bool) -> bool {
    let values = headers.get_all(name);
    let mut tags = values
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    tags.any(|tag| {
        let tag = tag.trim();
        tag == "*" || tag == etag || (weakly && tag.strip_prefix("W/") == Some(etag))
    })
}

fn range(value: &str, size: u64) -> Wanted {
    let Some(spec) = value
        .split_once('=')
        .filter(|(unit, _)| unit.trim().eq_ignore_ascii_case("bytes"))
        .map(|(_, spec)| spec.trim())
    else {
        return Wanted::Whole;
    };
    let Some((first, last)) = spec.split_once('-') else {
        return Wanted::Whole;
    };
    let part = match (number(first), number(last)) {
        (Number::None, Number::Is(length)) => size.saturating_sub(length)..size,
        (Number::Is(first), Number::None) => first..size,
        (Number::Is(first), Number::Is(last)) if first <= last => first..size.min(last.saturating_add(1)),
        _ => return Wanted::Whole,
    };
    if part.is_empty() {
        Wanted::OutOfRange
    } else {
        Wanted::Part(part)
    }
}

enum Number {
    None,
    Is(u64),
    Bad,
}

/// Digits of any length; what does not fit 64 bits is beyond any file all the same.
fn number(text: &str) -> Number {
    match text.trim() {
        "" => Number::None,
        digits if digits.bytes().all(|byte| byte.is_ascii_digit()) => Number::Is(digits.parse().unwrap_or(u64::MAX)),
        _ => Number::Bad,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAG: &str = "\"tag\"";

    fn asked(pairs: &[(&'static str, &str)], size: u64) -> Wanted {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        wanted(&headers, TAG, size)
    }

    #[test]
    fn ranges() {
        let part = Wanted::Part;
        for (value, wanted) in [
            ("bytes=0-0", part(0..1)),
            ("bytes=0-99", part(0..100)),
            ("bytes=10-", part(10..100)),
            ("bytes=99-99", part(99..100)),
            ("bytes=-1", part(99..100)),
            ("bytes=-100", part(0..100)),
            ("bytes=-101", part(0..100)),
            ("bytes=90-1000", part(90..100)),
            ("bytes=90-99999999999999999999999", part(90..100)),
            ("bytes=0-18446744073709551615", part(0..100)),
            ("Bytes = 5 - 6", part(5..7)),
            ("bytes=100-", Wanted::OutOfRange),
            ("bytes=100-200", Wanted::OutOfRange),
            ("bytes=99999999999999999999999-", Wanted::OutOfRange),
            ("bytes=-0", Wanted::OutOfRange),
            ("bytes=5-4", Wanted::Whole),
            ("bytes=-", Wanted::Whole),
            ("bytes=", Wanted::Whole),
            ("bytes=a-b", Wanted::Whole),
            ("bytes=+1-2", Wanted::Whole),
            ("bytes=--1", Wanted::Whole),
            ("bytes=0-1,5-6", Wanted::Whole),
            ("seconds=0-1", Wanted::Whole),
            ("0-1", Wanted::Whole),
        ] {
            assert_eq!(asked(&[("range", value)], 100), wanted, "{value}");
        }
        assert_eq!(
            asked(&[("range", "bytes=0-1"), ("range", "bytes=2-3")], 100),
            Wanted::Whole
        );
        assert_eq!(asked(&[], 100), Wanted::Whole);
        for value in ["bytes=0-", "bytes=-1", "bytes=0-0"] {
            assert_eq!(
                asked(&[("range", value)], 0),
                Wanted::OutOfRange,
                "an empty file: {value}"
            );
        }
    }

    #[test]
    fn conditions() {
        let range = ("range", "bytes=0-0");
        assert_eq!(asked(&[range, ("if-range", TAG)], 9), Wanted::Part(0..1));
        for other in ["\"other\"", "W/\"tag\"", "Thu, 26 Nov 2026 05:00:00 GMT"] {
            assert_eq!(asked(&[range, ("if-range", other)], 9), Wanted::Whole, "{other}");
        }
        for same in [TAG, "W/\"tag\"", "*", "\"a\", \"tag\""] {
            assert_eq!(
                asked(&[range, ("if-none-match", same)], 9),
                Wanted::NotModified,
                "{same}"
            );
        }
        assert_eq!(asked(&[("if-none-match", "\"a\"")], 9), Wanted::Whole);
        assert_eq!(asked(&[("if-match", TAG)], 9), Wanted::Whole);
        assert_eq!(asked(&[("if-match", "*")], 9), Wanted::Whole);
        assert_eq!(asked(&[("if-match", "W/\"tag\"")], 9), Wanted::Mismatch);
    }
}

//! What people write (`512K`, `5%`, `on`) made into plain values.

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

use crate::torrents::{Download, Floor, Seeding};

/// Why a value was refused: what was written, and what would do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {wanted}")]
pub struct ValueError {
    text: String,
    wanted: &'static str,
}

impl ValueError {
    pub(super) fn new(text: &str, wanted: &'static str) -> ValueError {
        ValueError {
            text: text.to_owned(),
            wanted,
        }
    }
}

/// A limit of bytes a second; `None` for no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limit(pub Option<NonZeroU32>);

/// Where to wait for peers that connect to us; `None` for nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Listen(pub Option<SocketAddr>);

/// A word that lets in whoever knows it. It is kept out of every log: it prints as stars.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// A number of bytes. `K`, `M`, `G`, `T` and `KiB`, `MiB`, … count in 1024s; `kB`, `MB`, … in 1000s.
///
/// # Errors
/// [`ValueError`] for anything else, and for what does not fit 64 bits.
pub fn size(text: &str) -> Result<u64, ValueError> {
    let wanted = "a size: write a number with K, M, G or T, such as 512K, 1.5G or 10GiB";
    let refused = || ValueError::new(text, wanted);
    let trimmed = text.trim();
    let digits = trimmed
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(digits);
    let multiple: u64 = match unit.trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        _ => return Err(refused()),
    };
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(multiple).ok_or_else(refused);
    }
    // A fraction needs a digit on both sides, so that "." and "1." are not numbers, and a unit to be a fraction of.
    let (whole, fraction) = number.split_once('.').ok_or_else(refused)?;
    if whole.is_empty() || fraction.is_empty() || fraction.contains('.') || multiple == 1 {
        return Err(refused());
    }
    let value: f64 = number.parse().map_err(|_| refused())?;
    let bytes = value * multiple as f64;
    // 2^63 and more cannot be meant, and a saturating cast would hide it.
    if bytes < 9.2e18 {
        Ok(bytes.round() as u64)
    } else {
        Err(refused())
    }
}

/// `on` or `off`, and what other programs take for them.
///
/// # Errors
/// [`ValueError`] for anything else.
pub fn switch(text: &str) -> Result<bool, ValueError> {
    match text.to_ascii_lowercase().as_str() {
        "on" | "yes" | "true" | "1" => Ok(true),
        "off" | "no" | "false" | "0" => Ok(false),
        _ => Err(ValueError::new(text, "`on` or `off`")),
    }
}

/// A number of seconds from 1 to a day, with or without `s`; or minutes with `m` or `min`.
///
/// # Errors
/// [`ValueError`] for anything else.
pub fn seconds(text: &str) -> Result<Duration, ValueError> {
    let refused = || ValueError::new(text, "a time from 1 second to a day, such as 60, 90s or 5min");
    let trimmed = text.trim();
    let (number, multiple) = if let Some(minutes) = trimmed.strip_suffix("min").or(trimmed.strip_suffix('m')) {
        (minutes, 60)
    } else {
        (trimmed.strip_suffix('s').unwrap_or(trimmed), 1)
    };
    let number: u64 = number.trim_end().parse().map_err(|_| refused())?;
    match number.checked_mul(multiple) {
        Some(seconds @ 1..=86_400) => Ok(Duration::from_secs(seconds)),
        _ => Err(refused()),
    }
}

/// The free space to leave: a percentage of the file system, or a size.
///
/// # Errors
/// [`ValueError`] for anything else, and for 100 % or more.
pub fn floor(text: &str) -> Result<Floor, ValueError> {
    let refused = || ValueError::new(text, "a percentage below 100 or a size, such as 5%, 0 or 10G");
    match text.trim().strip_suffix('%') {
        Some(percent) => match percent.trim_end().parse::<f64>() {
            Ok(percent) if (0.0..100.0).contains(&percent) => Ok(Floor::Percent(percent)),
            _ => Err(refused()),
        },
        None => size(text).map(Floor::Bytes).map_err(|_| refused()),
    }
}

/// Permission bits to take away, in octal.
///
/// # Errors
/// [`ValueError`] for anything that is not three or four octal digits at most.
pub fn umask(text: &str) -> Result<u16, ValueError> {
    let digits = text.strip_prefix("0o").unwrap_or(text);
    match u16::from_str_radix(digits, 8) {
        Ok(mask @ 0..=0o777) if digits.len() <= 4 && !digits.starts_with('+') => Ok(mask),
        _ => Err(ValueError::new(text, "an octal mask from 000 to 777, such as 022")),
    }
}

/// A user or group number.
///
/// # Errors
/// [`ValueError`] for names and for the number that the kernel keeps for "none".
pub fn identity(text: &str) -> Result<u32, ValueError> {
    match text.parse::<u32>() {
        Ok(number) if number != u32::MAX => Ok(number),
        _ => Err(ValueError::new(
            text,
            "a number: `id -u NAME` and `id -g NAME` print those of a user",
        )),
    }
}

/// How much of a torrent is fetched.
///
/// # Errors
/// [`ValueError`] for anything but `on-demand` and `whole`.
pub fn download(text: &str) -> Result<Download, ValueError> {
    match text {
        "on-demand" => Ok(Download::OnDemand),
        "whole" => Ok(Download::Whole),
        _ => Err(ValueError::new(
            text,
            "`on-demand` (what is read, and nothing else) or `whole` (all of it)",
        )),
    }
}

/// Whether complete torrents are given to others.
///
/// # Errors
/// [`ValueError`] for anything but `never`, `in-use` and `always`.
pub fn seeding(text: &str) -> Result<Seeding, ValueError> {
    match text {
        "never" => Ok(Seeding::Never),
        "in-use" => Ok(Seeding::InUse),
        "always" => Ok(Seeding::Always),
        _ => Err(ValueError::new(
            text,
            "`never`, `in-use` (until it has not been used for 5 minutes) or `always`",
        )),
    }
}

/// A peer's address.
///
/// # Errors
/// [`ValueError`] for anything but an IP address with a port that is not 0.
pub fn peer(text: &str) -> Result<SocketAddr, ValueError> {
    match text.trim().parse::<SocketAddr>() {
        Ok(address) if address.port() != 0 => Ok(address),
        _ => Err(ValueError::new(
            text,
            "IP:PORT, such as 192.0.2.7:6881 or [2001:db8::7]:6881",
        )),
    }
}

/// A name or address by which a browser may call us, without a port.
///
/// # Errors
/// [`ValueError`] for anything else.
pub fn host(text: &str) -> Result<String, ValueError> {
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'))
        .unwrap_or(text);
    let is_address = bare.parse::<std::net::IpAddr>().is_ok();
    let is_name = bare.len() <= 253 && bare.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c));
    if is_address || (is_name && bare.contains(|c: char| c.is_ascii_alphanumeric())) {
        Ok(bare.to_ascii_lowercase())
    } else {
        Err(ValueError::new(
            text,
            "a host name or an IP address without a port, such as media.lan",
        ))
    }
}

/// How many may be at once, 1 ..= 64.
///
/// # Errors
/// [`ValueError`] for anything else.
pub fn count(text: &str) -> Result<usize, ValueError> {
    match text.trim().parse::<usize>() {
        Ok(count @ 1..=64) => Ok(count),
        _ => Err(ValueError::new(text, "a number from 1 to 64")),
    }
}

impl FromStr for Secret {
    type Err = ValueError;

    /// It stands in addresses as it is, so it has letters that need no quoting there; 16 of them cannot be guessed.
    fn from_str(text: &str) -> Result<Secret, ValueError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if (16..=128).contains(&text.len()) && text.chars().all(plain) {
            Ok(Secret(text.to_owned()))
        } else {
            Err(ValueError {
                // What was written may be a token with a slip in it.
                text: "…".to_owned(),
                wanted: "a token: 16 to 128 letters, digits, - and _",
            })
        }
    }
}

impl FromStr for Limit {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Limit, ValueError> {
        let refused = || ValueError::new(text, "`off` or bytes a second below 4 GiB/s, such as 512K or 1.5M");
        if text == "off" {
            return Ok(Limit(None));
        }
        let number = text.trim().strip_suffix("/s").unwrap_or(text.trim());
        let bytes = size(number)
            .ok()
            .and_then(|bytes| u32::try_from(bytes).ok())
            .ok_or_else(refused)?;
        // 0 is "no limit" to some programs and "nothing at all" to others.
        NonZeroU32::new(bytes)
            .map(|bytes| Limit(Some(bytes)))
            .ok_or_else(refused)
    }
}

impl FromStr for Listen {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Listen, ValueError> {
        if text == "off" {
            return Ok(Listen(None));
        }
        let wanted = "`off` or ADDRESS:PORT, such as 0.0.0.0:6881 or [::]:6881";
        text.parse()
            .map(|address| Listen(Some(address)))
            .map_err(|_| ValueError::new(text, wanted))
    }
}

impl FromStr for LogFormat {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<LogFormat, ValueError> {
        match text {
            "text" => Ok(LogFormat::Text),
            "json" => Ok(LogFormat::Json),
            _ => Err(ValueError::new(text, "`text` or `json`")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused<T: std::fmt::Debug>(result: Result<T, ValueError>, text: &str) {
        let error = result.expect_err(text).to_string();
        assert!(error.starts_with(&format!("`{text}` is not ")), "{error}");
    }

    #[test]
    fn sizes() {
        let cases = [
            ("0", 0),
            ("17", 17),
            ("17B", 17),
            ("512K", 512 << 10),
            ("512k", 512 << 10),
            ("2M", 2 << 20),
            ("2 MiB", 2 << 20),
            ("1.5MiB", 3 << 19),
            ("10G", 10 << 30),
            ("1T", 1 << 40),
            ("5kB", 5000),
            ("5MB", 5_000_000),
            ("0.5GB", 500_000_000),
            ("18446744073709551615", u64::MAX),
        ];
        for (text, bytes) in cases {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        let bad = "|K|-1|1.|.5K|1.5|1..5M|1.2.3M|5X|5 5|0x10|1e9|1,5M|NaN|inf|18446744073709551616|99999999T|9e9G";
        for text in bad.split('|') {
            refused(size(text), text);
        }
    }

    #[test]
    fn limits() {
        assert_eq!("off".parse(), Ok(Limit(None)));
        assert_eq!("512K".parse(), Ok(Limit(NonZeroU32::new(512 << 10))));
        assert_eq!("1.5MiB/s".parse(), Ok(Limit(NonZeroU32::new(3 << 19))));
        for text in ["0", "none", "4G", "-1", "fast"] {
            refused(text.parse::<Limit>(), text);
        }
    }

    #[test]
    fn floors() {
        assert_eq!(floor("5%"), Ok(Floor::Percent(5.0)));
        assert_eq!(floor("0.5 %"), Ok(Floor::Percent(0.5)));
        assert_eq!(floor("0"), Ok(Floor::Bytes(0)));
        assert_eq!(floor("10G"), Ok(Floor::Bytes(10 << 30)));
        for text in ["100%", "-1%", "NaN%", "%", "five", ""] {
            refused(floor(text), text);
        }
    }

    #[test]
    fn switches_times_and_masks() {
        assert_eq!(
            (switch("on"), switch("off"), switch("TRUE")),
            (Ok(true), Ok(false), Ok(true))
        );
        refused(switch("maybe"), "maybe");
        assert_eq!(seconds("60"), Ok(Duration::from_secs(60)));
        assert_eq!(seconds("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(seconds("5min"), Ok(Duration::from_secs(300)));
        for text in [
            "0",
            "86401",
            "-1",
            "1.5",
            "h",
            "99999999999999999999",
            "999999999999999999m",
        ] {
            refused(seconds(text), text);
        }
        assert_eq!((umask("022"), umask("0"), umask("0o077")), (Ok(0o22), Ok(0), Ok(0o77)));
        for text in ["8", "1000", "+22", "", "u+x"] {
            refused(umask(text), text);
        }
        assert_eq!(identity("1000"), Ok(1000));
        for text in ["4294967295", "root", "-1"] {
            refused(identity(text), text);
        }
    }

    #[test]
    fn hosts_counts_and_tokens() {
        assert_eq!(host("Media.lan").as_deref(), Ok("media.lan"));
        assert_eq!(host("[::1]").as_deref(), Ok("::1"));
        for text in ["", ".", "a:80", "http://a", "a/b", "*"] {
            refused(host(text), text);
        }
        assert_eq!(count("4"), Ok(4));
        for text in ["0", "65", "-1", "many"] {
            refused(count(text), text);
        }
        assert!("abcdefghijklmn-_".parse::<Secret>().is_ok());
        for text in ["short", "abcdefghijklmnop/", &"a".repeat(129)] {
            let error = text.parse::<Secret>().expect_err(text).to_string();
            assert!(!error.contains(text), "{error}");
        }
        assert_eq!(format!("{:?}", Secret("abcdefghijklmnop".into())), "***");
    }

    #[test]
    fn addresses_and_words() {
        assert_eq!("off".parse(), Ok(Listen(None)));
        assert_eq!("0.0.0.0:6881".parse::<Listen>().map(|l| l.0.is_some()), Ok(true));
        refused("6881".parse::<Listen>(), "6881");
        assert!(peer("[::1]:80").is_ok());
        for text in ["localhost:80", "1.2.3.4", "1.2.3.4:0", ":80"] {
            refused(peer(text), text);
        }
        assert_eq!(download("whole"), Ok(Download::Whole));
        refused(download("half"), "half");
        assert_eq!(seeding("always"), Ok(Seeding::Always));
        refused(seeding("on"), "on");
        assert_eq!("json".parse(), Ok(LogFormat::Json));
        refused("xml".parse::<LogFormat>(), "xml");
    }
}

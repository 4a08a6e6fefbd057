//! Words for people: sizes, rates, times, names that are safe on a terminal, and words that are safe in a shell.

use std::path::Path;

/// A size in binary units: `0 B`, `999 B`, `1.5 GiB`. Below 10 of a unit one decimal is kept.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    // 1023.95 would be printed as 1024 of its unit, so the next unit begins just below.
    while value >= 1023.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let decimals = usize::from(value < 99.95);
    format!("{value:.decimals$} {}", UNITS[unit])
}

/// Bytes a second; `-` for none.
pub fn rate(bytes: u64) -> String {
    if bytes == 0 {
        "-".to_owned()
    } else {
        format!("{}/s", size(bytes))
    }
}

/// A part of a whole, rounded down, so that `100 %` means all of it. An empty whole is complete.
pub fn percent(part: u64, whole: u64) -> String {
    if part >= whole {
        return "100 %".to_owned();
    }
    let thousandths = u128::from(part) * 1000 / u128::from(whole);
    format!("{}.{} %", thousandths / 10, thousandths % 10)
}

/// A span of time in its two largest units: `45 s`, `3 min 20 s`, `2 d 3 h`.
pub fn duration(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, _, _) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

/// A number with its noun: `1 torrent`, `2 torrents`.
pub fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// A name as it may be shown on a terminal. Names come from torrents: control characters could move the cursor or
/// run the terminal's own commands, and direction marks could show another extension than there is.
pub fn printable(name: &str) -> String {
    let hidden = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
    };
    name.chars().map(|c| if hidden(c) { '\u{fffd}' } else { c }).collect()
}

/// A path as it may be shown on a terminal.
pub fn path(path: &Path) -> String {
    printable(&path.to_string_lossy())
}

/// A word that a POSIX shell reads back as `text`: quoted only where it must be.
pub fn shell_word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@%+,=~".contains(c);
    if !text.is_empty() && !text.starts_with('~') && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_binary_and_short() {
        let cases = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (10 * 1024 * 1024, "10.0 MiB"),
            (314_572_800, "300 MiB"),
            (1024 * 1024 - 1, "1.0 MiB"),
            (5 << 40, "5.0 TiB"),
            (u64::MAX, "16.0 EiB"),
        ];
        for (bytes, text) in cases {
            assert_eq!(size(bytes), text);
        }
        assert_eq!(rate(0), "-");
        assert_eq!(rate(2048), "2.0 KiB/s");
    }

    #[test]
    fn all_of_it_is_said_only_of_all_of_it() {
        assert_eq!(percent(0, 0), "100 %");
        assert_eq!(percent(0, 5), "0.0 %");
        assert_eq!(percent(9_999, 10_000), "99.9 %");
        assert_eq!(percent(u64::MAX - 1, u64::MAX), "99.9 %");
        assert_eq!(percent(10_000, 10_000), "100 %");
    }

    #[test]
    fn times_have_two_units() {
        let cases = [
            (0, "0 s"),
            (59, "59 s"),
            (200, "3 min 20 s"),
            (7300, "2 h 1 min"),
            (180_000, "2 d 2 h"),
        ];
        for (seconds, text) in cases {
            assert_eq!(duration(seconds), text);
        }
    }

    #[test]
    fn a_hostile_name_cannot_command_the_terminal() {
        assert_eq!(printable("a\x1b]0;title\x07b\n"), "a\u{fffd}]0;title\u{fffd}b\u{fffd}");
        assert_eq!(printable("film\u{202e}4pm.exe"), "film\u{fffd}4pm.exe");
        assert_eq!(printable("Ünïcode 日本 [x].mkv"), "Ünïcode 日本 [x].mkv");
    }

    #[test]
    fn shell_words_are_quoted_where_needed() {
        assert_eq!(shell_word("/srv/a-b_c.torrent"), "/srv/a-b_c.torrent");
        assert_eq!(
            shell_word("magnet:?xt=urn:btih:00&dn=x"),
            "'magnet:?xt=urn:btih:00&dn=x'"
        );
        assert_eq!(shell_word("it's"), "'it'\\''s'");
        assert_eq!(shell_word(""), "''");
        assert_eq!(shell_word("~root"), "'~root'");
    }
}

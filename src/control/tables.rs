//! What the commands print for people: pure text from reports, to a given width.

use std::fmt::Write;

use comfy_table::{Cell, CellAlignment, ColumnConstraint, ContentArrangement, Row, Table, presets};

use super::protocol::{Listed, Shown, Status};
use crate::text;
use crate::torrents::{Download, State, TorrentReport};

/// The narrowest name column: below that a name says nothing, and the terminal may wrap.
const NAME_WIDTH: u16 = 16;

/// On a narrower terminal the name needs the room more than the info hash does.
const HASH_FROM_WIDTH: u16 = 96;

/// Columns of the terminal that stdout is; `None` where it is none.
pub fn terminal_width() -> Option<u16> {
    Table::new().width()
}

/// A state in a word, with how far it is where that is not the share of bytes here.
pub fn state(report: &TorrentReport) -> String {
    match (report.state, report.bytes_checked) {
        (State::Checking, Some(checked)) => format!("checking {}", text::percent(checked, report.size)),
        (state, _) => state.word().to_owned(),
    }
}

/// Whether it is known what is in it. A magnet link that is paused, or fails, has files no more than one that waits.
fn is_resolved(report: &TorrentReport) -> bool {
    report.files > 0
}

/// All torrents, one a line; names are cut to `width` columns where one is given. Faults follow below the table.
pub fn list(torrents: &[Listed], width: Option<u16>) -> String {
    if torrents.is_empty() {
        return "There are no torrents yet: `magnetfs add SOURCE` adds one.\n".to_owned();
    }
    let mut header = vec!["NAME", "STATE", "SIZE", "HERE", "PEERS", "DOWN", "UP"];
    let with_hash = width.is_none_or(|width| width >= HASH_FROM_WIDTH);
    if with_hash {
        header.push("INFO HASH");
    }
    let mut table = table(&header, &[2, 3, 4, 5, 6]);
    for Listed { report, .. } in torrents {
        let (size, here) = if is_resolved(report) {
            (text::size(report.size), text::percent(report.bytes_here, report.size))
        } else {
            ("-".to_owned(), "-".to_owned())
        };
        let mut cells = vec![
            text::printable(&report.name),
            state(report),
            size,
            here,
            report.peers.to_string(),
            text::rate(report.download_rate),
            text::rate(report.upload_rate),
        ];
        if with_hash {
            // Enough to tell a few thousand apart, and a prefix is all that a command needs.
            cells.push(report.info_hash.chars().take(8).collect());
        }
        table.add_row(one_line(cells));
    }
    let mut out = render(table, width);
    for Listed { report, .. } in torrents {
        if let Some(error) = &report.error {
            // Writing to a String cannot fail.
            let _ = write!(out, "\n{}: {}\n", text::printable(&report.name), text::printable(error));
        }
    }
    out
}

/// One torrent: what it is, and each of its files with how much of it is here.
pub fn show(shown: &Shown, width: Option<u16>) -> String {
    let (detail, report) = (&shown.detail, &shown.detail.report);
    let mut pairs = vec![
        ("Name", text::printable(&report.name)),
        (
            "Path",
            shown
                .path
                .as_deref()
                .map_or("not before it is resolved".to_owned(), text::printable),
        ),
        ("Info hash", report.info_hash.clone()),
        ("State", state(report)),
    ];
    if let Some(error) = &report.error {
        pairs.push(("Fault", text::printable(error)));
    }
    if is_resolved(report) {
        let share = text::percent(report.bytes_here, report.size);
        pairs.push((
            "Size",
            format!("{} in {}", text::size(report.size), text::count(report.files, "file")),
        ));
        pairs.push(("Here", format!("{} ({share})", text::size(report.bytes_here))));
        let length = text::size(u64::from(detail.piece_length));
        pairs.push(("Pieces", format!("{} of {length}", detail.piece_count)));
    }
    let download = match report.download {
        Download::OnDemand => "on demand: what is read, and nothing else",
        Download::Whole => "whole: all of it",
    };
    pairs.push(("Download", download.to_owned()));
    pairs.push(("Peers", report.peers.to_string()));
    pairs.push((
        "Rates",
        format!(
            "{}/s down, {}/s up",
            text::size(report.download_rate),
            text::size(report.upload_rate)
        ),
    ));
    let (fetched, uploaded) = (text::size(report.fetched), text::size(report.uploaded));
    pairs.push(("Since start", format!("{fetched} fetched, {uploaded} sent")));
    if detail.private {
        pairs.push(("Private", "yes: peers come from its trackers alone".to_owned()));
    }
    for (index, tracker) in detail.trackers.iter().enumerate() {
        pairs.push((if index == 0 { "Trackers" } else { "" }, text::printable(tracker)));
    }
    let mut out = aligned(&pairs);
    if !detail.contents.is_empty() {
        let mut table = table(&["FILE", "SIZE", "HERE"], &[1, 2]);
        for file in &detail.contents {
            let here = text::percent(file.bytes_here, file.size);
            table.add_row(one_line([text::path(&file.path), text::size(file.size), here]));
        }
        out.push('\n');
        out.push_str(&render(table, width));
    }
    out
}

/// How the daemon does.
pub fn status(status: &Status) -> String {
    let library = &status.library;
    let storing = if library.storing {
        ""
    } else {
        ": nothing more is stored until some space is free"
    };
    let kernel = if status.passthrough {
        "complete files are read by the kernel alone"
    } else {
        "off"
    };
    aligned(&[
        ("Mounted at", text::printable(&status.mountpoint)),
        ("Data", text::printable(&status.data_dir)),
        ("Socket", text::printable(&status.socket)),
        (
            "Page",
            status
                .page
                .as_deref()
                .map_or("none: HTTP is off".to_owned(), text::printable),
        ),
        (
            "Torrents",
            format!("{}, {} connected", library.torrents, library.active),
        ),
        ("Reads", format!("{} waiting for the network", status.waiting_reads)),
        ("Stored", text::size(library.used)),
        (
            "Free",
            format!(
                "{}, floor {}{storing}",
                text::size(library.free),
                text::size(library.floor)
            ),
        ),
        ("Passthrough", kernel.to_owned()),
        (
            "Process",
            format!("{}, up {}", status.pid, text::duration(status.uptime_seconds)),
        ),
        ("Version", text::printable(&status.version)),
    ])
}

/// Names and values, the values below each other.
fn aligned(pairs: &[(&str, String)]) -> String {
    let widest = pairs.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    pairs
        .iter()
        .map(|(name, value)| format!("{name:<widest$}  {value}\n"))
        .collect()
}

fn one_line(cells: impl IntoIterator<Item = String>) -> Row {
    let mut row = Row::from(cells.into_iter().map(Cell::new_owned));
    row.max_height(1);
    row
}

/// A table without lines, whose `right` columns hold numbers.
fn table(header: &[&str], right: &[usize]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_truncation_indicator("…");
    // A name is cut where the room ends, not at the last word before that. No printable text has this character.
    table.set_delimiter('\u{1f}');
    table.set_header(header.iter().map(Cell::new));
    for index in 0..header.len() {
        let Some(column) = table.column_mut(index) else {
            continue;
        };
        column.set_padding((0, 2));
        if right.contains(&index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// The first column takes what the others leave of `width`; without a width nothing is cut, so that a script that
/// reads the table sees whole names.
fn render(mut table: Table, width: Option<u16>) -> String {
    let widths = table.column_max_content_widths();
    if let Some(width) = width {
        let others: u16 = widths
            .iter()
            .skip(1)
            .map(|width| width.saturating_add(2))
            .fold(2, u16::saturating_add);
        let first = width
            .saturating_sub(others)
            .max(NAME_WIDTH)
            .min(widths.first().copied().unwrap_or(NAME_WIDTH));
        table.set_content_arrangement(ContentArrangement::Dynamic);
        table.set_width(others.saturating_add(first));
        for (index, content) in widths.iter().enumerate() {
            let column_width = if index == 0 { first } else { *content };
            if let Some(column) = table.column_mut(index) {
                // The padding counts as part of the column.
                let fixed = comfy_table::Width::Fixed(column_width.saturating_add(2));
                column.set_constraint(ColumnConstraint::Absolute(fixed));
            }
        }
    } else {
        table.set_content_arrangement(ContentArrangement::Disabled);
    }
    let mut out = String::new();
    for line in table.lines() {
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::torrents::{FileReport, LibraryReport, TorrentDetail};

    fn listed(name: &str, state: State) -> Listed {
        let report = TorrentReport {
            info_hash: "0123456789abcdef0123456789abcdef01234567".into(),
            name: name.into(),
            state,
            size: 3 << 30,
            bytes_here: 1 << 30,
            bytes_checked: (state == State::Checking).then_some(3 << 29),
            files: 2,
            peers: 12,
            download_rate: 5 << 20,
            upload_rate: 0,
            fetched: 0,
            uploaded: 0,
            download: Download::OnDemand,
            error: (state == State::Error).then(|| "the disk\nis gone".into()),
        };
        Listed {
            report,
            path: Some(format!("/mnt/{name}")),
        }
    }

    fn unresolved(name: &str) -> Listed {
        let Listed { report, .. } = listed(name, State::Resolving);
        Listed {
            report: TorrentReport {
                size: 0,
                bytes_here: 0,
                files: 0,
                ..report
            },
            path: None,
        }
    }

    #[test]
    fn a_list_is_cut_to_the_terminal_and_whole_without_one() {
        let long = "A very long name of a film, with more words than any terminal has columns for it (1999).mkv";
        let torrents = [
            listed("short", State::Active),
            listed(long, State::Checking),
            unresolved("日本"),
        ];
        for width in [80, 100, 132] {
            let text = list(&torrents, Some(width));
            for line in text.lines() {
                let columns = line.chars().map(|c| if c as u32 > 0x2e80 { 2 } else { 1 }).sum::<u16>();
                assert!(columns <= width, "{columns} > {width}: {line}");
            }
            assert!(
                text.contains('…') && text.contains("checking 50.0 %") && text.contains("33.3 %"),
                "{text}"
            );
            assert_eq!(text.lines().count(), 4, "{text}");
        }
        assert!(list(&torrents, None).contains(long));
        // A terminal of a few columns must not lose the name altogether.
        assert!(list(&torrents, Some(10)).contains("short"));
    }

    #[test]
    fn faults_are_told_below_the_table() {
        let text = list(&[listed("a", State::Error)], Some(80));
        assert!(text.ends_with("\na: the disk\u{fffd}is gone\n"), "{text}");
        assert!(list(&[], None).contains("magnetfs add"));
    }

    #[test]
    fn a_torrent_is_shown_with_its_files() {
        let contents = vec![
            FileReport {
                path: "t/film.mkv".into(),
                size: 2000,
                bytes_here: 1000,
            },
            FileReport {
                path: "t/empty".into(),
                size: 0,
                bytes_here: 0,
            },
        ];
        let detail = TorrentDetail {
            report: listed("t", State::Active).report,
            piece_length: 1 << 20,
            piece_count: 3072,
            added: 0,
            private: true,
            trackers: vec!["http://one/announce".into(), "udp://two".into()],
            contents,
        };
        let text = show(
            &Shown {
                detail,
                path: Some("/mnt/t".into()),
            },
            Some(80),
        );
        for part in [
            "3072 of 1.0 MiB",
            "1.0 GiB (33.3 %)",
            "50.0 %",
            "100 %",
            "Trackers     http://one",
            "/mnt/t",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn the_status_says_when_nothing_is_stored() {
        let library = LibraryReport {
            torrents: 1,
            active: 0,
            used: 0,
            free: 5,
            floor: 10,
            storing: false,
        };
        let text = status(&Status {
            mountpoint: "/mnt".into(),
            data_dir: "/data".into(),
            socket: "/s".into(),
            http: Some("127.0.0.1:8642".into()),
            page: Some("http://127.0.0.1:8642/".into()),
            library,
            waiting_reads: 3,
            passthrough: false,
            pid: 7,
            uptime_seconds: 61,
            version: "0.1.0".into(),
        });
        assert!(text.contains("5 B, floor 10 B: nothing more is stored"), "{text}");
        assert!(text.contains("Page         http://127.0.0.1:8642/\n"), "{text}");
        assert!(text.contains("3 waiting") && text.contains("7, up 1 min 1 s"), "{text}");
    }
}

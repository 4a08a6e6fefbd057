//! How far something is: bars on a terminal, plain lines anywhere else. All of it goes to stderr.

use std::collections::HashMap;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::text;
use crate::torrents::{Download, State, TorrentReport};

/// More bars than this would scroll the log away.
const BAR_LIMIT: usize = 8;

/// How often a plain line is written while nothing but numbers changes.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// Bars of everything that goes on, above which the log scrolls.
#[derive(Debug)]
pub struct Bars {
    all: MultiProgress,
    shown: HashMap<String, ProgressBar>,
}

impl Bars {
    /// No bars yet, to be drawn among those of `all`.
    pub fn new(all: MultiProgress) -> Bars {
        Bars {
            all,
            shown: HashMap::new(),
        }
    }

    /// Shows these torrents as far as something goes on with them.
    pub fn update(&mut self, reports: &[TorrentReport]) {
        let busy: Vec<&TorrentReport> = reports
            .iter()
            .filter(|report| is_busy(report))
            .take(BAR_LIMIT)
            .collect();
        self.shown.retain(|info_hash, bar| {
            let stays = busy.iter().any(|report| report.info_hash == *info_hash);
            if !stays {
                bar.finish_and_clear();
                self.all.remove(bar);
            }
            stays
        });
        for report in busy {
            let bar = self
                .shown
                .entry(report.info_hash.clone())
                .or_insert_with(|| self.all.add(ProgressBar::new(0)));
            draw(bar, report);
        }
    }

    /// Takes all bars off the terminal.
    pub fn clear(&mut self) {
        self.update(&[]);
    }
}

/// Whether something goes on with a torrent whose end can be waited for.
fn is_busy(report: &TorrentReport) -> bool {
    match report.state {
        State::Resolving | State::Checking => true,
        State::Active => report.download == Download::Whole || report.download_rate > 0,
        State::Parked | State::Paused | State::Complete | State::Error => false,
    }
}

/// The progress of one torrent that somebody waits for.
#[derive(Debug)]
pub struct Follower {
    bar: Option<ProgressBar>,
    told: Option<(State, Instant)>,
}

impl Follower {
    /// A bar if stderr is a terminal, else lines.
    pub fn new() -> Follower {
        Follower {
            bar: std::io::stderr().is_terminal().then(|| ProgressBar::new(0)),
            told: None,
        }
    }

    /// Shows how far it is now.
    pub fn update(&mut self, report: &TorrentReport) {
        if let Some(bar) = &self.bar {
            draw(bar, report);
            return;
        }
        let is_news = |(state, at): (State, Instant)| state != report.state || at.elapsed() >= LINE_INTERVAL;
        if self.told.is_none_or(is_news) {
            self.told = Some((report.state, Instant::now()));
            // Nobody has to listen.
            let _ = writeln!(std::io::stderr(), "{}", line(report));
        }
    }

    /// Takes the bar away.
    pub fn finish(self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Default for Follower {
    fn default() -> Follower {
        Follower::new()
    }
}

/// Where a torrent is, in a line.
fn line(report: &TorrentReport) -> String {
    let name = text::printable(&report.name);
    match report.state {
        State::Resolving => {
            let peers = text::count(report.peers, "peer");
            format!("{name}: waiting for a peer that tells what it is ({peers} connected)")
        }
        State::Checking => {
            let checked = text::percent(report.bytes_checked.unwrap_or(0), report.size);
            format!("{name}: {checked} of {} checked", text::size(report.size))
        }
        State::Parked | State::Active | State::Paused | State::Complete | State::Error => {
            let (here, size) = (text::percent(report.bytes_here, report.size), text::size(report.size));
            let rate = text::rate(report.download_rate);
            format!(
                "{name}: {here} of {size} here, {rate} from {}",
                text::count(report.peers, "peer")
            )
        }
    }
}

fn draw(bar: &ProgressBar, report: &TorrentReport) {
    let template = match report.state {
        State::Resolving => "{spinner} {elapsed:>4} {wide_msg}",
        _ => "[{bar:24}] {percent:>3} % {wide_msg}",
    };
    // The templates are constants, and a test draws each.
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_length(report.size);
    bar.set_position(match report.state {
        State::Checking => report.bytes_checked.unwrap_or(0),
        _ => report.bytes_here,
    });
    // What is wide is cut at its end, so the name, which may be long, comes last.
    let name = text::printable(&report.name);
    let (size, peers) = (text::size(report.size), text::count(report.peers, "peer"));
    bar.set_message(match report.state {
        State::Resolving => format!("waiting for a peer that tells what it is ({peers} connected): {name}"),
        State::Checking => format!("of {size} checked: {name}"),
        _ => format!("of {size}, {} from {peers}: {name}", text::rate(report.download_rate)),
    });
    bar.tick();
}

#[cfg(test)]
mod tests {
    use super::*;
    use indicatif::{InMemoryTerm, ProgressDrawTarget};

    fn report(name: &str, state: State) -> TorrentReport {
        TorrentReport {
            info_hash: name.to_owned(),
            name: name.to_owned(),
            state,
            size: 1000 << 20,
            bytes_here: 250 << 20,
            bytes_checked: Some(500 << 20),
            files: 1,
            peers: 3,
            download_rate: 2 << 20,
            upload_rate: 0,
            fetched: 0,
            uploaded: 0,
            download: Download::Whole,
            error: None,
        }
    }

    fn terminal() -> (InMemoryTerm, Bars) {
        let terminal = InMemoryTerm::new(20, 120);
        let target = ProgressDrawTarget::term_like_with_hz(Box::new(terminal.clone()), 255);
        let all = MultiProgress::with_draw_target(target);
        (terminal, Bars::new(all))
    }

    /// Updates until the drawn text will do: drawing is limited to a rate.
    #[track_caller]
    fn drawn(terminal: &InMemoryTerm, bars: &mut Bars, reports: &[TorrentReport], will_do: fn(&str) -> bool) -> String {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            bars.update(reports);
            let text = terminal.contents();
            if will_do(&text) {
                return text;
            }
            assert!(Instant::now() < deadline, "{text}");
        }
    }

    #[test]
    fn what_goes_on_has_a_bar_and_what_ends_has_none() {
        let (terminal, mut bars) = terminal();
        let long = "x".repeat(160);
        let reports = [
            report("magnet", State::Resolving),
            report("check", State::Checking),
            report(&long, State::Active),
            report("idle", State::Parked),
        ];
        let drawn = drawn(&terminal, &mut bars, &reports, |text| text.contains("25 %"));
        for part in [
            "waiting for a peer that tells what it is (3 peers connected): magnet",
            "[============>           ]  50 % of 1000 MiB checked: check",
            "[======>                 ]  25 % of 1000 MiB, 2.0 MiB/s from 3 peers: xxx",
        ] {
            assert!(drawn.contains(part), "{part:?} in\n{drawn}");
        }
        assert_eq!(drawn.lines().count(), 3, "each fits its line:\n{drawn}");
        assert!(!drawn.contains("idle") && !drawn.contains(&long), "{drawn}");
        bars.update(&[report("check", State::Complete)]);
        assert_eq!(terminal.contents().trim(), "");
    }

    #[test]
    fn the_log_keeps_room() {
        let (terminal, mut bars) = terminal();
        let many: Vec<TorrentReport> = (0..30).map(|n| report(&format!("t{n}"), State::Checking)).collect();
        drawn(&terminal, &mut bars, &many, |text| text.lines().count() == BAR_LIMIT);
        bars.clear();
        assert_eq!(terminal.contents().trim(), "");
    }

    #[test]
    fn lines_say_the_same_without_a_terminal() {
        assert!(line(&report("m", State::Resolving)).ends_with("(3 peers connected)"));
        assert_eq!(line(&report("c", State::Checking)), "c: 50.0 % of 1000 MiB checked");
        let active = line(&report("a", State::Active));
        assert_eq!(active, "a: 25.0 % of 1000 MiB here, 2.0 MiB/s from 3 peers");
    }
}

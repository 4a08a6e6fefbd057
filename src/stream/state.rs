//! What a person is told of a film: what it is doing, who is waited for, and which parts of it are here.

use std::time::Duration;

use serde::Serialize;

/// What a film is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FilmState {
    /// The index has not come yet; there is no playlist.
    WaitingForHeader,
    /// What is asked for is made, or nobody asks.
    Streaming,
    /// Somebody waits for a part, and nothing arrives.
    Stalled,
    /// Every byte of it is here.
    Completed,
}

/// All that the API says of a film. Never waited for.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FilmReport {
    /// What it is doing.
    pub state: FilmState,
    /// The same in words for a person, and who is waited for since when.
    pub words: String,
    /// Seconds, once the index is here.
    pub duration_s: Option<f64>,
    /// The parts of the film whose bytes are here, in order, none touching the next.
    pub here: Vec<Span>,
    /// What it offers, in the order of the playlist.
    pub tracks: Vec<TrackReport>,
    /// Which tracks of the file are not offered, and why; a sentence each.
    pub left_out: Vec<String>,
    /// Processes of FFmpeg that work on it now.
    pub runs: usize,
    /// Requests that wait for a part of it now.
    pub waiting: usize,
}

/// A part of a film's time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Span {
    /// Seconds from the film's beginning.
    pub from_s: f64,
    /// Seconds from the film's beginning.
    pub to_s: f64,
}

/// A track that the playlist offers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TrackReport {
    /// What its URLs call it: `video`, `audio-0`, `subtitles-1`.
    pub rendition: String,
    /// BCP 47, or what the file says.
    pub language: Option<String>,
    /// For a person; empty for the video.
    pub name: String,
}

/// What the words of a report are made of.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Situation {
    /// The index is read, for so long, since data last arrived.
    Header {
        /// Since the first request.
        waited: Duration,
        /// Since data last came, if any has.
        silent: Option<Duration>,
    },
    /// Parts are waited for.
    Part {
        /// Seconds from the film's beginning of the part that is waited for longest.
        at_s: f64,
        /// So long.
        waited: Duration,
        /// Since data last came, if any has.
        silent: Option<Duration>,
    },
    /// Nobody waits for anything.
    Fed,
    /// All is here.
    Complete,
}

/// Nothing has arrived for so long while somebody waits: that is a stall, no longer the network's breathing.
const STALL: Duration = Duration::from_secs(3);

impl Situation {
    /// Its name and its words.
    pub(super) fn told(self) -> (FilmState, String) {
        let quiet = |waited: Duration, silent: Option<Duration>| silent.unwrap_or(waited).min(waited) >= STALL;
        match self {
            Situation::Header { waited, silent } => {
                let words = format!(
                    "Waiting for the film's index from peers for {}; {}.",
                    time(waited),
                    arrival(silent)
                );
                (FilmState::WaitingForHeader, words)
            }
            Situation::Part { at_s, waited, silent } if quiet(waited, silent) => {
                let words = format!(
                    "Waiting for peers to send the part at {} for {}; {}.",
                    clock(at_s),
                    time(waited),
                    arrival(silent)
                );
                (FilmState::Stalled, words)
            }
            Situation::Part { at_s, .. } => (
                FilmState::Streaming,
                format!("The part at {} is on its way.", clock(at_s)),
            ),
            Situation::Fed => (FilmState::Streaming, "All that was asked for has been sent.".to_owned()),
            Situation::Complete => (FilmState::Completed, "The whole film is here.".to_owned()),
        }
    }
}

fn arrival(silent: Option<Duration>) -> String {
    match silent {
        Some(silent) if silent < Duration::from_secs(1) => "data is arriving".to_owned(),
        Some(silent) => format!("data last came {} ago", time(silent)),
        None => "nothing has come yet".to_owned(),
    }
}

fn time(duration: Duration) -> String {
    match duration.as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds => format!("{} min", seconds / 60),
    }
}

/// As a player shows it.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
fn clock(at_s: f64) -> String {
    let seconds = at_s.max(0.0) as u64;
    match seconds / 3600 {
        0 => format!("{}:{:02}", seconds / 60, seconds % 60),
        hours => format!("{hours}:{:02}:{:02}", seconds / 60 % 60, seconds % 60),
    }
}

/// Joins the spans of neighbours that are here. `edges_s` are the segments' bounds, one more than `here` has.
pub(super) fn spans(edges_s: &[f64], here: &[bool]) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::new();
    let mut before = false;
    for (edges, &here) in edges_s.windows(2).zip(here) {
        match spans.last_mut() {
            Some(last) if here && before => last.to_s = edges[1],
            _ if here => spans.push(Span {
                from_s: edges[0],
                to_s: edges[1],
            }),
            _ => {}
        }
        before = here;
    }
    spans
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn words_say_who_is_waited_for_and_since_when() {
        let told = |situation: Situation| situation.told();
        let header = Situation::Header {
            waited: seconds(12),
            silent: None,
        };
        assert_eq!(
            told(header),
            (
                FilmState::WaitingForHeader,
                "Waiting for the film's index from peers for 12 s; nothing has come yet.".to_owned()
            )
        );
        let stalled = Situation::Part {
            at_s: 3723.9,
            waited: seconds(30),
            silent: Some(seconds(125)),
        };
        assert_eq!(
            told(stalled),
            (
                FilmState::Stalled,
                "Waiting for peers to send the part at 1:02:03 for 30 s; data last came 2 min ago.".to_owned()
            )
        );
        let flowing = Situation::Part {
            at_s: 65.0,
            waited: seconds(30),
            silent: Some(seconds(0)),
        };
        assert_eq!(
            told(flowing),
            (FilmState::Streaming, "The part at 1:05 is on its way.".to_owned())
        );
        let just_asked = Situation::Part {
            at_s: 0.0,
            waited: seconds(1),
            silent: Some(seconds(600)),
        };
        assert_eq!(told(just_asked).0, FilmState::Streaming);
        assert_eq!(told(Situation::Complete).0, FilmState::Completed);
        assert_eq!(told(Situation::Fed).0, FilmState::Streaming);
    }

    #[test]
    fn neighbours_that_are_here_are_one_span() {
        let edges = [0.0, 4.0, 8.5, 12.0, 16.0];
        assert_eq!(
            spans(&edges, &[true, true, false, true]),
            [
                Span { from_s: 0.0, to_s: 8.5 },
                Span {
                    from_s: 12.0,
                    to_s: 16.0
                }
            ]
        );
        assert_eq!(spans(&edges, &[false; 4]), []);
    }

    #[test]
    fn the_api_knows_the_states_by_these_names() {
        let name = |state| serde_json::to_string(&state).unwrap();
        assert_eq!(name(FilmState::WaitingForHeader), "\"waiting-for-header\"");
        assert_eq!(name(FilmState::Completed), "\"completed\"");
    }
}

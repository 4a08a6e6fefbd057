//! The commands that talk to the running daemon.

use std::ffi::OsString;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::{Context, bail};
use serde::Serialize;

use crate::config::Config;
use crate::control::client::Client;
use crate::control::protocol::{AddedTorrent, Listed, Named, Offer, Request, Shown, Status, Until};
use crate::control::tables;
use crate::progress::Follower;
use crate::text;
use crate::torrents::{Download, Holder, Metainfo, Source, read_file};

/// Adds all, then waits for those that are not resolved. What cannot be added does not hold up the others.
pub(super) fn add(
    config: &Config,
    sources: &[OsString],
    download: Option<Download>,
    peers: &[SocketAddr],
    no_wait: bool,
) -> anyhow::Result<ExitCode> {
    let offers = sources.iter().map(offer).collect::<anyhow::Result<Vec<_>>>()?;
    let mut client = connect(config)?;
    let mut unresolved = Vec::new();
    let mut status = ExitCode::SUCCESS;
    for (source, offer) in sources.iter().zip(offers) {
        let request = Request::Add {
            source: offer,
            download,
            peers: peers.to_vec(),
            alone: sources.len() == 1,
        };
        match client.ask::<AddedTorrent>(&request) {
            Ok(added) if added.resolved || no_wait => tell(&added)?,
            Ok(added) => unresolved.push(added),
            Err(error) => {
                complain(&format!(
                    "{}: {}",
                    text::printable(&source.to_string_lossy()),
                    words(&error)
                ));
                status = ExitCode::FAILURE;
            }
        }
    }
    for added in unresolved {
        let mut follower = Follower::new();
        let resolved = client.follow(&added.info_hash, Until::Resolved, |listed| {
            follower.update(&listed.report)
        });
        follower.finish();
        match resolved {
            Ok(Listed { report, path }) => tell(&AddedTorrent {
                name: report.name,
                path,
                resolved: true,
                ..added
            })?,
            Err(error) => {
                complain(&format!("{}: {}", text::printable(&added.name), words(&error)));
                status = ExitCode::FAILURE;
            }
        }
    }
    Ok(status)
}

/// What is sent of a source: its words, or of a file its content, checked here so that the message comes at once.
fn offer(source: &OsString) -> anyhow::Result<Offer> {
    let parsed = match source.to_str() {
        Some(text) => Source::parse(text)?,
        None => Source::File(source.into()),
    };
    Ok(match parsed {
        Source::File(path) => {
            let bytes = read_file(&path)?;
            Metainfo::parse(&bytes).with_context(|| text::path(&path))?;
            Offer::Metainfo(bytes)
        }
        Source::Bytes(bytes) => Offer::Metainfo(bytes),
        Source::Magnet(_) | Source::Url(_) => Offer::Text(source.to_string_lossy().trim().to_owned()),
    })
}

/// Says what was added, and what to open.
fn tell(added: &AddedTorrent) -> anyhow::Result<()> {
    let how = match (added.new, added.resolved) {
        (true, true) => "added",
        (true, false) => "added, its files appear when a peer has told what they are",
        (false, true) => "was there already",
        (false, false) => "was there already, no peer has told yet what it is",
    };
    let name = text::printable(&added.name);
    let path = added
        .path
        .as_deref()
        .map_or(String::new(), |path| format!("  {}\n", text::printable(path)));
    print(&format!("{name} ({}): {how}\n{path}", added.info_hash))
}

pub(super) fn list(config: &Config, as_json: bool) -> anyhow::Result<()> {
    let torrents: Vec<Listed> = connect(config)?.ask(&Request::List)?;
    print(&if as_json {
        json(&torrents)?
    } else {
        tables::list(&torrents, tables::terminal_width())
    })
}

pub(super) fn show(config: &Config, torrent: &str, as_json: bool) -> anyhow::Result<()> {
    let shown: Shown = connect(config)?.ask(&Request::Show {
        torrent: torrent.to_owned(),
    })?;
    print(&if as_json {
        json(&shown)?
    } else {
        tables::show(&shown, tables::terminal_width())
    })
}

pub(super) fn follow(config: &Config, torrent: &str) -> anyhow::Result<()> {
    let mut follower = Follower::new();
    let last = connect(config)?.follow(torrent, Until::Complete, |listed| follower.update(&listed.report));
    follower.finish();
    print(&format!("{} is complete\n", text::printable(&last?.report.name)))
}

pub(super) fn remove(config: &Config, torrent: String, delete_data: bool) -> anyhow::Result<()> {
    let named: Named = connect(config)?.ask(&Request::Remove { torrent, delete_data })?;
    let data = if delete_data {
        "with its data"
    } else {
        "what was downloaded of it stays"
    };
    print(&format!("{}: removed, {data}\n", text::printable(&named.name)))
}

pub(super) fn pause(config: &Config, torrent: String) -> anyhow::Result<()> {
    let named: Named = connect(config)?.ask(&Request::Pause { torrent })?;
    print(&format!("{}: paused\n", text::printable(&named.name)))
}

pub(super) fn resume(config: &Config, torrent: String) -> anyhow::Result<()> {
    let named: Named = connect(config)?.ask(&Request::Resume { torrent })?;
    print(&format!("{}: resumed\n", text::printable(&named.name)))
}

pub(super) fn unmount(config: &Config) -> anyhow::Result<()> {
    connect(config)?.unmount()
}

pub(super) fn status(config: &Config, as_json: bool) -> anyhow::Result<()> {
    let status: Status = connect(config)?.ask(&Request::Status)?;
    print(&if as_json {
        json(&status)?
    } else {
        tables::status(&status)
    })
}

/// To the daemon of the data directory, by the socket that was named, or that the daemon says it has, or that it
/// would have.
fn connect(config: &Config) -> anyhow::Result<Client> {
    if !config.socket_named
        && let Some(holder) = Holder::of(&config.data_dir)
        && let Ok(Some(client)) = Client::connect(&holder.socket)
    {
        return Ok(client);
    }
    if let Some(client) = Client::connect(&config.socket)? {
        return Ok(client);
    }
    bail!(
        "no magnetfs mount is running for data directory {}: start one with `magnetfs mount MOUNTPOINT`{}",
        text::path(&config.data_dir),
        if config.socket_named {
            format!(" (nobody serves {})", text::path(&config.socket))
        } else {
            String::new()
        }
    )
}

/// Indented, with a newline at the end.
pub(super) fn json(value: &impl Serialize) -> anyhow::Result<String> {
    Ok(serde_json::to_string_pretty(value)? + "\n")
}

/// To stdout; an error that nobody reads any more reaches the caller as it is.
pub(super) fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(())
}

/// An error with its causes. Many of ours tell their cause themselves; it is not told twice.
pub(super) fn words(error: &anyhow::Error) -> String {
    let mut words = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if words.is_empty() {
            words = cause;
        } else if !words.contains(&cause) {
            words.push_str(": ");
            words.push_str(&cause);
        }
    }
    words
}

fn complain(text: &str) {
    // Nobody has to listen.
    let _ = writeln!(io::stderr(), "magnetfs: {text}");
}

//! A client's end of the control socket: blocking, because a command has nothing else to do.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use serde::de::DeserializeOwned;

use super::protocol::{Listed, Reply, Request, Until};

/// The slowest answer is that of removing data from a slow disk.
const ANSWER_LIMIT: Duration = Duration::from_secs(120);

/// The longest line: a torrent of 200,000 files with long names.
const LINE_LIMIT: u64 = 256 << 20;

/// Waiting for the end of a daemon that is unmounting; its own watchdog ends it long before.
const END_LIMIT: Duration = Duration::from_secs(15);

/// A connection to the daemon.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
}

impl Client {
    /// Connects; `None` if nobody serves the socket.
    ///
    /// # Errors
    /// When the socket belongs to somebody else, or cannot be reached for another reason.
    pub fn connect(socket: &Path) -> anyhow::Result<Option<Client>> {
        let unreachable = || format!("the control socket {} cannot be reached", socket.display());
        let stream = match UnixStream::connect(socket) {
            Ok(stream) => stream,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                return Ok(None);
            }
            Err(error) => return Err(error).with_context(unreachable),
        };
        // Only root may put a socket where ours is looked for; root itself may talk to anyone's.
        let server = rustix::net::sockopt::socket_peercred(&stream).with_context(unreachable)?;
        let us = rustix::process::geteuid();
        if !us.is_root() && !server.uid.is_root() && server.uid != us {
            bail!(
                "the control socket {} belongs to another user ({})",
                socket.display(),
                server.uid.as_raw()
            );
        }
        stream.set_read_timeout(Some(ANSWER_LIMIT)).with_context(unreachable)?;
        stream.set_write_timeout(Some(ANSWER_LIMIT)).with_context(unreachable)?;
        Ok(Some(Client {
            stream: BufReader::new(stream),
        }))
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// The daemon's own words, or what broke the connection.
    pub fn ask<T: DeserializeOwned>(&mut self, request: &Request) -> anyhow::Result<T> {
        self.send(request)?;
        loop {
            match self.receive()? {
                Reply::Done(value) => return serde_json::from_value(value).context(OTHER_VERSION),
                Reply::Error(message) => bail!(message),
                Reply::Progress(_) => {}
            }
        }
    }

    /// Follows a torrent and calls `progress` for each report; returns the last one.
    ///
    /// # Errors
    /// The daemon's own words (the torrent was removed, say), or what broke the connection.
    pub fn follow(&mut self, torrent: &str, until: Until, mut progress: impl FnMut(&Listed)) -> anyhow::Result<Listed> {
        self.send(&Request::Follow {
            torrent: torrent.to_owned(),
            until,
        })?;
        loop {
            match self.receive()? {
                Reply::Progress(listed) => progress(&listed),
                Reply::Done(value) => return serde_json::from_value(value).context(OTHER_VERSION),
                Reply::Error(message) => bail!(message),
            }
        }
    }

    /// Ends the daemon and waits until it is gone.
    ///
    /// # Errors
    /// The daemon's own words, or that it did not end.
    pub fn unmount(mut self) -> anyhow::Result<()> {
        self.ask::<()>(&Request::Unmount)?;
        self.stream.get_ref().set_read_timeout(Some(END_LIMIT))?;
        match self.stream.read(&mut [0]) {
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                bail!(
                    "the daemon did not end within {} s: its log says why",
                    END_LIMIT.as_secs()
                )
            }
            // The end of the connection, in whichever way, is the end of the process.
            _ => Ok(()),
        }
    }

    fn send(&mut self, request: &Request) -> anyhow::Result<()> {
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        // A daemon that refuses at once (too many clients, too long a request) has said why before it hung up.
        match self.stream.get_mut().write_all(&line) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error).context(GONE),
            _ => Ok(()),
        }
    }

    fn receive(&mut self) -> anyhow::Result<Reply> {
        let mut line = Vec::new();
        let read = (&mut self.stream).take(LINE_LIMIT).read_until(b'\n', &mut line);
        match read {
            Ok(_) if line.ends_with(b"\n") => serde_json::from_slice(&line).context(OTHER_VERSION),
            Ok(_) => Err(anyhow!(GONE)),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                bail!(
                    "the daemon did not answer within {} s: its log says why",
                    ANSWER_LIMIT.as_secs()
                )
            }
            Err(error) => Err(error).context(GONE),
        }
    }
}

const OTHER_VERSION: &str = "the daemon's answer is not understood: it may be another version, restart it";
const GONE: &str = "the daemon ended before it answered";

//! A client of the daemon's HTTP side that shows what came over the wire: one connection for each request.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

use super::Daemon;

/// An answer, whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(other, _)| other == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// # Panics
    /// When it is not 200.
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.status, 200, "{}", self.text());
        self
    }
}

/// Where a daemon serves HTTP.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Web {
    pub(crate) address: SocketAddr,
    limit: Duration,
}

impl Web {
    /// Of a daemon.
    #[track_caller]
    pub(crate) fn of(daemon: &Daemon) -> Self {
        Self::at(daemon.http())
    }

    /// Of whatever serves HTTP there.
    pub(crate) fn at(address: SocketAddr) -> Self {
        Self {
            address,
            limit: Duration::from_secs(60),
        }
    }

    /// Waits so long at most for each part of an answer.
    pub(crate) fn patient(self, limit: Duration) -> Self {
        Self { limit, ..self }
    }

    /// GET, of a path without its first slash.
    #[track_caller]
    pub(crate) fn get(self, path: &str) -> Answer {
        self.request("GET", path, &[], b"")
    }

    /// Any request, of a path without its first slash, or of a whole address, which is sent as it is.
    #[track_caller]
    pub(crate) fn request(self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let Self { address, limit } = self;
        let slash = if path.starts_with("http://") { "" } else { "/" };
        let mut stream = TcpStream::connect(address).expect("the HTTP side takes connections");
        stream.set_read_timeout(Some(limit)).expect("a limit");
        let mut text = format!("{method} {slash}{path} HTTP/1.1\r\nConnection: close\r\n");
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            text.push_str(&format!("Host: {address}\r\n"));
        }
        headers
            .iter()
            .for_each(|(name, value)| text.push_str(&format!("{name}: {value}\r\n")));
        if !body.is_empty() {
            text.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        text.push_str("\r\n");
        stream
            .write_all(&[text.as_bytes(), body].concat())
            .expect("a request goes out");
        let mut bytes = Vec::new();
        stream
            .read_to_end(&mut bytes)
            .unwrap_or_else(|error| panic!("{method} {slash}{path}: {error}, after {} bytes", bytes.len()));
        parse(&bytes, method == "HEAD")
            .unwrap_or_else(|| panic!("{method} {slash}{path} is answered by {} bytes", bytes.len()))
    }
}

fn parse(bytes: &[u8], is_head: bool) -> Option<Answer> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..end]).ok()?;
    let mut lines = head.lines();
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let answer = Answer {
        status,
        headers,
        body: bytes[end + 4..].to_vec(),
    };
    let body = match answer.header("transfer-encoding") {
        Some("chunked") => unchunked(&answer.body)?,
        _ => answer.body.clone(),
    };
    let length = answer
        .header("content-length")
        .and_then(|length| length.parse::<usize>().ok());
    // Cut short is no answer.
    if length.is_some_and(|length| !is_head && length != body.len()) {
        return None;
    }
    Some(Answer { body, ..answer })
}

fn unchunked(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = rest.windows(2).position(|window| window == b"\r\n")?;
        let length = usize::from_str_radix(std::str::from_utf8(&rest[..end]).ok()?.trim(), 16).ok()?;
        rest = rest.get(end + 2..)?;
        if length == 0 {
            return Some(body);
        }
        body.extend(rest.get(..length)?);
        rest = rest.get(length + 2..)?;
    }
}

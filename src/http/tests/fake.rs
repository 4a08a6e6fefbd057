//! A library of one torrent with made-up bytes.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use axum::body::{Body, Bytes, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use axum::response::Response;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::control::protocol::{AddedTorrent, Listed, Offer, Shown};
use crate::http::backend::{Backend, Films, RawFile, Refusal, Segment};
use crate::http::guard::Guard;
use crate::http::routes::{self, App};
use crate::stream::{FileName, FilmReport, FilmState, RenditionId, StreamError};
use crate::torrents::{Download, FileReport, InfoHash, State, TorrentDetail, TorrentFile, TorrentReport};

/// The info hash of the torrent.
pub(super) const HASH: &str = "0123456789abcdef0123456789abcdef01234567";

/// Its files, by their paths, and how long they are.
pub(super) const FILES: [(&str, u64); 5] = [
    ("a b/Film #1 100%.mkv", 300_000),
    ("page.html", 20),
    ("empty.txt", 0),
    ("dead.mp4", 1 << 40),
    ("long.mp4", 1 << 30),
];

/// Any byte of any file.
pub(super) fn byte(offset: u64) -> u8 {
    (offset % 251) as u8
}

#[derive(Debug)]
pub(super) struct Fake {
    /// What was done, in words.
    pub(super) done: Mutex<Vec<String>>,
    /// What the next film request is answered.
    pub(super) film: Mutex<Result<Segment, StreamError>>,
    /// Files that are open now.
    pub(super) open: Arc<watch::Sender<usize>>,
    /// Peers of the torrent.
    pub(super) peers: AtomicUsize,
    /// How often the library was listed.
    pub(super) looks: AtomicUsize,
}

impl Fake {
    pub(super) fn new() -> Arc<Fake> {
        Arc::new(Fake {
            done: Mutex::default(),
            film: Mutex::new(Ok(Segment {
                bytes: Bytes::from_static(b"segment"),
                provisional: false,
            })),
            open: Arc::new(watch::Sender::new(0)),
            peers: AtomicUsize::new(0),
            looks: AtomicUsize::new(0),
        })
    }

    fn known(info_hash: InfoHash) -> Result<(), Refusal> {
        if info_hash.to_string() == HASH {
            Ok(())
        } else {
            Err(Refusal::Unknown("no such torrent".to_owned()))
        }
    }

    fn did(&self, what: String) -> String {
        self.done.lock().push(what);
        "Films".to_owned()
    }

    fn asked(&self, what: String) -> Result<Segment, StreamError> {
        self.done.lock().push(what);
        self.film.lock().clone()
    }
}

fn report() -> TorrentReport {
    TorrentReport {
        info_hash: HASH.to_owned(),
        name: "Films".to_owned(),
        state: State::Active,
        size: 1,
        bytes_here: 0,
        bytes_checked: None,
        files: FILES.len(),
        peers: 0,
        download_rate: 0,
        upload_rate: 0,
        fetched: 0,
        uploaded: 0,
        download: Download::OnDemand,
        error: None,
    }
}

impl Films for Fake {
    async fn master(&self, file: &FileName) -> Result<String, StreamError> {
        self.asked(format!("master {file}")).map(|_| "#EXTM3U\n".to_owned())
    }

    async fn media(&self, file: &FileName, rendition: RenditionId) -> Result<String, StreamError> {
        self.asked(format!("media {file} {rendition}"))
            .map(|_| "#EXTM3U\n".to_owned())
    }

    async fn init(&self, file: &FileName, rendition: RenditionId) -> Result<Bytes, StreamError> {
        self.asked(format!("init {file} {rendition}"))
            .map(|segment| segment.bytes)
    }

    async fn segment(&self, file: &FileName, rendition: RenditionId, number: u32) -> Result<Segment, StreamError> {
        self.asked(format!("segment {file} {rendition} {number}"))
    }

    fn film(&self, file: &FileName) -> Option<FilmReport> {
        (file.path == FILES[0].0).then(|| FilmReport {
            state: FilmState::Streaming,
            words: "well".to_owned(),
            duration_s: Some(60.0),
            here: Vec::new(),
            tracks: Vec::new(),
            left_out: Vec::new(),
            runs: 1,
            waiting: 0,
        })
    }
}

impl Backend for Fake {
    type File = FakeFile;

    fn list(&self) -> Vec<Listed> {
        self.looks.fetch_add(1, Relaxed);
        vec![Listed {
            report: TorrentReport {
                peers: self.peers.load(Relaxed),
                ..report()
            },
            path: Some("/mnt/Films".to_owned()),
        }]
    }

    fn show(&self, info_hash: InfoHash) -> Option<Shown> {
        Fake::known(info_hash).ok()?;
        let contents = FILES.map(|(path, size)| FileReport {
            path: format!("Films/{path}").into(),
            size,
            bytes_here: 0,
        });
        let detail = TorrentDetail {
            report: report(),
            piece_length: 1,
            piece_count: 1,
            added: 0,
            private: false,
            trackers: Vec::new(),
            contents: contents.into(),
        };
        Some(Shown { detail, path: None })
    }

    fn files(&self, info_hash: InfoHash) -> Option<Vec<TorrentFile>> {
        Fake::known(info_hash).ok()?;
        let files = FILES.map(|(path, size)| TorrentFile {
            inode: 0,
            path: path.to_owned(),
            shown: format!("Films/{path}").into(),
            size,
        });
        Some(files.into())
    }

    fn open(&self, info_hash: InfoHash, path: &str) -> Result<FakeFile, Refusal> {
        Fake::known(info_hash)?;
        let found = FILES.into_iter().find(|(own, _)| *own == path);
        let (path, size) = found.ok_or_else(|| Refusal::Unknown("no such file".to_owned()))?;
        self.open.send_modify(|open| *open += 1);
        Ok(FakeFile {
            path,
            size,
            open: self.open.clone(),
        })
    }

    async fn add(&self, source: Offer) -> Result<AddedTorrent, Refusal> {
        let what = match source {
            Offer::Text(text) if text.starts_with("magnet:") => text,
            Offer::Text(text) => return Err(Refusal::Bad(format!("`{text}` is no source"))),
            Offer::Metainfo(bytes) => format!("{} bytes", bytes.len()),
        };
        let name = self.did(format!("add {what}"));
        Ok(AddedTorrent {
            info_hash: HASH.to_owned(),
            name,
            resolved: true,
            new: true,
            path: None,
        })
    }

    async fn pause(&self, info_hash: InfoHash) -> Result<String, Refusal> {
        Fake::known(info_hash)?;
        Ok(self.did("pause".to_owned()))
    }

    async fn resume(&self, info_hash: InfoHash) -> Result<String, Refusal> {
        Fake::known(info_hash)?;
        Ok(self.did("resume".to_owned()))
    }

    async fn remove(&self, info_hash: InfoHash, delete_data: bool) -> Result<String, Refusal> {
        Fake::known(info_hash)?;
        Ok(self.did(format!("remove {delete_data}")))
    }
}

#[derive(Debug)]
pub(super) struct FakeFile {
    path: &'static str,
    size: u64,
    open: Arc<watch::Sender<usize>>,
}

impl Drop for FakeFile {
    fn drop(&mut self) {
        self.open.send_modify(|open| *open -= 1);
    }
}

impl RawFile for FakeFile {
    fn size(&self) -> u64 {
        self.size
    }

    async fn read_at(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        assert!(
            offset + length as u64 <= self.size,
            "{offset}+{length} of {}",
            self.path
        );
        // A part of the dead file is here; the end never comes, and before it is what was given up.
        match (self.path, offset) {
            ("dead.mp4", ..1_000_000) => {}
            ("dead.mp4", 1_000_000..2_000_000) => {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "no peer has it"));
            }
            ("dead.mp4", 2_000_000..) => std::future::pending().await,
            _ => {}
        }
        Ok((offset..offset + length as u64).map(byte).collect())
    }
}

/// What came of a request.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Answer {
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub(super) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(super) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }
}

/// The router behind a guard, asked without a socket.
pub(super) struct Asked {
    pub(super) fake: Arc<Fake>,
    router: axum::Router,
    guard: Guard,
}

impl Asked {
    pub(super) fn new(token: Option<&str>) -> Asked {
        let fake = Fake::new();
        Asked {
            router: routes::router(Arc::new(App::new(fake.clone()))),
            guard: Guard::new(&[], token.map(str::to_owned)),
            fake,
        }
    }

    /// The answer, with a body that may have no end.
    pub(super) async fn open(&self, method: &str, target: &str, headers: &[(&str, &str)], body: Body) -> Response {
        let mut request = Request::builder()
            .method(method)
            .uri(target)
            .header("host", "localhost:1");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let local = std::net::Ipv4Addr::LOCALHOST.into();
        routes::answer(self.router.clone(), &self.guard, local, request.body(body).unwrap()).await
    }

    pub(super) async fn ask(&self, method: &str, target: &str, headers: &[(&str, &str)], body: Body) -> Answer {
        let (parts, body) = self.open(method, target, headers, body).await.into_parts();
        Answer {
            status: parts.status,
            headers: parts.headers,
            body: to_bytes(body, usize::MAX).await.unwrap_or_default(),
        }
    }

    pub(super) async fn get(&self, target: &str, headers: &[(&str, &str)]) -> Answer {
        self.ask("GET", target, headers, Body::empty()).await
    }

    /// As the page itself does it.
    pub(super) async fn write(&self, method: &str, target: &str, content_type: &str, body: impl Into<Body>) -> Answer {
        let headers = [("sec-fetch-site", "same-origin"), ("content-type", content_type)];
        self.ask(method, target, &headers, body.into()).await
    }
}

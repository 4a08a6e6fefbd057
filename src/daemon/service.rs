//! The commands of the control socket, done by the library.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{Notify, mpsc, oneshot};

use crate::config::Config;
use crate::control::protocol::{AddedTorrent, Listed, Offer, Shown, Status};
use crate::control::server;
use crate::torrents::{AddOptions, Added, Download, Library, LibraryError, Source, TorrentReport};

/// What only the mount knows of itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct MountState {
    pub(super) waiting_reads: usize,
    pub(super) passthrough: bool,
}

/// Answered by the one who owns the mount.
pub(super) type StateRequest = oneshot::Sender<MountState>;

/// A running daemon, as its clients see it.
#[derive(Debug)]
pub(super) struct Service {
    library: Arc<Library>,
    mountpoint: PathBuf,
    data_dir: PathBuf,
    socket: PathBuf,
    started: Instant,
    http: Option<HttpPlace>,
    unmount: Arc<Notify>,
    state_requests: mpsc::Sender<StateRequest>,
}

/// Where HTTP is served.
#[derive(Clone)]
pub(super) struct HttpPlace {
    /// The address that is listened on.
    pub(super) address: SocketAddr,
    /// What a person opens, with the token where there is one: nothing that may be logged.
    pub(super) page: String,
}

impl fmt::Debug for HttpPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HttpPlace").field(&self.address).finish()
    }
}

impl Service {
    pub(super) fn new(
        library: Arc<Library>,
        mountpoint: &Path,
        config: &Config,
        http: Option<HttpPlace>,
        unmount: Arc<Notify>,
        state_requests: mpsc::Sender<StateRequest>,
    ) -> Service {
        Service {
            library,
            mountpoint: mountpoint.to_owned(),
            data_dir: config.data_dir.clone(),
            socket: config.socket.clone(),
            started: Instant::now(),
            http,
            unmount,
            state_requests,
        }
    }

    /// What is to be added of what a client sent.
    ///
    /// # Errors
    /// It is no source, or one that only the client can read.
    pub(super) fn source(&self, offer: Offer) -> Result<Source, String> {
        match offer {
            Offer::Metainfo(bytes) => Ok(Source::Bytes(bytes)),
            Offer::Text(text) => match Source::parse(&text).map_err(|error| error.to_string())? {
                // The daemon has another working directory, and maybe other rights, than who asks.
                Source::File(_) => Err(format!("`{text}` is a path: its content must be sent")),
                other => Ok(other),
            },
        }
    }

    /// What a client is told of what was added.
    pub(super) fn added(&self, added: Added) -> AddedTorrent {
        AddedTorrent {
            info_hash: added.info_hash.to_string(),
            path: added.resolved.then(|| self.path(&added.name)),
            name: added.name,
            resolved: added.resolved,
            new: added.new,
        }
    }

    fn path(&self, name: &str) -> String {
        self.mountpoint.join(name).to_string_lossy().into_owned()
    }

    fn path_of(&self, report: &TorrentReport) -> Option<String> {
        // A torrent without files is one that is not resolved, whatever else it does.
        (report.files > 0).then(|| self.path(&report.name))
    }
}

impl server::Service for Service {
    async fn add(
        &self,
        source: Offer,
        download: Option<Download>,
        peers: Vec<SocketAddr>,
        alone: bool,
    ) -> Result<AddedTorrent, String> {
        let source = self.source(source)?;
        let options = AddOptions { download, peers, alone };
        let added = self.library.add(source, options).await.map_err(words)?;
        Ok(self.added(added))
    }

    async fn resolved(&self, info_hash: &str) -> Result<(), String> {
        self.library.resolved(info_hash).await.map(|_| ()).map_err(words)
    }

    fn list(&self) -> Vec<Listed> {
        let listed = |report: TorrentReport| Listed {
            path: self.path_of(&report),
            report,
        };
        self.library.list().into_iter().map(listed).collect()
    }

    fn show(&self, torrent: &str) -> Result<Shown, String> {
        let detail = self.library.show(torrent).map_err(words)?;
        Ok(Shown {
            path: self.path_of(&detail.report),
            detail,
        })
    }

    async fn remove(&self, torrent: &str, delete_data: bool) -> Result<String, String> {
        self.library.remove(torrent, delete_data).await.map_err(words)
    }

    async fn pause(&self, torrent: &str) -> Result<String, String> {
        self.library.pause(torrent).await.map_err(words)
    }

    async fn resume(&self, torrent: &str) -> Result<String, String> {
        self.library.resume(torrent).await.map_err(words)
    }

    async fn status(&self) -> Result<Status, String> {
        let stopping = || "the daemon is stopping".to_owned();
        let (request, state) = oneshot::channel();
        self.state_requests.send(request).await.map_err(|_| stopping())?;
        let state = state.await.map_err(|_| stopping())?;
        Ok(Status {
            mountpoint: self.mountpoint.to_string_lossy().into_owned(),
            data_dir: self.data_dir.to_string_lossy().into_owned(),
            socket: self.socket.to_string_lossy().into_owned(),
            http: self.http.as_ref().map(|http| http.address.to_string()),
            page: self.http.as_ref().map(|http| http.page.clone()),
            library: self.library.report(),
            waiting_reads: state.waiting_reads,
            passthrough: state.passthrough,
            pid: std::process::id(),
            uptime_seconds: self.started.elapsed().as_secs(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        })
    }

    fn unmount(&self) {
        self.unmount.notify_one();
    }
}

fn words(error: LibraryError) -> String {
    error.to_string()
}

//! The HTTP side of a daemon: bound before the mount, served after it.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use magnetfs_mount::{Catalog, Groups, Limits};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::READ_CEILING;
use super::service::{HttpPlace, Service};
use super::source::LibrarySource;
use super::web::Web;
use crate::config::Config;
use crate::ffmpeg::{Launcher, LauncherOptions};
use crate::http::{self, HttpOptions};
use crate::stream::{StreamOptions, Streams};
use crate::text;
use crate::torrents::Library;

/// What is kept of films is looked through this often, for what has grown too old.
const TIDY_INTERVAL: Duration = Duration::from_secs(3600);

/// The HTTP side before it serves.
pub(super) struct Http {
    server: http::Server,
    token: Option<String>,
    place: HttpPlace,
}

/// The HTTP side while it serves.
pub(super) struct Serving {
    pub(super) http: JoinHandle<()>,
    pub(super) streams: Option<Arc<Streams<LibrarySource>>>,
}

impl Http {
    /// Binds the HTTP address. If nobody named one and the usual one is taken (by another mount, most likely), any free
    /// port will do: `status` tells it. `None` where HTTP is off.
    ///
    /// # Errors
    /// The address cannot be had, or the token cannot be kept.
    pub(super) async fn bind(config: &Config) -> anyhow::Result<Option<Http>> {
        let Some(address) = config.http else { return Ok(None) };
        let bind = async |address| {
            let hosts = config.http_hosts.clone();
            http::Server::bind(HttpOptions { address, hosts }).await
        };
        let server = match bind(address).await {
            Err(error) if !config.http_named && error.kind() == io::ErrorKind::AddrInUse => {
                tracing::warn!(%address, "the usual HTTP address is taken, so another port is used");
                bind(SocketAddr::new(address.ip(), 0)).await
            }
            bound => bound,
        };
        let server = server.with_context(|| format!("HTTP cannot be served at {address}: name another with --http"))?;
        let token = match &config.http_token {
            Some(token) => Some(token.0.clone()),
            None if server.is_private() => None,
            None => {
                let path = config.data_dir.join("http-token");
                let kept = http::keep_token(&path);
                Some(kept.with_context(|| format!("the token for HTTP in {} cannot be kept", text::path(&path)))?)
            }
        };
        let address = server.address();
        let root = format!(
            "http://{}/",
            SocketAddr::new(http::reachable(address.ip()), address.port())
        );
        let page = match &token {
            Some(token) => format!("{root}t/{token}/"),
            None => root,
        };
        Ok(Some(Http {
            server,
            token,
            place: HttpPlace { address, page },
        }))
    }

    /// Where it listens.
    pub(super) fn place(&self) -> HttpPlace {
        self.place.clone()
    }

    /// Serves HTTP until `stopping`. The films go on until they are stopped.
    pub(super) async fn serve(
        self,
        config: &Config,
        mountpoint: &Path,
        library: &Arc<Library>,
        service: Arc<Service>,
        stopping: CancellationToken,
    ) -> Serving {
        let source = LibrarySource {
            library: Arc::clone(library),
            mountpoint: mountpoint.to_owned(),
            limits: Limits::new(config.read_deadline, READ_CEILING.max(config.read_deadline)),
        };
        let options = StreamOptions {
            memory_limit: config.stream_memory,
            disk_limit: config.stream_disk,
            max_runs: config.stream_runs,
            read_deadline: config.read_deadline,
            ..StreamOptions::new(config.data_dir.join("streams"))
        };
        let for_films = source.clone();
        // It looks through what was kept on disk.
        let streams = tokio::task::spawn_blocking(move || {
            let launcher = Launcher::start(LauncherOptions::default())?;
            Streams::new(options, for_films, launcher)
        });
        let streams = match streams.await.map_err(io::Error::other).flatten() {
            Ok(streams) => Ok(streams),
            Err(error) => {
                tracing::error!(%error, "no films are streamed; the files are served all the same");
                Err(format!("no films are streamed, because at the start: {error}"))
            }
        };
        if let Ok(streams) = &streams {
            tokio::spawn(tidy(streams.clone(), library.groups(), stopping.clone()));
        }
        let web = Arc::new(Web {
            service,
            source,
            streams: streams.clone(),
        });
        tracing::info!(address = %self.place.address, token = self.token.is_some(), "serving HTTP");
        Serving {
            http: tokio::spawn(self.server.serve(web, self.token, stopping)),
            streams: streams.ok(),
        }
    }
}

/// Gives up the segments of films whose torrents are there no longer: at the start, and whenever what is shown changes.
async fn tidy(streams: Arc<Streams<LibrarySource>>, mut groups: watch::Receiver<Groups>, stopping: CancellationToken) {
    let changes = async {
        loop {
            streams.tidy().await;
            if let Ok(Err(_)) = timeout(TIDY_INTERVAL, groups.changed()).await {
                return;
            }
        }
    };
    stopping.run_until_cancelled(changes).await;
}

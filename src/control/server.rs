//! The daemon's end of the control socket.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::protocol::{AddedTorrent, Listed, Named, Offer, REQUEST_LIMIT, Reply, Request, Shown, Status, Until};
use crate::torrents::{Download, State};

/// Clients at a time. One that waits for a magnet link holds its connection.
const CONNECTION_LIMIT: usize = 64;

/// A client must have sent its next request by then, and have read its answer.
const IDLE_LIMIT: Duration = Duration::from_secs(30);

/// How often a client that follows a torrent hears of it.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(500);

/// A request above this is a torrent, and few of those are held in memory at a time.
const LARGE_REQUEST: usize = 1 << 20;
const LARGE_REQUESTS: usize = 2;

/// What the server asks of its owner: the commands, each done or refused in words.
pub trait Service: Send + Sync + 'static {
    /// [`Request::Add`].
    fn add(
        &self,
        source: Offer,
        download: Option<Download>,
        peers: Vec<SocketAddr>,
        alone: bool,
    ) -> impl Future<Output = Result<AddedTorrent, String>> + Send;
    /// Waits until a torrent, by info hash, shows its files; an error if it is removed before.
    fn resolved(&self, info_hash: &str) -> impl Future<Output = Result<(), String>> + Send;
    /// [`Request::List`].
    fn list(&self) -> Vec<Listed>;
    /// [`Request::Show`].
    fn show(&self, torrent: &str) -> Result<Shown, String>;
    /// [`Request::Remove`].
    fn remove(&self, torrent: &str, delete_data: bool) -> impl Future<Output = Result<String, String>> + Send;
    /// [`Request::Pause`].
    fn pause(&self, torrent: &str) -> impl Future<Output = Result<String, String>> + Send;
    /// [`Request::Resume`].
    fn resume(&self, torrent: &str) -> impl Future<Output = Result<String, String>> + Send;
    /// [`Request::Status`].
    fn status(&self) -> impl Future<Output = Result<Status, String>> + Send;
    /// [`Request::Unmount`]: begins to stop and does not wait for it.
    fn unmount(&self);
}

/// Why there is no control socket.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Someone answers on it.
    #[error("the control socket {} belongs to another magnetfs: name another with --socket", path.display())]
    Taken {
        /// The socket.
        path: PathBuf,
    },
    /// Something else has its name.
    #[error("{} is not a socket: remove it or name another with --socket", path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// Longer than the kernel takes.
    #[error("the control socket's path {} is over 107 bytes: name a shorter one with --socket", path.display())]
    TooLong {
        /// The socket.
        path: PathBuf,
    },
    /// Anything else.
    #[error("the control socket {} cannot be made: {source}", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A bound control socket. Dropping it removes the socket file and ends every connection.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    file: SocketFile,
}

#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl Server {
    /// Binds the socket, readable by this user alone. A socket file that nobody answers on is replaced.
    ///
    /// # Errors
    /// [`ServerError`].
    pub fn bind(path: &Path) -> Result<Server, ServerError> {
        let failed = |source| ServerError::Io {
            path: path.to_owned(),
            source,
        };
        // sun_path holds 108 bytes with the final zero.
        if path.as_os_str().len() > 107 {
            return Err(ServerError::TooLong { path: path.to_owned() });
        }
        match path.symlink_metadata() {
            Ok(metadata) if !metadata.file_type().is_socket() => {
                return Err(ServerError::NotASocket { path: path.to_owned() });
            }
            Ok(_) => match std::os::unix::net::UnixStream::connect(path) {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    std::fs::remove_file(path).map_err(failed)?;
                }
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(failed(error)),
                // Connected, or its queue of connections is full.
                Ok(_) | Err(_) => return Err(ServerError::Taken { path: path.to_owned() }),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        let listener = UnixListener::bind(path).map_err(failed)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
        let metadata = path.symlink_metadata().map_err(failed)?;
        let identity = (metadata.dev(), metadata.ino());
        Ok(Server {
            listener,
            file: SocketFile {
                path: path.to_owned(),
                identity,
            },
        })
    }

    /// Serves until it is dropped. From `stopping` on the socket is gone and new requests are refused, but who waits
    /// for the end of the daemon (`unmount`) keeps the connection until this is dropped.
    pub async fn serve<S: Service>(self, service: Arc<S>, stopping: CancellationToken) {
        let Server { listener, file } = self;
        let large = Arc::new(Semaphore::new(LARGE_REQUESTS));
        // Connections end with this future, because dropping a JoinSet aborts its tasks.
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stopping.cancelled() => break,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of descriptors, most likely: without a pause this would spin until some are free.
                    tracing::warn!(%error, "a control connection was not accepted");
                    tokio::time::sleep(Duration::from_millis(200)).await;
                    continue;
                }
            };
            while connections.try_join_next().is_some() {}
            let us = rustix::process::geteuid().as_raw();
            match stream.peer_cred() {
                Ok(peer) if peer.uid() == us || peer.uid() == 0 => {}
                Ok(peer) => {
                    tracing::warn!(uid = peer.uid(), "another user's control connection was refused");
                    continue;
                }
                Err(error) => {
                    tracing::warn!(%error, "a control connection of nobody was refused");
                    continue;
                }
            }
            let mut connection = Connection::new(stream, Arc::clone(&large));
            if connections.len() >= CONNECTION_LIMIT {
                let full = format!("{CONNECTION_LIMIT} clients are connected: end one that waits, or try again later");
                // One short line fits the socket's buffer, so this waits for nobody.
                drop(connection.send(&Reply::Error(full)).await);
                continue;
            }
            let (service, stopping) = (Arc::clone(&service), stopping.clone());
            connections.spawn(async move {
                if let Err(error) = connection.run(&*service, &stopping).await {
                    tracing::debug!(%error, "a control connection ended");
                }
            });
        }
        drop((listener, file));
        std::future::pending().await
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino()) == self.identity;
        if self.path.symlink_metadata().is_ok_and(ours)
            && let Err(error) = std::fs::remove_file(&self.path)
        {
            tracing::warn!(%error, path = %self.path.display(), "the control socket could not be removed");
        }
    }
}

struct Connection {
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
    large: Arc<Semaphore>,
}

impl Connection {
    fn new(stream: UnixStream, large: Arc<Semaphore>) -> Connection {
        let (reader, writer) = stream.into_split();
        Connection {
            reader: BufReader::with_capacity(64 << 10, reader),
            writer,
            large,
        }
    }

    async fn run<S: Service>(&mut self, service: &S, stopping: &CancellationToken) -> io::Result<()> {
        loop {
            let read = timeout(IDLE_LIMIT, read_line(&mut self.reader, &self.large)).await?;
            let (line, permit) = match read {
                Ok(Some(read)) => read,
                Ok(None) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::FileTooLarge => {
                    return self
                        .send(&Reply::Error(format!("a request may have {REQUEST_LIMIT} bytes")))
                        .await;
                }
                Err(error) => return Err(error),
            };
            let request = serde_json::from_slice(&line);
            drop(line);
            match request {
                Ok(_) if stopping.is_cancelled() => {
                    self.send(&Reply::Error("the mount is being unmounted".to_owned()))
                        .await?;
                }
                Ok(request) => self.answer(service, request).await?,
                Err(error) => self.send(&Reply::Error(format!("not a request: {error}"))).await?,
            }
            drop(permit);
        }
    }

    async fn answer<S: Service>(&mut self, service: &S, request: Request) -> io::Result<()> {
        let named = |result: Result<String, String>| reply(result.map(|name| Named { name }));
        let reply = match request {
            Request::Add {
                source,
                download,
                peers,
                alone,
            } => reply(service.add(source, download, peers, alone).await),
            Request::List => reply(Ok(service.list())),
            Request::Show { torrent } => reply(service.show(&torrent)),
            Request::Remove { torrent, delete_data } => named(service.remove(&torrent, delete_data).await),
            Request::Pause { torrent } => named(service.pause(&torrent).await),
            Request::Resume { torrent } => named(service.resume(&torrent).await),
            Request::Status => reply(service.status().await),
            Request::Follow { torrent, until } => return self.follow(service, &torrent, until).await,
            Request::Unmount => {
                self.send(&Reply::Done(serde_json::Value::Null)).await?;
                service.unmount();
                // The client waits for the end of the connection, which comes with the end of the process.
                std::future::pending().await
            }
        };
        self.send(&reply).await
    }

    async fn follow<S: Service>(&mut self, service: &S, torrent: &str, until: Until) -> io::Result<()> {
        let info_hash = match service.show(torrent) {
            Ok(shown) => shown.detail.report.info_hash,
            Err(error) => return self.send(&Reply::Error(error)).await,
        };
        let mut ticks = interval(PROGRESS_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut resolved = std::pin::pin!(service.resolved(&info_hash));
        let mut known_resolved = false;
        loop {
            // Whoever pipelines a request while it waits is not watched for hanging up.
            let pipelined = !self.reader.buffer().is_empty();
            tokio::select! {
                result = &mut resolved, if !known_resolved => match result {
                    Ok(()) => known_resolved = true,
                    Err(error) => return self.send(&Reply::Error(error)).await,
                },
                _ = ticks.tick() => {}
                read = self.reader.fill_buf(), if !pipelined => {
                    if read?.is_empty() {
                        return Ok(());
                    }
                    continue;
                }
            }
            let Some(listed) = service
                .list()
                .into_iter()
                .find(|listed| listed.report.info_hash == info_hash)
            else {
                return self.send(&Reply::Error(format!("{info_hash} was removed"))).await;
            };
            let finished = match until {
                Until::Resolved => known_resolved,
                Until::Complete => listed.report.state == State::Complete,
            };
            if let (State::Error, Some(error)) = (listed.report.state, &listed.report.error) {
                return self.send(&Reply::Error(error.clone())).await;
            }
            if finished {
                return self.send(&reply(Ok(listed))).await;
            }
            self.send(&Reply::Progress(Box::new(listed))).await?;
        }
    }

    async fn send(&mut self, reply: &Reply) -> io::Result<()> {
        let mut line = serde_json::to_vec(reply)?;
        line.push(b'\n');
        timeout(IDLE_LIMIT, self.writer.write_all(&line)).await?
    }
}

fn reply<T: Serialize>(result: Result<T, String>) -> Reply {
    match result.map(|value| serde_json::to_value(value)) {
        Ok(Ok(value)) => Reply::Done(value),
        Ok(Err(error)) => Reply::Error(format!("the answer cannot be written: {error}")),
        Err(error) => Reply::Error(error),
    }
}

/// One line, and the permit to hold it if it is large; `None` at the end of the connection.
async fn read_line(
    reader: &mut (impl AsyncBufRead + Unpin),
    large: &Arc<Semaphore>,
) -> io::Result<Option<(Vec<u8>, Option<OwnedSemaphorePermit>)>> {
    let mut line = Vec::new();
    let mut permit = None;
    loop {
        let part = reader.fill_buf().await?;
        if part.is_empty() {
            return if line.is_empty() {
                Ok(None)
            } else {
                Err(io::ErrorKind::UnexpectedEof.into())
            };
        }
        let end = part.iter().position(|byte| *byte == b'\n');
        let taken = end.unwrap_or(part.len());
        if line.len() + taken > REQUEST_LIMIT {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        line.extend_from_slice(&part[..taken]);
        reader.consume(taken + usize::from(end.is_some()));
        if end.is_some() {
            return Ok(Some((line, permit)));
        }
        if line.len() > LARGE_REQUEST && permit.is_none() {
            permit = Some(Arc::clone(large).acquire_owned().await.map_err(io::Error::other)?);
        }
    }
}

#[cfg(test)]
mod tests;

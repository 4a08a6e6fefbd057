//! Local service discovery (BEP 14), on librqbit's: peers on the same network find each other by multicast.

use futures_util::StreamExt;
use librqbit_lsd::{LocalServiceDiscovery, LocalServiceDiscoveryOptions};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::book::Source;
use super::{DiscoveryError, Found, InfoHash};

/// Addresses handed on at once.
const BATCH: usize = 16;

/// Listens for peers on this network. Dropping it ends it.
pub struct Local {
    service: LocalServiceDiscovery,
    _running: DropGuard,
}

impl std::fmt::Debug for Local {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Local").finish_non_exhaustive()
    }
}

impl Local {
    /// Joins the multicast groups of IPv4 and IPv6 on every network interface.
    ///
    /// # Errors
    /// If there is no interface, or no socket to be had.
    pub async fn start() -> Result<Self, DiscoveryError> {
        let token = CancellationToken::new();
        let service = LocalServiceDiscovery::new(LocalServiceDiscoveryOptions {
            cancel_token: token.clone(),
            // By this a node knows its own words.
            cookie: Some(rand::random()),
            bind_device: None,
        })
        .await
        .map_err(|error| DiscoveryError::Local(format!("{error:#}")))?;
        Ok(Self {
            service,
            _running: token.drop_guard(),
        })
    }

    /// Says every five minutes that this torrent's peer is at `announce_port`, and hands on who else says so, until the
    /// search is dropped. Not for private torrents. One search a torrent at a time: the last one to be dropped takes the
    /// torrent with it.
    #[must_use]
    pub fn search(&self, info_hash: InfoHash, announce_port: Option<u16>, found: mpsc::Sender<Found>) -> Search {
        let peers = self.service.announce(librqbit_dht::Id20::new(info_hash), announce_port);
        Search {
            task: tokio::spawn(async move {
                let mut batches = std::pin::pin!(peers.ready_chunks(BATCH));
                while let Some(peers) = batches.next().await {
                    let full = found.try_send(Found {
                        source: Source::Local,
                        peers,
                    });
                    if let Err(mpsc::error::TrySendError::Closed(_)) = full {
                        return;
                    }
                }
            }),
        }
    }
}

/// A search for one torrent's peers on this network; ends when dropped.
#[derive(Debug)]
pub struct Search {
    task: JoinHandle<()>,
}

impl Drop for Search {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const TORRENT: InfoHash = *b"a torrent's info has";

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn two_on_one_machine_find_each_other() {
        let test = async {
            let (first, second) = (Local::start().await.unwrap(), Local::start().await.unwrap());
            let (sender, mut found_by_first) = mpsc::channel(4);
            let _first = first.search(TORRENT, Some(7001), sender);
            let (sender, mut found_by_second) = mpsc::channel(4);
            let _second = second.search(TORRENT, Some(7002), sender);
            for (found, port) in [(&mut found_by_first, 7002), (&mut found_by_second, 7001)] {
                let found = found.recv().await.unwrap();
                assert_eq!(found.source, Source::Local);
                assert!(found.peers.iter().all(|peer| peer.port() == port), "{found:?}");
            }
        };
        let limit = Duration::from_secs(20);
        tokio::time::timeout(limit, test).await.expect("the test is stuck");
    }
}

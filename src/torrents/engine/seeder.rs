//! A second BitTorrent client, on loopback, that offers one file or folder: what `magnetfs demo` downloads from.
//!
//! It is a client of its own: it shares nothing with the library but the process.

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use librqbit::limits::LimitsConfig;
use librqbit::{CreateTorrentOptions, ListenerMode, ListenerOptions, Session, SessionOptions};

/// A running seeder. Dropping it without [`Seeder::stop`] leaves its tasks to the end of the runtime.
#[expect(missing_debug_implementations, reason = "the session inside has none")]
pub struct Seeder {
    session: Arc<Session>,
    address: SocketAddr,
    metainfo: Vec<u8>,
    torrent: Arc<librqbit::ManagedTorrent>,
}

impl Seeder {
    /// Hashes `path` and offers it on a free loopback port, with at most `bytes_per_second` sent to all peers together.
    ///
    /// # Errors
    /// The path cannot be read, or no port is free.
    pub async fn start(path: &Path, piece_length: u32, bytes_per_second: NonZeroU32) -> anyhow::Result<Seeder> {
        let parent = path.parent().context("a path without a folder cannot be seeded")?;
        let session = Session::new_with_opts(
            parent.to_owned(),
            SessionOptions {
                dht: None,
                disable_trackers: true,
                fastresume: false,
                persistence: None,
                listen: Some(ListenerOptions {
                    mode: ListenerMode::TcpOnly,
                    listen_addr: (Ipv4Addr::LOCALHOST, 0).into(),
                    enable_upnp_port_forwarding: false,
                    ipv4_only: true,
                    ..ListenerOptions::default()
                }),
                ratelimits: LimitsConfig {
                    upload_bps: Some(bytes_per_second),
                    download_bps: None,
                },
                disable_local_service_discovery: true,
                ipv4_only: true,
                ..SessionOptions::default()
            },
        )
        .await
        .context("the demo's seeder does not start")?;
        let options = CreateTorrentOptions {
            name: None,
            trackers: Vec::new(),
            piece_length: Some(piece_length),
        };
        let (created, torrent) = session
            .create_and_serve_torrent(path, options)
            .await
            .map_err(|error| anyhow::anyhow!("{} cannot be seeded: {error:#}", path.display()))?;
        torrent
            .wait_until_completed()
            .await
            .context("the seeder does not find its own file")?;
        let address = session.listen_addr().context("the seeder has no port")?;
        Ok(Seeder {
            address: (Ipv4Addr::LOCALHOST, address.port()).into(),
            metainfo: created.as_bytes()?.to_vec(),
            session,
            torrent,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The .torrent file of what it offers.
    pub fn metainfo(&self) -> &[u8] {
        &self.metainfo
    }

    /// Bytes of blocks sent so far.
    pub fn uploaded(&self) -> u64 {
        self.torrent.stats().uploaded_bytes
    }

    /// Ends it; about a second.
    pub async fn stop(self) {
        self.session.stop().await;
    }
}

//! A second BitTorrent client, on loopback, that offers one file: what `magnetfs demo` downloads from.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use bytes::Bytes;
use sha1::{Digest, Sha1};
use tempfile::TempDir;

use super::adapter::Engine;
use crate::swarm::engine::EngineOptions;
use crate::swarm::shape::Shape;
use crate::swarm::torrent::{Torrent, TorrentOptions};
use crate::swarm::{Finished, Storage};

/// A running seeder. Dropping it hangs up.
#[derive(Debug)]
pub struct Seeder {
    engine: Engine,
    torrent: Torrent,
    address: SocketAddr,
    metainfo: Vec<u8>,
    _state: TempDir,
}

/// One file, all of which is there.
struct WholeFile {
    file: File,
    shape: Shape,
    info: Bytes,
}

impl Storage for WholeFile {
    fn has(&self, _: u32) -> bool {
        true
    }

    fn storing(&self) -> bool {
        false
    }

    fn finish(&self, _: u32, _: &[u8]) -> Finished {
        Finished::Failed
    }

    fn read(&self, piece: u32, begin: u32, length: u32) -> io::Result<Bytes> {
        let mut bytes = vec![0; length as usize];
        let offset = u64::from(piece) * u64::from(self.shape.piece_length()) + u64::from(begin);
        self.file.read_exact_at(&mut bytes, offset)?;
        Ok(bytes.into())
    }

    fn info(&self) -> io::Result<Bytes> {
        Ok(self.info.clone())
    }
}

impl Seeder {
    /// Hashes the file at `path` and offers it on a free loopback port, with at most `bytes_per_second` sent to all peers
    /// together.
    ///
    /// # Errors
    /// The file cannot be read, or no port is free.
    pub async fn start(path: &Path, piece_length: u32, bytes_per_second: NonZeroU32) -> anyhow::Result<Seeder> {
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .context("the file's name is not UTF-8")?;
        let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        let total = file.metadata()?.len();
        let shape = Shape::new(piece_length, total)?;
        let (info, file) = tokio::task::spawn_blocking({
            let name = name.to_owned();
            move || info(&file, &name, shape).map(|info| (info, file))
        })
        .await?
        .with_context(|| format!("cannot read {}", path.display()))?;
        let state = tempfile::tempdir().context("no temporary folder")?;
        let engine = Engine::start(EngineOptions {
            listen: Some((Ipv4Addr::LOCALHOST, 0).into()),
            dht: false,
            lsd: false,
            upnp: false,
            trackers: false,
            upload_limit: Some(bytes_per_second.into()),
            download_limit: None,
            state_dir: state.path().to_owned(),
        })
        .await?;
        let port = engine.listen_port().context("the seeder has no port")?;
        let metainfo = [b"d4:info", &*info, b"e"].concat();
        let info = Bytes::from(info);
        let torrent = engine.swarm.enter(TorrentOptions {
            info_hash: Sha1::digest(&info).into(),
            shape,
            storage: Arc::new(WholeFile { file, shape, info }),
            private: true,
            peers: Vec::new(),
            remembered: Vec::new(),
            trackers: Vec::new(),
            whole: false,
        });
        Ok(Seeder {
            engine,
            torrent,
            address: (Ipv4Addr::LOCALHOST, port).into(),
            metainfo,
            _state: state,
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

    /// Bytes of blocks sent so far; at most a second old.
    pub fn uploaded(&self) -> u64 {
        self.torrent.status().uploaded()
    }

    /// Hangs up on everyone.
    pub async fn stop(self) {
        self.torrent.leave().await;
        self.engine.stop().await;
    }
}

/// The info dictionary of a torrent of one file; BEP 3.
fn info(file: &File, name: &str, shape: Shape) -> io::Result<Vec<u8>> {
    let mut hashes = Vec::with_capacity(shape.piece_count() as usize * 20);
    let mut offset = 0;
    for piece in 0..shape.piece_count() {
        let mut bytes = vec![0; shape.piece_size(piece) as usize];
        file.read_exact_at(&mut bytes, offset)?;
        offset += bytes.len() as u64;
        hashes.extend_from_slice(&Sha1::digest(&bytes));
    }
    let (total, length) = (shape.total(), shape.piece_length());
    let head = format!(
        "d6:lengthi{total}e4:name{}:{name}12:piece lengthi{length}e6:pieces{}:",
        name.len(),
        hashes.len()
    );
    Ok([head.as_bytes(), &hashes, b"e"].concat())
}

//! Other clients on loopback, each with a directory and a torrent of its own. Dropping one kills it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use librqbit::{
    AddTorrent, AddTorrentOptions, ConnectionOptions, ListenerMode, ListenerOptions, Session, SessionOptions,
};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdout, Command};

use super::support::{NAME, Torrent};

/// Whether the client begins with everything or with nothing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Role {
    Seed,
    Leech,
}

/// A client that runs.
#[derive(Debug)]
pub(super) struct Client {
    /// Where it listens.
    pub(super) address: SocketAddr,
    directory: TempDir,
    _process: Option<Child>,
    lines: Option<Lines<BufReader<ChildStdout>>>,
    _session: Option<Kept>,
}

/// A librqbit session that lives as long as this.
struct Kept(#[expect(dead_code, reason = "held, not read")] Arc<Session>);

impl std::fmt::Debug for Kept {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Kept")
    }
}

fn free_address() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .unwrap()
        .local_addr()
        .unwrap()
}

fn directory(torrent: &Torrent, role: Role) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("film.torrent");
    std::fs::write(&file, &torrent.file).unwrap();
    std::fs::create_dir(directory.path().join("data")).unwrap();
    if role == Role::Seed {
        std::fs::write(directory.path().join("data").join(NAME), &torrent.data).unwrap();
    }
    (directory, file)
}

fn data(directory: &TempDir) -> PathBuf {
    directory.path().join("data")
}

/// Waits for a port to be listened on.
async fn listens(address: SocketAddr) {
    while TcpStream::connect(address).await.is_err() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

impl Client {
    /// What it has downloaded so far.
    pub(super) fn file(&self) -> io::Result<Vec<u8>> {
        std::fs::read(data(&self.directory).join(NAME))
    }

    fn of_process(address: SocketAddr, directory: TempDir, process: Child) -> Self {
        Self {
            address,
            directory,
            _process: Some(process),
            lines: None,
            _session: None,
        }
    }

    /// libtorrent; it connects to `peers` by itself.
    pub(super) async fn libtorrent(torrent: &Torrent, role: Role, peers: &[SocketAddr]) -> Self {
        let (directory, file) = directory(torrent, role);
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/swarm/peer/tests/torrent_client.py");
        let mut process = Command::new("/usr/bin/python3")
            .arg(script)
            .arg(file)
            .arg(data(&directory))
            .arg(if role == Role::Seed { "seed" } else { "leech" })
            .args(peers.iter().map(|peer| peer.port().to_string()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("python3 with libtorrent");
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let port: u16 = lines.next_line().await.unwrap().expect("its port").parse().unwrap();
        let address = (Ipv4Addr::LOCALHOST, port).into();
        Self {
            lines: Some(lines),
            ..Self::of_process(address, directory, process)
        }
    }

    /// Waits until libtorrent says that it has everything.
    pub(super) async fn done(&mut self) {
        let line = self.lines.as_mut().unwrap().next_line().await.unwrap();
        assert_eq!(line.as_deref(), Some("done"));
    }

    /// aria2c.
    pub(super) async fn aria2(torrent: &Torrent, role: Role) -> Self {
        let (directory, file) = directory(torrent, role);
        let address = free_address();
        let process = Command::new("aria2c")
            .args([
                "--no-conf",
                "--enable-dht=false",
                "--enable-dht6=false",
                "--bt-enable-lpd=false",
            ])
            .args([
                "--enable-peer-exchange=false",
                "--seed-ratio=0.0",
                "--check-integrity=true",
                "--disable-ipv6=true",
            ])
            .args([
                "--file-allocation=none",
                "--summary-interval=0",
                "--quiet=true",
                "--bt-max-peers=10",
            ])
            .arg(format!("--listen-port={}", address.port()))
            .arg("--dir")
            .arg(data(&directory))
            .arg(file)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("aria2c");
        listens(address).await;
        Self::of_process(address, directory, process)
    }

    /// transmission-daemon.
    pub(super) async fn transmission(torrent: &Torrent, role: Role) -> Self {
        let (directory, file) = directory(torrent, role);
        let (address, control) = (free_address(), free_address());
        let settings = serde_json::json!({
            "bind-address-ipv4": "127.0.0.1", "peer-port": address.port(), "peer-port-random-on-start": false,
            "dht-enabled": false, "lpd-enabled": false, "pex-enabled": false, "utp-enabled": false,
            "port-forwarding-enabled": false, "blocklist-enabled": false, "encryption": 0,
            "rpc-enabled": true, "rpc-port": control.port(), "rpc-bind-address": "127.0.0.1",
            "rpc-authentication-required": false, "rpc-whitelist-enabled": false, "rpc-host-whitelist-enabled": false,
            "speed-limit-up-enabled": false, "ratio-limit-enabled": false, "idle-seeding-limit-enabled": false,
            "download-queue-enabled": false, "seed-queue-enabled": false, "start-added-torrents": true,
            "incomplete-dir-enabled": false, "rename-partial-files": false, "watch-dir-enabled": false,
        });
        let configuration = directory.path().join("configuration");
        std::fs::create_dir(&configuration).unwrap();
        std::fs::write(configuration.join("settings.json"), settings.to_string()).unwrap();
        let process = Command::new("transmission-daemon")
            .arg("--foreground")
            .arg("--config-dir")
            .arg(&configuration)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("transmission-daemon");
        listens(control).await;
        let add = serde_json::json!({
            "method": "torrent-add", "arguments": { "filename": file, "download-dir": data(&directory) },
        });
        let refused = post(control, "", &add.to_string()).await;
        let header = "X-Transmission-Session-Id: ";
        let token = refused
            .lines()
            .find_map(|line| line.strip_prefix(header))
            .expect("a token")
            .trim()
            .to_owned();
        assert!(post(control, &token, &add.to_string()).await.contains("\"success\""));
        // What it has is verified before it takes peers.
        let ask = serde_json::json!({ "method": "torrent-get", "arguments": { "fields": ["status"] } }).to_string();
        let status = if role == Role::Seed {
            "\"status\":6"
        } else {
            "\"status\":4"
        };
        while !post(control, &token, &ask).await.contains(status) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        listens(address).await;
        Self::of_process(address, directory, process)
    }

    /// A librqbit session in this process; it connects to `peers` by itself.
    pub(super) async fn librqbit(torrent: &Torrent, role: Role, peers: &[SocketAddr]) -> Self {
        let (directory, _) = directory(torrent, role);
        let address = free_address();
        let options = SessionOptions {
            dht: None,
            disable_trackers: true,
            fastresume: false,
            persistence: None,
            listen: Some(ListenerOptions {
                mode: ListenerMode::TcpOnly,
                listen_addr: address,
                enable_upnp_port_forwarding: false,
                ..ListenerOptions::default()
            }),
            connect: Some(ConnectionOptions::default()),
            runtime_worker_threads: Some(16),
            disable_local_service_discovery: true,
            ..SessionOptions::default()
        };
        let session = Session::new_with_opts(directory.path().join("state"), options)
            .await
            .unwrap();
        let add = AddTorrentOptions {
            overwrite: true,
            output_folder: Some(data(&directory).to_string_lossy().into_owned()),
            initial_peers: (!peers.is_empty()).then(|| peers.to_vec()),
            ..AddTorrentOptions::default()
        };
        let added = session
            .add_torrent(AddTorrent::from_bytes(torrent.file.clone()), Some(add))
            .await
            .unwrap();
        let handle = added.into_handle().unwrap();
        match role {
            Role::Seed => handle.wait_until_completed().await.unwrap(),
            Role::Leech => handle.wait_until_initialized().await.unwrap(),
        }
        Self {
            address,
            directory,
            _process: None,
            lines: None,
            _session: Some(Kept(session)),
        }
    }
}

async fn post(address: SocketAddr, token: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!(
        "POST /transmission/rpc HTTP/1.0\r\nHost: {address}\r\nX-Transmission-Session-Id: {token}\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

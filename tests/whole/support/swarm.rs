//! Seeders on loopback: libtorrent, transmission-daemon and a librqbit session.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use librqbit::{
    AddTorrent, AddTorrentOptions, ConnectionOptions, ListenerMode, ListenerOptions, Session, SessionOptions,
    limits::LimitsConfig,
};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::limit::{Held, Registration, kill};
use super::torrents::{Torrent, script};
use super::{Work, eventually};

const READY_LIMIT: Duration = Duration::from_secs(30);

/// A port of loopback that nothing listened on a moment ago.
pub(crate) fn free_address() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("its address")
}

/// How libtorrent is to seed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seeding {
    /// Where to listen, on any free port when the port is 0; on 127.0.0.1 when `None`.
    pub(crate) address: Option<SocketAddr>,
    /// Payload bytes a second; 0 for no limit.
    pub(crate) upload_limit: u64,
    /// A directory for a damaged copy, to be seeded in place of the source.
    pub(crate) corrupt: Option<PathBuf>,
}

/// A libtorrent client that seeds torrents. Dropping it is the sudden death of a peer.
#[derive(Debug)]
pub(crate) struct Libtorrent {
    child: Child,
    /// Held open: its end is the end of the seeder.
    input: Mutex<ChildStdin>,
    answers: Mutex<mpsc::Receiver<Value>>,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    _registration: Registration,
}

impl Libtorrent {
    /// Seeds without limit on a free port.
    pub(crate) fn seed(torrents: &[&Torrent]) -> Self {
        Self::seed_with(torrents, &Seeding::default())
    }

    /// Seeds, and waits until peers can come.
    pub(crate) fn seed_with(torrents: &[&Torrent], seeding: &Seeding) -> Self {
        let mut command = Command::new("/usr/bin/python3");
        command
            .arg(script("seeder.py"))
            .arg("--limit")
            .arg(seeding.upload_limit.to_string());
        let wanted = seeding.address.unwrap_or(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        command.arg("--listen").arg(wanted.to_string());
        if let Some(directory) = &seeding.corrupt {
            command.arg("--corrupt").arg(directory);
        }
        for torrent in torrents {
            command.arg(&torrent.path).arg(&torrent.directory);
        }
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 with libtorrent; `make test` installs it");
        let registration = Registration::of(Held::Process(child.id()));
        let input = child.stdin.take().expect("its input");
        let output = child.stdout.take().expect("its output");
        let (sender, answers) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let _ = sender.send(serde_json::from_str::<Value>(&line).expect("a line of JSON from the seeder"));
            }
        });
        let ready = answers.recv_timeout(READY_LIMIT).expect("the seeder is ready");
        let port = ready["port"]
            .as_u64()
            .and_then(|port| u16::try_from(port).ok())
            .expect("its port");
        Self {
            child,
            input: Mutex::new(input),
            answers: Mutex::new(answers),
            address: SocketAddr::new(wanted.ip(), port),
            _registration: registration,
        }
    }

    /// Sends its process a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.child.id(), signal);
    }

    /// Bytes of the torrents that it has sent.
    pub(crate) fn uploaded(&self) -> u64 {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        writeln!(self.input.lock().unwrap_or_else(PoisonError::into_inner), "uploaded").expect("it takes a question");
        let answer = answers.recv_timeout(READY_LIMIT).expect("its answer");
        answer["uploaded"].as_u64().expect("a number of bytes")
    }
}

impl Drop for Libtorrent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// transmission-daemon with a configuration of its own.
#[derive(Debug)]
pub(crate) struct Transmission {
    child: Child,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    control: SocketAddr,
    _registration: Registration,
}

impl Transmission {
    /// Seeds, and waits until all is verified.
    pub(crate) fn seed(work: &Work, torrents: &[&Torrent]) -> Self {
        let transmission = Self::start(work, "transmission");
        for torrent in torrents {
            transmission.take(torrent, &torrent.directory);
        }
        transmission.whole(torrents.len());
        transmission
    }

    /// Starts without a torrent, with its configuration in a directory of this name.
    pub(crate) fn start(work: &Work, name: &str) -> Self {
        let configuration = work.directory(name);
        let (address, control) = (free_address(), free_address());
        let settings = json!({
            "bind-address-ipv4": "127.0.0.1", "peer-port": address.port(), "peer-port-random-on-start": false,
            "dht-enabled": false, "lpd-enabled": false, "pex-enabled": false, "utp-enabled": false,
            "port-forwarding-enabled": false, "blocklist-enabled": false, "encryption": 1,
            "rpc-enabled": true, "rpc-port": control.port(), "rpc-bind-address": "127.0.0.1",
            "rpc-authentication-required": false, "rpc-whitelist-enabled": false, "rpc-host-whitelist-enabled": false,
            "speed-limit-up-enabled": false, "ratio-limit-enabled": false, "idle-seeding-limit-enabled": false,
            "download-queue-enabled": false, "seed-queue-enabled": false, "start-added-torrents": true,
            "incomplete-dir-enabled": false, "rename-partial-files": false, "watch-dir-enabled": false,
        });
        std::fs::write(configuration.join("settings.json"), settings.to_string()).expect("its settings");
        let child = Command::new("transmission-daemon")
            .arg("--foreground")
            .arg("--config-dir")
            .arg(&configuration)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("transmission-daemon; `make test` installs it");
        let registration = Registration::of(Held::Process(child.id()));
        Self {
            child,
            address,
            control,
            _registration: registration,
        }
    }

    fn remote(&self) -> Remote {
        eventually("transmission answers", READY_LIMIT, || Remote::connect(self.control))
    }

    /// Adds a torrent, whose files are in `directory` as far as they are there.
    pub(crate) fn take(&self, torrent: &Torrent, directory: &Path) {
        let answer = self.remote().call(&json!({
            "method": "torrent-add",
            "arguments": { "filename": torrent.path, "download-dir": directory },
        }));
        assert_eq!(answer["result"], "success", "{}: {answer}", torrent.name);
    }

    /// Waits until it has all of so many torrents.
    pub(crate) fn whole(&self, torrents: usize) {
        let mut session = self.remote();
        let mut states = Value::Null;
        let deadline = Instant::now() + READY_LIMIT;
        while !all_seed(&states, torrents) {
            assert!(Instant::now() < deadline, "transmission has not got all: {states}");
            thread::sleep(Duration::from_millis(50));
            let mut answer = session.call(&json!({
                "method": "torrent-get", "arguments": { "fields": ["name", "percentDone", "status", "errorString"] },
            }));
            states = answer["arguments"]["torrents"].take();
        }
    }
}

/// Whether so many torrents are there, and all of them are whole.
fn all_seed(states: &Value, wanted: usize) -> bool {
    const SEEDING: u64 = 6;
    let seeds = |state: &Value| state["percentDone"].as_f64() == Some(1.0) && state["status"] == SEEDING;
    states
        .as_array()
        .is_some_and(|states| states.len() == wanted && states.iter().all(seeds))
}

impl Drop for Transmission {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// aria2c with one torrent.
#[derive(Debug)]
pub(crate) struct Aria2 {
    child: Child,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    _registration: Registration,
}

impl Aria2 {
    /// Starts with a torrent: what is missing in `directory` is fetched, and all of it seeded.
    pub(crate) fn start(torrent: &Torrent, directory: &Path, tracker: Option<&str>) -> Self {
        let address = free_address();
        let child = Command::new("aria2c")
            .args([
                "--no-conf",
                "--enable-dht=false",
                "--enable-dht6=false",
                "--bt-enable-lpd=false",
            ])
            .args([
                "--enable-peer-exchange=false",
                "--disable-ipv6=true",
                "--seed-ratio=0.0",
            ])
            .args(["--file-allocation=none", "--check-integrity=true"])
            .args(tracker.map(|url| format!("--bt-tracker={url}")))
            .args([
                "--summary-interval=0",
                "--console-log-level=notice",
                "--show-console-readout=false",
            ])
            .arg(format!("--listen-port={}", address.port()))
            .arg("--dir")
            .arg(directory)
            .arg(&torrent.path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("aria2c; `make test` installs it");
        let registration = Registration::of(Held::Process(child.id()));
        eventually("aria2 listens", READY_LIMIT, || TcpStream::connect(address).ok());
        Self {
            child,
            address,
            _registration: registration,
        }
    }
}

impl Drop for Aria2 {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The remote control of transmission: JSON over HTTP, with a token that the first answer hands out.
struct Remote {
    address: SocketAddr,
    token: String,
}

impl Remote {
    fn connect(address: SocketAddr) -> Option<Self> {
        let answer = Self::post(address, "", "{}")?;
        let header = "X-Transmission-Session-Id: ";
        let token = answer
            .lines()
            .find_map(|line| line.strip_prefix(header))?
            .trim()
            .to_owned();
        Some(Self { address, token })
    }

    fn call(&mut self, request: &Value) -> Value {
        let answer = Self::post(self.address, &self.token, &request.to_string()).expect("transmission's answer");
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        serde_json::from_str(body).unwrap_or_else(|error| panic!("not JSON: {error}\n{answer}"))
    }

    fn post(address: SocketAddr, token: &str, body: &str) -> Option<String> {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok()?;
        stream.set_read_timeout(Some(READY_LIMIT)).ok()?;
        let length = body.len();
        write!(
            stream,
            "POST /transmission/rpc HTTP/1.0\r\nHost: {address}\r\nX-Transmission-Session-Id: {token}\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        )
        .ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    }
}

/// A librqbit session in this process.
pub(crate) struct Librqbit {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    runtime: Option<tokio::runtime::Runtime>,
    _session: Arc<Session>,
}

impl Librqbit {
    /// Seeds, and waits until all is verified.
    pub(crate) fn seed(work: &Work, torrents: &[&Torrent]) -> Self {
        Self::seed_with(work, torrents, None)
    }

    /// Seeds with so many bytes a second at most, and waits until all is verified.
    pub(crate) fn seed_with(work: &Work, torrents: &[&Torrent], upload_limit: Option<u32>) -> Self {
        let (address, runtime, session) = Self::session(work, upload_limit);
        runtime.block_on(async {
            for torrent in torrents {
                let options = AddTorrentOptions {
                    overwrite: true,
                    output_folder: Some(Self::folder_of(torrent).to_string_lossy().into_owned()),
                    ..AddTorrentOptions::default()
                };
                let source = AddTorrent::from_bytes(std::fs::read(&torrent.path).expect("a .torrent file"));
                let added = session
                    .add_torrent(source, Some(options))
                    .await
                    .expect("librqbit takes the torrent");
                let handle = added.into_handle().expect("a torrent in the session");
                tokio::time::timeout(READY_LIMIT, handle.wait_until_completed())
                    .await
                    .expect("librqbit verifies in time")
                    .expect("librqbit finds all pieces");
            }
        });
        Self {
            address,
            runtime: Some(runtime),
            _session: session,
        }
    }

    /// Downloads what a magnet names from one peer, and waits until it has all.
    pub(crate) fn fetch(work: &Work, magnet: &str, peer: SocketAddr, into: &Path, limit: Duration) {
        let (address, runtime, session) = Self::session(work, None);
        runtime.block_on(async {
            let options = AddTorrentOptions {
                overwrite: true,
                output_folder: Some(into.to_string_lossy().into_owned()),
                initial_peers: Some(vec![peer]),
                ..AddTorrentOptions::default()
            };
            let fetch = async {
                let added = session
                    .add_torrent(AddTorrent::from_url(magnet), Some(options))
                    .await
                    .expect("librqbit takes the magnet");
                let handle = added.into_handle().expect("a torrent in the session");
                handle.wait_until_completed().await.expect("librqbit gets all pieces");
            };
            tokio::time::timeout(limit, fetch)
                .await
                .expect("librqbit fetches in time");
        });
        drop(Self {
            address,
            runtime: Some(runtime),
            _session: session,
        });
    }

    fn session(work: &Work, upload_limit: Option<u32>) -> (SocketAddr, tokio::runtime::Runtime, Arc<Session>) {
        let address = free_address();
        let state = work.directory("librqbit");
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime for librqbit");
        let session = runtime.block_on(async {
            Session::new_with_opts(
                state,
                SessionOptions {
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
                    ratelimits: LimitsConfig {
                        upload_bps: upload_limit.and_then(NonZeroU32::new),
                        ..LimitsConfig::default()
                    },
                    disable_local_service_discovery: true,
                    ..SessionOptions::default()
                },
            )
            .await
            .expect("a librqbit session")
        });
        (address, runtime, session)
    }

    /// librqbit's output folder is the folder of a multi-file torrent itself.
    fn folder_of(torrent: &Torrent) -> PathBuf {
        let source = torrent.source();
        if source.is_dir() {
            source
        } else {
            torrent.directory.clone()
        }
    }
}

impl Drop for Librqbit {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

//! Seeders with a line of their own each.

use std::fmt::Write;
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::{delay, namespace, python};
use crate::support::Work;
use crate::support::limit::{Held, Registration};
use crate::support::torrents::{Torrent, noise};

/// Payload in a full packet, and what tc takes the packet to be.
const PAYLOAD: u64 = 1448;
const PACKET: u64 = 1514;

/// What seeders do beside seeding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Honest,
    /// So many of them unchoke nobody.
    Choking(usize),
    /// The last one sends what is not the file.
    Garbage,
}

/// A swarm, and the pieces that are asked of it.
#[derive(Debug, Clone)]
pub(super) struct Profile {
    pub(super) name: &'static str,
    /// Bytes of a piece.
    pub(super) piece: u64,
    /// Payload bytes a second, of each seeder.
    pub(super) rates: Vec<u64>,
    pub(super) kind: Kind,
    pub(super) round_trip: Duration,
}

impl Profile {
    /// Payload bytes a second of all who serve.
    pub(super) fn line(&self) -> u64 {
        let serving = match self.kind {
            Kind::Honest => self.rates.len(),
            Kind::Choking(count) => self.rates.len() - count,
            Kind::Garbage => self.rates.len() - 1,
        };
        self.rates[..serving].iter().sum()
    }

    /// The least time in which a piece can come.
    pub(super) fn limit_s(&self) -> f64 {
        self.piece as f64 / self.line() as f64 + self.round_trip.as_secs_f64()
    }
}

/// Running seeders. Dropping it kills them.
pub(super) struct Swarm {
    child: Child,
    /// Where they are reached, over their lines.
    pub(super) peers: Vec<SocketAddr>,
    _registration: Registration,
}

impl Swarm {
    pub(super) fn new(work: &Work, torrent: &Torrent, profile: &Profile) -> Self {
        shape(&profile.rates);
        let addresses: Vec<IpAddr> = (0..profile.rates.len()).map(|number| address(1, number)).collect();
        let mut command = python("seeds.py");
        let choking = match profile.kind {
            Kind::Choking(count) => count,
            Kind::Honest | Kind::Garbage => 0,
        };
        command
            .arg(choking.to_string())
            .arg(&torrent.path)
            .arg(&torrent.directory);
        for (number, address) in addresses.iter().enumerate() {
            let mut argument = address.to_string();
            if profile.kind == Kind::Garbage && number + 1 == addresses.len() {
                let directory = garbage(work, torrent);
                let _ = write!(argument, "={}", directory.display());
            }
            command.arg(argument);
        }
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 with libtorrent; `make bench` installs it");
        let registration = Registration::of(Held::Process(child.id()));
        let mut line = String::new();
        let output = child.stdout.take().expect("its output");
        BufReader::new(output).read_line(&mut line).expect("a line of it");
        let ready: Value = serde_json::from_str(&line).expect("a line of JSON from the seeders");
        let ports = ready["ports"].as_array().expect("their ports");
        let port = |value: &Value| {
            value
                .as_u64()
                .and_then(|port| u16::try_from(port).ok())
                .expect("a port")
        };
        let seeders = addresses
            .iter()
            .zip(ports)
            .map(|(ip, value)| SocketAddr::new(*ip, port(value)));
        let peers = seeders.enumerate().map(|(number, seeder)| {
            if profile.round_trip.is_zero() {
                seeder
            } else {
                delay::line(SocketAddr::new(address(2, number), 0), seeder, profile.round_trip / 2)
            }
        });
        Self {
            peers: peers.collect(),
            child,
            _registration: registration,
        }
    }
}

impl Drop for Swarm {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn address(network: u8, number: usize) -> IpAddr {
    Ipv4Addr::new(127, 0, network, u8::try_from(number + 1).expect("so few seeders")).into()
}

/// A class for what each seeder sends.
fn shape(rates: &[u64]) {
    let mut script = "tc qdisc replace dev lo root handle 1: htb".to_owned();
    for (number, rate) in rates.iter().enumerate().filter(|(_, rate)| **rate > 0) {
        let (from, class) = (address(1, number), number + 16);
        let rate = rate * PACKET / PAYLOAD;
        let _ = write!(
            script,
            "\ntc class add dev lo parent 1: classid 1:{class:x} htb rate {rate}bps burst 3028 cburst 3028\
             \ntc filter add dev lo parent 1: protocol ip prio 1 u32 match ip src {from} flowid 1:{class:x}"
        );
    }
    namespace::tc(&format!("tc qdisc del dev lo root\nset -e\n{script}"));
}

/// A file of the right name and size, and of other bytes.
fn garbage(work: &Work, torrent: &Torrent) -> std::path::PathBuf {
    let directory = work.directory("garbage");
    let path = directory.join(&torrent.name);
    let length = std::fs::metadata(torrent.source()).expect("the source").len();
    let length = usize::try_from(length).expect("a length in memory");
    std::fs::write(path, noise(77, length)).expect("a file of garbage");
    directory
}

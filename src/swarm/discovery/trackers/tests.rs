//! Announces to small trackers on loopback, the hostile ones among them. Every test ends within [`LIMIT`].

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::mpsc;

use super::*;
use crate::swarm::discovery::Found;
use crate::swarm::discovery::book::Source;

const LIMIT: Duration = Duration::from_secs(20);

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime
        .block_on(async { tokio::time::timeout(LIMIT, test).await })
        .expect("the test is stuck");
    runtime.shutdown_background();
}

fn limits() -> TrackerLimits {
    TrackerLimits {
        announce: Duration::from_secs(5),
        body: 4096,
        resend: Duration::from_millis(100),
        hedge: Duration::from_millis(200),
        at_once: 8,
    }
}

struct Torrent {
    announcer: Announcer,
    found: mpsc::Receiver<Found>,
    totals: Arc<Totals>,
}

impl Torrent {
    fn start(limits: TrackerLimits, tiers: &[&[&str]]) -> Self {
        Self::start_as(limits, tiers, false)
    }

    fn start_as(limits: TrackerLimits, tiers: &[&[&str]], private: bool) -> Self {
        let trackers = Trackers::new("magnetfs/test", limits).unwrap();
        let (sender, found) = mpsc::channel(1);
        let totals = Arc::new(Totals::default());
        totals.left.store(1000, Ordering::Relaxed);
        let tiers = tiers
            .iter()
            .map(|tier| tier.iter().map(|url| (*url).to_owned()).collect())
            .collect();
        let options = AnnouncerOptions {
            info_hash: *b"\0\xff info hash & more!",
            peer_id: *b"-MF0100-abcdefghijkl",
            port: 7001,
            private,
            tiers,
        };
        let announcer = Announcer::start(trackers, options, totals.clone(), sender);
        Self {
            announcer,
            found,
            totals,
        }
    }

    async fn peers(&mut self) -> Vec<SocketAddr> {
        let found = self.found.recv().await.unwrap();
        assert_eq!(found.source, Source::Tracker);
        found.peers
    }

    /// Waits until the tracker has failed, and says why.
    async fn failure(&self, tracker: usize) -> String {
        loop {
            if let TrackerState::Failed(why) = &self.announcer.report()[tracker].state {
                return why.clone();
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// An HTTP tracker that gives each connection to `answer` after its request, and the requests to the test.
async fn http<F: Future<Output = ()> + Send>(
    answer: impl Fn(TcpStream) -> F + Send + Copy + 'static,
) -> (String, mpsc::UnboundedReceiver<HashMap<String, String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/announce", listener.local_addr().unwrap());
    let (sender, requests) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let sender = sender.clone();
            tokio::spawn(async move {
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    request.push(stream.read_u8().await.unwrap());
                }
                let request = String::from_utf8(request).unwrap();
                let query = request.split(' ').nth(1).and_then(|path| path.split_once('?'));
                let pairs = query
                    .map_or("", |(_, query)| query)
                    .split('&')
                    .filter_map(|pair| pair.split_once('='));
                let _ = sender.send(pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect());
                answer(stream).await;
            });
        }
    });
    (url, requests)
}

async fn say(mut stream: TcpStream, status: &str, body: &[u8]) {
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", body.len());
    let _ = stream.write_all(&[head.as_bytes(), body].concat()).await;
}

const GOOD: &[u8] = b"d8:intervali1800e5:peers6:\xc0\0\x02\x01\x1a\xe115:warning message5:hello8:completei7ee";

async fn good(stream: TcpStream) {
    say(stream, "200 OK", GOOD).await;
}

fn peer() -> SocketAddr {
    "192.0.2.1:6881".parse().unwrap()
}

#[test]
fn a_torrents_life_at_an_http_tracker() {
    run(async {
        let (url, mut requests) = http(good).await;
        let mut torrent = Torrent::start(limits(), &[&[&url]]);
        assert_eq!(torrent.peers().await, [peer()]);
        let request = requests.recv().await.unwrap();
        let wanted = [
            ("info_hash", "%00%FF%20info%20hash%20%26%20more%21"),
            ("peer_id", "-MF0100-abcdefghijkl"),
            ("port", "7001"),
            ("left", "1000"),
            ("compact", "1"),
            ("numwant", "200"),
            ("event", "started"),
        ];
        for (key, value) in wanted {
            assert_eq!(request.get(key).map(String::as_str), Some(value), "{key}");
        }
        let report = &torrent.announcer.report()[0];
        assert_eq!(
            (report.state.clone(), report.peers, report.seeders),
            (TrackerState::Working, 1, Some(7))
        );
        assert_eq!(report.warning.as_deref(), Some("hello"));

        // A wish so soon after the answer is not granted; completion is told at once.
        torrent.announcer.announce_now();
        torrent.totals.left.store(0, Ordering::Relaxed);
        torrent.totals.downloaded.store(1000, Ordering::Relaxed);
        torrent.announcer.completed();
        let request = requests.recv().await.unwrap();
        assert_eq!((&request["event"][..], &request["left"][..]), ("completed", "0"));
        assert_eq!(request["downloaded"], "1000");
        torrent.peers().await;

        torrent.announcer.stop(Duration::from_secs(5)).await;
        let request = requests.recv().await.unwrap();
        assert_eq!((&request["event"][..], &request["numwant"][..]), ("stopped", "0"));
    });
}

#[test]
fn stopping_ends_in_time_when_the_tracker_does_not_answer() {
    run(async {
        let (url, mut requests) = http(async |stream| {
            // Only the first request is answered.
            static FIRST: std::sync::Once = std::sync::Once::new();
            let mut first = false;
            FIRST.call_once(|| first = true);
            if first {
                good(stream).await;
            } else {
                std::future::pending::<()>().await;
            }
        })
        .await;
        let mut torrent = Torrent::start(limits(), &[&[&url]]);
        torrent.peers().await;
        let start = Instant::now();
        torrent.announcer.stop(Duration::from_millis(300)).await;
        assert!(start.elapsed() < Duration::from_secs(2));
        requests.recv().await.unwrap();
        assert_eq!(requests.recv().await.unwrap()["event"], "stopped");
    });
}

#[test]
fn an_owner_that_does_not_take_what_is_found_does_not_hold_up_the_stop() {
    run(async {
        let (url, mut requests) = http(good).await;
        let torrent = Torrent::start(limits(), &[&[&url]]);
        let answered = async |times: &mut Vec<Instant>| loop {
            match torrent.announcer.report()[0].answered {
                Some(time) if times.last() != Some(&time) => break times.push(time),
                _ => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        };
        let mut times = Vec::new();
        answered(&mut times).await;
        // There is room for the first answer's peers only.
        torrent.announcer.completed();
        answered(&mut times).await;
        assert_eq!(requests.recv().await.unwrap()["event"], "started");
        assert_eq!(requests.recv().await.unwrap()["event"], "completed");
        let start = Instant::now();
        torrent.announcer.stop(Duration::from_secs(2)).await;
        assert!(start.elapsed() < Duration::from_secs(2));
        assert_eq!(requests.recv().await.unwrap()["event"], "stopped");
    });
}

#[test]
fn hostile_and_broken_http_trackers_fail_in_words() {
    run(async {
        let (huge, _r) = http(async |mut stream| {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nd5:peers99999999:").await;
            while stream.write_all(&[1; 4096]).await.is_ok() {}
        })
        .await;
        let (slow, _r) = http(async |mut stream| {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nd").await;
            std::future::pending::<()>().await;
        })
        .await;
        let (looping, _r) = http(async |mut stream| {
            let _ = stream
                .write_all(b"HTTP/1.1 302 Found\r\nLocation: /announce\r\nContent-Length: 0\r\n\r\n")
                .await;
        })
        .await;
        let (garbage, _r) = http(async |stream| say(stream, "200 OK", b"<html>hello</html>").await).await;
        let (refusing, _r) =
            http(async |stream| say(stream, "200 OK", b"d14:failure reason15:no such torrente").await).await;
        let (forbidding, _r) =
            http(async |stream| say(stream, "403 Forbidden", b"d14:failure reason7:passkeye").await).await;
        let (broken, _r) = http(async |stream| say(stream, "502 Bad Gateway", b"<html>").await).await;
        let (hanging_up, _r) = http(async |stream| drop(stream)).await;
        let limits = TrackerLimits {
            announce: Duration::from_millis(500),
            ..limits()
        };
        for (url, words) in [
            (&huge[..], "longer than 4096 bytes"),
            (&slow, "no answer in 0.5 s"),
            (&looping, "too many redirects"),
            (&garbage, "not a bencoded dictionary"),
            (&refusing, "refused: no such torrent"),
            (&forbidding, "refused: passkey"),
            (&broken, "HTTP 502"),
            (&hanging_up, "not reached"),
            ("http://127.0.0.1:1/announce", "not reached"),
            ("http://name.invalid/announce", "not reached"),
            ("udp://127.0.0.1:1", "not reached"),
            ("udp://name.invalid:1", "could not be looked up"),
            ("wss://127.0.0.1:1", "only http, https and udp"),
        ] {
            let torrent = Torrent::start(limits, &[&[url]]);
            let why = torrent.failure(0).await;
            assert!(why.contains(words), "{url}: {why}");
            assert!(!why.contains("info_hash"), "{why}");
        }
    });
}

#[test]
fn the_next_tier_is_asked_when_one_fails_and_beside_one_that_is_silent() {
    run(async {
        let (url, mut requests) = http(good).await;
        let (silent, mut unanswered) = http(async |_stream| std::future::pending::<()>().await).await;
        let mut torrent = Torrent::start(limits(), &[&["http://127.0.0.1:1/announce"], &[&silent], &[&url]]);
        assert_eq!(torrent.peers().await, [peer()]);
        assert_eq!(requests.recv().await.unwrap()["event"], "started");
        let states: Vec<_> = torrent
            .announcer
            .report()
            .into_iter()
            .map(|report| report.state)
            .collect();
        assert!(matches!(states[0], TrackerState::Failed(_)));
        assert_eq!(states[1..], [TrackerState::Asking, TrackerState::Working]);
        // The silent one may have taken us up: it is told as well.
        torrent.announcer.stop(Duration::from_millis(500)).await;
        assert_eq!(unanswered.recv().await.unwrap()["event"], "started");
        assert_eq!(unanswered.recv().await.unwrap()["event"], "stopped");

        // A private torrent waits until the first one has failed.
        let limits = TrackerLimits {
            announce: Duration::from_millis(700),
            ..limits()
        };
        let start = Instant::now();
        let mut torrent = Torrent::start_as(limits, &[&[&silent], &[&url]], true);
        torrent.peers().await;
        assert!(start.elapsed() >= Duration::from_millis(700));
    });
}

#[test]
fn a_list_of_peers_that_is_cut_short_gives_the_whole_ones() {
    run(async {
        let (url, _requests) = http(async |stream| {
            say(stream, "200 OK", b"d5:peers9:\xc0\0\x02\x01\x1a\xe1\x01\x02\x03e").await;
        })
        .await;
        assert_eq!(Torrent::start(limits(), &[&[&url]]).peers().await, [peer()]);
    });
}

#[test]
fn trackers_can_be_added_later() {
    run(async {
        let (url, _requests) = http(good).await;
        let mut torrent = Torrent::start(limits(), &[]);
        torrent.announcer.add(vec![vec![url]]);
        assert_eq!(torrent.peers().await, [peer()]);
        assert_eq!(torrent.announcer.report().len(), 1);
    });
}

/// What the UDP tracker of a test does with a datagram.
type Answer = fn(&mut UdpTracker, &[u8]) -> Vec<Vec<u8>>;

#[derive(Default)]
struct UdpTracker {
    connects: u64,
    announces: u32,
}

impl UdpTracker {
    fn transaction(datagram: &[u8]) -> &[u8] {
        &datagram[12..16]
    }

    fn connected(&mut self, datagram: &[u8]) -> Vec<u8> {
        assert_eq!(datagram[..8], 0x0417_2710_1980_u64.to_be_bytes());
        self.connects += 1;
        [&[0, 0, 0, 0], Self::transaction(datagram), &self.connects.to_be_bytes()].concat()
    }

    fn error(datagram: &[u8], words: &[u8]) -> Vec<u8> {
        [&[0, 0, 0, 3], Self::transaction(datagram), words].concat()
    }

    fn announced(&mut self, datagram: &[u8], peers: &[u8]) -> Vec<u8> {
        self.announces += 1;
        let numbers = [0, 0, 7, 8, 0, 0, 0, 2, 0, 0, 0, 3];
        [&[0, 0, 0, 1], Self::transaction(datagram), &numbers, peers].concat()
    }

    fn is_connect(datagram: &[u8]) -> bool {
        datagram[8..12] == [0; 4]
    }

    /// As it should be.
    fn good(&mut self, datagram: &[u8]) -> Vec<Vec<u8>> {
        if Self::is_connect(datagram) {
            vec![self.connected(datagram)]
        } else {
            assert_eq!(datagram[..8], self.connects.to_be_bytes());
            vec![self.announced(datagram, b"\xc0\0\x02\x01\x1a\xe1")]
        }
    }
}

async fn udp(host: &str, answer: Answer) -> (String, mpsc::UnboundedReceiver<Vec<u8>>) {
    let socket = UdpSocket::bind((host, 0)).await.unwrap();
    let url = format!("udp://{}", socket.local_addr().unwrap());
    let (sender, datagrams) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut tracker = UdpTracker::default();
        let mut buffer = [0; 2048];
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            let _ = sender.send(buffer[..length].to_vec());
            for reply in answer(&mut tracker, &buffer[..length]) {
                let _ = socket.send_to(&reply, from).await;
            }
        }
    });
    (url, datagrams)
}

#[test]
fn a_torrents_life_at_a_udp_tracker() {
    run(async {
        let (url, mut datagrams) = udp("127.0.0.1", UdpTracker::good).await;
        let url = format!("{url}/announce?key={}", "k".repeat(300));
        let mut torrent = Torrent::start(limits(), &[&[&url]]);
        assert_eq!(torrent.peers().await, [peer()]);
        assert_eq!(datagrams.recv().await.unwrap().len(), 16);
        let announce = datagrams.recv().await.unwrap();
        assert_eq!(&announce[16..36], b"\0\xff info hash & more!");
        assert_eq!(&announce[36..56], b"-MF0100-abcdefghijkl");
        assert_eq!(announce[64..72], 1000_u64.to_be_bytes());
        assert_eq!(announce[80..84], [0, 0, 0, 2], "started");
        assert_eq!(announce[92..96], 200_u32.to_be_bytes());
        assert_eq!(announce[96..98], 7001_u16.to_be_bytes());
        assert_eq!(&announce[98..105], b"\x02\xff/anno");
        assert_eq!(announce.len(), 98 + 2 + 255 + 2 + (14 + 300 - 255));
        torrent.announcer.stop(Duration::from_secs(5)).await;
        // The connection id still serves, so this is the very next datagram.
        let farewell = datagrams.recv().await.unwrap();
        assert_eq!(farewell[80..84], [0, 0, 0, 3], "stopped");
    });
}

#[test]
fn lost_forged_and_foreign_datagrams_do_no_harm() {
    run(async {
        let (url, mut datagrams) = udp("127.0.0.1", |tracker, datagram| {
            if UdpTracker::is_connect(datagram) {
                tracker.connects += 1;
                // The first two are lost.
                if tracker.connects < 3 {
                    return Vec::new();
                }
                let mut other = datagram.to_vec();
                other[12] ^= 1;
                let forged = tracker.connected(&other);
                let good = tracker.connected(datagram);
                return vec![Vec::new(), vec![0; 7], vec![9; 600], forged, good];
            }
            // Cut off in the middle of a peer, and said twice.
            let reply = tracker.announced(datagram, b"\xc0\0\x02\x01\x1a\xe1\xc0\0");
            vec![reply.clone(), reply]
        })
        .await;
        let mut torrent = Torrent::start(limits(), &[&[&url]]);
        assert_eq!(torrent.peers().await, [peer()]);
        for _ in 0..3 {
            assert_eq!(datagrams.recv().await.unwrap().len(), 16);
        }
        assert_eq!(datagrams.recv().await.unwrap().len(), 98);
    });
}

#[test]
fn an_outdated_connection_id_is_renewed() {
    run(async {
        let (url, mut datagrams) = udp("127.0.0.1", |tracker, datagram| {
            // It restarts after the first announce, and knows no id from before.
            let outdated = datagram[..8] == 1_u64.to_be_bytes() && tracker.announces > 0;
            if outdated {
                return vec![UdpTracker::error(datagram, b"connection id mismatch")];
            }
            tracker.good(datagram)
        })
        .await;
        let mut torrent = Torrent::start(limits(), &[&[&url]]);
        torrent.peers().await;
        torrent.announcer.completed();
        torrent.peers().await;
        let mut lengths = Vec::new();
        while let Ok(datagram) = datagrams.try_recv() {
            lengths.push(datagram.len());
        }
        assert_eq!(lengths, [16, 98, 98, 16, 98]);
    });
}

#[test]
fn udp_trackers_that_refuse_or_answer_nonsense_fail_in_words() {
    run(async {
        let (refusing, _d) = udp("127.0.0.1", |tracker, datagram| {
            if UdpTracker::is_connect(datagram) {
                return vec![tracker.connected(datagram)];
            }
            vec![UdpTracker::error(datagram, b"not registered\0")]
        })
        .await;
        let (silent, _d) = udp("127.0.0.1", |_, _| Vec::new()).await;
        let (confused, _d) = udp("127.0.0.1", |tracker, datagram| vec![tracker.announced(datagram, b"")]).await;
        let limits = TrackerLimits {
            announce: Duration::from_millis(500),
            ..limits()
        };
        for (url, words) in [
            (refusing, "refused: not registered"),
            (silent, "no answer in 0.5 s"),
            (confused, "an answer to something else"),
        ] {
            let torrent = Torrent::start(limits, &[&[&url]]);
            let why = torrent.failure(0).await;
            assert!(why.contains(words), "{url}: {why}");
        }
    });
}

#[test]
fn a_tracker_of_ipv6_tells_peers_of_ipv6() {
    run(async {
        if UdpSocket::bind("[::1]:0").await.is_err() {
            // This machine has no IPv6.
            return;
        }
        let (url, _datagrams) = udp("::1", |tracker, datagram| {
            if UdpTracker::is_connect(datagram) {
                return vec![tracker.connected(datagram)];
            }
            let peer = b"\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\x1a\xe1";
            vec![tracker.announced(datagram, peer)]
        })
        .await;
        let mut torrent = Torrent::start(limits(), &[&[&url]]);
        assert_eq!(torrent.peers().await, ["[2001:db8::1]:6881".parse().unwrap()]);
    });
}

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream as Client;

use serde_json::Value;
use tokio::sync::{Notify, watch};

use super::*;
use crate::torrents::{TorrentDetail, TorrentReport};

/// Longer than anything here takes, shorter than a hung test.
const PATIENCE: Duration = Duration::from_secs(20);

/// A library of one torrent, which is resolved when the test says so.
struct Fake {
    report: watch::Sender<Option<TorrentReport>>,
    unmounted: Notify,
    followers: watch::Sender<usize>,
}

fn report(state: State) -> TorrentReport {
    TorrentReport {
        info_hash: "ab".repeat(20),
        name: "film.mkv".into(),
        state,
        size: 1000,
        bytes_here: 10,
        bytes_checked: None,
        files: 1,
        peers: 2,
        download_rate: 0,
        upload_rate: 0,
        fetched: 0,
        uploaded: 0,
        download: Download::OnDemand,
        error: None,
    }
}

impl Fake {
    fn new(state: State) -> Arc<Fake> {
        Arc::new(Fake {
            report: watch::Sender::new(Some(report(state))),
            unmounted: Notify::new(),
            followers: watch::Sender::new(0),
        })
    }
}

impl Service for Fake {
    async fn add(
        &self,
        source: Offer,
        _: Option<Download>,
        _: Vec<SocketAddr>,
        _: bool,
    ) -> Result<AddedTorrent, String> {
        match source {
            Offer::Text(text) => Err(format!("`{text}` is not a magnet link")),
            Offer::Metainfo(bytes) => {
                let name = bytes.len().to_string();
                Ok(AddedTorrent {
                    info_hash: String::new(),
                    name,
                    resolved: true,
                    new: true,
                    path: None,
                })
            }
        }
    }

    async fn resolved(&self, _: &str) -> Result<(), String> {
        struct Following<'a>(&'a watch::Sender<usize>);
        impl Drop for Following<'_> {
            fn drop(&mut self) {
                self.0.send_modify(|count| *count -= 1);
            }
        }
        self.followers.send_modify(|count| *count += 1);
        let _following = Following(&self.followers);
        let mut report = self.report.subscribe();
        let known = report
            .wait_for(|r| r.as_ref().is_none_or(|r| r.state != State::Resolving))
            .await
            .unwrap();
        known.as_ref().map(|_| ()).ok_or_else(|| "it was removed".into())
    }

    fn list(&self) -> Vec<Listed> {
        self.report
            .borrow()
            .iter()
            .map(|report| Listed {
                report: report.clone(),
                path: None,
            })
            .collect()
    }

    fn show(&self, torrent: &str) -> Result<Shown, String> {
        let report = self
            .report
            .borrow()
            .clone()
            .filter(|r| r.info_hash.starts_with(torrent));
        let report = report.ok_or_else(|| format!("no torrent `{torrent}`"))?;
        let detail = TorrentDetail {
            report,
            piece_length: 0,
            piece_count: 0,
            added: 0,
            private: false,
            trackers: vec![],
            contents: vec![],
        };
        Ok(Shown { detail, path: None })
    }

    async fn remove(&self, torrent: &str, _: bool) -> Result<String, String> {
        Ok(torrent.to_owned())
    }

    async fn pause(&self, _: &str) -> Result<String, String> {
        Err("paused already".into())
    }

    async fn resume(&self, torrent: &str) -> Result<String, String> {
        Ok(torrent.to_owned())
    }

    async fn status(&self) -> Result<Status, String> {
        Err("no".into())
    }

    fn unmount(&self) {
        self.unmounted.notify_one();
    }
}

/// A served socket; dropping it stops the server.
struct Served {
    folder: tempfile::TempDir,
    service: Arc<Fake>,
    stopping: CancellationToken,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Served {
    fn new(state: State) -> Served {
        let folder = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let service = Fake::new(state);
        let stopping = CancellationToken::new();
        let server = {
            let _entered = runtime.enter();
            Server::bind(&folder.path().join("s")).unwrap()
        };
        runtime.spawn(server.serve(Arc::clone(&service), stopping.clone()));
        Served {
            folder,
            service,
            stopping,
            runtime: Some(runtime),
        }
    }

    fn connect(&self) -> BufReader<Client> {
        let client = Client::connect(self.folder.path().join("s")).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.set_write_timeout(Some(PATIENCE)).unwrap();
        BufReader::new(client)
    }

    fn wait<T>(&self, wait: impl Future<Output = T>) -> T {
        let runtime = self.runtime.as_ref().unwrap();
        runtime.block_on(async { timeout(PATIENCE, wait).await.expect("in time") })
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn send(client: &mut BufReader<Client>, text: &str) {
    client.get_mut().write_all(format!("{text}\n").as_bytes()).unwrap();
}

fn receive(client: &mut BufReader<Client>) -> Value {
    let mut line = String::new();
    client.read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
}

fn ask(client: &mut BufReader<Client>, text: &str) -> Value {
    send(client, text);
    receive(client)
}

#[test]
fn a_connection_carries_one_request_after_another() {
    let served = Served::new(State::Parked);
    let mut client = served.connect();
    assert_eq!(ask(&mut client, r#"{"command":"list"}"#)["done"][0]["name"], "film.mkv");
    assert_eq!(
        ask(&mut client, r#"{"command":"pause","torrent":"ab"}"#)["error"],
        "paused already"
    );
    let error = ask(&mut client, r#"{"command":"add","source":{"text":"x"}}"#);
    assert_eq!(error["error"], "`x` is not a magnet link");
    assert!(
        ask(&mut client, "nonsense")["error"]
            .as_str()
            .unwrap()
            .starts_with("not a request")
    );
    assert_eq!(
        ask(&mut client, r#"{"command":"resume","torrent":"ab"}"#)["done"]["name"],
        "ab"
    );
    let removed = ask(&mut client, r#"{"command":"remove","torrent":"ab","delete_data":true}"#);
    assert_eq!(removed["done"]["name"], "ab");
}

#[test]
fn a_large_torrent_is_taken_and_a_larger_one_refused() {
    let served = Served::new(State::Parked);
    let mut client = served.connect();
    let source = Offer::Metainfo(vec![b'x'; 5 << 20]);
    let request = Request::Add {
        source,
        download: None,
        peers: vec![],
        alone: false,
    };
    let added = ask(&mut client, &serde_json::to_string(&request).unwrap());
    assert_eq!(added["done"]["name"], (5 << 20).to_string());

    let chunk = vec![b' '; 1 << 20];
    let mut sent = 0;
    // The server hangs up in the middle, so the last writes may fail.
    while sent <= REQUEST_LIMIT && client.get_mut().write_all(&chunk).is_ok() {
        sent += chunk.len();
    }
    let mut answer = String::new();
    drop(client.read_line(&mut answer));
    assert!(answer.is_empty() || answer.contains("a request may have"), "{answer}");
    assert!(sent <= REQUEST_LIMIT + chunk.len());
    // Others are served on.
    assert!(ask(&mut served.connect(), r#"{"command":"list"}"#)["done"].is_array());
}

#[test]
fn a_follower_hears_until_it_is_resolved() {
    let served = Served::new(State::Resolving);
    let mut client = served.connect();
    let first = ask(
        &mut client,
        r#"{"command":"follow","torrent":"abab","until":"resolved"}"#,
    );
    assert_eq!(first["progress"]["state"], "resolving");
    served.service.report.send_replace(Some(report(State::Parked)));
    loop {
        let next = receive(&mut client);
        if next["progress"].is_null() {
            assert_eq!(next["done"]["state"], "parked");
            break;
        }
    }
    // The connection is still good.
    assert!(ask(&mut client, r#"{"command":"list"}"#)["done"].is_array());
}

#[test]
fn a_follower_of_what_is_removed_or_unknown_is_told() {
    let served = Served::new(State::Resolving);
    let mut client = served.connect();
    let unknown = ask(&mut client, r#"{"command":"follow","torrent":"ff","until":"resolved"}"#);
    assert_eq!(unknown["error"], "no torrent `ff`");
    ask(&mut client, r#"{"command":"follow","torrent":"ab","until":"resolved"}"#);
    served.service.report.send_replace(None);
    loop {
        let next = receive(&mut client);
        if next["progress"].is_null() {
            assert!(next["error"].as_str().unwrap().contains("removed"), "{next}");
            break;
        }
    }
}

#[test]
fn a_follower_that_hangs_up_is_forgotten() {
    let served = Served::new(State::Resolving);
    let mut followers = served.service.followers.subscribe();
    let mut client = served.connect();
    ask(&mut client, r#"{"command":"follow","torrent":"ab","until":"complete"}"#);
    served.wait(followers.wait_for(|count| *count == 1)).unwrap();
    drop(client);
    served.wait(followers.wait_for(|count| *count == 0)).unwrap();
}

#[test]
fn who_unmounts_keeps_the_connection_until_the_end() {
    let mut served = Served::new(State::Parked);
    let mut client = served.connect();
    let mut other = served.connect();
    assert!(ask(&mut other, r#"{"command":"list"}"#)["done"].is_array());
    assert_eq!(
        ask(&mut client, r#"{"command":"unmount"}"#),
        serde_json::json!({ "done": null })
    );
    served.wait(served.service.unmounted.notified());
    served.stopping.cancel();
    // Others are refused, and the socket goes.
    let refused = loop {
        let answer = ask(&mut other, r#"{"command":"list"}"#);
        if answer["done"].is_null() {
            break answer;
        }
    };
    assert_eq!(refused["error"], "the mount is being unmounted");
    client
        .get_ref()
        .set_read_timeout(Some(Duration::from_millis(50)))
        .unwrap();
    assert!(client.read(&mut [0]).is_err(), "the connection must still be open");
    client.get_ref().set_read_timeout(Some(PATIENCE)).unwrap();
    served.runtime.take().unwrap().shutdown_background();
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    assert!(!served.folder.path().join("s").exists());
}

#[test]
fn no_more_than_the_limit_of_clients() {
    let served = Served::new(State::Parked);
    let mut clients: Vec<_> = (0..CONNECTION_LIMIT).map(|_| served.connect()).collect();
    for client in &mut clients {
        assert!(ask(client, r#"{"command":"list"}"#)["done"].is_array());
    }
    assert!(
        receive(&mut served.connect())["error"]
            .as_str()
            .unwrap()
            .contains("64 clients")
    );
    clients.pop();
    // The place becomes free a moment after the client is gone.
    let began = std::time::Instant::now();
    while began.elapsed() < PATIENCE {
        let mut client = served.connect();
        // One that is refused may be hung up on before it has sent a byte.
        let sent = client.get_mut().write_all(b"{\"command\":\"list\"}\n");
        let mut line = String::new();
        let received = client.read_line(&mut line);
        if sent.is_ok() && received.is_ok() && line.contains("\"done\"") {
            return;
        }
    }
    panic!("a client that left must make room");
}

#[test]
fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let _entered = runtime.enter();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let server = Server::bind(&path).unwrap();
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert!(matches!(Server::bind(&path), Err(ServerError::Taken { .. })));
    drop(server);
    assert!(!path.exists());

    std::fs::write(&path, "precious").unwrap();
    assert!(matches!(Server::bind(&path), Err(ServerError::NotASocket { .. })));
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    let long = folder.path().join("x".repeat(120));
    assert!(matches!(Server::bind(&long), Err(ServerError::TooLong { .. })));
}

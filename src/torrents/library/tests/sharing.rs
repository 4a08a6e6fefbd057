//! Peers over restarts, what complete torrents give to others, and who gets a place in the engine.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

/// A tracker that names one peer to everyone, until it is dropped.
struct Tracker {
    url: String,
    answering: tokio::task::JoinHandle<()>,
}

impl Tracker {
    async fn start(peer: SocketAddr) -> Tracker {
        let SocketAddr::V4(peer) = peer else { panic!("{peer}") };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let url = format!("http://{}/announce", listener.local_addr().unwrap());
        let compact = [&peer.ip().octets()[..], &peer.port().to_be_bytes()].concat();
        let body = [b"d8:intervali1800e5:peers6:", &*compact, b"e"].concat();
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        let answer = [head.as_bytes(), &body].concat();
        let answering = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.read(&mut [0; 4096]).await;
                let _ = stream.write_all(&answer).await;
            }
        });
        Tracker { url, answering }
    }
}

impl Drop for Tracker {
    fn drop(&mut self) {
        self.answering.abort();
    }
}

#[test]
fn after_a_restart_the_peers_of_the_last_run_answer_although_no_tracker_does() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let (bytes, seeder) = film(&folder, "Film.mkv").await;
        let tracker = Tracker::start(seeder.address()).await;
        let hash = crate::torrents::Metainfo::parse(seeder.metainfo()).unwrap().info_hash;
        let link = format!("magnet:?xt=urn:btih:{hash}&tr={}", tracker.url);
        let asking = || {
            let mut options = options(folder.path());
            options.engine.trackers = true;
            options
        };
        let library = Library::open(asking()).await.unwrap();
        library
            .add(Source::parse(&link).unwrap(), AddOptions::default())
            .await
            .unwrap();
        library.resolved(&hash.to_string()).await.unwrap();
        assert!(read(&library, "Film.mkv", 0, 1000).await.unwrap() == bytes[..1000]);
        library.stop().await;
        drop((library, tracker));

        let library = Library::open(asking()).await.unwrap();
        let far = read(&library, "Film.mkv", 2_000_000, 1000).await.unwrap();
        assert!(far == bytes[2_000_000..2_001_000], "other bytes");
        // It dies without a word. What was written down stands all the same, nonsense or not.
        let peers = folder.path().join(format!("data/torrents/{hash}/peers.json"));
        let known = std::fs::read(&peers).unwrap();
        assert_eq!(
            serde_json::from_slice::<Vec<SocketAddr>>(&known).unwrap(),
            [seeder.address()]
        );
        library.stop().await;
        std::fs::write(&peers, b"[\"nobody").unwrap();
        drop(library);
        let library = Library::open(asking()).await.unwrap();
        assert_eq!(library.list().len(), 1, "a bad list of peers is no bad torrent");
        library.stop().await;
        seeder.stop().await;
    });
}

/// A library that has all of a film and is asked what it gives; gives where it listens.
async fn complete(folder: &TempDir, seed: Seeding) -> (Arc<Library>, Vec<u8>, Source) {
    let (bytes, seeder) = film(folder, "Film.mkv").await;
    let library = Library::open(listening(folder, seed)).await.unwrap();
    let whole = AddOptions {
        download: Some(Download::Whole),
        ..with_peer(&seeder)
    };
    library.add(metainfo(&seeder), whole).await.unwrap();
    until(|| library.list()[0].state == State::Complete).await;
    let source = metainfo(&seeder);
    seeder.stop().await;
    (library, bytes, source)
}

fn listening(folder: &TempDir, seed: Seeding) -> LibraryOptions {
    let mut options = options(folder.path());
    options.seed = seed;
    options.engine.listen = Some((Ipv4Addr::LOCALHOST, 0).into());
    options
}

/// Whether somebody who knows nobody else gets the film from it.
async fn assert_gives(giver: &Library, bytes: &[u8], source: Source) {
    let folder = tempfile::tempdir().unwrap();
    let port = giver.engine.listen_port().unwrap();
    let taker = open(&folder).await;
    let peer = AddOptions {
        peers: vec![(Ipv4Addr::LOCALHOST, port).into()],
        ..AddOptions::default()
    };
    taker.add(source, peer).await.unwrap();
    assert!(read(&taker, "Film.mkv", 2_000_000, 1000).await.unwrap() == bytes[2_000_000..2_001_000]);
    taker.stop().await;
}

#[test]
fn what_is_always_given_is_given_after_a_restart_too_and_not_while_it_is_paused() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let (library, bytes, source) = complete(&folder, Seeding::Always).await;
        library.stop().await;
        drop(library);
        let library = Library::open(listening(&folder, Seeding::Always)).await.unwrap();
        assert_gives(&library, &bytes, source.clone()).await;
        let in_engine = || library.all()[0].swarm().is_some();
        library.pause("Film.mkv").await.unwrap();
        assert!(!in_engine());
        library.resume("Film.mkv").await.unwrap();
        until(in_engine).await;
        library.stop().await;
    });
}

#[test]
fn what_is_given_while_in_use_is_not_given_after_a_restart() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let (library, bytes, source) = complete(&folder, Seeding::InUse).await;
        assert_gives(&library, &bytes, source).await;
        library.stop().await;
        drop(library);
        let library = Library::open(listening(&folder, Seeding::InUse)).await.unwrap();
        assert!(read(&library, "Film.mkv", 0, 1000).await.unwrap() == bytes[..1000]);
        assert!(library.all()[0].swarm().is_none(), "what is here needs no engine");
        library.stop().await;
    });
}

#[test]
fn what_is_never_given_leaves_the_swarm_when_it_is_complete() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let (library, ..) = complete(&folder, Seeding::Never).await;
        until(|| library.all()[0].swarm().is_none()).await;
        library.stop().await;
    });
}

#[test]
fn what_waits_for_a_place_in_the_engine_holds_up_neither_a_pause_nor_a_reader() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let (bytes, seeder) = film(&folder, "Film.mkv").await;
        let library = open(&folder).await;
        let all = library.places.available_permits() as u32;
        let taken = library.places.clone().acquire_many_owned(all).await.unwrap();
        let whole = AddOptions {
            download: Some(Download::Whole),
            ..with_peer(&seeder)
        };
        library.add(metainfo(&seeder), whole).await.unwrap();
        until(|| library.patience.try_lock().is_err()).await;
        library.pause("Film.mkv").await.unwrap();
        library.resume("Film.mkv").await.unwrap();
        let reading = {
            let library = library.clone();
            tokio::spawn(async move { read(&library, "Film.mkv", 0, 1000).await })
        };
        until(|| library.all()[0].place.try_lock().is_err()).await;
        drop(taken);
        assert!(reading.await.unwrap().unwrap() == bytes[..1000]);
        library.stop().await;
        seeder.stop().await;
    });
}

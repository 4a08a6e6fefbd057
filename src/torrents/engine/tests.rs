//! Real transfers on loopback, from and to sessions of librqbit in this process.

mod space;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use librqbit::storage::{BoxStorageFactory, StorageFactory, StorageFactoryExt, TorrentStorage};
use librqbit::{
    AddTorrent, AddTorrentOptions, ListenerOptions, ManagedTorrentShared, Session, SessionOptions, TorrentMetadata,
};
use magnetfs_mount::{Content, ReadError};
use tempfile::TempDir;
use tokio::time::timeout;

use super::*;
use crate::torrents::content::{Activate, OpenFile};
use crate::torrents::pace::Paces;
use crate::torrents::source::Magnet;
use crate::torrents::store::{Disk, Floor, FreeSpace, Store};
use crate::torrents::testing::{Made, Place, fill, make, write_piece};

const LIMIT: Duration = Duration::from_secs(20);
const MIB: usize = 1 << 20;

/// A seeder's disk: the torrent in memory, or something else instead of some pieces.
#[derive(Clone)]
struct Memory {
    made: Arc<Made>,
    lies: Arc<AtomicBool>,
}

impl StorageFactory for Memory {
    type Storage = Memory;

    fn create(&self, _: &ManagedTorrentShared, _: &TorrentMetadata) -> anyhow::Result<Memory> {
        Ok(self.clone())
    }

    fn clone_box(&self) -> BoxStorageFactory {
        self.clone().boxed()
    }
}

impl TorrentStorage for Memory {
    fn init(&mut self, _: &ManagedTorrentShared, _: &TorrentMetadata) -> anyhow::Result<()> {
        Ok(())
    }
    fn pread_exact(&self, file: usize, offset: u64, buf: &mut [u8]) -> anyhow::Result<()> {
        buf.copy_from_slice(&self.made.file(file)[offset as usize..][..buf.len()]);
        if self.lies.load(Ordering::Relaxed) {
            buf.iter_mut().for_each(|byte| *byte = !*byte);
        }
        Ok(())
    }
    fn pwrite_all(&self, _: usize, _: u64, _: &[u8]) -> anyhow::Result<()> {
        anyhow::bail!("a seeder writes nothing")
    }
    fn remove_file(&self, _: usize, _: &Path) -> anyhow::Result<()> {
        Ok(())
    }
    fn remove_directory_if_empty(&self, _: &Path) -> anyhow::Result<()> {
        Ok(())
    }
    fn ensure_file_length(&self, _: usize, _: u64) -> anyhow::Result<()> {
        Ok(())
    }
    fn take(&self) -> anyhow::Result<Box<dyn TorrentStorage>> {
        Ok(Box::new(self.clone()))
    }
}

struct Seeder {
    session: Arc<Session>,
    address: SocketAddr,
    lies: Arc<AtomicBool>,
}

impl Seeder {
    async fn start(made: &Arc<Made>, port: u16) -> Seeder {
        Seeder::limited(made, port, None).await
    }

    async fn limited(made: &Arc<Made>, port: u16, bytes_per_second: Option<u32>) -> Seeder {
        let deadline = tokio::time::Instant::now() + LIMIT;
        let session = loop {
            let options = SessionOptions {
                dht: None,
                disable_trackers: true,
                disable_local_service_discovery: true,
                ratelimits: librqbit::limits::LimitsConfig {
                    upload_bps: bytes_per_second.and_then(std::num::NonZeroU32::new),
                    download_bps: None,
                },
                listen: Some(ListenerOptions {
                    listen_addr: ([127, 0, 0, 1], port).into(),
                    ipv4_only: true,
                    ..ListenerOptions::default()
                }),
                ..SessionOptions::default()
            };
            match Session::new_with_opts("/nonexistent".into(), options).await {
                Ok(session) => break session,
                // The port of a seeder that was stopped is free a little later.
                Err(error) if tokio::time::Instant::now() > deadline => panic!("{error:#}"),
                Err(_) => tokio::task::yield_now().await,
            }
        };
        let lies = Arc::new(AtomicBool::new(false));
        let options = AddTorrentOptions {
            overwrite: true,
            storage_factory: Some(
                Memory {
                    made: made.clone(),
                    lies: lies.clone(),
                }
                .boxed(),
            ),
            ..AddTorrentOptions::default()
        };
        let added = session
            .add_torrent(AddTorrent::from_bytes(made.torrent.clone()), Some(options))
            .await
            .unwrap();
        added.into_handle().unwrap().wait_until_completed().await.unwrap();
        let address = session.listen_addr().unwrap();
        Seeder { session, address, lies }
    }

    async fn stop(self) -> u16 {
        self.session.stop().await;
        self.address.port()
    }
}

struct Bench {
    engine: Engine,
    _state: TempDir,
}

async fn engine() -> Bench {
    engine_at(Some(([127, 0, 0, 1], 0).into())).await
}

async fn engine_at(listen: Option<SocketAddr>) -> Bench {
    let state = tempfile::tempdir().unwrap();
    let options = EngineOptions {
        listen,
        dht: false,
        lsd: false,
        upnp: false,
        trackers: false,
        upload_limit: None,
        download_limit: None,
        state_dir: state.path().to_owned(),
    };
    Bench {
        engine: Engine::start(options).await.unwrap(),
        _state: state,
    }
}

impl Bench {
    async fn enter(&self, store: &Arc<Store>, peers: &[SocketAddr]) -> Arc<Swarm> {
        Arc::new(self.engine.enter(store.clone(), named(peers), false).unwrap())
    }
}

fn named(peers: &[SocketAddr]) -> Contacts {
    Contacts {
        peers: peers.to_vec(),
        ..Contacts::default()
    }
}

/// A swarm that is entered already; after it was left there is none.
struct Entered(Arc<Swarm>);

impl Activate for Entered {
    async fn activate(&self) -> Result<Arc<Swarm>, ReadError> {
        if self.0.has_left() {
            Err(ReadError::Paused)
        } else {
            Ok(self.0.clone())
        }
    }
}

fn open(store: &Arc<Store>, file: usize, swarm: &Arc<Swarm>) -> Arc<OpenFile<Entered>> {
    Arc::new(OpenFile::new(
        store.clone(),
        file,
        Paces::default().of(0),
        Entered(swarm.clone()),
    ))
}

async fn read(file: &Arc<OpenFile<Entered>>, offset: usize, length: usize) -> Result<Vec<u8>, ReadError> {
    timeout(LIMIT, file.clone().read_at(offset as u64, length))
        .await
        .expect("the read hangs")
}

async fn assert_file(made: &Made, store: &Arc<Store>, file: usize, swarm: &Arc<Swarm>) {
    let opened = open(store, file, swarm);
    let wanted = made.file(file);
    for offset in (0..wanted.len()).step_by(128 << 10) {
        let length = (wanted.len() - offset).min(128 << 10);
        let got = read(&opened, offset, length).await.unwrap();
        assert!(got == wanted[offset..offset + length], "file {file} at {offset}");
        let mut buf = vec![0; length];
        if let Some(now) = opened.read_now(&mut buf, offset as u64) {
            now.unwrap();
            assert!(buf == got);
        }
    }
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let waited = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(LIMIT, waited).await.unwrap_or_else(|_| panic!("never: {what}"));
}

fn film(name: &str, mebibytes: usize) -> Arc<Made> {
    Arc::new(make(
        name,
        256 << 10,
        &[("film", mebibytes * MIB - 1000), ("sub", 3000)],
    ))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_file_is_fetched_as_it_is_and_an_unread_torrent_is_not() {
    let files = [
        ("empty", 0),
        ("a/big", 5 * MIB + 5),
        ("a/small", 77),
        (".pad/1", MIB - 82),
        ("b/aligned", 2 * MIB),
        ("b/last", 1000),
    ];
    let made = Arc::new(make("tree", MIB, &files));
    let other = film("other", 2);
    let (seeder, other_seeder) = (Seeder::start(&made, 0).await, Seeder::start(&other, 0).await);
    let bench = engine().await;
    let (place, other_place) = (Place::new(&made), Place::new(&other));
    let (store, other_store) = (place.open(&made), other_place.open(&other));
    let unread = bench.enter(&other_store, &[other_seeder.address]).await;
    let swarm = bench.enter(&store, &[seeder.address]).await;
    until("a peer of the unread torrent", || unread.peers().known > 0).await;
    for file in [1, 2, 4, 5] {
        assert_file(&made, &store, file, &swarm).await;
    }
    assert!(swarm.fetched() >= 7 * MIB as u64);
    assert_eq!(unread.fetched(), 0);
    assert_eq!(other_store.total_here(), 0);
    bench.engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_readers_at_once_at_as_many_places() {
    let made = film("parallel", 24);
    let seeder = Seeder::start(&made, 0).await;
    let bench = engine().await;
    let place = Place::new(&made);
    let store = place.open(&made);
    let swarm = bench.enter(&store, &[seeder.address]).await;
    let mut readers = tokio::task::JoinSet::new();
    for index in (0..20).rev() {
        let (made, opened) = (made.clone(), open(&store, 0, &swarm));
        readers.spawn(async move {
            let offset = index * (MIB + 4321);
            assert!(read(&opened, offset, 100_000).await.unwrap() == made.file(0)[offset..offset + 100_000]);
        });
    }
    while let Some(ended) = readers.join_next().await {
        ended.unwrap();
    }
    swarm.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_corrupted_between_two_lives_is_fetched_again_and_the_rest_is_not() {
    let made = film("corrupted", 8);
    let seeder = Seeder::start(&made, 0).await;
    let place = Place::new(&made);
    // A clean stop, and one like a kill; in the second case the corruption comes where nothing is verified.
    for clean in [true, false] {
        let bench = engine().await;
        let store = place.open(&made);
        let swarm = bench.enter(&store, &[seeder.address]).await;
        assert_file(&made, &store, 0, &swarm).await;
        if clean {
            swarm.leave().await;
            bench.engine.stop().await;
            store.close().unwrap();
        }
        drop((swarm, bench, store));
        let mut stored = std::fs::read(place.stored(&made, 0)).unwrap();
        stored[3 * MIB..3 * MIB + 9].fill(0xaa);
        std::fs::write(place.stored(&made, 0), stored).unwrap();

        let bench = engine().await;
        let store = place.open(&made);
        let swarm = bench.enter(&store, &[seeder.address]).await;
        assert_file(&made, &store, 0, &swarm).await;
        let pieces = swarm.fetched() / (256 << 10);
        assert!(pieces >= 1, "clean {clean}: {pieces} pieces");
        swarm.leave().await;
        bench.engine.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_clean_stop_nothing_is_fetched_again() {
    let made = film("resumed", 4);
    let place = Place::new(&made);
    let store = place.open(&made);
    (0..made.metainfo.piece_count - 1).for_each(|piece| fill(&store, &made, piece));
    store.close().unwrap();
    let seeder = Seeder::start(&made, 0).await;
    let bench = engine().await;
    let store = place.open(&made);
    let swarm = bench.enter(&store, &[seeder.address]).await;
    assert_file(&made, &store, 0, &swarm).await;
    assert_file(&made, &store, 1, &swarm).await;
    assert!(swarm.fetched() <= 256 << 10, "{} bytes", swarm.fetched());
    swarm.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_corrupt_seeder_beside_a_good_one_never_gets_a_byte_through() {
    let made = film("liar", 8);
    // The good one is slow, so that much is asked of the other.
    let good = Seeder::limited(&made, 0, Some(2 << 20)).await;
    let bad = Seeder::start(&made, 0).await;
    bad.lies.store(true, Ordering::Relaxed);
    let bench = engine().await;
    let place = Place::new(&made);
    let store = place.open(&made);
    let swarm = bench.enter(&store, &[bad.address, good.address]).await;
    assert_file(&made, &store, 0, &swarm).await;
    let sent = bad.session.stats_snapshot().counters.uploaded_bytes;
    assert!(
        sent > 0 && swarm.fetched() > store.total_here(),
        "the bad one was never asked"
    );
    swarm.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seeder_that_dies_in_the_middle_of_a_read_and_returns_answers_it() {
    let made = film("returns", 8);
    let seeder = Seeder::limited(&made, 0, Some(512 << 10)).await;
    let bench = engine().await;
    let place = Place::new(&made);
    let store = place.open(&made);
    let swarm = bench.enter(&store, &[seeder.address]).await;
    let reading = tokio::spawn({
        let opened = open(&store, 0, &swarm);
        async move { opened.read_at(0, 4 * MIB).await }
    });
    until("the first pieces", || store.total_here() > 0).await;
    let port = seeder.stop().await;
    until("the peer is gone", || swarm.peers().live == 0).await;
    assert!(!reading.is_finished());
    let _seeder = Seeder::start(&made, port).await;
    let read = timeout(LIMIT, reading).await.unwrap().unwrap().unwrap();
    assert!(read == made.file(0)[..4 * MIB]);
    assert!(swarm.fetched() >= 4 * MIB as u64, "what was fetched before counts");
    swarm.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_of_ipv6_gives_and_padding_is_not_asked_of_the_disk() {
    let files = [("a", 300_000), (".pad/1", 224_288), ("b", 700_000)];
    let made = Arc::new(make("padded", 256 << 10, &files));
    let given = Place::new(&made);
    let store = given.open(&made);
    (0..made.metainfo.piece_count).for_each(|piece| fill(&store, &made, piece));
    let giver = engine_at(Some((std::net::Ipv6Addr::LOCALHOST, 0).into())).await;
    let giving = giver.enter(&store, &[]).await;
    let port = giver.engine.listen_port().unwrap();

    let taker = engine().await;
    let place = Place::new(&made);
    let taken = place.open(&made);
    let swarm = taker
        .enter(&taken, &[(std::net::Ipv6Addr::LOCALHOST, port).into()])
        .await;
    for file in [0, 2] {
        assert_file(&made, &taken, file, &swarm).await;
    }
    assert!(taken.is_complete());
    assert!(!place.stored(&made, 1).exists(), "padding is not stored");
    swarm.leave().await;
    giving.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_piece_that_turns_out_bad_when_it_is_read_is_fetched() {
    let made = film("rotten", 4);
    let place = Place::new(&made);
    let store = place.open(&made);
    (0..made.metainfo.piece_count).for_each(|piece| fill(&store, &made, piece));
    drop(store);
    let rotten = std::fs::File::options()
        .write(true)
        .open(place.stored(&made, 0))
        .unwrap();
    std::os::unix::fs::FileExt::write_all_at(&rotten, b"rotten", 2 << 20).unwrap();
    let seeder = Seeder::start(&made, 0).await;
    let bench = engine().await;
    // The swarm is entered while nobody knows which of the pieces are good.
    let store = place.open(&made);
    let swarm = bench.enter(&store, &[seeder.address]).await;
    assert_file(&made, &store, 0, &swarm).await;
    assert!(swarm.fetched() >= 256 << 10);
    swarm.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_readers_of_a_dead_torrent_leave_nothing_behind_and_hold_nobody_up() {
    let (dead, healthy) = (film("dead", 64), film("healthy", 4));
    let seeder = Seeder::start(&healthy, 0).await;
    let bench = engine().await;
    let (dead_place, place) = (Place::new(&dead), Place::new(&healthy));
    let (dead_store, store) = (dead_place.open(&dead), place.open(&healthy));
    let dead_swarm = bench.enter(&dead_store, &[]).await;
    let mut readers = tokio::task::JoinSet::new();
    for index in 0..200 {
        let opened = open(&dead_store, 0, &dead_swarm);
        readers.spawn(async move { opened.read_at(index * 300_000, 4096).await });
    }
    let swarm = bench.enter(&store, &[seeder.address]).await;
    until("all wait", || dead_swarm.waiting() == 200).await;
    assert_file(&healthy, &store, 0, &swarm).await;
    readers.shutdown().await;
    until("all demands are withdrawn", || dead_swarm.waiting() == 0).await;
    dead_swarm.leave().await;
    swarm.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_waits_no_longer_than_its_swarm_lives() {
    let made = film("left", 2);
    let bench = engine().await;
    let place = Place::new(&made);
    let store = place.open(&made);
    let swarm = bench.enter(&store, &[]).await;
    let reading = tokio::spawn({
        let opened = open(&store, 0, &swarm);
        async move { opened.read_at(0, 10).await }
    });
    until("it waits", || swarm.waiting() == 1).await;
    swarm.leave().await;
    assert!(matches!(
        timeout(LIMIT, reading).await.unwrap().unwrap(),
        Err(ReadError::Paused)
    ));
    // And it can come again.
    let seeder = Seeder::start(&made, 0).await;
    let swarm = bench.enter(&store, &[seeder.address]).await;
    assert_file(&made, &store, 0, &swarm).await;
    drop(swarm);
    let swarm = bench.enter(&store, &[seeder.address]).await;
    swarm.leave().await;
    swarm.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_swarm_fetches_all_of_a_torrent_that_is_wanted_whole() {
    let made = film("whole", 4);
    let seeder = Seeder::start(&made, 0).await;
    let bench = engine().await;
    let place = Place::new(&made);
    let store = place.open(&made);
    let swarm = bench
        .engine
        .enter(store.clone(), named(&[seeder.address]), true)
        .unwrap();
    timeout(LIMIT, store.wait_for(0..made.metainfo.piece_count))
        .await
        .unwrap();
    assert_eq!(store.total_here(), made.metainfo.total);
    swarm.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_magnet_is_resolved_also_by_a_peer_that_comes_later() {
    let made = film("magnet", 1);
    let seeder = Seeder::start(&made, 0).await;
    let bench = engine().await;
    let magnet = Magnet {
        info_hash: made.metainfo.info_hash,
        name: None,
        trackers: Vec::new(),
        peers: Vec::new(),
    };
    let resolved = timeout(LIMIT, bench.engine.resolve(&magnet, &[seeder.address]))
        .await
        .unwrap()
        .unwrap();
    assert!(matches!(
        bench.engine.resolve(&magnet, &[]).await,
        Err(EngineError::NoSources)
    ));
    assert_eq!(
        crate::torrents::Metainfo::parse(&resolved).unwrap().files,
        made.metainfo.files
    );

    let port = seeder.stop().await;
    let engine = Arc::new(bench);
    let attempts = AtomicUsize::new(0);
    let resolving = tokio::spawn({
        let (engine, address) = (engine.clone(), SocketAddr::from(([127, 0, 0, 1], port)));
        async move { engine.engine.resolve(&magnet, &[address]).await }
    });
    until("one attempt failed", || attempts.fetch_add(1, Ordering::Relaxed) > 20).await;
    assert!(!resolving.is_finished());
    let _seeder = Seeder::start(&made, port).await;
    timeout(LIMIT, resolving).await.unwrap().unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_address_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let state = tempfile::tempdir().unwrap();
    let address = taken.local_addr().unwrap();
    let options = EngineOptions {
        listen: Some(address),
        dht: false,
        lsd: false,
        upnp: false,
        trackers: false,
        upload_limit: None,
        download_limit: None,
        state_dir: state.path().to_owned(),
    };
    let error = Engine::start(options).await.unwrap_err().to_string();
    assert!(
        error.contains(&address.to_string()) && error.contains("--listen"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_stored_after_the_torrent_left() {
    let made = film("stopped", 8);
    let seeder = Seeder::limited(&made, 0, Some(1 << 20)).await;
    let bench = engine().await;
    let place = Place::new(&made);
    let store = place.open(&made);
    let swarm = bench.enter(&store, &[seeder.address]).await;
    let _reading = tokio::spawn({
        let opened = open(&store, 0, &swarm);
        async move { opened.read_at(0, 4 * MIB).await }
    });
    until("the first piece", || store.total_here() > 0).await;
    swarm.leave().await;
    assert!(swarm.has_left());
    store.close().unwrap();
    let here = store.total_here();
    let again = place.open(&made);
    assert_eq!(again.total_here(), here);
    assert!((0..made.metainfo.piece_count).all(|piece| again.has(piece) == again.is_verified(piece)));
    // A straggler's block of a piece that is here is dropped; any other is refused.
    assert!(store.write(0, 0, &[0]).is_err());
    drop(again);
    let again = place.open(&made);
    write_piece(&again, &made, 0, &made.bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_of_the_disk_fails_the_read_at_once() {
    let made = film("fault", 4);
    let seeder = Seeder::start(&made, 0).await;
    let bench = engine().await;
    let place = Place::new(&made);
    std::fs::create_dir_all(place.stored(&made, 0)).unwrap();
    let store = place.open(&made);
    let swarm = bench.enter(&store, &[seeder.address]).await;
    assert!(matches!(
        read(&open(&store, 0, &swarm), 0, 10).await,
        Err(ReadError::Disk(_))
    ));
    std::fs::remove_dir(place.stored(&made, 0)).unwrap();
    assert_file(&made, &store, 0, &swarm).await;
    swarm.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_verified_is_given_to_others() {
    let made = film("given", 4);
    let place = Place::new(&made);
    let store = place.open(&made);
    (0..made.metainfo.piece_count).for_each(|piece| fill(&store, &made, piece));
    let bench = engine().await;
    let swarm = bench.enter(&store, &[]).await;
    let folder = tempfile::tempdir().unwrap();
    let options = SessionOptions {
        dht: None,
        disable_trackers: true,
        disable_local_service_discovery: true,
        ..SessionOptions::default()
    };
    let leecher = Session::new_with_opts(folder.path().to_owned(), options).await.unwrap();
    let options = AddTorrentOptions {
        initial_peers: Some(vec![([127, 0, 0, 1], bench.engine.listen_port().unwrap()).into()]),
        output_folder: Some(folder.path().to_str().unwrap().to_owned()),
        ..AddTorrentOptions::default()
    };
    let torrent = AddTorrent::from_bytes(made.torrent.clone());
    let added = leecher
        .add_torrent(torrent, Some(options))
        .await
        .unwrap()
        .into_handle()
        .unwrap();
    timeout(LIMIT, added.wait_until_completed()).await.unwrap().unwrap();
    assert!(std::fs::read(folder.path().join("film")).unwrap() == made.file(0));
    // It is counted once a second.
    until("the upload is counted", || swarm.uploaded() >= 4 * MIB as u64 - 3000).await;
    swarm.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_of_small_files_is_copied_without_a_pause_at_each() {
    let names: Vec<String> = (0..30).map(|index| format!("{index:02}")).collect();
    let files: Vec<(&str, usize)> = names.iter().map(|name| (name.as_str(), 300_000)).collect();
    let made = Arc::new(make("folder", 64 << 10, &files));
    let seeder = Seeder::start(&made, 0).await;
    let bench = engine().await;
    let place = Place::new(&made);
    let store = place.open(&made);
    let swarm = bench.enter(&store, &[seeder.address]).await;
    let copied = async {
        for file in 0..made.metainfo.files.len() {
            assert_file(&made, &store, file, &swarm).await;
        }
    };
    timeout(LIMIT, copied).await.unwrap();
    swarm.leave().await;
}

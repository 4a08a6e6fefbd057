//! The library as a whole, over a real engine on loopback.

mod hopeless;
mod pace;
mod sharing;

use std::future::Future;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use magnetfs_mount::{Catalog, Content, Kind, Mount, MountOptions, ReadError};
use tempfile::TempDir;

use super::{AddOptions, Library, LibraryError, LibraryOptions};
use crate::torrents::{Download, EngineOptions, Floor, Seeder, Seeding, Source, State};

/// A test that takes longer is stuck.
const LIMIT: Duration = Duration::from_secs(60);
const PIECE_LENGTH: u32 = 64 * 1024;

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async { tokio::time::timeout(LIMIT, test).await.expect("the test is stuck") });
    runtime.shutdown_timeout(Duration::from_secs(2));
}

/// Bytes that are no other part's.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 1u64;
    let step = || {
        state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (state >> 33) as u8
    };
    std::iter::repeat_with(step).take(length).collect()
}

async fn open(folder: &TempDir) -> Arc<Library> {
    Library::open(options(folder.path())).await.unwrap()
}

fn options(folder: &Path) -> LibraryOptions {
    LibraryOptions {
        data_dir: folder.join("data"),
        mountpoint: "/nowhere/mounted".into(),
        socket: "/nowhere/socket".into(),
        download: Download::OnDemand,
        seed: Seeding::InUse,
        floor: Floor::Bytes(0),
        engine: EngineOptions {
            listen: None,
            dht: false,
            lsd: false,
            upnp: false,
            trackers: false,
            upload_limit: None,
            download_limit: None,
            state_dir: folder.join("unused"),
        },
    }
}

/// A film of 40 pieces and a bit, with a seeder.
async fn film(folder: &TempDir, name: &str) -> (Vec<u8>, Seeder) {
    film_of(folder, name, PIECE_LENGTH, 1 << 30).await
}

async fn film_of(folder: &TempDir, name: &str, piece_length: u32, bytes_per_second: u32) -> (Vec<u8>, Seeder) {
    let bytes = noise(40 * piece_length as usize + 1234);
    let path = folder.path().join("seeder").join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, &bytes).unwrap();
    let rate = NonZeroU32::new(bytes_per_second).unwrap();
    (bytes, Seeder::start(&path, piece_length, rate).await.unwrap())
}

fn with_peer(seeder: &Seeder) -> AddOptions {
    AddOptions {
        peers: vec![seeder.address()],
        ..AddOptions::default()
    }
}

fn metainfo(seeder: &Seeder) -> Source {
    Source::Bytes(seeder.metainfo().to_vec())
}

async fn until(mut condition: impl FnMut() -> bool) {
    while !condition() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Mounts a library for other processes to read from.
fn mounted(library: &Arc<Library>, folder: &TempDir, read_deadline: Duration) -> (Mount, PathBuf) {
    let mountpoint = folder.path().join("mount");
    std::fs::create_dir(&mountpoint).unwrap();
    let options = MountOptions {
        mountpoint: mountpoint.clone(),
        allow_other: false,
        uid: None,
        gid: None,
        umask: 0,
        read_deadline,
        read_ceiling: LIMIT,
    };
    let mount = Mount::start(library.clone(), options, tokio::runtime::Handle::current()).unwrap();
    (mount, mountpoint)
}

/// The names, inode numbers and times of everything that is shown.
fn shown(library: &Library) -> Vec<(String, u64, Kind, std::time::SystemTime)> {
    let groups = library.groups().borrow().clone();
    let entries = groups.iter().flat_map(|group| group.entries.iter());
    entries
        .map(|entry| {
            (
                entry.path.display().to_string(),
                entry.inode,
                entry.kind,
                entry.modified,
            )
        })
        .collect()
}

async fn read(library: &Library, name: &str, offset: u64, length: usize) -> Result<Vec<u8>, ReadError> {
    let inode = shown(library)
        .into_iter()
        .find(|entry| entry.0 == name)
        .expect("it is shown")
        .1;
    Arc::new(library.open(inode, 0).unwrap()).read_at(offset, length).await
}

#[test]
fn an_added_torrent_is_shown_at_once_read_on_demand_and_there_again_after_a_restart() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let (bytes, seeder) = film(&folder, "Film.mkv").await;
        let library = open(&folder).await;
        let added = library.add(metainfo(&seeder), with_peer(&seeder)).await.unwrap();
        assert!(added.new && added.resolved);
        assert_eq!(added.name, "Film.mkv");
        let before = shown(&library);
        assert_eq!(
            before[0].2,
            Kind::File {
                size: bytes.len() as u64
            }
        );
        assert_eq!(
            library.list()[0].state,
            State::Parked,
            "nothing is read, so nothing is connected"
        );

        let part = read(&library, "Film.mkv", 500_000, 100_000).await.unwrap();
        assert!(part == bytes[500_000..600_000], "other bytes");
        let report = &library.list()[0];
        assert_eq!(report.state, State::Active);
        assert!(report.bytes_here >= 100_000, "{report:?}");
        assert!(!library.add(metainfo(&seeder), AddOptions::default()).await.unwrap().new);
        library.stop().await;
        drop(library);
        seeder.stop().await;

        let library = open(&folder).await;
        assert_eq!(shown(&library), before, "names, inode numbers and times are stable");
        assert!(
            read(&library, "Film.mkv", 500_000, 100_000).await.unwrap() == part,
            "it is here without the seeder"
        );
        assert_eq!(library.list()[0].state, State::Parked, "what is here needs no engine");
        library.stop().await;
    });
}

#[test]
fn a_magnet_appears_when_it_is_resolved() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let (bytes, seeder) = film(&folder, "Film.mkv").await;
        let library = open(&folder).await;
        let info_hash = crate::torrents::Metainfo::parse(seeder.metainfo())
            .unwrap()
            .info_hash
            .to_string();
        let link = format!("magnet:?xt=urn:btih:{info_hash}&dn=Some%20film");
        let added = library
            .add(Source::parse(&link).unwrap(), AddOptions::default())
            .await
            .unwrap();
        assert!(added.new && !added.resolved);
        assert_eq!(added.name, "Some film");
        assert!(shown(&library).is_empty(), "an unresolved magnet shows nothing");
        // The same link with a peer is what resolves it.
        library
            .add(Source::parse(&link).unwrap(), with_peer(&seeder))
            .await
            .unwrap();
        let resolved = library.resolved(&info_hash).await.unwrap();
        assert_eq!(resolved.name, "Film.mkv");
        assert!(
            read(&library, "Film.mkv", 0, 1000).await.unwrap() == bytes[..1000],
            "other bytes"
        );
        library.stop().await;
        seeder.stop().await;
    });
}

#[test]
fn a_newcomer_of_the_same_name_gets_a_suffix_and_nobody_else_changes() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let (_, first) = film(&folder, "Film.mkv").await;
        let library = open(&folder).await;
        library.add(metainfo(&first), AddOptions::default()).await.unwrap();
        let before = shown(&library);
        std::fs::write(folder.path().join("seeder/Film.mkv"), noise(1000)).unwrap();
        let rate = NonZeroU32::new(1 << 30).unwrap();
        let second = Seeder::start(&folder.path().join("seeder/Film.mkv"), PIECE_LENGTH, rate)
            .await
            .unwrap();
        let added = library.add(metainfo(&second), AddOptions::default()).await.unwrap();
        assert_eq!(added.name, format!("Film [{}].mkv", added.info_hash.short()));
        assert_eq!(shown(&library)[0], before[0]);
        library.remove("Film.mkv", false).await.unwrap();
        assert_eq!(library.list()[0].name, added.name, "a path never changes");
        library.stop().await;
    });
}

#[test]
fn pausing_and_removing_end_reads_that_wait() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let (bytes, seeder) = film(&folder, "Film.mkv").await;
        let library = open(&folder).await;
        library.add(metainfo(&seeder), with_peer(&seeder)).await.unwrap();
        read(&library, "Film.mkv", 0, 1000).await.unwrap();
        library.stop().await;
        seeder.stop().await;
        drop(library);

        let library = open(&folder).await;
        let wait = |library: Arc<Library>| async move { read(&library, "Film.mkv", 2_000_000, 600_000).await };
        let waiting = tokio::spawn(wait(library.clone()));
        while library.list()[0].state != State::Active {
            tokio::task::yield_now().await;
        }
        library.pause("Film.mkv").await.unwrap();
        assert!(matches!(waiting.await.unwrap(), Err(ReadError::Paused)));
        assert!(matches!(
            read(&library, "Film.mkv", 2_000_000, 600_000).await,
            Err(ReadError::Paused)
        ));
        assert!(
            read(&library, "Film.mkv", 0, 1000).await.unwrap() == bytes[..1000],
            "what is here is read all the same"
        );
        library.resume("Film.mkv").await.unwrap();

        let waiting = tokio::spawn(wait(library.clone()));
        while library.list()[0].state != State::Active {
            tokio::task::yield_now().await;
        }
        library.remove("Film.mkv", true).await.unwrap();
        assert!(matches!(waiting.await.unwrap(), Err(ReadError::Removed)));
        assert!(shown(&library).is_empty());
        assert!(matches!(library.show("Film.mkv"), Err(LibraryError::Unknown { .. })));
        library.stop().await;
    });
}

#[test]
fn data_that_was_kept_is_found_when_the_torrent_is_added_again() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let (bytes, seeder) = film(&folder, "Film.mkv").await;
        let library = open(&folder).await;
        let whole = AddOptions {
            download: Some(Download::Whole),
            ..with_peer(&seeder)
        };
        library.add(metainfo(&seeder), whole).await.unwrap();
        while library.list()[0].state != State::Complete {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let source = metainfo(&seeder);
        seeder.stop().await;
        library.remove("Film.mkv", false).await.unwrap();
        assert!(library.list().is_empty());
        library.add(source, AddOptions::default()).await.unwrap();
        assert_eq!(library.list()[0].state, State::Complete);
        assert!(
            read(&library, "Film.mkv", 0, bytes.len()).await.unwrap() == bytes,
            "other bytes"
        );
        library.stop().await;
    });
}

#[test]
fn a_torrent_is_found_by_name_and_by_the_beginning_of_its_info_hash() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let (_, seeder) = film(&folder, "Film.mkv").await;
        let library = open(&folder).await;
        let added = library.add(metainfo(&seeder), AddOptions::default()).await.unwrap();
        let hash = added.info_hash.to_string();
        for name in ["Film.mkv", &hash, &hash[..4], &hash.to_ascii_uppercase()] {
            assert_eq!(library.show(name).unwrap().report.info_hash, hash);
        }
        for name in ["", "film", &hash[..3], "ffff0000"] {
            assert!(
                matches!(library.show(name), Err(LibraryError::Unknown { .. })),
                "{name}"
            );
        }
        library.stop().await;
    });
}

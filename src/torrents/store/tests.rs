use std::io::Write;
use std::os::unix::fs::{FileExt, symlink};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::torrents::testing::{Made, Place, fill, make, noise, write_piece};

const PIECE: usize = 32 << 10;

/// Pieces that span files, a file smaller than a piece, empty files at both ends, padding, a short last piece.
fn odd() -> Made {
    make(
        "odd",
        PIECE,
        &[
            ("empty", 0),
            ("a/big", 3 * PIECE + 5),
            ("a/small", 77),
            ("b/none", 0),
            (".pad/1", PIECE - 82),
            ("b/aligned", 2 * PIECE),
            ("last", 1000),
            ("end", 0),
        ],
    )
}

fn fill_all(store: &Store, made: &Made) {
    (0..made.metainfo.piece_count).for_each(|piece| fill(store, made, piece));
}

fn read(store: &Store, file: usize, offset: usize, length: usize) -> Result<Vec<u8>, StoreError> {
    let mut buf = vec![0xee; length];
    store.read_blocking(file, &mut buf, offset as u64).map(|()| buf)
}

fn assert_whole(store: &Store, made: &Made) {
    for (index, file) in made.metainfo.files.iter().enumerate().filter(|(_, file)| !file.padding) {
        assert_eq!(
            read(store, index, 0, file.length as usize).unwrap(),
            made.file(index),
            "{:?}",
            file.path
        );
        assert_eq!(store.bytes_here(index), file.length);
        assert!(store.file_complete_and_verified(index));
    }
}

fn overwrite(path: &std::path::Path, offset: u64, bytes: &[u8]) {
    let file = std::fs::File::options().write(true).open(path).unwrap();
    file.write_all_at(bytes, offset).unwrap();
}

#[test]
fn what_is_written_is_read_piece_by_piece() {
    let made = odd();
    let place = Place::new(&made);
    let store = place.open(&made);
    assert!(!place.path("files").exists(), "nothing is made before it is written");
    let stored: u64 = made
        .metainfo
        .files
        .iter()
        .filter(|file| !file.padding)
        .map(|file| file.length)
        .sum();
    for piece in (0..made.metainfo.piece_count).rev() {
        assert!(!store.has(piece));
        fill(&store, &made, piece);
        assert!(store.has(piece) && store.is_verified(piece));
        let files = 0..made.metainfo.files.len();
        assert_eq!(
            store.total_here(),
            files.map(|file| store.bytes_here(file)).sum::<u64>()
        );
    }
    assert_eq!(store.total_here(), stored);
    assert!(store.is_complete());
    assert_whole(&store, &made);
    for (offset, length) in [
        (0, 1),
        (PIECE - 1, 2),
        (7, 3 * PIECE - 9),
        (3 * PIECE + 4, 1),
        (3 * PIECE + 5, 0),
    ] {
        assert_eq!(
            read(&store, 1, offset, length).unwrap(),
            &made.file(1)[offset..offset + length]
        );
    }
    assert!(!place.path("files/.pad").exists(), "padding is never stored");
}

#[test]
fn a_missing_piece_is_named_and_its_neighbours_are_read() {
    let made = odd();
    let place = Place::new(&made);
    let store = place.open(&made);
    fill(&store, &made, 0);
    fill(&store, &made, 2);
    assert_eq!(read(&store, 1, 0, PIECE).unwrap(), &made.file(1)[..PIECE]);
    assert!(matches!(
        read(&store, 1, 5, PIECE),
        Err(StoreError::Missing { piece: 1 })
    ));
    assert_eq!(store.first_missing(1, 2 * PIECE as u64, PIECE as u64 + 1), Some(3));
    assert_eq!(store.first_missing(1, 2 * PIECE as u64, PIECE as u64), None);
    assert_eq!(store.bytes_here(1), 2 * PIECE as u64);
    assert!(store.open_complete_file(1).is_none());
}

#[test]
fn pieces_of_16_kib_and_of_16_mib() {
    for piece in [16 << 10, 16 << 20] {
        let made = make("sizes", piece, &[("a", piece + 1), ("b", piece - 2), ("c", 9)]);
        let place = Place::new(&made);
        fill_all(&place.open(&made), &made);
        // Not closed: each piece is hashed when it is read.
        let store = place.open(&made);
        assert!(store.is_complete() && !store.is_verified(0));
        assert_whole(&store, &made);
    }
}

#[test]
fn read_now_answers_only_for_verified_bytes_of_an_open_file() {
    let made = odd();
    let place = Place::new(&made);
    let store = place.open(&made);
    let mut buf = vec![0; 100];
    assert!(store.read_now(1, &mut buf, 0).is_none());
    fill_all(&store, &made);
    // Whether the file system knows RWF_NOWAIT or not, no wrong byte comes.
    if let Some(read) = store.read_now(1, &mut buf, 50) {
        read.unwrap();
        assert_eq!(buf, &made.file(1)[50..150]);
    } else {
        assert!(store.disk().files.waits_always.load(Ordering::Relaxed));
    }
    assert!(
        store.read_now(1, &mut buf, 3 * PIECE as u64 - 90).is_none(),
        "over the end of the file"
    );
    let again = place.open(&made);
    assert!(again.read_now(1, &mut buf, 0).is_none(), "neither open nor verified");
    read(&again, 1, 0, 100).unwrap();
    assert!(
        again.read_now(1, &mut buf, PIECE as u64).is_none(),
        "open but not verified"
    );
}

#[test]
fn after_a_clean_stop_nothing_is_hashed_again() {
    let made = odd();
    let place = Place::new(&made);
    let store = place.open(&made);
    fill_all(&store, &made);
    store.close().unwrap();
    assert!(matches!(store.write(1, 0, &[0]), Err(StoreError::Closed)));
    let store = place.open(&made);
    assert!((0..made.metainfo.piece_count).all(|piece| store.is_verified(piece)));
    assert_whole(&store, &made);
    assert!(store.open_complete_file(1).is_some());
    assert!(store.open_complete_file(0).is_none(), "an empty file is stored nowhere");
    drop(store);
    // That life changed nothing, so its end, clean or not, takes nothing away.
    assert!(place.open(&made).is_verified(0));
}

#[test]
fn after_a_kill_nothing_is_believed_without_its_hash() {
    let made = odd();
    let place = Place::new(&made);
    let store = place.open(&made);
    fill_all(&store, &made);
    drop(store);
    overwrite(&place.stored(&made, 1), PIECE as u64 + 10, b"rotten");
    let store = place.open(&made);
    assert!((0..made.metainfo.piece_count).all(|piece| store.has(piece) && !store.is_verified(piece)));
    assert_eq!(read(&store, 1, 0, PIECE).unwrap(), &made.file(1)[..PIECE]);
    assert!(matches!(
        read(&store, 1, PIECE, 1),
        Err(StoreError::Missing { piece: 1 })
    ));
    assert!(!store.has(1));
    drop(store);
    // It is recorded at once that the piece is bad; the next life does not find it out again.
    let store = place.open(&made);
    assert!(!store.has(1) && store.has(0));
    fill(&store, &made, 1);
    assert_whole(&store, &made);
}

#[test]
fn a_file_changed_while_the_daemon_was_down_is_hashed_although_the_stop_was_clean() {
    let made = odd();
    let place = Place::new(&made);
    let store = place.open(&made);
    fill_all(&store, &made);
    store.close().unwrap();
    overwrite(&place.stored(&made, 1), 2 * PIECE as u64, &[0; 9]);
    let store = place.open(&made);
    assert!(store.open_complete_file(1).is_none());
    assert!(matches!(
        read(&store, 1, 0, 3 * PIECE),
        Err(StoreError::Missing { piece: 2 })
    ));
    // Of the other file all of it still is verified.
    assert_eq!(read(&store, 5, 0, 2 * PIECE).unwrap(), made.file(5));
    store.close().unwrap();
    let store = place.open(&made);
    assert!(!store.has(2) && store.is_verified(0) && store.is_verified(1) && !store.is_verified(3));
}

#[test]
fn a_file_changed_while_the_torrent_rests_is_hashed() {
    let made = odd();
    let place = Place::new(&made);
    let store = place.open(&made);
    fill_all(&store, &made);
    store.rest().unwrap();
    assert_eq!(store.disk().files.len(), 0);
    overwrite(&place.stored(&made, 1), 0, b"rotten");
    assert!(matches!(read(&store, 1, 0, 10), Err(StoreError::Missing { piece: 0 })));
    fill(&store, &made, 0);
    assert_whole(&store, &made);
}

#[test]
fn files_that_are_gone_cut_short_or_replaced_lose_their_pieces_only() {
    let made = odd();
    let place = Place::new(&made);
    for clean in [true, false] {
        let store = place.open(&made);
        fill_all(&store, &made);
        if clean {
            store.close().unwrap();
        }
        std::fs::remove_file(place.stored(&made, 1)).unwrap();
        let file = std::fs::File::options()
            .write(true)
            .open(place.stored(&made, 5))
            .unwrap();
        file.set_len(PIECE as u64 + 1).unwrap();
        std::fs::remove_file(place.stored(&made, 6)).unwrap();
        std::fs::create_dir(place.stored(&made, 6)).unwrap();
        let store = place.open(&made);
        assert!(matches!(read(&store, 1, 0, 1), Err(StoreError::Missing { piece: 0 })));
        assert_eq!(store.bytes_here(1), 0);
        assert_eq!(read(&store, 5, 0, PIECE).unwrap(), &made.file(5)[..PIECE]);
        assert!(matches!(read(&store, 5, PIECE, PIECE), Err(StoreError::Missing { .. })));
        assert!(
            matches!(read(&store, 6, 0, 1), Err(StoreError::File { .. })),
            "a folder where the file should be"
        );
        std::fs::remove_dir(place.stored(&made, 6)).unwrap();
        assert!(matches!(read(&store, 6, 0, 1), Err(StoreError::Missing { .. })));
        fill_all(&store, &made);
        assert_whole(&store, &made);
    }
}

#[test]
fn a_link_planted_in_the_data_directory_is_an_error_and_is_left_alone() {
    let made = odd();
    let place = Place::new(&made);
    std::fs::create_dir_all(place.path("files")).unwrap();
    std::fs::create_dir_all(place.path("elsewhere")).unwrap();
    symlink(place.path("elsewhere"), place.path("files/a")).unwrap();
    let store = place.open(&made);
    assert!(matches!(store.write(1, 0, &[1]), Err(StoreError::File { .. })));
    assert!(std::fs::read_dir(place.path("elsewhere")).unwrap().next().is_none());
}

#[test]
fn a_verified_piece_cannot_be_overwritten() {
    let made = odd();
    let place = Place::new(&made);
    let wrong = noise(made.bytes.len(), 99);
    let store = place.open(&made);
    fill(&store, &made, 0);
    write_piece(&store, &made, 0, &wrong);
    assert_eq!(read(&store, 1, 0, PIECE).unwrap(), &made.file(1)[..PIECE]);
    drop(store);
    // Here but not yet verified: it is hashed before the engine may write over it.
    let store = place.open(&made);
    write_piece(&store, &made, 0, &wrong);
    assert!(store.is_verified(0));
    assert_eq!(read(&store, 1, 0, PIECE).unwrap(), &made.file(1)[..PIECE]);
    drop(store);
    overwrite(&place.stored(&made, 1), 0, b"rotten");
    let store = place.open(&made);
    write_piece(&store, &made, 0, &made.bytes);
    assert!(
        !store.has(0),
        "rotten, so it was written over, and is not here before the engine says so"
    );
    store.piece_completed(0);
    assert_eq!(read(&store, 1, 0, PIECE).unwrap(), &made.file(1)[..PIECE]);
}

#[test]
fn the_clean_mark_is_gone_from_the_disk_before_a_byte_is_written() {
    let made = odd();
    let place = Place::new(&made);
    let store = place.open(&made);
    fill(&store, &made, 0);
    store.rest().unwrap();
    assert!(place.open(&made).is_verified(0));
    store.write(1, PIECE as u64, &[1]).unwrap();
    assert!(!place.open(&made).is_verified(0) && place.open(&made).has(0));
    store.rest().unwrap();
    assert!(place.open(&made).is_verified(0));
}

#[test]
fn what_was_hashed_after_a_kill_is_remembered_at_the_next_clean_stop() {
    let made = odd();
    let place = Place::new(&made);
    fill_all(&place.open(&made), &made);
    let store = place.open(&made);
    let done = AtomicU64::new(0);
    store
        .verify_all(|bytes| done.store(bytes, Ordering::Relaxed), &AtomicBool::new(false))
        .unwrap();
    assert_eq!(done.load(Ordering::Relaxed), made.metainfo.total);
    store.close().unwrap();
    assert!((0..made.metainfo.piece_count).all(|piece| place.open(&made).is_verified(piece)));

    overwrite(&place.stored(&made, 1), 0, b"rotten");
    let store = place.open(&made);
    store.verify_all(|_| {}, &AtomicBool::new(true)).unwrap();
    assert!(store.has(0) && !store.is_verified(0), "it was told to stop at once");
    store.verify_all(|_| {}, &AtomicBool::new(false)).unwrap();
    assert!(!store.has(0) && store.is_verified(1));
}

#[test]
fn writes_outside_a_file_or_below_the_floor_are_refused() {
    let made = odd();
    let place = Place::new(&made);
    let free = Arc::new(AtomicU64::new(100 << 20));
    let probed = free.clone();
    let probe = move || Ok((1 << 40, probed.load(Ordering::Relaxed)));
    let disk = Disk::new(FreeSpace::with_probe(Floor::Bytes(50 << 20), Box::new(probe)));
    let store = place.open_on(&made, &disk);
    assert!(matches!(
        store.write(1, 3 * PIECE as u64, &[0; 6]),
        Err(StoreError::File { .. })
    ));
    assert!(matches!(
        store.write(1, u64::MAX, &[0; 6]),
        Err(StoreError::File { .. })
    ));
    assert!(matches!(store.write(99, 0, &[0]), Err(StoreError::File { .. })));
    fill(&store, &made, 0);
    free.store(10 << 20, Ordering::Relaxed);
    // The measurement counts for a second.
    let deadline = Instant::now() + Duration::from_secs(10);
    while !matches!(store.write(1, PIECE as u64, &[0]), Err(StoreError::NoSpace)) {
        assert!(Instant::now() < deadline);
        std::thread::yield_now();
    }
    store.write(1, 0, &[0]).unwrap();
    assert_eq!(
        read(&store, 1, 0, PIECE).unwrap(),
        &made.file(1)[..PIECE],
        "what is here is read"
    );
}

#[test]
fn a_full_file_system_is_the_floor() {
    // The only file system that is always full; its errors are the kernel's own.
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let error = (&full).write_all(b"x").unwrap_err();
    assert!(super::transfer::is_full(&error));
    assert!(super::transfer::is_full(&std::io::Error::from(
        rustix::io::Errno::DQUOT
    )));
    assert!(!super::transfer::is_full(&std::io::Error::from(rustix::io::Errno::IO)));
}

#[test]
fn few_files_are_open_however_many_are_read() {
    let names: Vec<String> = (0..700).map(|index| format!("{index}")).collect();
    let files: Vec<(&str, usize)> = names.iter().map(|name| (name.as_str(), 100)).collect();
    let made = make("many", PIECE, &files);
    let place = Place::new(&made);
    let store = place.open(&made);
    fill_all(&store, &made);
    assert_whole(&store, &made);
    assert_eq!(store.disk().files.len(), 512);
    store.close().unwrap();
    assert_whole(&place.open(&made), &made);
}

#[test]
fn many_readers_hash_a_piece_once_and_right() {
    let made = odd();
    let place = Place::new(&made);
    fill_all(&place.open(&made), &made);
    let store = place.open(&made);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| assert_whole(&store, &made));
        }
    });
}

#[tokio::test]
async fn whoever_waits_is_woken_when_all_pieces_are_here() {
    let made = odd();
    let place = Place::new(&made);
    let store = place.open(&made);
    assert!(store.last_progress().is_none());
    let waiting = tokio::spawn({
        let store = store.clone();
        async move { store.wait_for(0..3).await }
    });
    for piece in [2, 0] {
        fill(&store, &made, piece);
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
    }
    fill(&store, &made, 1);
    tokio::time::timeout(Duration::from_secs(5), waiting)
        .await
        .unwrap()
        .unwrap();
    assert!(store.last_progress().is_some());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn any_layout_is_stored_and_counted_right(
        lengths in proptest::collection::vec(prop_oneof![Just(0usize), 1usize..200, 1000usize..70_000], 1..12),
        padded in any::<u16>(), filled in any::<u64>(), piece_length in prop_oneof![Just(1usize << 14), Just(5000)],
    ) {
        let names: Vec<String> = (0..lengths.len())
            .map(|index| if padded >> index & 1 == 1 { format!(".pad/{index}") } else { format!("f{index}") })
            .collect();
        let mut files: Vec<(&str, usize)> = names.iter().map(String::as_str).zip(lengths.iter().copied()).collect();
        files.push(("one", 1));
        let made = make("any", piece_length, &files);
        let place = Place::new(&made);
        let store = place.open(&made);
        let pieces: Vec<u32> = (0..made.metainfo.piece_count).filter(|piece| filled >> (piece % 64) & 1 == 1).collect();
        pieces.iter().for_each(|piece| fill(&store, &made, *piece));
        let store = place.open(&made);
        let mut total = 0;
        for (index, file) in made.metainfo.files.iter().enumerate() {
            let here = |offset: &u64| pieces.contains(&((file.offset + offset) as u32 / made.metainfo.piece_length));
            let expected = if file.padding { 0 } else { (0..file.length).filter(here).count() as u64 };
            prop_assert_eq!(store.bytes_here(index), expected);
            total += expected;
            if expected == file.length && !file.padding {
                prop_assert_eq!(&read(&store, index, 0, file.length as usize).unwrap()[..], made.file(index));
            }
        }
        prop_assert_eq!(store.total_here(), total);
    }
}

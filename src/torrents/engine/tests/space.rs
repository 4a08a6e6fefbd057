//! A disk that is full, or nearly.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn below_the_floor_reads_fail_at_once_and_go_on_when_there_is_room() {
    let made = film("floor", 8);
    let seeder = Seeder::limited(&made, 0, Some(512 << 10)).await;
    let bench = engine().await;
    let place = Place::new(&made);
    let free = Arc::new(AtomicU64::new(1 << 30));
    let probed = free.clone();
    let probe = move || Ok((1 << 40, probed.load(Ordering::Relaxed)));
    let disk = Disk::new(FreeSpace::with_probe(Floor::Bytes(100 << 20), Box::new(probe)));
    let store = place.open_on(&made, &disk);
    let swarm = bench.enter(&store, &[seeder.address]).await;
    let opened = open(&store, 0, &swarm);
    read(&opened, 0, 1000).await.unwrap();
    free.store(1 << 20, Ordering::Relaxed);
    until("it is full", || !store.disk().space().storing()).await;
    assert!(matches!(read(&opened, 4 * MIB, 3 * MIB).await, Err(ReadError::NoSpace)));
    assert!(matches!(read(&opened, 7 * MIB, 1000).await, Err(ReadError::NoSpace)));
    assert!(
        read(&opened, 0, 1000).await.unwrap() == made.file(0)[..1000],
        "what is here is read"
    );
    free.store(1 << 30, Ordering::Relaxed);
    until("there is room", || store.disk().space().storing()).await;
    assert!(read(&opened, 7 * MIB, 1000).await.unwrap() == made.file(0)[7 * MIB..7 * MIB + 1000]);
    swarm.leave().await;
}

/// A disk that is full whenever the second value says so.
fn fillable() -> (Arc<Disk>, Arc<AtomicBool>) {
    let full = Arc::new(AtomicBool::new(false));
    let probed = full.clone();
    let probe = move || {
        Ok((
            1 << 40,
            if probed.load(Ordering::Relaxed) {
                1 << 20
            } else {
                1 << 30
            },
        ))
    };
    let space = FreeSpace::with_probe(Floor::Bytes(100 << 20), Box::new(probe));
    (Disk::new(space), full)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_piece_that_meets_a_full_disk_is_served_from_memory_and_stored_when_there_is_room() {
    let made = film("filling", 4);
    // A piece takes longer than a measurement of the free space counts.
    let seeder = Seeder::limited(&made, 0, Some(128 << 10)).await;
    let bench = engine().await;
    let (place, (disk, full)) = (Place::new(&made), fillable());
    let store = place.open_on(&made, &disk);
    let swarm = bench.enter(&store, &[seeder.address]).await;
    let opened = open(&store, 0, &swarm);
    let waiting = tokio::spawn(opened.clone().read_at(MIB as u64, 1000));
    until("the read waits", || swarm.waiting() == 1).await;
    full.store(true, Ordering::Relaxed);
    let read_in_time = timeout(LIMIT, waiting).await.unwrap().unwrap().unwrap();
    assert!(read_in_time == made.file(0)[MIB..MIB + 1000], "other bytes");
    assert!(!disk.space().report().storing, "the state says so");
    let piece = (MIB / made.metainfo.piece_length as usize) as u32;
    let metadata = std::fs::metadata(place.stored(&made, 0));
    assert!(
        metadata.map_or(0, |metadata| std::os::unix::fs::MetadataExt::blocks(&metadata)) == 0,
        "it is in memory alone"
    );
    assert!(store.has(piece) && read(&opened, MIB, 500).await.unwrap() == made.file(0)[MIB..MIB + 500]);
    assert!(matches!(read(&opened, 3 * MIB, 1).await, Err(ReadError::NoSpace)));

    full.store(false, Ordering::Relaxed);
    until("there is room", || disk.space().storing()).await;
    read(&opened, 2 * MIB, 1).await.unwrap();
    swarm.leave().await;
    store.close().unwrap();
    drop(opened);
    let store = place.open(&made);
    assert!(store.has(piece), "what was held is stored when there is room");
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_full_disk_nothing_is_fetched_that_nobody_waits_for() {
    let made = film("brimful", 8);
    let seeder = Seeder::limited(&made, 0, Some(2 << 20)).await;
    let bench = engine().await;
    let (place, (disk, full)) = (Place::new(&made), fillable());
    let store = place.open_on(&made, &disk);
    let swarm = bench
        .engine
        .enter(store.clone(), named(&[seeder.address]), true)
        .unwrap();
    until("some of it is here", || store.total_here() > MIB as u64 / 2).await;
    full.store(true, Ordering::Relaxed);
    let mut before = u64::MAX;
    let mut quiet = tokio::time::interval(Duration::from_millis(500));
    timeout(LIMIT, async {
        // Half a second in which nothing arrives; at this rate it would be 1 MiB.
        while std::mem::replace(&mut before, swarm.fetched()) != swarm.fetched() || disk.space().storing() {
            quiet.tick().await;
        }
    })
    .await
    .expect("it goes on fetching");
    assert!(
        store.total_here() < made.metainfo.total,
        "it was too quick for this test"
    );
    full.store(false, Ordering::Relaxed);
    timeout(LIMIT, store.wait_for(0..made.metainfo.piece_count))
        .await
        .unwrap();
    swarm.leave().await;
}

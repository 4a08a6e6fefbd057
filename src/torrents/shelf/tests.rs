use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use tempfile::TempDir;

use super::disk::Disk;
use super::faults::Fault;
use super::*;
use crate::torrents::Download;
use crate::torrents::metainfo::samples::{self, Value};

fn holder() -> Holder {
    Holder {
        pid: 4711,
        mountpoint: "/mnt/films".into(),
        socket: "/run/user/1/magnetfs.sock".into(),
    }
}

fn open(dir: &Path) -> (Shelf, Vec<Shelved>) {
    Shelf::open(dir, &holder()).unwrap()
}

fn options(number: u64) -> Options {
    Options {
        number,
        shown_name: Some(format!("shown {number}")),
        added: SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000 + number),
        download: Download::OnDemand,
        paused: false,
        trackers: vec!["http://tracker.invalid".to_owned()],
        peers: vec!["[::1]:6881".parse().unwrap()],
        magnet: None,
    }
}

fn info(index: usize) -> Value {
    samples::several(&format!("torrent {index}"), &[("a", 20_000), ("b/c", 5)], 16384)
}

fn hash(index: usize) -> InfoHash {
    samples::info_hash(&info(index))
}

fn torrent(index: usize) -> Vec<u8> {
    samples::torrent(&info(index))
}

fn write_data(shelf: &Shelf, index: usize, text: &str) {
    let dir = shelf.files_dir(hash(index));
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("a"), text).unwrap();
}

/// A folder in memory where there is one: the tests of faults sync thousands of times, and power is only played at.
fn memory_dir() -> TempDir {
    TempDir::new_in("/dev/shm").or_else(|_| TempDir::new()).unwrap()
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::yield_now();
    }
}

#[test]
fn what_is_put_comes_back() {
    let dir = TempDir::new().unwrap();
    let data_dir = dir.path().join("deep/data");
    let (shelf, shelved) = open(&data_dir);
    assert!(shelved.is_empty());
    assert_eq!(fs::metadata(&data_dir).unwrap().permissions().mode() & 0o777, 0o700);
    assert!(shelf.engine_dir().is_dir());
    let numbers = [shelf.allocate_number().unwrap(), shelf.allocate_number().unwrap()];
    assert_eq!(numbers, [0, 1]);
    let link = format!("magnet:?xt=urn:btih:{}&dn=A%20film", hash(1));
    let magnet = Options {
        shown_name: None,
        magnet: Some(link),
        ..options(1)
    };
    assert_eq!(magnet.display_name().as_deref(), Some("A film"));
    shelf.put(hash(1), None, &magnet).unwrap();
    shelf.put(hash(0), Some(&torrent(0)), &options(0)).unwrap();
    assert_eq!(fs::read(shelf.metainfo_path(hash(0))).unwrap(), torrent(0));
    assert!(!shelf.metainfo_path(hash(1)).exists());
    drop(shelf);

    let (shelf, shelved) = open(&data_dir);
    let whole = Shelved {
        info_hash: hash(0),
        options: options(0),
        metainfo: Some(Metainfo::parse(&torrent(0)).unwrap()),
    };
    let unresolved = Shelved {
        info_hash: hash(1),
        options: magnet.clone(),
        metainfo: None,
    };
    assert_eq!(shelved, [whole, unresolved]);
    shelf.set_metainfo(hash(1), &torrent(1)).unwrap();
    let changed = Options {
        shown_name: Some("b".to_owned()),
        paused: true,
        download: Download::Whole,
        ..magnet
    };
    shelf.set_options(hash(1), &changed).unwrap();
    shelf.remove(hash(0), false).unwrap();
    assert!(!shelf.torrent_dir(hash(0)).exists());
    drop(shelf);

    let (shelf, shelved) = open(&data_dir);
    let resolved = Shelved {
        info_hash: hash(1),
        options: changed,
        metainfo: Some(Metainfo::parse(&torrent(1)).unwrap()),
    };
    assert_eq!(shelved, [resolved]);
    assert_eq!(shelf.allocate_number().unwrap(), 2);
}

#[test]
fn times_are_kept_in_whole_seconds() {
    let odd = Options {
        added: SystemTime::UNIX_EPOCH + Duration::from_millis(1500),
        ..options(0)
    };
    let kept: Options = serde_json::from_slice(&serde_json::to_vec(&odd).unwrap()).unwrap();
    assert_eq!(kept.added, SystemTime::UNIX_EPOCH + Duration::from_secs(1));
    let sparse = r#"{"number": 3, "added": 5, "something newer": 1}"#;
    let sparse: Options = serde_json::from_str(sparse).unwrap();
    assert_eq!((sparse.number, sparse.shown_name, sparse.paused), (3, None, false));
    assert!(serde_json::from_str::<Options>(r#"{"number": 3, "added": 18446744073709551615}"#).is_err());
}

#[test]
fn what_is_wrong_is_refused() {
    let dir = TempDir::new().unwrap();
    let (shelf, _) = open(dir.path());
    shelf.put(hash(0), None, &options(0)).unwrap();
    assert!(matches!(
        shelf.put(hash(0), None, &options(1)),
        Err(ShelfError::Known { .. })
    ));
    assert!(matches!(
        shelf.set_options(hash(1), &options(0)),
        Err(ShelfError::Unknown { .. })
    ));
    assert!(matches!(
        shelf.set_metainfo(hash(1), &torrent(1)),
        Err(ShelfError::Unknown { .. })
    ));
    assert!(matches!(shelf.remove(hash(1), true), Err(ShelfError::Unknown { .. })));
    for error in [
        shelf.put(hash(2), Some(&torrent(1)), &options(2)),
        shelf.set_metainfo(hash(0), &torrent(1)),
    ] {
        assert!(matches!(
            error,
            Err(ShelfError::Metainfo(MetainfoError::InfoHash { .. }))
        ));
    }
    assert!(matches!(
        shelf.set_metainfo(hash(0), b"de"),
        Err(ShelfError::Metainfo(MetainfoError::Missing { .. }))
    ));
    assert!(!shelf.torrent_dir(hash(2)).exists() && !shelf.metainfo_path(hash(0)).exists());
}

#[test]
fn a_second_daemon_hears_who_has_the_data_directory() {
    let dir = TempDir::new().unwrap();
    let (shelf, _) = open(dir.path());
    let error = Shelf::open(dir.path(), &Holder { pid: 1, ..holder() }).unwrap_err();
    let message = error.to_string();
    for part in [
        "\"/mnt/films\"",
        "4711",
        "`magnetfs add --socket '/run/user/1/magnetfs.sock' SOURCE`",
    ] {
        assert!(message.contains(part), "{message}");
    }
    assert!(matches!(error, ShelfError::Held { holder: Some(named), .. } if named == holder()));
    fs::write(dir.path().join(LOCK), "{").unwrap();
    let message = Shelf::open(dir.path(), &holder()).unwrap_err().to_string();
    assert!(
        message.contains("in use by another magnetfs: `magnetfs add SOURCE`"),
        "{message}"
    );
    drop(shelf);
    open(dir.path());
}

#[test]
fn what_makes_no_sense_is_set_aside() {
    let dir = TempDir::new().unwrap();
    let (shelf, _) = open(dir.path());
    for index in 0..10 {
        shelf
            .put(hash(index), Some(&torrent(index)), &options(index as u64))
            .unwrap();
    }
    let file = |index: usize, name: &str| shelf.torrent_dir(hash(index)).join(name);
    let rewrite = |index: usize, options: Options| fs::write(file(index, OPTIONS), json(&options).unwrap()).unwrap();
    fs::write(file(1, OPTIONS), "{").unwrap();
    fs::remove_file(file(2, OPTIONS)).unwrap();
    fs::write(file(3, METAINFO), &torrent(3)[..50]).unwrap();
    fs::write(file(4, METAINFO), torrent(5)).unwrap();
    rewrite(6, options(0));
    rewrite(
        7,
        Options {
            shown_name: Some("shown 0".to_owned()),
            ..options(7)
        },
    );
    rewrite(
        8,
        Options {
            shown_name: Some("../up".to_owned()),
            ..options(8)
        },
    );
    rewrite(
        9,
        Options {
            number: NUMBER_LIMIT,
            ..options(9)
        },
    );
    fs::write(shelf.torrents_dir().join("notes.txt"), "mine").unwrap();
    drop(shelf);
    for _ in 0..2 {
        let (shelf, shelved) = open(dir.path());
        let mut expected = [hash(0), hash(5)];
        // Which of two with one number stays, does not matter, as long as it is always the same.
        expected[0] = expected[0].min(hash(6));
        assert_eq!(shelved.iter().map(|one| one.info_hash).collect::<Vec<_>>(), expected);
        assert_eq!(fs::read_dir(dir.path().join(BROKEN)).unwrap().count(), 8);
        assert!(shelf.torrents_dir().join("notes.txt").exists());
    }
    // Again the same torrent, and broken again.
    let (shelf, _) = open(dir.path());
    shelf.put(hash(1), None, &options(20)).unwrap();
    fs::write(shelf.torrent_dir(hash(1)).join(OPTIONS), "{").unwrap();
    drop(shelf);
    assert_eq!(open(dir.path()).1.len(), 2);
    assert!(dir.path().join(BROKEN).join(format!("{}.2", hash(1))).exists());
}

#[test]
fn what_cannot_be_read_is_left_alone() {
    let dir = TempDir::new().unwrap();
    let (shelf, _) = open(dir.path());
    shelf.put(hash(0), None, &options(0)).unwrap();
    shelf.put(hash(1), None, &options(1)).unwrap();
    let path = shelf.torrent_dir(hash(1)).join(OPTIONS);
    let aside = dir.path().join("aside");
    fs::rename(&path, &aside).unwrap();
    fs::create_dir(&path).unwrap();
    drop(shelf);
    let (shelf, shelved) = open(dir.path());
    assert_eq!((shelved.len(), shelf.torrent_dir(hash(1)).exists()), (1, true));
    drop(shelf);
    fs::remove_dir(&path).unwrap();
    fs::rename(&aside, &path).unwrap();
    assert_eq!(open(dir.path()).1.len(), 2);
}

#[test]
fn numbers_go_on_without_their_file() {
    let dir = TempDir::new().unwrap();
    let (shelf, _) = open(dir.path());
    shelf.put(hash(0), None, &options(41)).unwrap();
    drop(shelf);
    for text in ["", "forty", "\u{0}", "7"] {
        fs::write(dir.path().join(NEXT_NUMBER), text).unwrap();
        assert_eq!(open(dir.path()).0.allocate_number().unwrap(), 42);
    }
    fs::remove_file(dir.path().join(NEXT_NUMBER)).unwrap();
    assert_eq!(open(dir.path()).0.allocate_number().unwrap(), 42);
    fs::write(dir.path().join(NEXT_NUMBER), u64::MAX.to_string()).unwrap();
    assert!(matches!(open(dir.path()).0.allocate_number(), Err(ShelfError::Numbers)));
}

/// What the caller of a shelf was told, by torrent.
type Told = BTreeMap<InfoHash, Kept>;

#[derive(Debug, Clone, PartialEq)]
struct Kept {
    options: Options,
    resolved: bool,
    peers: Vec<SocketAddr>,
}

/// A caller that does one thing after another and writes down what it was told.
struct Caller<'a> {
    shelf: &'a Shelf,
    told: Told,
    /// What it would have been told of the change that a crash interrupted.
    interrupted: Option<Told>,
    numbers: Vec<u64>,
    data: BTreeMap<InfoHash, &'static str>,
}

impl Caller<'_> {
    fn change(&mut self, result: Result<(), ShelfError>, after: impl FnOnce(&mut Told)) {
        let mut changed = self.told.clone();
        after(&mut changed);
        match result {
            Ok(()) => self.told = changed,
            Err(error) => {
                let message = error.to_string();
                assert!(matches!(error, ShelfError::Full { .. }), "{message}");
                assert!(
                    message.contains(&format!("{:?} is full", self.shelf.data_dir)),
                    "{message}"
                );
                self.interrupted.get_or_insert(changed);
            }
        }
    }

    fn put(&mut self, index: usize, resolved: bool) {
        if self.told.contains_key(&hash(index)) {
            return;
        }
        let Ok(number) = self.shelf.allocate_number() else {
            self.interrupted.get_or_insert(self.told.clone());
            return;
        };
        assert!(!self.numbers.contains(&number));
        self.numbers.push(number);
        let (bytes, options) = (torrent(index), options(number));
        let result = self.shelf.put(hash(index), resolved.then_some(&*bytes), &options);
        let kept = Kept {
            options,
            resolved,
            peers: Vec::new(),
        };
        self.change(result, |told| drop(told.insert(hash(index), kept)));
    }

    fn meet(&mut self, index: usize, peer: &str) {
        if self.told.contains_key(&hash(index)) {
            let peers = vec![peer.parse().unwrap()];
            let result = self.shelf.set_peers(hash(index), &peers);
            self.change(result, |told| told.get_mut(&hash(index)).unwrap().peers = peers);
        }
    }

    fn pause(&mut self, index: usize) {
        let Some(kept) = self.told.get(&hash(index)) else {
            return;
        };
        let options = Options {
            paused: true,
            ..kept.options.clone()
        };
        let result = self.shelf.set_options(hash(index), &options);
        self.change(result, |told| told.get_mut(&hash(index)).unwrap().options = options);
    }

    fn resolve(&mut self, index: usize) {
        if self.told.contains_key(&hash(index)) {
            let result = self.shelf.set_metainfo(hash(index), &torrent(index));
            self.change(result, |told| told.get_mut(&hash(index)).unwrap().resolved = true);
        }
    }

    fn download(&mut self, index: usize, text: &'static str) {
        if self.told.contains_key(&hash(index)) && self.interrupted.is_none() {
            write_data(self.shelf, index, text);
            self.data.insert(hash(index), text);
        }
    }

    fn remove(&mut self, index: usize, delete_data: bool) {
        if self.told.contains_key(&hash(index)) {
            let result = self.shelf.remove(hash(index), delete_data);
            if delete_data {
                // Whether told or not: it may be gone from now on.
                self.data.remove(&hash(index));
            }
            self.change(result, |told| drop(told.remove(&hash(index))));
        }
    }
}

/// Everything that a library ever does, with this fault. Returns whether the fault came to pass.
fn live_through(fault: Fault, cut_power: bool) -> bool {
    let dir = memory_dir();
    let (shelf, _) = open(dir.path());
    shelf.disk.faults.set(fault);
    let mut caller = Caller {
        shelf: &shelf,
        told: Told::new(),
        interrupted: None,
        numbers: Vec::new(),
        data: BTreeMap::new(),
    };
    caller.put(0, true);
    caller.download(0, "zero");
    caller.put(1, false);
    caller.pause(0);
    caller.resolve(1);
    caller.meet(0, "192.0.2.7:6881");
    caller.put(2, true);
    caller.meet(2, "[2001:db8::7]:6881");
    caller.meet(2, "192.0.2.8:6881");
    caller.download(2, "two");
    caller.remove(2, false);
    caller.remove(0, true);
    caller.put(0, true);
    caller.download(0, "zero anew");
    caller.pause(1);
    caller.remove(1, true);
    let Caller {
        told,
        interrupted,
        numbers,
        data,
        ..
    } = caller;
    let happened = shelf.disk.faults.happened();
    if cut_power {
        shelf.disk.faults.cut_power();
    }
    drop(shelf);

    // The next start may be interrupted too.
    let disk = Disk::default();
    disk.faults.set(match fault {
        Fault::Crash(step) => Fault::Crash(step % 8),
        other => other,
    });
    drop(start::open(dir.path(), &holder(), disk));
    let (shelf, shelved) = open(dir.path());
    let found: Told = shelved
        .into_iter()
        .map(|one| {
            (
                one.info_hash,
                Kept {
                    peers: shelf.peers(one.info_hash),
                    options: one.options,
                    resolved: one.metainfo.is_some(),
                },
            )
        })
        .collect();
    let crashed = matches!(fault, Fault::Crash(_));
    let expected = match interrupted {
        Some(changed) if crashed && found == changed => changed,
        _ => told,
    };
    assert_eq!(found, expected, "{fault:?}");
    let next = shelf.allocate_number().unwrap();
    assert!(
        numbers.iter().all(|number| next > *number),
        "{fault:?}: {next} after {numbers:?}"
    );
    for (info_hash, text) in data {
        assert_eq!(
            fs::read_to_string(shelf.files_dir(info_hash).join("a")).unwrap(),
            text,
            "{fault:?}"
        );
    }
    let names = |dir: PathBuf| {
        fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
    };
    for (info_hash, kept) in &found {
        let mut files: Vec<_> = names(shelf.torrent_dir(*info_hash)).collect();
        files.sort();
        let expected = [
            (METAINFO, kept.resolved),
            (OPTIONS, true),
            (PEERS, !kept.peers.is_empty()),
        ];
        let expected = expected.into_iter().filter_map(|(name, there)| there.then_some(name));
        assert!(files.iter().eq(expected), "{fault:?}: {files:?}");
    }
    assert_eq!(names(shelf.torrents_dir()).count(), found.len(), "{fault:?}");
    assert!(!dir.path().join(BROKEN).exists(), "{fault:?}");
    wait_until("deleted data is deleted", || {
        names(dir.path().join(FILES)).all(|name| !name.starts_with('.'))
    });
    happened
}

/// Every step once, until there are no more.
fn at_every_step(live: impl Fn(usize) -> bool) {
    let steps = (0..1000).take_while(|step| live(*step)).count();
    println!("{steps} steps");
    assert!((50..1000).contains(&steps), "{steps}");
}

#[test]
fn a_crash_at_any_step_loses_nothing_that_was_acknowledged() {
    at_every_step(|step| live_through(Fault::Crash(step), false));
}

#[test]
fn a_power_cut_at_any_step_loses_nothing_that_was_acknowledged() {
    at_every_step(|step| live_through(Fault::Crash(step), true));
}

#[test]
fn a_full_disk_at_any_step_changes_nothing() {
    at_every_step(|step| live_through(Fault::Full(step), false));
    at_every_step(|step| live_through(Fault::Full(step), true));
}

#[test]
fn a_first_start_may_be_interrupted_anywhere() {
    for step in 0..20 {
        for fault in [Fault::Full(step), Fault::Crash(step)] {
            let dir = memory_dir();
            let disk = Disk::default();
            disk.faults.set(fault);
            if let Err(error) = start::open(dir.path(), &holder(), disk) {
                assert!(matches!(error, ShelfError::Full { .. }), "{error}");
            }
            assert_eq!(open(dir.path()).1, []);
        }
    }
}

#[test]
fn two_thousand_torrents_are_read_quickly() {
    let dir = TempDir::new().unwrap();
    drop(open(dir.path()));
    for index in 0..2000u64 {
        let names: Vec<String> = (0..10)
            .map(|file| format!("folder/file {file} of {index}.mkv"))
            .collect();
        let files: Vec<(&str, u64)> = names.iter().map(|name| (name.as_str(), 800 << 20)).collect();
        let info = samples::several(&format!("torrent {index}"), &files, 4 << 20);
        let torrent_dir = dir.path().join(TORRENTS).join(samples::info_hash(&info).to_string());
        fs::create_dir(&torrent_dir).unwrap();
        fs::write(torrent_dir.join(METAINFO), samples::torrent(&info)).unwrap();
        fs::write(torrent_dir.join(OPTIONS), json(&options(index)).unwrap()).unwrap();
    }
    let started = Instant::now();
    let (_shelf, shelved) = open(dir.path());
    let taken = started.elapsed();
    println!("2,000 torrents: {taken:?}");
    assert!(shelved.iter().map(|one| one.options.number).eq(0..2000));
    assert!(shelved.iter().all(|one| {
        one.metainfo
            .as_ref()
            .is_some_and(|metainfo| metainfo.piece_count == 2000)
    }));
    assert!(taken < Duration::from_secs(20), "{taken:?}");
}

use std::time::{Duration, Instant, SystemTime};

use librqbit_core::torrent_metainfo::torrent_from_bytes;
use proptest::prelude::*;

use super::samples::{Value, file, info, info_hash, list, outer, pieces, several, single, text, torrent};
use super::*;

fn parse(info: &Value) -> Result<Metainfo, MetainfoError> {
    Metainfo::parse(&torrent(info))
}

fn refusal(info: &Value) -> String {
    let message = parse(info).unwrap_err().to_string();
    assert!(!message.contains('\n') && message.len() < 400, "{message}");
    message
}

fn paths(metainfo: &Metainfo) -> Vec<String> {
    metainfo.files.iter().map(|file| file.path.join("/")).collect()
}

/// The same files as the engine sees: their order, sizes and paths.
fn same_as_engine(bytes: &[u8], metainfo: &Metainfo) {
    let torrent = torrent_from_bytes(bytes).unwrap();
    assert_eq!(torrent.info_hash.0, metainfo.info_hash.0);
    assert_eq!(torrent.info.data.pieces.as_ref(), &bytes[metainfo.hashes.clone()]);
    let validated = torrent.info.data.validate().unwrap();
    assert_eq!(validated.lengths().total_pieces(), metainfo.piece_count);
    assert_eq!(validated.lengths().total_length(), metainfo.total);
    for piece in 0..metainfo.piece_count {
        let index = validated.lengths().validate_piece_index(piece).unwrap();
        assert_eq!(validated.lengths().piece_length(index), metainfo.piece_size(piece));
    }
    let theirs: Vec<_> = validated.iter_file_details_ext().collect();
    assert_eq!(theirs.len(), metainfo.files.len());
    for (theirs, ours) in theirs.iter().zip(&metainfo.files) {
        assert_eq!((theirs.details.len, theirs.offset), (ours.length, ours.offset));
        assert_eq!(theirs.details.attrs().padding, ours.padding);
        if ours.length > 0 {
            assert_eq!(
                theirs.pieces,
                metainfo.pieces_of(ours.offset..ours.offset + ours.length)
            );
        }
    }
}

#[test]
fn a_single_file_stands_by_itself() {
    let info = single("film.mkv", 100_000, 16384).with("private", Value::Number(1));
    let tiers = Value::List(vec![list(&["http://a", "http://b"]), list(&["http://a", "", "\u{e9}"])]);
    let outer = outer(&info)
        .with("announce-list", tiers)
        .with("creation date", Value::Number(1_700_000_000))
        .with("comment", text("d3:abc"))
        .with("unknown", Value::Raw(b"d1:ali-5eee".to_vec()));
    let bytes = outer.bytes();
    let metainfo = Metainfo::parse(&bytes).unwrap();
    same_as_engine(&bytes, &metainfo);
    assert_eq!(metainfo.info_hash, info_hash(&info));
    assert_eq!(
        (metainfo.name.as_str(), metainfo.single_file, metainfo.private),
        ("film.mkv", true, true)
    );
    assert_eq!(
        (metainfo.total, metainfo.piece_length, metainfo.piece_count),
        (100_000, 16384, 7)
    );
    assert_eq!(paths(&metainfo), ["film.mkv"]);
    assert_eq!(metainfo.trackers, ["http://a", "http://b", "\u{e9}"]);
    assert_eq!(
        metainfo.created,
        Some(SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000))
    );
}

#[test]
fn a_folder_keeps_the_torrents_order_and_its_padding() {
    let files = [
        file(&["b", "é 1"], 20_000),
        file(&["empty"], 0),
        file(&["a"], 5),
        file(&["b", "2"], 16384),
    ];
    let pad = || file(&[".pad", "100"], 100).with("attr", text("p"));
    let [first, empty, small, last] = files;
    let files = Value::List(vec![first, pad(), empty, small, pad(), last.with("attr", text("xh"))]);
    let total = 20_000 + 100 + 5 + 100 + 16384;
    let bytes = torrent(&info("Folder", total, 16384).with("files", files));
    let metainfo = Metainfo::parse(&bytes).unwrap();
    same_as_engine(&bytes, &metainfo);
    assert_eq!(
        (metainfo.single_file, metainfo.private, metainfo.created),
        (false, false, None)
    );
    assert_eq!(paths(&metainfo), ["b/é 1", ".pad/100", "empty", "a", ".pad/100", "b/2"]);
    assert_eq!(
        metainfo.files.iter().map(|file| file.padding).collect::<Vec<_>>(),
        [false, true, false, false, true, false]
    );
    assert_eq!(metainfo.trackers, ["http://tracker.invalid/announce"]);
}

#[test]
fn pieces_are_counted_to_the_last_byte() {
    let metainfo = parse(&single("a", 40_000, 16384)).unwrap();
    assert_eq!(
        (0..4).map(|piece| metainfo.piece_size(piece)).collect::<Vec<_>>(),
        [16384, 16384, 7232, 0]
    );
    assert_eq!(metainfo.piece_size(u32::MAX), 0);
    assert_eq!(metainfo.pieces_of(0..1), 0..1);
    assert_eq!(metainfo.pieces_of(16383..16385), 0..2);
    assert_eq!(metainfo.pieces_of(16384..32768), 1..2);
    assert_eq!(metainfo.pieces_of(39_999..u64::MAX), 2..3);
    assert_eq!(metainfo.pieces_of(5..5), 0..0);
    assert_eq!(metainfo.pieces_of(40_000..50_000), 0..0);
    let exact = parse(&single("a", 32768, 16384)).unwrap();
    assert_eq!(
        (exact.piece_count, exact.piece_size(1), exact.piece_size(2)),
        (2, 16384, 0)
    );
}

#[test]
fn a_hybrid_is_its_version_1_side_and_version_2_alone_is_refused() {
    let tree = Value::Raw(b"d1:ad0:d6:lengthi5eeee".to_vec());
    let hybrid = single("a", 5, 16384)
        .with("meta version", Value::Number(2))
        .with("file tree", tree);
    let bytes = torrent(&hybrid);
    same_as_engine(&bytes, &Metainfo::parse(&bytes).unwrap());
    assert!(refusal(&hybrid.without("pieces").without("length")).contains("version 2 alone"));
}

#[test]
fn empty_files_alone_are_shown() {
    let metainfo = parse(&several("Empty", &[("a", 0), ("b/c", 0)], 16384)).unwrap();
    assert_eq!((metainfo.total, metainfo.piece_count, metainfo.files.len()), (0, 0, 2));
    assert_eq!(metainfo.piece_size(0), 0);
    assert_eq!(metainfo.pieces_of(0..0), 0..0);
    assert!(refusal(&several("Empty", &[], 16384)).contains("no file"));
    let padding = Value::List(vec![file(&["x"], 5).with("attr", text("p"))]);
    assert!(refusal(&info("Padding", 5, 16384).with("files", padding)).contains("no file"));
}

#[test]
fn what_is_no_torrent_is_said_so() {
    let refusal = |bytes: &[u8]| Metainfo::parse(bytes).unwrap_err().to_string();
    assert_eq!(refusal(b""), "not a torrent: it is empty");
    assert_eq!(refusal(b"<!DOCTYPE html>"), "not a torrent: it looks like a web page");
    for other in [&b"dear all"[..], b"\0\0\0", b"i5e", b"le", b"4:spam", b"\x89PNG"] {
        assert_eq!(refusal(other), "not a torrent: it does not begin like one");
    }
    assert_eq!(refusal(b"de"), "the torrent has no `info`");
    assert_eq!(refusal(b"d4:infoi5ee"), "the torrent's `info` is not a dictionary");
    assert!(refusal(&[torrent(&single("a", 5, 16384)), b"x".to_vec()].concat()).contains("more follows after its end"));
    assert!(refusal(&vec![b'd'; METAINFO_LIMIT + 1]).contains("more than 67108864 bytes"));
}

#[test]
fn every_truncation_is_refused() {
    let bytes = torrent(&several("Folder", &[("a/b", 20_000), ("c", 5)], 16384));
    for length in 1..bytes.len() {
        let message = Metainfo::parse(&bytes[..length]).unwrap_err().to_string();
        assert!(
            message.starts_with(&format!("the torrent is truncated: it ends at byte {length}")),
            "{length}: {message}"
        );
    }
}

#[test]
fn bad_numbers_are_refused() {
    let base = || single("a", 40_000, 16384);
    let piece_length = |length| refusal(&base().with("piece length", Value::Number(length)));
    assert!(piece_length(0).contains("piece length is 0 bytes"));
    assert!(piece_length(-1).contains("piece length is -1 bytes"));
    assert!(piece_length(1 << 50).contains("piece length is 1125899906842624 bytes"));
    assert_eq!(
        refusal(&base().with("pieces", pieces(2))),
        "the torrent has 2 piece hashes for 3 pieces"
    );
    assert_eq!(
        refusal(&base().with("pieces", pieces(4))),
        "the torrent has 4 piece hashes for 3 pieces"
    );
    assert!(refusal(&base().with("pieces", text([0; 59]))).contains("hashes of 20 bytes"));
    assert!(refusal(&base().with("pieces", Value::Number(5))).contains("`pieces` is not text"));
    assert!(refusal(&base().with("length", Value::Number(-5))).contains("`length` is not a size"));
    assert!(
        refusal(&base().with("length", Value::Number(i64::MAX))).contains("more than 35184372088832 bytes of files")
    );
    let overflow = Value::List(vec![
        file(&["a"], i64::MAX as u64),
        file(&["b"], i64::MAX as u64),
        file(&["c"], 3),
    ]);
    assert!(refusal(&info("x", 1, 16384).with("files", overflow)).contains("more than 35184372088832 bytes of files"));
    assert!(refusal(&info("x", 1, 1).with("length", Value::Number(1 << 40))).contains("more than 2097152 pieces"));
    for number in ["99999999999999999999", "", "-", "+5", "1.5", "0x10", "5 "] {
        let message = refusal(&base().with("length", Value::Raw(format!("i{number}e").into_bytes())));
        assert!(message.contains("is damaged at byte"), "{number}: {message}");
    }
    for length in ["99999999999999999999", "18446744073709551616"] {
        let message = refusal(&base().with("other", Value::Raw(format!("{length}:").into_bytes())));
        assert!(message.contains("is damaged at byte"), "{length}: {message}");
    }
    assert!(refusal(&base().with("other", Value::Raw(b"18446744073709551615:".to_vec()))).contains("truncated"));
}

#[test]
fn missing_and_contradicting_fields_are_refused() {
    let base = || single("a", 5, 16384);
    for field in ["piece length", "pieces", "length"] {
        assert_eq!(refusal(&base().without(field)), format!("the torrent has no `{field}`"));
    }
    let both = base().with("files", Value::List(vec![file(&["a"], 5)]));
    assert!(refusal(&both).contains("`length` is not allowed beside `files`"));
    let files = |entry: Value| refusal(&info("x", 5, 16384).with("files", Value::List(vec![entry])));
    assert_eq!(files(file(&["a"], 5).without("path")), "the torrent has no `path`");
    assert_eq!(files(file(&["a"], 5).without("length")), "the torrent has no `length`");
    assert!(files(Value::Number(5)).contains("`files` is not a dictionary"));
    assert!(files(file(&["a"], 5).with("path", text("a"))).contains("`path` is not a list"));
    assert!(refusal(&base().with("name", Value::Number(5))).contains("`name` is not text"));
    // Only the engine minds these.
    assert!(refusal(&base().with("md5sum", Value::Number(5))).contains("the engine refuses the torrent"));
    let twice = Value::Raw([b"d".to_vec(), base().bytes()[1..].to_vec()].concat());
    assert!(parse(&twice).is_ok());
    let Value::Dictionary(mut fields) = base() else {
        unreachable!()
    };
    fields.push(("length", Value::Number(5)));
    assert!(refusal(&Value::Dictionary(fields)).contains("the engine refuses the torrent"));
}

#[test]
fn names_that_leave_the_folder_or_fit_no_file_system_are_refused() {
    let path = |path: &[&str]| refusal(&info("x", 5, 16384).with("files", Value::List(vec![file(path, 5)])));
    assert!(path(&["..", "etc", "passwd"]).contains(r#"a file "../etc/passwd": `.` and `..` are not names"#));
    assert!(path(&["a", ".."]).contains("are not names"));
    assert!(path(&[".", "a"]).contains("are not names"));
    assert!(path(&["/etc/passwd"]).contains("no slash"));
    assert!(path(&["a\\b"]).contains("no slash or backslash"));
    assert!(path(&["", "etc"]).contains("it is empty"));
    assert!(path(&["a", ""]).contains("it is empty"));
    assert!(path(&[]).contains("it is empty"));
    assert!(path(&["a\0b"]).contains("no NUL"));
    assert!(path(&[&"n".repeat(256)]).contains("longer than 255 bytes"));
    assert!(path(&[&"é".repeat(128)]).contains("longer than 255 bytes"));
    assert!(path(&["d"; 65]).contains("too long or too deep"));
    assert!(path(&[&*"d".repeat(100); 40]).contains("too long or too deep"));
    let hostile = file(&["fine"], 5).with("path.utf-8", list(&[".."]));
    assert!(refusal(&info("x", 5, 16384).with("files", Value::List(vec![hostile]))).contains("are not names"));
    for name in ["..", ".", "", "a/b", "/", "a\0", &"n".repeat(256)] {
        assert!(refusal(&single("a", 5, 16384).with("name", text(name))).contains("the torrent names a file"));
        assert!(refusal(&several(name, &[("a", 5)], 16384)).contains("the torrent names a file"));
    }
    let longest = parse(&several(&"n".repeat(255), &[(&"é".repeat(127), 5)], 16384)).unwrap();
    assert_eq!(longest.name.len(), 255);
}

#[test]
fn files_that_cannot_stand_beside_each_other_are_refused() {
    let files = |files: &[(&str, u64)]| refusal(&several("x", files, 16384));
    assert!(files(&[("./a", 1), ("a", 1)]).contains("are not names"));
    assert!(files(&[("a", 1), ("b", 1), ("a", 1)]).contains(r#"files "a" and "a" cannot stand beside each other"#));
    assert!(files(&[("a/b", 1), ("a.b", 1), ("a", 1)]).contains(r#"files "a" and "a/b" cannot stand"#));
    assert!(files(&[("a", 1), ("a/b/c", 1)]).contains(r#"files "a" and "a/b/c" cannot stand"#));
    assert!(parse(&several("x", &[("a/b", 1), ("a/c", 1), ("a b", 1), ("A", 1)], 16384)).is_ok());
    let path: Vec<String> = (0..60).map(|depth| format!("{depth}")).collect();
    let deep = (0..4000u32).map(|number| {
        let path: Vec<String> = path.iter().map(|name| format!("{number}-{name}")).collect();
        file(&path, 1)
    });
    let deep = info("x", 4000, 16384).with("files", Value::List(deep.collect()));
    assert!(refusal(&deep).contains("more than 200000 folders"));
}

#[test]
fn links_are_refused() {
    let files = |entry: Value| refusal(&info("x", 5, 16384).with("files", Value::List(vec![file(&["z"], 5), entry])));
    assert!(files(file(&["a", "b"], 0).with("attr", text("l"))).contains("a symbolic link, `a/b`"));
    assert!(files(file(&["a"], 0).with("symlink path", list(&["etc", "passwd"]))).contains("a symbolic link, `a`"));
    assert!(refusal(&single("a", 5, 16384).with("attr", text("xl"))).contains("a symbolic link, `a`"));
}

#[test]
fn names_of_other_encodings_are_read_the_same_way_every_time() {
    // "Фильм" and "первая.mkv" in windows-1251.
    let folder = [0xd4, 0xe8, 0xeb, 0xfc, 0xec];
    let inner = [0xef, 0xe5, 0xf0, 0xe2, 0xe0, 0xff, b'.', b'm', b'k', b'v'];
    let entry = file(&[&inner[..], b"a.mkv"], 5);
    let base = info("", 5, 16384)
        .with("name", text(folder))
        .with("files", Value::List(vec![entry.clone()]));
    let bytes = outer(&base).with("encoding", text("windows-1251")).bytes();
    let declared = Metainfo::parse(&bytes).unwrap();
    same_as_engine(&bytes, &declared);
    assert_eq!(
        (declared.name.as_str(), paths(&declared)),
        ("Фильм", vec!["первая.mkv/a.mkv".to_owned()])
    );
    let guessed = parse(&base).unwrap();
    assert_eq!((guessed.name, guessed.files), (declared.name, declared.files));
    let twins = base.clone().with("name.utf-8", text("Film")).with(
        "files",
        Value::List(vec![entry.with("path.utf-8", list(&["first.mkv", "b.mkv"]))]),
    );
    let twins = parse(&twins).unwrap();
    assert_eq!(
        (twins.name.as_str(), paths(&twins)),
        ("Film", vec!["first.mkv/b.mkv".to_owned()])
    );
    // What no encoding holds still has a name, or is refused for a clash.
    let broken = info("", 5, 16384)
        .with("name", text([0xff, 0xfe, b'a']))
        .with("length", Value::Number(5));
    let names: Vec<String> = (0..2).map(|_| parse(&broken).unwrap().name).collect();
    assert_eq!(names[0], names[1]);
}

#[test]
fn a_torrent_without_a_name_is_called_by_its_hash() {
    for info in [single("a", 5, 16384), several("a", &[("a", 5)], 16384)] {
        let nameless = info.without("name");
        assert_eq!(parse(&nameless).unwrap().name, info_hash(&nameless).to_string());
    }
    assert_eq!(
        parse(&single("a", 5, 16384).without("name").with("name.utf-8", text("b")))
            .unwrap()
            .name,
        "b"
    );
}

#[test]
fn nesting_does_not_exhaust_the_stack() {
    for open in [&b"l"[..], b"d1:a", b"ld1:a"] {
        let deep = [b"d1:x".to_vec(), open.repeat(100_000)].concat();
        let message = Metainfo::parse(&deep).unwrap_err().to_string();
        assert!(message.contains("nested too deep"), "{message}");
        let inner = single("a", 5, 16384).with("x", Value::Raw(open.repeat(100_000)));
        assert!(refusal(&inner).contains("nested too deep"));
    }
    let fine = Value::Raw([b"l".repeat(90), b"e".repeat(90)].concat());
    assert!(parse(&single("a", 5, 16384).with("x", fine)).is_ok());
}

#[test]
fn large_torrents_are_read_quickly() {
    let names: Vec<String> = (0..100_000)
        .map(|n| format!("folder {}/sub/file {n} é.mkv", n % 1000))
        .collect();
    let files: Vec<(&str, u64)> = names.iter().map(|name| (name.as_str(), 20_000)).collect();
    let many_files = torrent(&several("Many", &files, 4 << 20));
    let many_pieces = torrent(&single("Large", 30_000_000 / 20 * 16384, 16384));
    assert!(many_pieces.len() >= 30_000_000);
    for (what, bytes) in [("100,000 files", many_files), ("30 MB", many_pieces)] {
        let started = Instant::now();
        let metainfo = Metainfo::parse(&bytes).unwrap();
        let taken = started.elapsed();
        println!("{what}: {taken:?} for {} bytes", bytes.len());
        assert!(metainfo.files.len() == 100_000 || metainfo.piece_count == 1_500_000);
        assert!(taken < Duration::from_secs(20), "{what}: {taken:?}");
    }
    let names: Vec<String> = (0..200_001).map(|n| n.to_string()).collect();
    let files: Vec<(&str, u64)> = names.iter().map(|name| (name.as_str(), 1)).collect();
    assert!(refusal(&several("Too many", &files, 16384)).contains("more than 200000 files"));
}

/// An info dictionary of any names and sizes, mostly sound.
fn any_info() -> impl Strategy<Value = Value> {
    let name = prop_oneof![4 => "[a-c]{1,2}", 1 => "\\PC{1,5}", 1 => "[./\\\\\0]{0,2}"].prop_map(String::into_bytes);
    let name = prop_oneof![6 => name, 1 => proptest::collection::vec(any::<u8>(), 0..6)];
    let files = proptest::collection::vec(
        (proptest::collection::vec(name.clone(), 1..3), 0u64..50_000, 0..8),
        0..6,
    );
    (name, files, any::<bool>(), 1u32..40_000).prop_map(|(name, files, single_file, piece_length)| {
        let total: u64 = files.iter().map(|(_, length, _)| length).sum();
        let base = info("", total, piece_length).with("name", text(name));
        if single_file {
            return base.with("length", Value::Number(total as i64));
        }
        let entry = |(path, length, kind): (Vec<Vec<u8>>, u64, i32)| match kind {
            0 => file(&path, length).with("attr", text("p")),
            1 => file(&path, length).with("path.utf-8", list(&["x", "y"])),
            _ => file(&path, length),
        };
        base.with("files", Value::List(files.into_iter().map(entry).collect()))
    })
}

proptest! {
    #[test]
    fn what_is_accepted_is_sound_and_accepted_by_the_engine(info in any_info()) {
        let bytes = torrent(&info);
        let Ok(metainfo) = Metainfo::parse(&bytes) else { return Ok(()) };
        if metainfo.total > 0 {
            same_as_engine(&bytes, &metainfo);
        }
        prop_assert_eq!(metainfo.info_hash, info_hash(&info));
        let mut shown: Vec<_> = metainfo.files.iter().filter(|file| !file.padding).map(|file| &file.path).collect();
        let count = shown.len();
        shown.sort();
        shown.dedup();
        prop_assert_eq!(shown.len(), count);
        for component in shown.iter().flat_map(|path| path.iter()).chain([&metainfo.name]) {
            let plain = !component.is_empty() && component.len() <= 255 && !component.contains(['/', '\0']);
            prop_assert!(plain && component != "." && component != "..", "{:?}", component);
        }
        for pair in shown.windows(2) {
            prop_assert!(!pair[1].starts_with(pair[0]));
        }
    }

    #[test]
    fn no_bytes_break_it(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Metainfo::parse(&bytes);
        let _ = Metainfo::parse(&[b"d1:x", &bytes[..]].concat());
        let _ = Metainfo::parse(&[b"d4:infod", &bytes[..]].concat());
    }

    #[test]
    fn no_damage_breaks_it(
        info in any_info(),
        edits in proptest::collection::vec((any::<prop::sample::Index>(), "[0-9a-z:-]{0,3}", 0usize..4), 1..5),
    ) {
        let mut bytes = torrent(&info);
        for (place, text, removed) in edits {
            let at = place.index(bytes.len() + 1);
            let end = (at + removed).min(bytes.len());
            bytes.splice(at..end, text.into_bytes());
        }
        let started = Instant::now();
        let _ = Metainfo::parse(&bytes);
        prop_assert!(started.elapsed() < Duration::from_secs(5));
    }
}

//! Source files and the torrents of them: by a writer of our own, which can also write what no tool would, and by the
//! tools that people use.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use sha1::{Digest, Sha1};

use super::{Work, run};

/// A bencoded value. Dictionaries come out sorted, as the format demands.
#[derive(Debug, Clone)]
pub(crate) enum Bencode {
    Integer(u64),
    /// An integer as it stands, for those that no program would write.
    Digits(&'static str),
    Bytes(Vec<u8>),
    List(Vec<Bencode>),
    Dictionary(BTreeMap<String, Bencode>),
}

impl Bencode {
    pub(crate) fn text(text: &str) -> Self {
        Self::Bytes(text.as_bytes().to_vec())
    }

    pub(crate) fn dictionary<const N: usize>(entries: [(&str, Bencode); N]) -> Self {
        Self::Dictionary(
            entries
                .into_iter()
                .map(|(key, value)| (key.to_owned(), value))
                .collect(),
        )
    }

    /// Puts `key` into a dictionary, over what is there.
    pub(crate) fn with(mut self, key: &str, value: Bencode) -> Self {
        match &mut self {
            Self::Dictionary(entries) => entries.insert(key.to_owned(), value),
            other => panic!("{other:?} is not a dictionary"),
        };
        self
    }

    pub(crate) fn encoded(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode(&mut out);
        out
    }

    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Integer(number) => out.extend(format!("i{number}e").bytes()),
            Self::Digits(digits) => out.extend(format!("i{digits}e").bytes()),
            Self::Bytes(bytes) => {
                out.extend(format!("{}:", bytes.len()).bytes());
                out.extend(bytes);
            }
            Self::List(items) => {
                out.push(b'l');
                items.iter().for_each(|item| item.encode(out));
                out.push(b'e');
            }
            Self::Dictionary(entries) => {
                out.push(b'd');
                for (key, value) in entries {
                    Self::text(key).encode(out);
                    value.encode(out);
                }
                out.push(b'e');
            }
        }
    }
}

/// A .torrent on disk and where its bytes are.
#[derive(Debug, Clone)]
pub(crate) struct Torrent {
    /// The .torrent file.
    pub(crate) path: PathBuf,
    /// What the seeders are given: the directory that holds the file or folder `name`.
    pub(crate) directory: PathBuf,
    /// The name that the mount shows.
    pub(crate) name: String,
    /// 40 hex digits; empty for what another tool made.
    pub(crate) info_hash: String,
}

impl Torrent {
    /// The file or the folder that the torrent was made of.
    pub(crate) fn source(&self) -> PathBuf {
        self.directory.join(&self.name)
    }
}

/// Bytes that do not repeat, the same ones for the same seed.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        // xorshift64*
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        bytes.extend(state.wrapping_mul(0x2545_F491_4F6C_DD1D).to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Writes a file of noise.
pub(crate) fn write_noise(path: &Path, length: usize) {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).expect("a directory for a source file");
    }
    let seed = path
        .to_string_lossy()
        .bytes()
        .fold(7u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    fs::write(path, noise(seed, length)).expect("a source file");
}

/// A source file `name` of noise and its torrent, all in a directory of its own.
pub(crate) fn single_file(work: &Work, name: &str, length: usize, piece_length: u64) -> Torrent {
    let source = work.directory(&format!("source-{name}")).join(name);
    write_noise(&source, length);
    make(work, &source, piece_length)
}

/// A source folder `name` of such files and its torrent.
pub(crate) fn folder(work: &Work, name: &str, files: &[(&str, usize)], piece_length: u64) -> Torrent {
    let source = source_folder(work, name, files);
    make(work, &source, piece_length)
}

/// A source folder alone.
pub(crate) fn source_folder(work: &Work, name: &str, files: &[(&str, usize)]) -> PathBuf {
    let source = work.directory(&format!("source-{name}")).join(name);
    for (path, length) in files {
        write_noise(&source.join(path), *length);
    }
    source
}

/// Makes a v1 torrent without padding of a file or a folder.
pub(crate) fn make(work: &Work, source: &Path, piece_length: u64) -> Torrent {
    let name = name_of(source);
    let path = work.path().join(format!("{name}.torrent"));
    let (bytes, info_hash) = metainfo_of(source, piece_length);
    fs::write(&path, bytes).expect("a .torrent file");
    Torrent {
        path,
        directory: parent_of(source),
        name,
        info_hash,
    }
}

/// The .torrent of a file or a folder, and its info hash.
pub(crate) fn metainfo_of(source: &Path, piece_length: u64) -> (Vec<u8>, String) {
    let mut pieces = Pieces::new(piece_length);
    let mut info = Bencode::dictionary([
        ("name", Bencode::text(&name_of(source))),
        ("piece length", Bencode::Integer(piece_length)),
    ]);
    if source.is_dir() {
        let mut files = Vec::new();
        for file in files_below(source) {
            let length = pieces.hash_file(&source.join(&file));
            let path = file.iter().map(|part| Bencode::text(&part.to_string_lossy())).collect();
            files.push(Bencode::dictionary([
                ("length", Bencode::Integer(length)),
                ("path", Bencode::List(path)),
            ]));
        }
        info = info.with("files", Bencode::List(files));
    } else {
        let length = pieces.hash_file(source);
        info = info.with("length", Bencode::Integer(length));
    }
    with_info(info.with("pieces", Bencode::Bytes(pieces.finish())))
}

/// The info hash of a .torrent by [`with_info`], which holds nothing else.
pub(crate) fn info_hash_of(torrent: &[u8]) -> String {
    let info = torrent
        .strip_prefix(b"d4:info")
        .and_then(|rest| rest.strip_suffix(b"e"));
    hex::encode(Sha1::digest(info.expect("a .torrent of an info dictionary alone")))
}

/// A .torrent around an info dictionary, and its info hash.
pub(crate) fn with_info(info: Bencode) -> (Vec<u8>, String) {
    let info_hash = hex::encode(Sha1::digest(info.encoded()));
    (Bencode::dictionary([("info", info)]).encoded(), info_hash)
}

/// The info dictionary of files that nobody has: its piece hashes are noise.
pub(crate) fn info_of_nothing(name: &str, files: &[(String, u64)], piece_length: u64) -> Bencode {
    let total: u64 = files.iter().map(|(_, length)| length).sum();
    let piece_count = usize::try_from(total.div_ceil(piece_length)).expect("a count of pieces");
    let seed = name
        .bytes()
        .fold(11u64, |sum, byte| sum.wrapping_mul(131).wrapping_add(byte.into()));
    let files = files
        .iter()
        .map(|(path, length)| {
            let path = path.split('/').map(Bencode::text).collect();
            Bencode::dictionary([("length", Bencode::Integer(*length)), ("path", Bencode::List(path))])
        })
        .collect();
    Bencode::dictionary([
        ("name", Bencode::text(name)),
        ("piece length", Bencode::Integer(piece_length)),
        ("files", Bencode::List(files)),
        ("pieces", Bencode::Bytes(noise(seed, piece_count * 20))),
    ])
}

/// A single-file torrent of bytes that nobody has.
pub(crate) fn without_source(work: &Work, name: &str, length: u64, piece_length: u64) -> Torrent {
    let piece_count = usize::try_from(length.div_ceil(piece_length)).expect("a count of pieces");
    let (bytes, info_hash) = with_info(Bencode::dictionary([
        ("name", Bencode::text(name)),
        ("piece length", Bencode::Integer(piece_length)),
        ("length", Bencode::Integer(length)),
        ("pieces", Bencode::Bytes(noise(length ^ piece_length, piece_count * 20))),
    ]));
    let path = work.path().join(format!("{name}.torrent"));
    fs::write(&path, bytes).expect("a .torrent file");
    Torrent {
        path,
        directory: work.path().to_owned(),
        name: name.to_owned(),
        info_hash,
    }
}

/// How libtorrent is to make a torrent.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    /// v1 and v2 in one.
    Hybrid,
    /// v1 with padding files, BEP 47.
    Padded,
}

/// Makes a torrent with libtorrent.
pub(crate) fn make_with_libtorrent(work: &Work, source: &Path, kind: Kind, piece_length: u64) -> Torrent {
    let name = name_of(source);
    let path = work.path().join(format!("{name}.torrent"));
    let kind = match kind {
        Kind::Hybrid => "hybrid",
        Kind::Padded => "padded",
    };
    let mut command = Command::new("/usr/bin/python3");
    command
        .arg(script("make_torrent.py"))
        .arg(kind)
        .arg(source)
        .arg(&path)
        .arg(piece_length.to_string());
    run(&mut command, Duration::from_secs(30)).ok();
    Torrent {
        path,
        directory: parent_of(source),
        name,
        info_hash: String::new(),
    }
}

/// Makes a torrent with transmission-create.
pub(crate) fn make_with_transmission(work: &Work, source: &Path, piece_length: u64) -> Torrent {
    let name = name_of(source);
    let path = work.path().join(format!("{name}.torrent"));
    let mut command = Command::new("transmission-create");
    command
        .arg("-s")
        .arg((piece_length / 1024).to_string())
        .arg("-o")
        .arg(&path)
        .arg(source);
    run(&mut command, Duration::from_secs(30)).ok();
    Torrent {
        path,
        directory: parent_of(source),
        name,
        info_hash: String::new(),
    }
}

/// A script that lies beside the tests.
pub(crate) fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/whole").join(name)
}

/// The paths of all files below a directory, relative to it, sorted.
pub(crate) fn files_below(directory: &Path) -> Vec<PathBuf> {
    fn walk(root: &Path, below: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(root.join(below)).expect("a source folder") {
            let entry = entry.expect("an entry of a source folder");
            let path = below.join(entry.file_name());
            if entry.file_type().expect("the type of a source file").is_dir() {
                walk(root, &path, found);
            } else {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(directory, Path::new(""), &mut found);
    found.sort();
    found
}

fn name_of(source: &Path) -> String {
    source
        .file_name()
        .expect("a source has a name")
        .to_string_lossy()
        .into_owned()
}

fn parent_of(source: &Path) -> PathBuf {
    source.parent().expect("a source lies in a directory").to_owned()
}

/// Hashes files one after the other into pieces.
struct Pieces {
    piece_length: u64,
    piece: Vec<u8>,
    hashes: Vec<u8>,
}

impl Pieces {
    fn new(piece_length: u64) -> Self {
        Self {
            piece_length,
            piece: Vec::new(),
            hashes: Vec::new(),
        }
    }

    fn hash_file(&mut self, path: &Path) -> u64 {
        let mut file = BufReader::new(File::open(path).expect("a source file"));
        let mut length = 0;
        loop {
            let room = self.piece_length - self.piece.len() as u64;
            let read = file
                .by_ref()
                .take(room)
                .read_to_end(&mut self.piece)
                .expect("a readable source file");
            length += read as u64;
            if self.piece.len() as u64 == self.piece_length {
                self.close();
            } else if read == 0 {
                return length;
            }
        }
    }

    fn close(&mut self) {
        self.hashes
            .write_all(&Sha1::digest(&self.piece))
            .expect("a hash in memory");
        self.piece.clear();
    }

    fn finish(mut self) -> Vec<u8> {
        if !self.piece.is_empty() {
            self.close();
        }
        self.hashes
    }
}

//! From the bytes of a .torrent to a checked [`Metainfo`].

use std::ops::Range;

use super::names::{Decoder, check_component, check_paths, shorten};
use super::raw::{Info, RawFile, read_outer, show_raw};
use super::{File, METAINFO_LIMIT, Metainfo, MetainfoError, NameProblem};
use crate::torrents::info_hash::InfoHash;

/// Above this a piece would take minutes, and its hash a second.
const PIECE_LENGTH_LIMIT: u32 = 256 << 20;
/// At 20 bytes each they are most of a .torrent; 2^21 of them make one of 42 MB.
const PIECE_LIMIT: u64 = 1 << 21;
/// 32 TiB: with the limits above, the engine's count of 16 KiB blocks stays within 32 bits.
const TOTAL_LIMIT: u64 = 1 << 45;

impl Metainfo {
    /// Reads and checks a .torrent. It takes milliseconds, or half a second for 100,000 files, and
    /// never more memory than a few times its size.
    ///
    /// # Errors
    /// One line that says what is wrong with it.
    pub fn parse(bytes: &[u8]) -> Result<Metainfo, MetainfoError> {
        if bytes.len() > METAINFO_LIMIT {
            return Err(MetainfoError::TooMany {
                what: "bytes",
                limit: METAINFO_LIMIT as u64,
            });
        }
        match bytes {
            [] => return Err(MetainfoError::NotATorrent { why: "it is empty" }),
            [b'd', b'0'..=b'9', ..] | b"de" | b"d" => {}
            [b'<', ..] => {
                return Err(MetainfoError::NotATorrent {
                    why: "it looks like a web page",
                });
            }
            _ => {
                return Err(MetainfoError::NotATorrent {
                    why: "it does not begin like one",
                });
            }
        }
        let outer = read_outer(bytes)?;
        let info = outer.info.ok_or(MetainfoError::Missing { field: "info" })?;
        let single_file = info.files.is_none();
        if info.length.is_some() && !single_file {
            return Err(MetainfoError::Field {
                field: "length",
                expected: "allowed beside `files`",
            });
        }
        let piece_length = piece_length(&info)?;
        let hashes = hashes(&info)?;
        let decoder = Decoder::new(outer.encoding, info.names());
        let mut metainfo = Metainfo {
            info_hash: InfoHash([0; 20]),
            name: decoder.text(info.name.unwrap_or_default(), info.name_utf8),
            piece_length,
            total: 0,
            piece_count: 0,
            files: Vec::new(),
            single_file,
            private: info.private,
            trackers: if outer.announce_list.is_empty() {
                outer.announce
            } else {
                outer.announce_list
            },
            created: outer.created,
            hashes,
        };
        metainfo.files = match info.files {
            None => vec![single(&info, &metainfo.name)?],
            Some(files) => several(files, &decoder)?,
        };
        metainfo.total = lay_out(&mut metainfo.files)?;
        if metainfo.files.iter().all(|file| file.padding) {
            return Err(MetainfoError::NoFile);
        }
        metainfo.piece_count = piece_count(&metainfo)?;
        check_paths(&metainfo.files)?;
        metainfo.info_hash = agree_with_engine(bytes, metainfo.total)?;
        if info.name.is_none() && info.name_utf8.is_none() {
            // The engine takes a torrent without a name, and the name is ours to choose.
            metainfo.name = metainfo.info_hash.to_string();
            if single_file {
                metainfo.files[0].path = [metainfo.name.clone()].into();
            }
        }
        check_component(&metainfo.name).map_err(|problem| MetainfoError::Name {
            name: shorten(&metainfo.name),
            problem,
        })?;
        Ok(metainfo)
    }
}

fn piece_length(info: &Info<'_>) -> Result<u32, MetainfoError> {
    let length = info
        .piece_length
        .ok_or(MetainfoError::Missing { field: "piece length" })?;
    match u32::try_from(length) {
        Ok(length @ 1..=PIECE_LENGTH_LIMIT) => Ok(length),
        _ => Err(MetainfoError::PieceLength {
            length,
            limit: PIECE_LENGTH_LIMIT,
        }),
    }
}

fn hashes(info: &Info<'_>) -> Result<Range<usize>, MetainfoError> {
    let hashes = match &info.hashes {
        Some(hashes) => hashes.clone(),
        None if info.version_2 => return Err(MetainfoError::Version2),
        None => return Err(MetainfoError::Missing { field: "pieces" }),
    };
    if hashes.len() % 20 != 0 {
        return Err(MetainfoError::Field {
            field: "pieces",
            expected: "made of hashes of 20 bytes",
        });
    }
    Ok(hashes)
}

fn single(info: &Info<'_>, name: &str) -> Result<File, MetainfoError> {
    if info.symlink || info.attributes.contains(&b'l') {
        return Err(MetainfoError::Symlink { path: shorten(name) });
    }
    if let Some(raw) = info.name {
        check_raw(&[raw])?;
    }
    let length = file_length(info.length)?;
    let padding = info.attributes.contains(&b'p');
    Ok(File {
        path: [name.to_owned()].into(),
        offset: 0,
        length,
        padding,
    })
}

fn several(raw_files: Vec<RawFile<'_>>, decoder: &Decoder) -> Result<Vec<File>, MetainfoError> {
    let mut files = Vec::with_capacity(raw_files.len());
    for file in raw_files {
        let raw = file.path.ok_or(MetainfoError::Missing { field: "path" })?;
        if file.symlink || file.attributes.contains(&b'l') {
            return Err(MetainfoError::Symlink { path: show_raw(&raw) });
        }
        check_raw(&raw)?;
        let path: Box<[String]> = decoder.path(&raw, file.path_utf8.as_deref());
        for component in &path {
            check_component(component).map_err(|problem| MetainfoError::Name {
                name: shorten(&path.join("/")),
                problem,
            })?;
        }
        let length = file_length(file.length)?;
        files.push(File {
            path,
            offset: 0,
            length,
            padding: file.attributes.contains(&b'p'),
        });
    }
    Ok(files)
}

/// What the engine forbids in a file's path as the torrent has it, before any decoding.
fn check_raw(path: &[&[u8]]) -> Result<(), MetainfoError> {
    let problem = |component: &&[u8]| match *component {
        b"" => Some(NameProblem::Empty),
        b"." | b".." => Some(NameProblem::Dots),
        name if name.iter().any(|byte| matches!(byte, b'/' | b'\\')) => Some(NameProblem::Slash),
        _ => None,
    };
    let problem = if path.is_empty() {
        Some(NameProblem::Empty)
    } else {
        path.iter().find_map(problem)
    };
    match problem {
        Some(problem) => Err(MetainfoError::Name {
            name: show_raw(path),
            problem,
        }),
        None => Ok(()),
    }
}

fn file_length(length: Option<i64>) -> Result<u64, MetainfoError> {
    let length = length.ok_or(MetainfoError::Missing { field: "length" })?;
    u64::try_from(length).map_err(|_| MetainfoError::Field {
        field: "length",
        expected: "a size",
    })
}

/// Gives each file its place, and returns the size of all.
fn lay_out(files: &mut [File]) -> Result<u64, MetainfoError> {
    let mut total = 0u64;
    for file in files {
        file.offset = total;
        let end = total.checked_add(file.length).filter(|end| *end <= TOTAL_LIMIT);
        total = end.ok_or(MetainfoError::TooMany {
            what: "bytes of files",
            limit: TOTAL_LIMIT,
        })?;
    }
    Ok(total)
}

fn piece_count(metainfo: &Metainfo) -> Result<u32, MetainfoError> {
    let expected = metainfo.total.div_ceil(u64::from(metainfo.piece_length));
    if expected > PIECE_LIMIT {
        return Err(MetainfoError::TooMany {
            what: "pieces",
            limit: PIECE_LIMIT,
        });
    }
    let found = metainfo.hashes.len() as u64 / 20;
    match u32::try_from(expected) {
        Ok(count) if found == expected => Ok(count),
        _ => Err(MetainfoError::PieceCount { found, expected }),
    }
}

/// The info dictionary of a .torrent, as it stands there: what its info hash is the hash of.
///
/// # Errors
/// It is no torrent.
pub(in crate::torrents) fn info_of(bytes: &[u8]) -> Result<&[u8], MetainfoError> {
    librqbit_core::torrent_metainfo::torrent_from_bytes(bytes)
        .map(|torrent| torrent.info.raw_bytes.0)
        .map_err(|error| MetainfoError::Engine(error.to_string()))
}

/// The engine's own reading, last, because it trusts numbers that were checked only here. It gives the info hash.
fn agree_with_engine(bytes: &[u8], total: u64) -> Result<InfoHash, MetainfoError> {
    let torrent = librqbit_core::torrent_metainfo::torrent_from_bytes(bytes)
        .map_err(|error| MetainfoError::Engine(error.to_string()))?;
    // A torrent of empty files is shown and never given to the engine, which has no use for it.
    if total > 0 {
        torrent
            .info
            .data
            .validate()
            .map_err(|error| MetainfoError::Engine(error.to_string()))?;
    }
    Ok(InfoHash(torrent.info_hash.0))
}

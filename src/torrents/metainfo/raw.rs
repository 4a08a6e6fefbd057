//! The fields of a .torrent as they stand, found but not judged.

use std::ops::Range;
use std::time::{Duration, SystemTime};

use super::bencode::Reader;
use super::names::shorten;
use super::{MetainfoError, NameProblem, add_tracker};

const FILE_LIMIT: usize = 200_000;
const DEPTH_LIMIT: usize = 64;
/// The last second of the year 9999: what is dated later is not dated.
const LAST_SECOND: i64 = 253_402_300_799;

/// What stands beside the info dictionary.
#[derive(Default)]
pub(super) struct Outer<'a> {
    pub(super) info: Option<Info<'a>>,
    pub(super) announce: Vec<String>,
    pub(super) announce_list: Vec<String>,
    pub(super) created: Option<SystemTime>,
    pub(super) encoding: &'a [u8],
}

/// The info dictionary.
#[derive(Default)]
pub(super) struct Info<'a> {
    pub(super) name: Option<&'a [u8]>,
    pub(super) name_utf8: Option<&'a [u8]>,
    pub(super) piece_length: Option<i64>,
    pub(super) hashes: Option<Range<usize>>,
    pub(super) length: Option<i64>,
    pub(super) files: Option<Vec<RawFile<'a>>>,
    pub(super) attributes: &'a [u8],
    pub(super) symlink: bool,
    pub(super) private: bool,
    pub(super) version_2: bool,
}

#[derive(Default)]
pub(super) struct RawFile<'a> {
    pub(super) length: Option<i64>,
    pub(super) path: Option<Vec<&'a [u8]>>,
    pub(super) path_utf8: Option<Vec<&'a [u8]>>,
    pub(super) attributes: &'a [u8],
    pub(super) symlink: bool,
}

impl<'a> Info<'a> {
    /// Every name there is, as the torrent has them.
    pub(super) fn names(&self) -> impl Iterator<Item = &'a [u8]> {
        let paths = self.files.iter().flatten().filter_map(|file| file.path.as_ref());
        self.name.into_iter().chain(paths.flatten().copied())
    }
}

pub(super) fn read_outer(bytes: &[u8]) -> Result<Outer<'_>, MetainfoError> {
    let mut outer = Outer::default();
    let mut reader = Reader::new(bytes);
    reader.dictionary("torrent", |reader, key| {
        match key {
            b"info" => outer.info = Some(read_info(reader)?),
            b"announce" => {
                outer.announce.clear();
                add_raw_tracker(&mut outer.announce, reader.string("announce")?);
            }
            b"announce-list" => {
                outer.announce_list.clear();
                reader.list("announce-list", |reader| {
                    reader.list("announce-list", |reader| {
                        add_raw_tracker(&mut outer.announce_list, reader.string("announce-list")?);
                        Ok(())
                    })
                })?;
            }
            b"creation date" => {
                let seconds = reader.integer("creation date")?;
                outer.created = (1..=LAST_SECOND)
                    .contains(&seconds)
                    .then(|| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.unsigned_abs()));
            }
            b"encoding" => outer.encoding = reader.string("encoding")?,
            _ => reader.skip()?,
        }
        Ok(())
    })?;
    if reader.at() < bytes.len() {
        return Err(reader.malformed("more follows after its end"));
    }
    Ok(outer)
}

/// A URL that is no UTF-8 is no URL.
fn add_raw_tracker(trackers: &mut Vec<String>, url: &[u8]) {
    if let Ok(url) = std::str::from_utf8(url) {
        add_tracker(trackers, url);
    }
}

fn read_info<'a>(reader: &mut Reader<'a>) -> Result<Info<'a>, MetainfoError> {
    let mut info = Info::default();
    reader.dictionary("info", |reader, key| {
        match key {
            b"name" => info.name = Some(reader.string("name")?),
            b"name.utf-8" => info.name_utf8 = Some(reader.string("name.utf-8")?),
            b"piece length" => info.piece_length = Some(reader.integer("piece length")?),
            b"pieces" => {
                let length = reader.string("pieces")?.len();
                info.hashes = Some(reader.at() - length..reader.at());
            }
            b"length" => info.length = Some(reader.integer("length")?),
            b"files" => {
                let mut files = Vec::new();
                reader.list("files", |reader| {
                    if files.len() == FILE_LIMIT {
                        return Err(MetainfoError::TooMany {
                            what: "files",
                            limit: FILE_LIMIT as u64,
                        });
                    }
                    files.push(read_file(reader)?);
                    Ok(())
                })?;
                info.files = Some(files);
            }
            b"attr" => info.attributes = reader.string("attr")?,
            b"symlink path" => {
                info.symlink = true;
                reader.skip()?;
            }
            b"private" => info.private = reader.integer("private")? == 1,
            b"meta version" => info.version_2 = reader.integer("meta version")? == 2,
            b"file tree" => {
                info.version_2 = true;
                reader.skip()?;
            }
            _ => reader.skip()?,
        }
        Ok(())
    })?;
    Ok(info)
}

fn read_file<'a>(reader: &mut Reader<'a>) -> Result<RawFile<'a>, MetainfoError> {
    let mut file = RawFile::default();
    reader.dictionary("files", |reader, key| {
        match key {
            b"length" => file.length = Some(reader.integer("length")?),
            b"path" => file.path = Some(read_path(reader, "path")?),
            b"path.utf-8" => file.path_utf8 = Some(read_path(reader, "path.utf-8")?),
            b"attr" => file.attributes = reader.string("attr")?,
            b"symlink path" => {
                file.symlink = true;
                reader.skip()?;
            }
            _ => reader.skip()?,
        }
        Ok(())
    })?;
    Ok(file)
}

fn read_path<'a>(reader: &mut Reader<'a>, field: &'static str) -> Result<Vec<&'a [u8]>, MetainfoError> {
    let mut path = Vec::new();
    reader.list(field, |reader| {
        if path.len() == DEPTH_LIMIT {
            return Err(MetainfoError::Name {
                name: show_raw(&path),
                problem: NameProblem::Path,
            });
        }
        path.push(reader.string(field)?);
        Ok(())
    })?;
    Ok(path)
}

pub(super) fn show_raw(path: &[&[u8]]) -> String {
    shorten(&String::from_utf8_lossy(&path.join(&b'/')))
}

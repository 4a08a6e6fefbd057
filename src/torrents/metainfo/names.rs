//! The names that a torrent gives its files.

use encoding_rs::{Encoding, UTF_8};

use super::{File, MetainfoError, NameProblem};

/// No file system takes a longer name, in bytes.
pub(crate) const NAME_LIMIT: usize = 255;
/// Below the 4096 bytes of PATH_MAX, with room for the data directory and the mountpoint.
const PATH_LIMIT: usize = 3072;
/// With the files it stays within the 2^24 inode numbers of a torrent.
const FOLDER_LIMIT: usize = 200_000;

/// How names that are not UTF-8 are read: the same way for all names of a torrent, so that what differs in the torrent
/// mostly differs when decoded too.
pub(super) struct Decoder {
    encoding: &'static Encoding,
}

impl Decoder {
    /// `declared` is the torrent's `encoding`. Where that does not help, the names themselves tell.
    pub(super) fn new<'a>(declared: &[u8], names: impl Iterator<Item = &'a [u8]>) -> Decoder {
        let mut foreign = names.filter(|name| std::str::from_utf8(name).is_err()).peekable();
        if foreign.peek().is_none() {
            return Decoder { encoding: UTF_8 };
        }
        if let Some(encoding) = Encoding::for_label(declared).filter(|encoding| *encoding != UTF_8) {
            return Decoder { encoding };
        }
        let mut detector = chardetng::EncodingDetector::new(chardetng::Iso2022JpDetection::Deny);
        for name in foreign {
            detector.feed(name, false);
        }
        Decoder {
            encoding: detector.guess(None, chardetng::Utf8Detection::Allow),
        }
    }

    /// A name, preferably from its UTF-8 twin.
    pub(super) fn text(&self, raw: &[u8], utf8: Option<&[u8]>) -> String {
        let utf8 = utf8.and_then(|utf8| std::str::from_utf8(utf8).ok());
        match utf8.or_else(|| std::str::from_utf8(raw).ok()) {
            Some(text) => text.to_owned(),
            None => self.encoding.decode_without_bom_handling(raw).0.into_owned(),
        }
    }

    /// A path, preferably from its UTF-8 twin if that is as deep.
    pub(super) fn path(&self, raw: &[&[u8]], utf8: Option<&[&[u8]]>) -> Box<[String]> {
        let utf8 = utf8.filter(|utf8| utf8.len() == raw.len());
        let twin = |index: usize| utf8.map(|utf8| utf8[index]);
        raw.iter()
            .enumerate()
            .map(|(index, raw)| self.text(raw, twin(index)))
            .collect()
    }
}

/// Whether a decoded name can stand in a directory.
pub(super) fn check_component(name: &str) -> Result<(), NameProblem> {
    match name {
        "" => Err(NameProblem::Empty),
        "." | ".." => Err(NameProblem::Dots),
        _ if name.contains('/') => Err(NameProblem::Slash),
        _ if name.contains('\0') => Err(NameProblem::Nul),
        _ if name.len() > NAME_LIMIT => Err(NameProblem::Long),
        _ => Ok(()),
    }
}

/// Whether this can be the name of a file or folder.
pub(crate) fn is_plain_name(name: &str) -> bool {
    check_component(name).is_ok()
}

/// Whether all files that are shown can stand beside each other.
pub(super) fn check_paths(files: &[File]) -> Result<(), MetainfoError> {
    let mut paths: Vec<&[String]> = files
        .iter()
        .filter(|file| !file.padding)
        .map(|file| &*file.path)
        .collect();
    if let Some(path) = paths
        .iter()
        .find(|path| path.iter().map(|name| name.len() + 1).sum::<usize>() > PATH_LIMIT)
    {
        return Err(MetainfoError::Name {
            name: shorten(&path.join("/")),
            problem: NameProblem::Path,
        });
    }
    // In this order, all paths that begin with a path follow it at once: so neighbours tell everything.
    paths.sort_unstable();
    let mut folders = paths.first().map_or(0, |first| first.len() - 1);
    for pair in paths.windows(2) {
        let common = pair[0]
            .iter()
            .zip(pair[1])
            .take_while(|(one, other)| one == other)
            .count();
        if common == pair[0].len() {
            let [first, second] = [pair[0], pair[1]].map(|path| shorten(&path.join("/")));
            return Err(MetainfoError::Clash { first, second });
        }
        folders += pair[1].len() - 1 - common;
        if folders > FOLDER_LIMIT {
            return Err(MetainfoError::TooMany {
                what: "folders",
                limit: FOLDER_LIMIT as u64,
            });
        }
    }
    Ok(())
}

/// At most 80 characters, for a message of one line.
pub(super) fn shorten(text: &str) -> String {
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

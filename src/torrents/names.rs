//! What a torrent is called in the mount, and the inode numbers of its files.
//!
//! Both are decided once and stay: the name is kept with the torrent's options, and a number comes from the torrent's
//! own number and the place of the file in it.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use magnetfs_mount::{Entry, Group, Kind};

use super::metainfo::{Metainfo, NAME_LIMIT};

/// Files and folders of one torrent have this many bits of the inode number. Their limits stay below it.
const ORDINAL_BITS: u32 = 24;
/// Torrents are numbered below this.
pub(super) const NUMBER_LIMIT: u64 = (1 << (u64::BITS - ORDINAL_BITS)) - 1;
/// A longer last part of a name is no extension.
const EXTENSION_LIMIT: usize = 10;

/// The name of a newcomer in the root of the mount: its own, unless another has it. Then it gets the beginning of its
/// info hash (before the extension of a single file, so that players still know what it is), else all of it, else a
/// number beside. At most 255 bytes.
pub fn shown_name(metainfo: &Metainfo, taken: impl Fn(&str) -> bool) -> String {
    let name = &metainfo.name;
    if !taken(name) {
        return name.clone();
    }
    let (stem, extension) = if metainfo.single_file {
        split_extension(name)
    } else {
        (name.as_str(), "")
    };
    let with = |mark: &str| {
        let room = NAME_LIMIT - extension.len() - mark.len() - " []".len();
        format!("{} [{mark}]{extension}", beginning(stem, room))
    };
    let hash = metainfo.info_hash;
    let marks = [hash.short(), hash.to_string()].into_iter();
    let numbered = (2u64..).map(|number| format!("{hash} {number}"));
    // Only finitely many names are taken, so one is found.
    marks
        .chain(numbered)
        .map(|mark| with(&mark))
        .find(|name| !taken(name))
        .unwrap_or_else(|| hash.to_string())
}

/// As many characters as fit in so many bytes.
fn beginning(text: &str, limit: usize) -> &str {
    let fits = |end: &usize| *end <= limit;
    let ends = text.char_indices().map(|(start, _)| start).chain([text.len()]);
    &text[..ends.take_while(fits).last().unwrap_or(0)]
}

fn split_extension(name: &str) -> (&str, &str) {
    match name.rfind('.') {
        Some(dot) if dot > 0 && name.len() - dot <= EXTENSION_LIMIT => name.split_at(dot),
        _ => (name, ""),
    }
}

/// Everything that a torrent shows, folders before what they hold; padding is left out. The files are numbered by
/// their place in the torrent, and after them the folders in order of first appearance.
///
/// `modified` counts in whole seconds, as it is kept on disk, so that it is the same after a restart.
pub fn group(number: u64, shown_name: &str, metainfo: &Metainfo, modified: SystemTime) -> Group {
    let since = modified.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let mut shown = Shown {
        number,
        modified: SystemTime::UNIX_EPOCH + Duration::from_secs(since.as_secs()),
        next_folder: metainfo.files.len(),
        folders: HashSet::new(),
        entries: Vec::with_capacity(metainfo.files.len() + 1),
    };
    let root = PathBuf::from(shown_name);
    if metainfo.single_file {
        for file in &metainfo.files {
            shown.push(0, root.clone().into(), Kind::File { size: file.length });
        }
    } else {
        shown.add_folders(&root);
        for (index, file) in metainfo.files.iter().enumerate().filter(|(_, file)| !file.padding) {
            let mut path = root.clone();
            path.extend(file.path.iter());
            if let Some(folder) = path.parent() {
                shown.add_folders(folder);
            }
            shown.push(index, path.into(), Kind::File { size: file.length });
        }
    }
    Group {
        entries: shown.entries.into(),
    }
}

/// The torrent's number and the place in it that an inode number stands for: a file if below the number of files, else
/// a folder. A number of no torrent, such as the root's, gives the torrent `u64::MAX`, which never exists.
pub fn file_of(inode: u64) -> (u64, usize) {
    let ordinal = inode & ((1 << ORDINAL_BITS) - 1);
    (
        (inode >> ORDINAL_BITS).wrapping_sub(1),
        usize::try_from(ordinal).unwrap_or(usize::MAX),
    )
}

/// The inode number of a torrent's file, by the torrent's number and the file's index in it.
pub fn inode_of(number: u64, file: usize) -> u64 {
    (number + 1) << ORDINAL_BITS | file as u64
}

struct Shown {
    number: u64,
    modified: SystemTime,
    next_folder: usize,
    folders: HashSet<Box<Path>>,
    entries: Vec<Entry>,
}

impl Shown {
    fn push(&mut self, ordinal: usize, path: Box<Path>, kind: Kind) {
        self.entries.push(Entry {
            inode: inode_of(self.number, ordinal),
            path,
            kind,
            modified: self.modified,
        });
    }

    /// Adds a folder and those above it, where they are not there yet.
    fn add_folders(&mut self, folder: &Path) {
        let missing: Vec<&Path> = folder
            .ancestors()
            .take_while(|folder| !folder.as_os_str().is_empty() && !self.folders.contains(*folder))
            .collect();
        for folder in missing.into_iter().rev() {
            self.folders.insert(folder.into());
            self.push(self.next_folder, folder.into(), Kind::Folder);
            self.next_folder += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Instant;

    use proptest::prelude::*;

    use super::super::metainfo::samples::{Value, file, info, several, single, text, torrent};
    use super::*;

    fn metainfo(info: &Value) -> Metainfo {
        Metainfo::parse(&torrent(info)).unwrap()
    }

    fn listed(group: &Group) -> Vec<(String, u64, Option<u64>)> {
        let size = |kind| match kind {
            Kind::Folder => None,
            Kind::File { size } => Some(size),
        };
        let entries = group.entries.iter();
        entries
            .map(|entry| {
                (
                    entry.path.display().to_string(),
                    entry.inode & 0xff_ffff,
                    size(entry.kind),
                )
            })
            .collect()
    }

    #[test]
    fn a_newcomer_gets_out_of_the_way() {
        let film = metainfo(&single("film.mkv", 5, 16384));
        let (short, full) = (film.info_hash.short(), film.info_hash.to_string());
        assert_eq!(shown_name(&film, |_| false), "film.mkv");
        let mut taken = HashSet::new();
        for expected in [
            "film.mkv".to_owned(),
            format!("film [{short}].mkv"),
            format!("film [{full}].mkv"),
            format!("film [{full} 2].mkv"),
            format!("film [{full} 3].mkv"),
        ] {
            let name = shown_name(&film, |name| taken.contains(name));
            assert_eq!(name, expected);
            taken.insert(name);
        }
        let second = |info: Value| {
            let metainfo = metainfo(&info);
            shown_name(&metainfo, |name| name == metainfo.name).replace(&metainfo.info_hash.short(), "hash")
        };
        assert_eq!(
            second(several("Show.S01.1080p", &[("a", 1)], 16384)),
            "Show.S01.1080p [hash]"
        );
        assert_eq!(second(single(".hidden", 5, 16384)), ".hidden [hash]");
        assert_eq!(
            second(single("no extension. really", 5, 16384)),
            "no extension [hash]. really"
        );
        assert_eq!(
            second(single("a sentence. With a long end", 5, 16384)),
            "a sentence. With a long end [hash]"
        );
        assert_eq!(
            second(single(&format!("{}.mkv", "é".repeat(125)), 5, 16384)),
            format!("{} [hash].mkv", "é".repeat(120))
        );
    }

    #[test]
    fn a_single_file_stands_in_the_root() {
        let group = group(
            0,
            "shown.mkv",
            &metainfo(&single("film.mkv", 5, 16384)),
            SystemTime::UNIX_EPOCH,
        );
        assert_eq!(listed(&group), [("shown.mkv".to_owned(), 0, Some(5))]);
        assert_eq!(group.entries[0].inode, 1 << 24);
    }

    #[test]
    fn folders_come_first_and_padding_not_at_all() {
        let pad = file(&[".pad", "7"], 7).with("attr", text("p"));
        let files = vec![file(&["b", "c", "1"], 9), pad, file(&["a"], 0), file(&["b", "2"], 3)];
        let metainfo = metainfo(&info("own", 19, 16384).with("files", Value::List(files)));
        let modified = SystemTime::UNIX_EPOCH + Duration::from_millis(5_700);
        let group = group(7, "shown", &metainfo, modified);
        let expected = [
            ("shown", 4, None),
            ("shown/b", 5, None),
            ("shown/b/c", 6, None),
            ("shown/b/c/1", 0, Some(9)),
            ("shown/a", 2, Some(0)),
            ("shown/b/2", 3, Some(3)),
        ];
        assert_eq!(
            listed(&group),
            expected.map(|(path, ordinal, size)| (path.to_owned(), ordinal, size))
        );
        for entry in &group.entries {
            assert_eq!(entry.modified, SystemTime::UNIX_EPOCH + Duration::from_secs(5));
            assert_eq!(file_of(entry.inode).0, 7);
        }
    }

    #[test]
    fn numbers_lead_back() {
        assert_eq!(file_of(1).0, u64::MAX);
        assert_eq!(file_of(0).0, u64::MAX);
        assert_eq!(file_of(1 << 24), (0, 0));
        assert_eq!(file_of(u64::MAX), (NUMBER_LIMIT - 1, 0xff_ffff));
        let last = group(
            NUMBER_LIMIT - 1,
            "a",
            &metainfo(&single("a", 5, 16384)),
            SystemTime::now(),
        );
        assert_eq!(file_of(last.entries[0].inode), (NUMBER_LIMIT - 1, 0));
    }

    #[test]
    fn large_torrents_are_shown_quickly() {
        let names: Vec<String> = (0..100_000)
            .map(|n| format!("folder {}/sub/file {n}.mkv", n % 1000))
            .collect();
        let files: Vec<(&str, u64)> = names.iter().map(|name| (name.as_str(), 1)).collect();
        let metainfo = metainfo(&several("Many", &files, 16384));
        let started = Instant::now();
        let group = group(1, "Many", &metainfo, SystemTime::now());
        println!("100,000 files: {:?}", started.elapsed());
        assert_eq!(group.entries.len(), 1 + 2000 + 100_000);
        assert!(started.elapsed() < Duration::from_secs(20));
    }

    proptest! {
        #[test]
        fn names_fit_and_differ(
            name in prop_oneof![".{0,20}\\.[a-z]{1,12}", ".{1,255}", "\\PC{1,90}"],
            hash: [u8; 20],
            single_file: bool,
            clashes in 0usize..6,
        ) {
            let name = name.replace(['/', '\0'], "_");
            prop_assume!(!name.is_empty() && name != "." && name != "..");
            let mut torrent = metainfo(&single("a", 5, 16384));
            torrent.name = beginning(&name, NAME_LIMIT).to_owned();
            torrent.info_hash = super::super::InfoHash(hash);
            torrent.single_file = single_file;
            let mut taken = BTreeSet::new();
            for _ in 0..=clashes {
                let shown = shown_name(&torrent, |name| taken.contains(name));
                prop_assert!(!shown.is_empty() && shown.len() <= 255 && !shown.contains(['/', '\0']));
                prop_assert_eq!(&shown, &shown_name(&torrent, |name| taken.contains(name)));
                prop_assert!(taken.insert(shown));
            }
        }
    }
}

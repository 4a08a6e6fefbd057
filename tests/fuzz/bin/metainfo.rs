//! A .torrent: never a panic; what is accepted stays in its folder, adds up, and has its hashes within the file.
#![no_main]

use libfuzzer_sys::fuzz_target;
use magnetfs_fuzz::torrents::metainfo::Metainfo;

fuzz_target!(|data: &[u8]| {
    let Ok(torrent) = Metainfo::parse(data) else { return };
    assert!(torrent.piece_length > 0);
    assert_eq!(u64::from(torrent.piece_count), torrent.total.div_ceil(u64::from(torrent.piece_length)));
    let mut offset = 0;
    for file in &torrent.files {
        assert_eq!(file.offset, offset);
        offset += file.length;
        for component in &file.path {
            assert!(!component.is_empty() && component.len() <= 255, "{component:?}");
            assert!(!matches!(component.as_str(), "." | "..") && !component.contains(['/', '\0']));
        }
    }
    assert_eq!(offset, torrent.total);
});

//! `GET /m3u/<info hash>.m3u8`: the videos of a torrent, for any player. It names the raw files, which every player
//! takes and seeks in, whatever is in them; by whole addresses, so that it may be saved and opened from anywhere: what a
//! browser does with its link. Relative ones would lead nowhere in mpv, which asks for `/m3u/../files/…` as it stands,
//! and takes `/files/…` for a file of its own machine.

use std::fmt::Write;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Extension, Path, State};
use axum::http::HeaderValue;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::Response;

use super::address;
use super::answers::not_found;
use super::api::unknown;
use super::backend::Backend;
use super::kinds;
use super::routes::{App, Root};
use crate::text;
use crate::torrents::{InfoHash, TorrentFile};

/// The handler.
pub(super) async fn videos<B: Backend>(
    State(app): State<Arc<App<B>>>,
    Extension(Root(root)): Extension<Root>,
    Path(name): Path<String>,
) -> Response {
    let info_hash = name
        .strip_suffix(".m3u8")
        .and_then(|name| name.parse::<InfoHash>().ok());
    let Some(info_hash) = info_hash else {
        return not_found();
    };
    let Some(files) = app.backend.files(info_hash) else {
        return unknown(info_hash);
    };
    let mut response = Response::new(Body::from(playlist(&root, info_hash, &files)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("audio/x-mpegurl; charset=utf-8"));
    // A magnet link that is being resolved has no files yet.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

fn playlist(root: &str, info_hash: InfoHash, files: &[TorrentFile]) -> String {
    let mut videos: Vec<&TorrentFile> = files.iter().filter(|file| kinds::is_video(&file.path)).collect();
    // Torrents list their files in any order.
    videos.sort_by(|one, other| one.path.cmp(&other.path));
    let mut playlist = "#EXTM3U\n".to_owned();
    for file in videos {
        // A line break in a name would be a line of the playlist.
        let title = text::printable(&file.path);
        let address = address::of_file(&info_hash.to_string(), &file.path);
        // Writing to a String cannot fail.
        let _ = writeln!(playlist, "#EXTINF:-1,{title}\n{root}files/{address}");
    }
    playlist
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_videos_in_order_by_whole_addresses() {
        let info_hash: InfoHash = "ab".repeat(20).parse().unwrap();
        let file = |path: &str| TorrentFile {
            inode: 0,
            path: path.to_owned(),
            shown: path.into(),
            size: 1,
        };
        let files = ["s/2 b.mkv", "s/a.nfo", "s/1\n#EXT.mp4"].map(file);
        let playlist = playlist("http://localhost:1/t/x/", info_hash, &files);
        let start = format!("http://localhost:1/t/x/files/{info_hash}/s");
        let wanted = format!(
            "#EXTM3U\n#EXTINF:-1,s/1\u{fffd}#EXT.mp4\n{start}/1%0A%23EXT.mp4\n#EXTINF:-1,s/2 b.mkv\n{start}/2%20b.mkv\n"
        );
        assert_eq!(playlist, wanted);
    }
}

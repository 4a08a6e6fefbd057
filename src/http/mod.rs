//! The HTTP side, the only room that names axum:
//!
//! ```text
//! GET    /                                        the player page, which loads /assets/…
//! GET    /files/<info hash>/<path>                the raw file, whole or a range of it
//! GET    /hls/<info hash>/<path>/master.m3u8     a film as HLS, and below it its parts: see `hls.rs`
//! GET    /m3u/<info hash>.m3u8                    a torrent's videos, for any player
//! GET    /api/torrents                            what `list --json` says
//! GET    /api/torrents/<info hash>                what `show --json` says, and where each file is found here
//! POST   /api/torrents                            adds {"source": "magnet:…"}, or a .torrent
//! POST   /api/torrents/<info hash>/pause, resume
//! DELETE /api/torrents/<info hash>[?data=true]
//! GET    /api/films/<info hash>/<path>            how a film does
//! GET    /api/events[?film=<info hash>/<path>]    what changes, as Server-Sent Events
//! ```
//!
//! `<path>` is the file's in the torrent (of a torrent of one file, that file's name), percent-encoded, its slashes
//! kept. Where there is a token all of it lies below `/t/<token>/`, so every address in a page, a list or a playlist is
//! relative to what holds it.

mod address;
mod answers;
mod api;
mod assets;
mod backend;
mod crowd;
mod events;
mod files;
mod guard;
mod hls;
mod host;
mod kinds;
mod page;
mod patience;
mod playlists;
mod range;
mod routes;
mod server;
mod token;

#[cfg(test)]
mod tests;

pub use backend::{Backend, Films, RawFile, Refusal, Segment};
pub use server::{HttpOptions, Server, reachable};
pub use token::keep as keep_token;

//! The way to a running daemon: a Unix socket of its user, one JSON line a request, JSON lines as replies.
//!
//! ```text
//! client: {"command":"add","source":{"text":"magnet:?xt=…"},"peers":[]}
//! server: {"done":{"info_hash":"…","name":"…","resolved":false,"new":true,"path":null}}
//! client: {"command":"follow","torrent":"…","until":"resolved"}
//! server: {"progress":{…}}            as often as it changes, and each second
//! server: {"done":{…}}                or {"error":"…"}: the last line of a request
//! ```
//!
//! A connection carries one request after another; a client that hangs up ends what it waits for.

pub mod client;
pub mod protocol;
pub mod server;
pub mod tables;

mod folder;

pub use folder::prepare as prepare_folder;

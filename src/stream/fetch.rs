//! What is sure to be read is asked for at once. FFmpeg reads 128 KiB after 128 KiB, and waits for each; a swarm that is
//! asked for all of a segment sends it in the time of its line.

use std::convert::Infallible;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use super::film::Facts;
use super::house::{Command, House};
use super::policy::Place;
use super::source::Source;
use crate::media::ReadAt;

/// Read at a time. So much in sequence makes the engine fetch ahead, in order; of what is waited for, which is more
/// urgent, it asks late blocks of several peers, and of a whole segment that would be much for nothing.
const CHUNK: u64 = 512 << 10;

/// No segment is waited for that has more; FFmpeg itself reads what is beyond.
const MOST: u64 = 64 << 20;

/// A player has the init segment and asks for the first segment within this time.
const BETWEEN: Duration = Duration::from_secs(2);

/// The end of a file, where most have their index.
const TAIL: u64 = 64 << 10;

/// Asks for what a run reads for its first segment, for as long as somebody waits for the run.
pub(super) async fn first_segment<S: Source>(
    house: Arc<House<S>>,
    facts: Arc<Facts>,
    place: Place,
    mut command: watch::Receiver<Command>,
) {
    let bytes = facts.first_bytes(place);
    if house.source.here(&facts.name, std::slice::from_ref(&bytes)) == [true] {
        return;
    }
    let Ok(content) = house.source.open(&facts.name) else {
        return;
    };
    let read = async {
        let mut start = bytes.start;
        let end = bytes.end.min(start + MOST);
        while start < end {
            let length = CHUNK.min(end - start);
            // FFmpeg meets the same error, and says so.
            if content.read_at(start, length as usize).await.is_err() {
                return;
            }
            start += length;
        }
    };
    let waits = |command: &Command| matches!(command, Command::Go(orders) if orders.urgent);
    let unwanted = async {
        while command.wait_for(|command| !waits(command)).await.is_ok() {
            if timeout(BETWEEN, command.wait_for(waits)).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = read => {}
        () = unwanted => {}
    }
}

/// Asks for the end of a file, beside whoever reads its head. Never ready; dropping it ends it.
pub(super) async fn tail<C: ReadAt>(content: &C) -> Infallible {
    let length = TAIL.min(content.size());
    // Whoever needs it reads it himself, and meets the error.
    let _ = content.read_at(content.size() - length, length as usize).await;
    pending().await
}

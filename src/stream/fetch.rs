//! What is sure to be read is asked for at once. FFmpeg reads 128 KiB after 128 KiB, and waits for each; a swarm that
//! knows all of a segment sends it in the time of its line.

use std::convert::Infallible;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use super::film::Facts;
use super::house::{Command, House};
use super::policy::Place;
use super::source::{FilmFile, Source};

/// A player has the master playlist and asks for the first segment, or has the init segment and does, within this time.
const BETWEEN: Duration = Duration::from_secs(2);

/// What is asked for of the head of a file while its index is read: who asks for a playlist will play it, most often
/// from the start, and the line would else be idle between the few reads that an index takes.
const HEAD: u64 = 4 << 20;

/// When it will be read: so late that it gives way to the index.
const LATER: Duration = Duration::from_secs(10);

/// The end of a file, where most have their index. Its piece comes whole for a byte; the one before it, which a few
/// bytes more could lie in, may not be needed.
const TAIL: u64 = 1;

/// Asks for what a run reads for its first segment, for as long as somebody waits for the run.
pub(super) async fn first_segment<S: Source>(
    house: Arc<House<S>>,
    facts: Arc<Facts>,
    place: Place,
    mut command: watch::Receiver<Command>,
) {
    let bytes = facts.first_bytes(place);
    if house.source.here(&facts.name, std::slice::from_ref(&bytes)) == [true] {
        facts.begun.cancel();
        return;
    }
    let Ok(content) = house.source.open(&facts.name) else {
        return;
    };
    content.expect(bytes, Duration::ZERO).await;
    facts.begun.cancel();
    let waits = |command: &Command| matches!(command, Command::Go(orders) if orders.urgent);
    while command.wait_for(|command| !waits(command)).await.is_ok() {
        if timeout(BETWEEN, command.wait_for(waits)).await.is_err() {
            return;
        }
    }
}

/// Asks for the head and the end of a file, beside whoever reads its index. Never ready; dropping it ends the wait, and
/// dropping the file what is asked for.
pub(super) async fn ends<C: FilmFile>(content: &C) -> Infallible {
    content.expect(0..HEAD, LATER).await;
    let length = TAIL.min(content.size());
    // Whoever needs it reads it himself, and meets the error.
    let _ = content.read_at(content.size() - length, length as usize).await;
    pending().await
}

/// Asks for what the first run of a film that was just opened will read if it is played from the start, until some run
/// begins.
pub(super) async fn first_run<S: Source>(house: Arc<House<S>>, facts: Arc<Facts>, content: S::Content) {
    let between = async {
        content.expect(facts.first_bytes(Place::START), Duration::ZERO).await;
        // Nobody may come.
        let _ = timeout(BETWEEN, facts.begun.cancelled()).await;
    };
    house.stopping.run_until_cancelled(between).await;
}

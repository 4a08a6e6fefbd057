//! What a picker is told at its start, and the limits of its tables.

use std::time::Duration;

/// The most peers of one torrent.
pub const MAX_PEERS: usize = 1024;

/// The most demands that may live at once in one torrent.
pub const MAX_DEMANDS: usize = 16 * 1024;

/// Blocks a peer is asked for before anything is known of it: two arrivals in a row give its rate.
pub(super) const PROBE_BLOCKS: usize = 2;

/// The same while there are no more peers than [`FEW_PEERS`]: with nobody else to ask, each round trip counts that the
/// queue takes to grow.
pub(super) const PROBE_BLOCKS_OF_FEW: usize = 4;

/// See [`PROBE_BLOCKS_OF_FEW`].
pub(super) const FEW_PEERS: usize = 4;

/// The same, at most, while a reader waits: each peer is asked for its share of the piece at once, for a seeder under a
/// rate limit may answer once in half a second. A part of the piece is left for those who answer first.
pub(super) const PROBE_BLOCKS_OF_WAITING: usize = 16;

/// The part of the piece that is shared out, in quarters.
pub(super) const PROBE_QUARTERS: usize = 3;

/// The least number of blocks a peer is kept busy with: one being sent, one behind it.
pub(super) const LEAST_BLOCKS: usize = 2;

/// How many blocks the queue of a peer may grow with each arrival, towards what its rate and round trip need: it grows
/// as fast as TCP lets it, and two blocks that are read at once, and seem to have taken no time, do little harm.
pub(super) const GROWTH_BLOCKS: usize = 4;

/// How often the state of requests is looked at while a reader waits.
pub(super) const TICK_WAITING: Duration = Duration::from_millis(20);

/// How often it is looked at while no reader waits.
pub(super) const TICK: Duration = Duration::from_millis(250);

/// A request this much later than predicted is given up, whatever the band (or [`STALL_FACTOR`] block times, if
/// longer).
pub(super) const STALL: Duration = Duration::from_secs(2);

/// See [`STALL`].
pub(super) const STALL_FACTOR: f64 = 4.0;

/// How long a request that was given up, or cancelled at a peer that must reject it, still counts in the peer's queue.
pub(super) const FORGET: Duration = Duration::from_secs(10);

/// How many requests that no longer count are remembered for one peer, to measure it by an answer that comes after all.
pub(super) const MAX_FORGOTTEN: usize = 16;

/// After this long such an answer is not expected any more, and a peer that never answered is tried again.
pub(super) const ANOTHER_CHANCE: Duration = Duration::from_secs(60);

/// How long a piece that a peer refused is not asked of it again; doubled with each refusal in a row, up to 16 times.
pub(super) const REFUSED: Duration = Duration::from_millis(500);

/// The most pieces whose refusal is remembered for one peer; beyond it the peer as a whole rests.
pub(super) const MAX_REFUSED: usize = 32;

/// The most pieces that a choking peer may allow (BEP 6 suggests ten).
pub(super) const MAX_ALLOWED_FAST: usize = 64;

/// The most blocks that are asked of two peers at once for the same piece without one of them being late, as a share of
/// the piece: this keeps what is received within 1.3 of what is needed.
pub(super) const DUPLICATE_SHARE: u32 = 8;

/// Copies of one block asked for at the same time, at most.
pub(super) const MAX_COPIES: u8 = 3;

/// The least gain that is worth asking for a block twice.
pub(super) const LEAST_GAIN_S: f64 = 0.020;

/// The most failed pieces whose contributors are remembered.
pub(super) const MAX_SUSPECTS: usize = 64;

/// The most pieces of the order that one pick walks over before it looks elsewhere.
pub(super) const MAX_WALK: usize = 512;

/// Rarest-first candidates that are tried for a peer that is no seeder before its bits are searched.
pub(super) const RARITY_TRIES: usize = 32;

/// How a picker behaves; all of it has a default.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// How long a peer's queue is beyond its round trip: what is queued at a seeder when a reader seeks cannot be
    /// called back, so each millisecond here is a millisecond of every seek; too few and a peer runs dry between two
    /// blocks.
    pub queue_delay: Duration,
    /// The most requests outstanding at one peer, whatever it would allow.
    pub max_queue: u32,
    /// Bytes of unfinished pieces that are kept in memory. A waiting reader may go to four times this.
    pub partial_bytes: u64,
    /// The rate that a peer of unknown rate is taken to have while no peer's is known, in bytes a second.
    pub assumed_rate: u32,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            queue_delay: Duration::from_millis(30),
            max_queue: 1024,
            partial_bytes: 64 * 1024 * 1024,
            assumed_rate: 256 * 1024,
        }
    }
}

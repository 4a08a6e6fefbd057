//! Which block is asked of which peer, and when: the heart of the engine.
//!
//! Pure and deterministic. [`Picker`] is told of demands, peers, announcements and arrivals, each with its time, and
//! decides what to request and what to cancel. It never sees a byte of data.
//!
//! - *What is next* (`demands`, `index`, `rarity`): each piece's place is derived from the demands that live now, and
//!   kept in an index that changes only where something changed.
//! - *From whom* (`meter`, `peer`, `choose`): each peer's rate and round trip are measured from its arrivals; its queue
//!   is just long enough to keep it busy; a block that a reader waits for goes to a peer only if it comes in time from
//!   there.
//! - *Second thoughts* (`yielding`, `copies`): a reader that begins to wait pushes aside what can wait,
//!   and a block that is late is asked of another peer.
//! - *Trust* (`blame`): who sent each block of a bad piece, and how the liar is found.

mod announcements;
mod arrivals;
mod blame;
mod bursts;
mod choose;
#[cfg(test)]
mod consistency;
mod copies;
mod decide;
mod demands;
mod index;
mod meter;
mod partial;
mod peer;
mod rarity;
mod settings;
mod slots;
mod state;
mod yielding;

pub use arrivals::{Arrival, Receipt};
pub use demands::{Band, DemandKey, Want};
pub use settings::{MAX_DEMANDS, MAX_PEERS, Settings};
pub use state::{Action, Counters, PeerStats, Picker};

//! Which run of FFmpeg serves which request, and which runs begin, pause and end. Pure: what happens comes in with the
//! time at which it did, decisions come out.
//!
//! A *want* is one request that waits; it is always given to a run. A *run* is one FFmpeg, or one that is about to be
//! started; it makes segments of every track of its film from its first one on.

mod desk;
mod kinds;
mod state;

pub(super) use desk::Policy;
pub(super) use kinds::{Action, Ask, End, Limits, Orders, Part, Place, Refusal, RunId, Shape, TrackShape, WantId};
pub(super) use state::FAR;

#[cfg(test)]
mod tests;

//! The engine: which block is asked of which peer, when.

pub mod choker;
pub mod discovery;
pub mod limits;
pub mod listener;

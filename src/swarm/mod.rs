//! The engine: peers, blocks, and which of them is asked for what. Knows nothing of files as paths, FUSE or HTTP.

pub mod picker;
pub mod reader;
pub mod shape;

#[cfg(test)]
mod simulator;

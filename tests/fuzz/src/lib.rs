//! The parts of the program that read what peers send, taken in as they are.

pub mod swarm;

//! magnetfs mounts torrents as a directory: every file is there at once, at its full size, and seekable.

pub mod cli;
pub mod config;
pub mod control;
pub mod daemon;
pub mod demo;
pub mod doctor;
pub mod ffmpeg;
pub mod http;
pub mod logging;
pub mod media;
pub mod progress;
pub mod stream;
pub mod swarm;
pub mod text;
pub mod torrents;

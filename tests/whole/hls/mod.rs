//! Films over HLS from the running program, with stock FFmpeg behind it.

mod crowd;
mod ends;
mod exact;
mod players;
mod show;
mod subtitles;
mod swarm;
mod tracks;

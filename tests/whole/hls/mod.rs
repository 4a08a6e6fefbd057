//! Films over HLS from the running program, with stock FFmpeg behind it.

mod exact;
mod show;
mod subtitles;

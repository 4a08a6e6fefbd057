//! One FFmpeg: its arguments, its confinement, its life and its end.

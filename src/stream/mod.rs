//! Films as HLS: timeline, playlists, fragments made into segments, the runs of FFmpeg that feed them, and their cache.

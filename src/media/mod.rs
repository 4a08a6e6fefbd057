//! What a container's own index says: tracks, codecs, keyframes. Pure over its own trait for reading.

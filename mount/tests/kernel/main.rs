//! Real mounts over a fake catalog, read by child processes. Needs root, or a user who may mount, and /dev/fuse.

mod fake;
mod support;

mod bytes;
mod ending;
mod mounting;
mod names;
mod passthrough;
mod waiting;

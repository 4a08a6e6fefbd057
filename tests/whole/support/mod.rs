//! What the tests of the whole program share: a daemon, seeders, torrents, films, and limits on all of them.

pub(crate) mod browser;
pub(crate) mod command;
pub(crate) mod daemon;
pub(crate) mod limit;
pub(crate) mod media;
pub(crate) mod swarm;
pub(crate) mod torrents;
pub(crate) mod trials;
pub(crate) mod web;
pub(crate) mod work;

pub(crate) use command::{Background, Outcome, run, shell};
pub(crate) use daemon::{Daemon, DaemonOptions, is_mounted};
pub(crate) use limit::{eventually, limited, report};
pub(crate) use work::Work;

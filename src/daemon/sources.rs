//! What is named on the line of `mount`, judged before anything is mounted.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::Context;

use crate::text;
use crate::torrents::{Metainfo, Source, read_file};

/// A source that may be added.
#[derive(Debug)]
pub(super) struct Given {
    /// The source, of a file its content.
    pub(super) source: Source,
    /// As it was written, for the log.
    pub(super) name: String,
    /// It is not known yet whether it can be had.
    pub(super) from_web: bool,
}

/// Reads and checks all that can be checked without the network.
///
/// # Errors
/// The first source that will not do, by name.
pub(super) fn judge(sources: &[OsString]) -> anyhow::Result<Vec<Given>> {
    sources.iter().map(judge_one).collect()
}

fn judge_one(written: &OsString) -> anyhow::Result<Given> {
    let name = text::printable(&written.to_string_lossy());
    let parsed = match written.to_str() {
        Some(text) => Source::parse(text)?,
        None => Source::File(PathBuf::from(written)),
    };
    let from_web = matches!(parsed, Source::Url(_));
    let source = match parsed {
        Source::File(path) => {
            let bytes = read_file(&path)?;
            Metainfo::parse(&bytes).with_context(|| name.clone())?;
            Source::Bytes(bytes)
        }
        other => other,
    };
    Ok(Given { source, name, from_web })
}

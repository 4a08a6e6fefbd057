//! What a user names a torrent by, and how its bytes are got.

mod fetch;
mod magnet;

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use reqwest::StatusCode;
use url::Url;

pub use fetch::fetch;
pub use magnet::Magnet;

use super::info_hash::InfoHash;
use super::metainfo::METAINFO_LIMIT;

/// Where a torrent comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A magnet link, or an info hash alone: the metainfo comes from peers.
    Magnet(Magnet),
    /// A .torrent on this machine.
    File(PathBuf),
    /// A .torrent on a web server.
    Url(Url),
    /// A .torrent that was read already.
    Bytes(Vec<u8>),
}

impl Source {
    /// Reads what a user writes: a magnet link, 40 hex digits, an http(s) URL, or anything else for a path. Nothing is
    /// opened.
    ///
    /// # Errors
    /// For a magnet link or URL that cannot work; any path is taken.
    pub fn parse(text: &str) -> Result<Source, SourceError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(SourceError::Empty);
        }
        if let Ok(info_hash) = text.parse::<InfoHash>() {
            return Ok(Source::Magnet(Magnet::of(info_hash)));
        }
        let scheme = text.split_once(':').map(|(scheme, _)| scheme.to_ascii_lowercase());
        match scheme.as_deref() {
            Some("magnet") => Magnet::parse(text).map(Source::Magnet),
            Some(scheme) if text[scheme.len()..].starts_with("://") => parse_url(text, scheme),
            _ => Ok(Source::File(PathBuf::from(text))),
        }
    }

    /// Gets the bytes of the .torrent, at most [`METAINFO_LIMIT`]: at once, from the disk, or from a web server within
    /// a minute. Dropping the future gives it up.
    ///
    /// # Errors
    /// They cannot be had; of a magnet link they come from peers, so never from here.
    pub async fn fetch(self) -> Result<Vec<u8>, SourceError> {
        match self {
            Source::Magnet(magnet) => Err(SourceError::NoMetainfo {
                info_hash: magnet.info_hash,
            }),
            Source::Bytes(bytes) => Ok(bytes),
            Source::Url(url) => fetch(&url).await,
            Source::File(path) => {
                let reading = tokio::task::spawn_blocking(move || read_file(&path));
                reading
                    .await
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
            }
        }
    }
}

fn parse_url(text: &str, scheme: &str) -> Result<Source, SourceError> {
    let bad_url = |why: String| SourceError::BadUrl {
        url: text.to_owned(),
        why,
    };
    let url = Url::parse(text).map_err(|error| bad_url(error.to_string()))?;
    match scheme {
        "http" | "https" => Ok(Source::Url(url)),
        "file" => url
            .to_file_path()
            .map(Source::File)
            .map_err(|()| bad_url("it names no local file".to_owned())),
        _ => Err(SourceError::Scheme {
            scheme: scheme.to_owned(),
        }),
    }
}

/// Reads a .torrent from a path. Blocking, as the file system is.
///
/// # Errors
/// Names the path: not there, no permission, not a plain file (a pipe or device is not waited for), or larger than
/// [`METAINFO_LIMIT`].
pub fn read_file(path: &Path) -> Result<Vec<u8>, SourceError> {
    let path_buf = || path.to_owned();
    let read_error = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => SourceError::NoSuchFile { path: path_buf() },
        _ => SourceError::Unreadable {
            path: path_buf(),
            source,
        },
    };
    let nonblocking = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or(0);
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(nonblocking)
        .open(path)
        .map_err(read_error)?;
    let metadata = file.metadata().map_err(read_error)?;
    if !metadata.is_file() {
        return Err(SourceError::NotAFile { path: path_buf() });
    }
    if metadata.len() > METAINFO_LIMIT as u64 {
        return Err(SourceError::TooLarge {
            what: path.display().to_string(),
        });
    }
    let mut bytes = Vec::new();
    file.take(METAINFO_LIMIT as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(read_error)?;
    if bytes.len() > METAINFO_LIMIT {
        return Err(SourceError::TooLarge {
            what: path.display().to_string(),
        });
    }
    Ok(bytes)
}

/// Why a source gives no torrent.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// Nothing was named.
    #[error("no source: name a magnet link, a .torrent file, an http(s) URL of one, or an info hash of 40 hex digits")]
    Empty,
    /// A magnet link has no .torrent of its own.
    #[error("the metainfo of {info_hash} comes from its peers")]
    NoMetainfo {
        /// The torrent.
        info_hash: InfoHash,
    },
    /// A magnet link that names no torrent.
    #[error("the magnet link has no info hash (xt=urn:btih:…): copy the whole link")]
    NoInfoHash,
    /// A magnet link with an unreadable info hash.
    #[error("the magnet link's info hash {text:?} is neither 40 hex digits nor 32 base32 digits: copy the whole link")]
    BadInfoHash {
        /// What stands there.
        text: String,
    },
    /// A magnet link of a version 2 torrent alone.
    #[error(
        "the magnet link is of BitTorrent version 2 alone (urn:btmh), which is not supported: use a hybrid or version 1 \
         torrent (urn:btih)"
    )]
    Version2,
    /// A URL of another kind.
    #[error("{scheme}:// is not supported: use a magnet link, an http(s) URL or a file")]
    Scheme {
        /// The part before `://`.
        scheme: String,
    },
    /// Not a URL.
    #[error("{url:?} is not a usable URL: {why}")]
    BadUrl {
        /// What was given.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// The path leads nowhere.
    #[error(
        "{path:?} does not exist (a source is a magnet link, a .torrent file, an http(s) URL of one, or an info hash of \
         40 hex digits)"
    )]
    NoSuchFile {
        /// The path.
        path: PathBuf,
    },
    /// A directory, pipe or device.
    #[error("{path:?} is not a plain file")]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// The file could not be read.
    #[error("{path:?} cannot be read: {source}")]
    Unreadable {
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Larger than any .torrent.
    #[error("{what} is larger than {} MiB, so it is no .torrent", METAINFO_LIMIT >> 20)]
    TooLarge {
        /// Path or URL.
        what: String,
    },
    /// The web server gave something else than the file.
    #[error("{url} answered {status}")]
    Status {
        /// The URL without its query.
        url: String,
        /// Its answer.
        status: StatusCode,
    },
    /// The web server took too long.
    #[error("{url} did not send the .torrent within {seconds} s")]
    Slow {
        /// The URL without its query.
        url: String,
        /// The limit.
        seconds: u64,
    },
    /// The web server could not be reached, or broke off.
    #[error("{url} cannot be fetched: {why}")]
    Fetch {
        /// The URL without its query.
        url: String,
        /// What went wrong.
        why: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        Source::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn each_kind_is_told_from_the_others() {
        let hash = "0123456789abcdef0123456789ABCDEF01234567";
        let bare = Magnet::of(hash.parse().unwrap());
        assert_eq!(
            Source::parse(&format!(" {hash}\n")).unwrap(),
            Source::Magnet(bare.clone())
        );
        assert_eq!(
            Source::parse(&format!("MAGNET:?xt=urn:btih:{hash}")).unwrap(),
            Source::Magnet(bare)
        );
        let url = "https://example.org/a.torrent?key=1";
        assert_eq!(Source::parse(url).unwrap(), Source::Url(Url::parse(url).unwrap()));
        assert_eq!(
            Source::parse("file:///tmp/a%20b.torrent").unwrap(),
            Source::File("/tmp/a b.torrent".into())
        );
        for path in ["film.torrent", "./a", "/tmp/x", "a:b.torrent", "é:x", &hash[1..]] {
            assert_eq!(Source::parse(path).unwrap(), Source::File(path.into()));
        }
    }

    #[test]
    fn what_cannot_work_is_refused_in_words() {
        assert!(refusal(" ").starts_with("no source"));
        assert!(refusal("magnet:").contains("no info hash"));
        assert!(refusal("ftp://host/a.torrent").contains("ftp:// is not supported"));
        assert!(refusal("http://").contains("not a usable URL"));
        assert!(refusal("file://elsewhere/a").contains("names no local file"));
    }

    #[test]
    fn only_plain_files_of_bounded_size_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.torrent");
        assert!(read_file(&path).unwrap_err().to_string().contains("does not exist"));
        std::fs::write(&path, b"de").unwrap();
        assert_eq!(read_file(&path).unwrap(), b"de");
        assert!(matches!(read_file(dir.path()), Err(SourceError::NotAFile { .. })));
        // Opening a pipe without a writer would wait for one.
        let pipe = dir.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        assert!(matches!(read_file(&pipe), Err(SourceError::NotAFile { .. })));
        let large = std::fs::File::create(dir.path().join("large")).unwrap();
        large.set_len(METAINFO_LIMIT as u64 + 1).unwrap();
        assert!(matches!(
            read_file(&dir.path().join("large")),
            Err(SourceError::TooLarge { .. })
        ));
        // A file that says that it is empty and is not.
        assert!(!read_file(Path::new("/proc/self/maps")).unwrap().is_empty());
    }
}

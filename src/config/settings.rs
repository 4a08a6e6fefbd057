//! One layer of settings: what the command line, the environment, or the file says. Each layer may say anything or
//! nothing; the keys are the same in all of them.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::de::{DeTable, DeValue};

use super::places::Surroundings;
use super::values::{self, Limit, Listen, LogFormat, Secret, ValueError};
use crate::torrents::{Download, Floor, Seeding};

/// Every key, as it is written in the file. `--KEY` is the option and `MAGNETFS_KEY` the variable.
pub const KEYS: [&str; 26] = [
    "allow-other",
    "data-dir",
    "dht",
    "download",
    "download-limit",
    "free-space-floor",
    "gid",
    "http",
    "http-host",
    "http-token",
    "listen",
    "log",
    "log-level",
    "lsd",
    "peer",
    "read-deadline",
    "seed",
    "socket",
    "stream-disk",
    "stream-memory",
    "stream-runs",
    "trackers",
    "uid",
    "umask",
    "upload-limit",
    "upnp",
];

/// The peers that may be named: beyond that a tracker is meant.
const PEER_LIMIT: usize = 1000;

/// The names that we may be called by.
const HOST_LIMIT: usize = 100;

/// A configuration file is short; what is longer is something else.
const FILE_LIMIT: u64 = 1 << 20;

/// Why a layer could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// No such key.
    #[error("there is no setting `{key}`: the settings are {}", KEYS.join(", "))]
    Unknown {
        /// What was written.
        key: String,
    },
    /// A value that its key does not take.
    #[error(transparent)]
    Value(#[from] ValueError),
    /// An environment variable is wrong.
    #[error("the environment variable {name}: {source}")]
    Variable {
        /// Its name.
        name: String,
        /// What is wrong.
        source: Box<SettingsError>,
    },
    /// A line of the file is wrong.
    #[error("{}, line {line}: {what}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        what: String,
    },
    /// The file could not be read.
    #[error("the configuration file {} could not be read: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Neither named nor to be guessed.
    #[error("there is no home directory to keep data in: name a folder with --data-dir")]
    NoDataDir,
}

/// One layer. `None` and empty stand for "says nothing".
#[derive(Debug, Clone, PartialEq, Default)]
#[expect(
    missing_docs,
    reason = "each field is the key of the same name, which the help text explains"
)]
pub struct Settings {
    pub allow_other: Option<bool>,
    pub data_dir: Option<PathBuf>,
    pub dht: Option<bool>,
    pub download: Option<Download>,
    pub download_limit: Option<Limit>,
    pub free_space_floor: Option<Floor>,
    pub gid: Option<u32>,
    pub http: Option<Listen>,
    pub http_host: Vec<String>,
    pub http_token: Option<Secret>,
    pub listen: Option<Listen>,
    pub log: Option<LogFormat>,
    pub log_level: Option<String>,
    pub lsd: Option<bool>,
    pub peer: Vec<SocketAddr>,
    pub read_deadline: Option<Duration>,
    pub seed: Option<Seeding>,
    pub socket: Option<PathBuf>,
    pub stream_disk: Option<u64>,
    pub stream_memory: Option<u64>,
    pub stream_runs: Option<usize>,
    pub trackers: Option<bool>,
    pub uid: Option<u32>,
    pub umask: Option<u16>,
    pub upload_limit: Option<Limit>,
    pub upnp: Option<bool>,
}

impl Settings {
    /// Sets one key. A peer or a host name is added to those that are there.
    fn set(&mut self, key: &str, value: &OsStr) -> Result<(), SettingsError> {
        let text = || {
            value
                .to_str()
                .ok_or_else(|| ValueError::new(&value.to_string_lossy(), "readable as UTF-8"))
        };
        match key {
            "allow-other" => self.allow_other = Some(values::switch(text()?)?),
            "data-dir" => self.data_dir = Some(PathBuf::from(value)),
            "dht" => self.dht = Some(values::switch(text()?)?),
            "download" => self.download = Some(values::download(text()?)?),
            "download-limit" => self.download_limit = Some(text()?.parse()?),
            "free-space-floor" => self.free_space_floor = Some(values::floor(text()?)?),
            "gid" => self.gid = Some(values::identity(text()?)?),
            "http" => self.http = Some(text()?.parse()?),
            "http-host" if self.http_host.len() == HOST_LIMIT => {
                return Err(ValueError::new(text()?, "wanted: a hundred names are the most").into());
            }
            "http-host" => self.http_host.push(values::host(text()?)?),
            "http-token" => self.http_token = Some(text()?.parse()?),
            "listen" => self.listen = Some(text()?.parse()?),
            "log" => self.log = Some(text()?.parse()?),
            "log-level" => self.log_level = Some(text()?.to_owned()),
            "lsd" => self.lsd = Some(values::switch(text()?)?),
            "peer" if self.peer.len() == PEER_LIMIT => {
                return Err(ValueError::new(text()?, "wanted: a thousand peers are the most").into());
            }
            "peer" => self.peer.push(values::peer(text()?)?),
            "read-deadline" => self.read_deadline = Some(values::seconds(text()?)?),
            "seed" => self.seed = Some(values::seeding(text()?)?),
            "socket" => self.socket = Some(PathBuf::from(value)),
            "stream-disk" => self.stream_disk = Some(values::size(text()?)?),
            "stream-memory" => self.stream_memory = Some(values::size(text()?)?),
            "stream-runs" => self.stream_runs = Some(values::count(text()?)?),
            "trackers" => self.trackers = Some(values::switch(text()?)?),
            "uid" => self.uid = Some(values::identity(text()?)?),
            "umask" => self.umask = Some(values::umask(text()?)?),
            "upload-limit" => self.upload_limit = Some(text()?.parse()?),
            "upnp" => self.upnp = Some(values::switch(text()?)?),
            _ => return Err(SettingsError::Unknown { key: key.to_owned() }),
        }
        Ok(())
    }

    /// What the `MAGNETFS_…` variables say; several peers and host names are separated by commas or spaces. Variables
    /// that belong to no key are left alone: other programs have theirs under the same prefix.
    ///
    /// # Errors
    /// [`SettingsError::Variable`] for a value that its key does not take.
    pub fn from_variables(surroundings: &Surroundings) -> Result<Settings, SettingsError> {
        let mut settings = Settings::default();
        for key in KEYS {
            let name = variable_name(key);
            let Some(value) = surroundings.variable(&name) else {
                continue;
            };
            let parts: Vec<&OsStr> = match (key, value.to_str()) {
                ("peer" | "http-host", Some(list)) => list
                    .split([',', ' '])
                    .filter(|part| !part.is_empty())
                    .map(OsStr::new)
                    .collect(),
                _ => vec![value],
            };
            for part in parts {
                let wrong = |source| SettingsError::Variable {
                    name: name.clone(),
                    source: Box::new(source),
                };
                settings.set(key, part).map_err(wrong)?;
            }
        }
        settings.make_absolute(&surroundings.directory);
        Ok(settings)
    }

    /// What a file says; `None` if it does not exist.
    ///
    /// # Errors
    /// [`SettingsError::Line`] and [`SettingsError::File`].
    pub fn from_file(path: &Path, surroundings: &Surroundings) -> Result<Option<Settings>, SettingsError> {
        let unreadable = |source| SettingsError::File {
            path: path.to_owned(),
            source,
        };
        match std::fs::metadata(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unreadable(error)),
            Ok(metadata) if metadata.len() > FILE_LIMIT => {
                return Err(unreadable(std::io::Error::other(
                    "it is over 1 MiB, so it is not a configuration file",
                )));
            }
            Ok(_) => {}
        }
        let text = std::fs::read_to_string(path).map_err(unreadable)?;
        Settings::from_toml(path, &text, surroundings.home.as_deref()).map(Some)
    }

    fn from_toml(path: &Path, text: &str, home: Option<&Path>) -> Result<Settings, SettingsError> {
        let at = |offset: usize, what: String| {
            let line = 1 + text.as_bytes()[..offset.min(text.len())]
                .iter()
                .filter(|byte| **byte == b'\n')
                .count();
            SettingsError::Line {
                path: path.to_owned(),
                line,
                what,
            }
        };
        let table = DeTable::parse(text)
            .map_err(|error| at(error.span().map_or(0, |span| span.start), error.message().to_owned()))?;
        let mut settings = Settings::default();
        for (key, value) in table.get_ref() {
            let name: &str = key.get_ref();
            if !KEYS.contains(&name) {
                return Err(at(
                    key.span().start,
                    SettingsError::Unknown { key: name.to_owned() }.to_string(),
                ));
            }
            let items = match value.get_ref() {
                DeValue::Array(items) if matches!(name, "peer" | "http-host") => items.iter().collect(),
                _ => vec![value],
            };
            for item in items {
                let wrong = |what: String| at(item.span().start, format!("{name}: {what}"));
                let text = scalar(name, item.get_ref(), home).map_err(wrong)?;
                settings
                    .set(name, OsStr::new(&text))
                    .map_err(|error| wrong(error.to_string()))?;
            }
        }
        Ok(settings)
    }

    /// Paths made absolute, so that a change of directory changes nothing.
    pub(super) fn make_absolute(&mut self, directory: &Path) {
        for path in [&mut self.data_dir, &mut self.socket].into_iter().flatten() {
            *path = directory.join(&*path);
        }
    }

    /// This layer, and where it says nothing the `lower` one. Peers are not mixed, nor are host names.
    #[must_use]
    pub fn over(self, lower: Settings) -> Settings {
        Settings {
            allow_other: self.allow_other.or(lower.allow_other),
            data_dir: self.data_dir.or(lower.data_dir),
            dht: self.dht.or(lower.dht),
            download: self.download.or(lower.download),
            download_limit: self.download_limit.or(lower.download_limit),
            free_space_floor: self.free_space_floor.or(lower.free_space_floor),
            gid: self.gid.or(lower.gid),
            http: self.http.or(lower.http),
            http_host: if self.http_host.is_empty() {
                lower.http_host
            } else {
                self.http_host
            },
            http_token: self.http_token.or(lower.http_token),
            listen: self.listen.or(lower.listen),
            log: self.log.or(lower.log),
            log_level: self.log_level.or(lower.log_level),
            lsd: self.lsd.or(lower.lsd),
            peer: if self.peer.is_empty() { lower.peer } else { self.peer },
            read_deadline: self.read_deadline.or(lower.read_deadline),
            seed: self.seed.or(lower.seed),
            socket: self.socket.or(lower.socket),
            stream_disk: self.stream_disk.or(lower.stream_disk),
            stream_memory: self.stream_memory.or(lower.stream_memory),
            stream_runs: self.stream_runs.or(lower.stream_runs),
            trackers: self.trackers.or(lower.trackers),
            uid: self.uid.or(lower.uid),
            umask: self.umask.or(lower.umask),
            upload_limit: self.upload_limit.or(lower.upload_limit),
            upnp: self.upnp.or(lower.upnp),
        }
    }
}

/// `upload-limit` is `MAGNETFS_UPLOAD_LIMIT`.
pub fn variable_name(key: &str) -> String {
    format!("MAGNETFS_{}", key.to_ascii_uppercase().replace('-', "_"))
}

/// A value of the file as it would be written on the command line.
fn scalar(key: &str, value: &DeValue<'_>, home: Option<&Path>) -> Result<String, String> {
    match value {
        DeValue::String(text) if matches!(key, "data-dir" | "socket") => {
            let path = match (text.strip_prefix("~/"), home) {
                (Some(rest), Some(home)) => home.join(rest),
                _ => PathBuf::from(&**text),
            };
            // What a relative path would be relative to is another folder at each start.
            let absolute = path.to_str().filter(|_| path.is_absolute());
            absolute
                .map(str::to_owned)
                .ok_or_else(|| format!("`{text}` must begin with / or ~/"))
        }
        DeValue::String(text) => Ok(text.to_string()),
        DeValue::Integer(_) if key == "umask" => Err("write it in quotes, such as umask = \"022\"".to_owned()),
        DeValue::Integer(number) if number.radix() == 10 => Ok(number.as_str().to_owned()),
        DeValue::Float(number) => Ok(number.as_str().to_owned()),
        DeValue::Boolean(yes) => Ok(if *yes { "on" } else { "off" }.to_owned()),
        DeValue::Integer(_) | DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => {
            Err(format!("a text or a number was expected, not {}", value.type_str()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A value for each key that is not its default.
    const EXAMPLES: [(&str, &str); 26] = [
        ("allow-other", "on"),
        ("data-dir", "/data"),
        ("dht", "off"),
        ("download", "whole"),
        ("download-limit", "2M"),
        ("free-space-floor", "10G"),
        ("gid", "7"),
        ("http", "127.0.0.1:80"),
        ("http-host", "media.lan"),
        ("http-token", "0123456789abcdef"),
        ("listen", "127.0.0.1:6881"),
        ("log", "json"),
        ("log-level", "debug"),
        ("lsd", "off"),
        ("peer", "127.0.0.1:7000"),
        ("read-deadline", "9"),
        ("seed", "always"),
        ("socket", "/run/socket"),
        ("stream-disk", "3G"),
        ("stream-memory", "64M"),
        ("stream-runs", "2"),
        ("trackers", "off"),
        ("uid", "8"),
        ("umask", "077"),
        ("upload-limit", "off"),
        ("upnp", "on"),
    ];

    fn toml(text: &str) -> Result<Settings, SettingsError> {
        Settings::from_toml(Path::new("/c.toml"), text, Some(Path::new("/home/anna")))
    }

    fn variables(pairs: &[(&str, &str)]) -> Result<Settings, SettingsError> {
        let variables = pairs.iter().map(|(name, value)| (name.into(), value.into())).collect();
        Settings::from_variables(&Surroundings {
            variables,
            directory: "/place".into(),
            ..Surroundings::default()
        })
    }

    #[test]
    fn every_key_is_understood_in_the_file_and_as_a_variable_alike() {
        assert_eq!(EXAMPLES.map(|(key, _)| key), KEYS);
        for (key, value) in EXAMPLES {
            let from_file = toml(&format!("{key} = \"{value}\"")).unwrap();
            let from_variable = variables(&[(&variable_name(key), value)]).unwrap();
            assert_eq!(from_file, from_variable, "{key}");
            assert_ne!(from_file, Settings::default(), "{key}");
            // `over` forgets no key, in either direction.
            assert_eq!(from_file.clone().over(Settings::default()), from_file, "{key}");
            assert_eq!(Settings::default().over(from_file.clone()), from_file, "{key}");
        }
    }

    #[test]
    fn the_upper_layer_wins() {
        let upper = toml("download-limit = '1M'\npeer = ['1.1.1.1:1']").unwrap();
        let lower = toml("download-limit = '2M'\nlog = 'json'\npeer = ['2.2.2.2:2', '3.3.3.3:3']").unwrap();
        let both = upper.clone().over(lower);
        assert_eq!((both.download_limit, both.peer.len()), (upper.download_limit, 1));
        assert_eq!(both.log, Some(LogFormat::Json));
    }

    #[test]
    fn toml_may_use_its_own_types() {
        let settings = toml("dht = false\nread-deadline = 30\nuid = 5\npeer = '1.1.1.1:1'\ndata-dir = '~/t'").unwrap();
        assert_eq!(
            (settings.dht, settings.uid, settings.peer.len()),
            (Some(false), Some(5), 1)
        );
        assert_eq!(settings.read_deadline, Some(Duration::from_secs(30)));
        assert_eq!(settings.data_dir.unwrap(), Path::new("/home/anna/t"));
    }

    #[test]
    fn a_wrong_line_is_named() {
        let cases = [
            ("\n\nuplod-limit = '1M'", 3, "there is no setting `uplod-limit`"),
            ("dht = true\nlisten = 'all'", 2, "listen: `all` is not"),
            (
                "peer = [\n'1.1.1.1:1',\n'nobody',\n]",
                3,
                "peer: `nobody` is not IP:PORT",
            ),
            ("umask = 0o022", 1, "in quotes"),
            ("umask = 22", 1, "in quotes"),
            ("uid = 0x10", 1, "expected"),
            ("[mount]\nuid = 1", 1, "there is no setting `mount`"),
            ("log = ['json']", 1, "a text or a number"),
            ("data-dir = 'here'", 1, "must begin with /"),
            ("dht = true\ndht = false", 2, "duplicate"),
            ("a b c", 1, ""),
        ];
        for (text, line, what) in cases {
            let message = toml(text).expect_err(text).to_string();
            assert!(
                message.starts_with(&format!("/c.toml, line {line}: ")),
                "{text}: {message}"
            );
            assert!(message.contains(what), "{text}: {message}");
            assert!(!message.contains('\n'), "{message}");
        }
    }

    #[test]
    fn a_wrong_variable_is_named_and_an_unknown_one_is_not_ours() {
        let message = variables(&[("MAGNETFS_UMASK", "99")]).unwrap_err().to_string();
        assert!(
            message.starts_with("the environment variable MAGNETFS_UMASK: `99` is not"),
            "{message}"
        );
        assert_eq!(
            variables(&[("MAGNETFS_CMD", "x"), ("MAGNETFS_UID", "")]).unwrap(),
            Settings::default()
        );
        let peers = variables(&[("MAGNETFS_PEER", "1.1.1.1:1, 2.2.2.2:2")]).unwrap().peer;
        assert_eq!(peers.len(), 2);
        let socket = variables(&[("MAGNETFS_SOCKET", "s")]).unwrap().socket;
        assert_eq!(socket.unwrap(), Path::new("/place/s"));
    }

    #[test]
    fn a_file_that_is_not_there_says_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let here = Surroundings::default();
        assert_eq!(Settings::from_file(&folder.path().join("c.toml"), &here).unwrap(), None);
        assert!(matches!(
            Settings::from_file(folder.path(), &here),
            Err(SettingsError::File { .. })
        ));
        let peers: Vec<String> = (0..=PEER_LIMIT).map(|_| "'1.1.1.1:1'".to_owned()).collect();
        assert!(toml(&format!("peer = [{}]", peers.join(","))).is_err());
    }
}

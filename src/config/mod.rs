//! File, environment and flags made into one [`Config`] of plain values: flag over variable over file over default.

mod places;
mod settings;
mod values;

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use places::{Surroundings, canonical};
pub use settings::{KEYS, Settings, SettingsError, variable_name};
pub use values::{
    Limit, Listen, LogFormat, Secret, ValueError, count, download, floor, host, identity, peer, seconds, seeding, size,
    switch, umask,
};

use crate::torrents::{Download, Floor, Seeding};

/// How long a read waits without progress before it fails.
pub const READ_DEADLINE: Duration = Duration::from_secs(60);

/// Nothing is stored while less than this part of the file system is free.
pub const FREE_SPACE_FLOOR: Floor = Floor::Percent(5.0);

/// Where HTTP is served if nobody names a place.
pub const HTTP: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8642);

/// Segments of films kept in memory, in bytes: half a minute each of a few films.
pub const STREAM_MEMORY: u64 = 64 << 20;

/// Segments of films kept on disk, in bytes: a film.
pub const STREAM_DISK: u64 = 4 << 30;

/// FFmpegs at once: one for each place in a film that somebody watches.
pub const STREAM_RUNS: usize = 8;

/// Everything that can be set, resolved.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Absolute.
    pub data_dir: PathBuf,
    /// Whether the command line named it, so that another command must name it too.
    pub data_dir_named: bool,
    /// The control socket, absolute.
    pub socket: PathBuf,
    /// Whether someone named the socket; else it lies in a folder that is ours alone.
    pub socket_named: bool,
    /// How log lines are written.
    pub log: LogFormat,
    /// Which log lines are written: a level, or directives as in `RUST_LOG`.
    pub log_level: Option<String>,
    /// How much of a newly added torrent is fetched.
    pub download: Download,
    /// Whether complete torrents are given to others.
    pub seed: Seeding,
    /// Peers of the sources on the command line.
    pub peers: Vec<SocketAddr>,
    /// Where peers may connect to us; `None` for nowhere.
    pub listen: Option<SocketAddr>,
    /// Whether peers are looked for in the distributed hash table.
    pub dht: bool,
    /// Whether peers are looked for in the local network.
    pub lsd: bool,
    /// Whether the router is asked to let peers in.
    pub upnp: bool,
    /// Whether trackers are asked for peers.
    pub trackers: bool,
    /// Bytes a second; `None` for no limit.
    pub upload_limit: Option<NonZeroU32>,
    /// Bytes a second; `None` for no limit.
    pub download_limit: Option<NonZeroU32>,
    /// Where HTTP is served; `None` for nowhere. Port 0 stands for any that is free.
    pub http: Option<SocketAddr>,
    /// Whether someone named the place, so that another will not do.
    pub http_named: bool,
    /// Names and addresses besides its own by which the HTTP side may be called, in lower case.
    pub http_hosts: Vec<String>,
    /// What must stand in every address; made where it is needed and not given.
    pub http_token: Option<Secret>,
    /// Segments of films kept in memory, in bytes.
    pub stream_memory: u64,
    /// Segments of films kept on disk, in bytes.
    pub stream_disk: u64,
    /// FFmpegs at once.
    pub stream_runs: usize,
    /// How long a read waits without progress.
    pub read_deadline: Duration,
    /// Nothing is stored while less is free.
    pub free_space_floor: Floor,
    /// Whether other users may read the mount.
    pub allow_other: bool,
    /// The owner shown for every file; `None` for who mounts.
    pub uid: Option<u32>,
    /// The group shown for every file; `None` for who mounts.
    pub gid: Option<u32>,
    /// Permission bits that no file shows.
    pub umask: u16,
}

impl Config {
    /// Resolves all layers: `flags` over the variables over the file over the defaults. Without `file` the file in
    /// the user's configuration folder is read, if there is one.
    ///
    /// # Errors
    /// [`SettingsError`], which names the variable or the line. A file that was named must exist.
    pub fn load(
        mut flags: Settings,
        file: Option<&Path>,
        surroundings: &Surroundings,
    ) -> Result<Config, SettingsError> {
        let from_variable = surroundings.variable("MAGNETFS_CONFIG").map(PathBuf::from);
        let named = file
            .map(Path::to_owned)
            .or(from_variable)
            .map(|path| surroundings.directory.join(path));
        let must_exist = named.is_some();
        let in_file = match named.or_else(|| surroundings.config_file()) {
            None => Settings::default(),
            Some(path) => match Settings::from_file(&path, surroundings)? {
                None if must_exist => {
                    return Err(SettingsError::File {
                        path,
                        source: std::io::ErrorKind::NotFound.into(),
                    });
                }
                found => found.unwrap_or_default(),
            },
        };
        flags.make_absolute(&surroundings.directory);
        let data_dir_named = flags.data_dir.is_some();
        let layers = flags.over(Settings::from_variables(surroundings)?).over(in_file);
        Config::resolve(layers, data_dir_named, surroundings)
    }

    fn resolve(settings: Settings, data_dir_named: bool, surroundings: &Surroundings) -> Result<Config, SettingsError> {
        let data_dir = match settings.data_dir {
            Some(data_dir) => data_dir,
            None => surroundings.data_dir().ok_or(SettingsError::NoDataDir)?,
        };
        let socket_named = settings.socket.is_some();
        Ok(Config {
            socket: settings.socket.unwrap_or_else(|| surroundings.socket(&data_dir)),
            socket_named,
            data_dir,
            data_dir_named,
            log: settings.log.unwrap_or_default(),
            log_level: settings.log_level,
            download: settings.download.unwrap_or_default(),
            seed: settings.seed.unwrap_or_default(),
            peers: settings.peer,
            listen: settings.listen.unwrap_or_default().0,
            dht: settings.dht.unwrap_or(true),
            lsd: settings.lsd.unwrap_or(true),
            upnp: settings.upnp.unwrap_or(false),
            trackers: settings.trackers.unwrap_or(true),
            upload_limit: settings.upload_limit.unwrap_or_default().0,
            download_limit: settings.download_limit.unwrap_or_default().0,
            http_named: settings.http.is_some(),
            http: settings.http.map_or(Some(HTTP), |named| named.0),
            http_hosts: settings.http_host,
            http_token: settings.http_token,
            stream_memory: settings.stream_memory.unwrap_or(STREAM_MEMORY),
            stream_disk: settings.stream_disk.unwrap_or(STREAM_DISK),
            stream_runs: settings.stream_runs.unwrap_or(STREAM_RUNS),
            read_deadline: settings.read_deadline.unwrap_or(READ_DEADLINE),
            free_space_floor: settings.free_space_floor.unwrap_or(FREE_SPACE_FLOOR),
            allow_other: settings.allow_other.unwrap_or(false),
            uid: settings.uid,
            gid: settings.gid,
            umask: settings.umask.unwrap_or(0o022),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn surroundings(home: &Path, variables: &[(&str, &str)]) -> Surroundings {
        let variables = variables
            .iter()
            .map(|(name, value)| (name.into(), value.into()))
            .collect();
        Surroundings {
            variables,
            home: Some(home.to_owned()),
            uid: 1000,
            directory: home.join("work"),
        }
    }

    #[test]
    fn flag_over_variable_over_file_over_default() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join(".config/magnetfs");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("config.toml"), "uid = 1\ngid = 1\numask = '001'\n").unwrap();
        let here = surroundings(home.path(), &[("MAGNETFS_GID", "2"), ("MAGNETFS_UMASK", "002")]);
        let flags = Settings {
            umask: Some(0o003),
            ..Settings::default()
        };
        let config = Config::load(flags, None, &here).unwrap();
        assert_eq!((config.uid, config.gid, config.umask), (Some(1), Some(2), 0o003));
        assert_eq!(config.read_deadline, READ_DEADLINE);
        assert_eq!(config.data_dir, home.path().join(".local/share/magnetfs"));
        assert!(!config.socket_named);
    }

    #[test]
    fn a_named_file_takes_the_place_of_the_usual_one_and_must_exist() {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join("work")).unwrap();
        std::fs::write(home.path().join("work/own.toml"), "uid = 9").unwrap();
        let here = surroundings(home.path(), &[]);
        let config = Config::load(Settings::default(), Some(Path::new("own.toml")), &here).unwrap();
        assert_eq!(config.uid, Some(9));
        let by_variable = surroundings(home.path(), &[("MAGNETFS_CONFIG", "own.toml")]);
        assert_eq!(
            Config::load(Settings::default(), None, &by_variable).unwrap().uid,
            Some(9)
        );
        let error = Config::load(Settings::default(), Some(Path::new("none.toml")), &here)
            .unwrap_err()
            .to_string();
        assert!(error.contains("none.toml"), "{error}");
    }

    #[test]
    fn relative_paths_are_those_of_the_caller() {
        let home = tempfile::tempdir().unwrap();
        let here = surroundings(home.path(), &[]);
        let flags = Settings {
            data_dir: Some("d".into()),
            socket: Some("s".into()),
            ..Settings::default()
        };
        let config = Config::load(flags, None, &here).unwrap();
        assert_eq!(config.data_dir, home.path().join("work/d"));
        assert_eq!(config.socket, home.path().join("work/s"));
        assert!(config.socket_named);
    }

    #[test]
    fn without_a_home_the_data_directory_must_be_named() {
        let homeless = Surroundings {
            directory: "/".into(),
            ..Surroundings::default()
        };
        assert!(matches!(
            Config::load(Settings::default(), None, &homeless),
            Err(SettingsError::NoDataDir)
        ));
        let flags = Settings {
            data_dir: Some("/d".into()),
            ..Settings::default()
        };
        assert!(Config::load(flags, None, &homeless).is_ok());
    }
}

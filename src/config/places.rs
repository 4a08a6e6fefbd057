//! Where things are kept: the data directory, the configuration file, and the control socket.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use sha1::{Digest, Sha1};

/// What the process was started in. Taken once, so that nothing deeper reads the environment and tests make it up.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// Environment variables.
    pub variables: BTreeMap<OsString, OsString>,
    /// The home directory, also where `$HOME` is not set.
    pub home: Option<PathBuf>,
    /// The effective user.
    pub uid: u32,
    /// Paths on the command line are relative to it.
    pub directory: PathBuf,
}

impl Surroundings {
    /// Those of this process.
    pub fn of_process() -> Surroundings {
        Surroundings {
            variables: std::env::vars_os().collect(),
            home: std::env::home_dir().filter(|home| home.is_absolute()),
            uid: rustix::process::geteuid().as_raw(),
            // A working directory that was deleted has no name; absolute paths still work.
            directory: std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/")),
        }
    }

    /// A variable that is set and not empty.
    pub(super) fn variable(&self, name: &str) -> Option<&OsString> {
        self.variables
            .get(&OsString::from(name))
            .filter(|value| !value.is_empty())
    }

    /// A folder of the XDG base directory specification, which says that a relative one is to be ignored.
    fn xdg(&self, variable: &str, below_home: &str) -> Option<PathBuf> {
        let named = self
            .variable(variable)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute());
        named.or_else(|| self.home.as_ref().map(|home| home.join(below_home)))
    }

    pub(super) fn config_file(&self) -> Option<PathBuf> {
        Some(self.xdg("XDG_CONFIG_HOME", ".config")?.join("magnetfs/config.toml"))
    }

    pub(super) fn data_dir(&self) -> Option<PathBuf> {
        Some(self.xdg("XDG_DATA_HOME", ".local/share")?.join("magnetfs"))
    }

    /// The folder of the control socket, `exists` telling whether a folder is there and ours.
    fn socket_folder(&self, exists: impl Fn(&Path) -> bool) -> PathBuf {
        // systemd made this one for us alone (RuntimeDirectory=). Where there are several the first is meant.
        if let Some(given) = self.variable("RUNTIME_DIRECTORY").and_then(|value| value.to_str())
            && let Some(first) = given.split(':').next().filter(|first| first.starts_with('/'))
        {
            return PathBuf::from(first);
        }
        let named = self
            .variable("XDG_RUNTIME_DIR")
            .map(PathBuf::from)
            .filter(|path| path.is_absolute());
        let runtime = named.unwrap_or_else(|| {
            let of_user = PathBuf::from(format!("/run/user/{}", self.uid));
            match self.uid {
                _ if exists(&of_user) => of_user,
                0 => PathBuf::from("/run"),
                uid => PathBuf::from(format!("/tmp/magnetfs-{uid}")),
            }
        });
        runtime.join("magnetfs")
    }

    /// The control socket of a data directory: the same for the daemon and for everyone who looks for it.
    pub(super) fn socket(&self, data_dir: &Path) -> PathBuf {
        use std::os::unix::ffi::OsStrExt;
        let digest = Sha1::digest(canonical(data_dir).as_os_str().as_bytes());
        let ours = |path: &Path| std::fs::symlink_metadata(path).is_ok_and(|m| m.is_dir() && m.uid() == self.uid);
        self.socket_folder(ours)
            .join(format!("{}.sock", hex::encode(&digest[..4])))
    }
}

/// A path without symbolic links, also where its end does not exist yet.
pub fn canonical(path: &Path) -> PathBuf {
    for ancestor in path.ancestors() {
        if let Ok(existing) = ancestor.canonicalize() {
            let rest = path.strip_prefix(ancestor).unwrap_or(Path::new(""));
            return if rest.as_os_str().is_empty() {
                existing
            } else {
                existing.join(rest)
            };
        }
    }
    path.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn surroundings(uid: u32, variables: &[(&str, &str)]) -> Surroundings {
        let variables = variables
            .iter()
            .map(|(name, value)| (name.into(), value.into()))
            .collect();
        Surroundings {
            variables,
            home: Some("/home/anna".into()),
            uid,
            directory: "/place".into(),
        }
    }

    #[test]
    fn the_runtime_folder_is_found_in_order() {
        let check = |uid: u32, variables: &[(&str, &str)], exists: bool, folder: &str| {
            let found = surroundings(uid, variables).socket_folder(|_| exists);
            assert_eq!(found, Path::new(folder), "{uid} {variables:?}");
        };
        check(
            1000,
            &[("XDG_RUNTIME_DIR", "/run/user/1000")],
            false,
            "/run/user/1000/magnetfs",
        );
        check(1000, &[], true, "/run/user/1000/magnetfs");
        check(1000, &[], false, "/tmp/magnetfs-1000/magnetfs");
        check(
            1000,
            &[("XDG_RUNTIME_DIR", "relative")],
            false,
            "/tmp/magnetfs-1000/magnetfs",
        );
        check(0, &[("XDG_RUNTIME_DIR", "")], false, "/run/magnetfs");
        check(0, &[], true, "/run/user/0/magnetfs");
        check(0, &[("RUNTIME_DIRECTORY", "/run/magnetfs")], true, "/run/magnetfs");
        check(
            1000,
            &[("RUNTIME_DIRECTORY", "/run/a:/run/b"), ("XDG_RUNTIME_DIR", "/x")],
            true,
            "/run/a",
        );
    }

    #[test]
    fn the_socket_is_the_same_by_any_name_of_the_data_directory() {
        let folder = tempfile::tempdir().unwrap();
        let real = folder.path().join("real");
        let link = folder.path().join("link");
        std::fs::create_dir(&real).unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        let here = surroundings(1000, &[("XDG_RUNTIME_DIR", "/run/user/1000")]);
        assert_eq!(here.socket(&real), here.socket(&link));
        // Before the data directory is made as well as after.
        let before = here.socket(&link.join("data"));
        std::fs::create_dir(real.join("data")).unwrap();
        assert_eq!(before, here.socket(&real.join("data")));
        assert_ne!(before, here.socket(&real));
        let name = before.file_name().unwrap().to_str().unwrap();
        assert_eq!(name.len(), "01234567.sock".len(), "{name}");
    }

    #[test]
    fn xdg_folders_are_absolute_or_ignored() {
        let named = surroundings(1, &[("XDG_DATA_HOME", "/data"), ("XDG_CONFIG_HOME", "relative")]);
        assert_eq!(named.data_dir().unwrap(), Path::new("/data/magnetfs"));
        assert_eq!(
            named.config_file().unwrap(),
            Path::new("/home/anna/.config/magnetfs/config.toml")
        );
        let homeless = Surroundings {
            home: None,
            ..surroundings(1, &[])
        };
        assert_eq!(homeless.data_dir(), None);
    }
}

use super::*;
use crate::config::{Settings, Surroundings};

fn config(data_dir: &Path, socket: &Path) -> Config {
    let flags = Settings {
        data_dir: Some(data_dir.into()),
        socket: Some(socket.into()),
        ..Settings::default()
    };
    Config::load(flags, None, &Surroundings::default()).unwrap()
}

#[test]
fn a_second_mount_is_told_what_would_do() {
    let mut config = config(Path::new("/my data"), Path::new("/s"));
    config.peers = vec!["192.0.2.7:6881".parse().unwrap()];
    let holder = Holder {
        pid: 7,
        mountpoint: "/mnt/films".into(),
        socket: "/s".into(),
    };
    let sources = ["magnet:?xt=urn:btih:00&dn=it's".into(), "a.torrent".into()];
    let message = held(&config, Path::new("/my data"), Some(&holder), &sources);
    assert!(message.contains("/mnt/films (process 7)"), "{message}");
    let command = "\n  magnetfs add --data-dir '/my data' --peer 192.0.2.7:6881 \
                   'magnet:?xt=urn:btih:00&dn=it'\\''s' a.torrent\n";
    assert!(message.contains(command), "{message}");

    config.data_dir_named = false;
    config.peers.clear();
    let message = held(&config, Path::new("/d"), None, &[]);
    assert!(message.contains("\n  magnetfs add SOURCE\n"), "{message}");
}

/// "Nothing in our process opens a path under the mount point."
#[test]
fn nothing_of_ours_lies_below_the_mount_point() {
    let folder = tempfile::tempdir().unwrap();
    let real = folder.path().canonicalize().unwrap();
    let mountpoint = real.join("mount");
    std::fs::create_dir(&mountpoint).unwrap();
    std::os::unix::fs::symlink(&mountpoint, real.join("link")).unwrap();
    let refused = |data: &str, socket: &str| {
        keep_out(&mountpoint, &config(&real.join(data), &real.join(socket)))
            .unwrap_err()
            .to_string()
    };
    assert!(refused("mount/data", "s").contains("--data-dir"));
    assert!(refused("link/data", "s").contains("--data-dir"));
    assert!(refused("data", "mount/s").contains("--socket"));
    assert!(keep_out(&mountpoint, &config(&real.join("data"), &real.join("mounts"))).is_ok());
}

#[test]
fn bad_sources_are_refused_before_anything_is_mounted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("not.torrent");
    std::fs::write(&path, "hello").unwrap();
    let refused = |source: OsString| format!("{:#}", sources::judge(&[source]).unwrap_err());
    assert!(refused(path.clone().into()).contains("not.torrent"));
    assert!(refused(folder.path().join("none").into()).contains("none"));
    assert!(!refused("magnet:?dn=nothing".into()).is_empty());
    let given = sources::judge(&["http://localhost/a.torrent".into(), "01".repeat(20).into()]).unwrap();
    assert_eq!(
        given.iter().map(|given| given.from_web).collect::<Vec<_>>(),
        [true, false]
    );
}

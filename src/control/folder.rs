//! The folder of the control socket.

use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;

/// Makes the folder of a socket. `private` is for the folder that we chose ourselves: it must belong to this user
/// alone, or anyone could put a socket of theirs where ours is looked for (the folder may lie in /tmp). A folder that
/// somebody named is theirs to judge.
///
/// # Errors
/// Whatever the kernel says, and `PermissionDenied` for a private folder of somebody else.
pub fn prepare(socket: &Path, private: bool) -> io::Result<()> {
    let Some(folder) = socket.parent() else { return Ok(()) };
    let make = |path: &Path| match std::fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    };
    if !private {
        return std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    }
    // Two levels at most are ours to make: /tmp/magnetfs-UID and the folder in it.
    if let Some(above) = folder.parent().filter(|above| above.symlink_metadata().is_err()) {
        make(above)?;
    }
    make(folder)?;
    let us = rustix::process::geteuid().as_raw();
    let in_tmp = folder
        .parent()
        .filter(|above| above.parent() == Some(Path::new("/tmp")));
    for path in [Some(folder), in_tmp].into_iter().flatten() {
        let metadata = path.symlink_metadata()?;
        if !metadata.is_dir() || metadata.uid() != us || metadata.mode() & 0o022 != 0 {
            let message = format!("{} is not a folder of this user alone: remove it", path.display());
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_private_folder_is_ours_alone() {
        let above = tempfile::tempdir().unwrap();
        let folder = above.path().join("one/magnetfs");
        let socket = folder.join("s.sock");
        prepare(&socket, true).unwrap();
        prepare(&socket, true).unwrap();
        assert_eq!(folder.metadata().unwrap().mode() & 0o777, 0o700);

        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o770)).unwrap();
        let error = prepare(&socket, true).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        prepare(&socket, false).unwrap();
    }

    #[test]
    fn a_link_to_a_folder_is_not_a_folder_of_ours() {
        let above = tempfile::tempdir().unwrap();
        let real = above.path().join("real");
        std::fs::create_dir(&real).unwrap();
        std::os::unix::fs::symlink(&real, above.path().join("magnetfs")).unwrap();
        assert!(prepare(&above.path().join("magnetfs/s.sock"), true).is_err());
    }
}

//! The token that is made where none was given, and kept, so that addresses stay the same.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use rand::TryRng;
use rand::rngs::SysRng;

/// 192 bits, which is 32 letters.
const BYTES: usize = 24;

/// The token in this file, which is made if it is not there; readable by this user alone either way.
///
/// # Errors
/// The file cannot be read or written, or has something else in it; the system gives no random bytes.
pub fn keep(path: &Path) -> io::Result<String> {
    match OpenOptions::new().read(true).custom_flags(NO_FOLLOW).open(path) {
        Ok(mut file) => {
            file.set_permissions(Permissions::from_mode(0o600))?;
            let mut text = String::new();
            (&mut file).take(1024).read_to_string(&mut text)?;
            let token = text.trim();
            let sound = token.len() >= 16
                && token
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
            if sound {
                Ok(token.to_owned())
            } else {
                Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "it holds no token: remove it",
                ))
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => make(path),
        Err(error) => Err(error),
    }
}

const NO_FOLLOW: i32 = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();

fn make(path: &Path) -> io::Result<String> {
    let mut bytes = [0; BYTES];
    SysRng.try_fill_bytes(&mut bytes).map_err(io::Error::other)?;
    let token = BASE64_URL_SAFE_NO_PAD.encode(bytes);
    // Beside it first, so that a crash leaves no half of one.
    let new = path.with_extension("new");
    let removed = fs::remove_file(&new);
    if let Err(error) = removed
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    file.write_all(format!("{token}\n").as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    Ok(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_made_once_and_readable_by_nobody_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("http-token");
        let token = keep(&path).unwrap();
        assert_eq!(token.len(), 32);
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        assert_eq!(keep(&path).unwrap(), token);
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let other = keep(&folder.path().join("other")).unwrap();
        assert_ne!(other, token);
    }

    #[test]
    fn another_file_in_its_place_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("http-token");
        for text in ["", "short", "0123456789abcdef/0"] {
            fs::write(&path, text).unwrap();
            assert_eq!(keep(&path).unwrap_err().kind(), io::ErrorKind::InvalidData, "{text}");
        }
        fs::remove_file(&path).unwrap();
        fs::write(folder.path().join("elsewhere"), "0123456789abcdef").unwrap();
        std::os::unix::fs::symlink("elsewhere", &path).unwrap();
        assert!(keep(&path).is_err());
    }
}

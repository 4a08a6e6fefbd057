//! Mounts whose daemon is gone.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Finding;
use super::child::{Said, ask};
use crate::text;

/// Asking a mount is a matter of microseconds, or it hangs.
const ASK_LIMIT: Duration = Duration::from_secs(2);

/// So many mounts are asked; each that hangs costs the time limit.
const MOUNT_LIMIT: usize = 16;

pub(super) fn examine() -> Vec<Finding> {
    let mounts = magnetfs_mount::all_mounts();
    if mounts.is_empty() {
        return vec![Finding::ok("mounts", "no magnetfs mount, so none that is dead")];
    }
    let judged = |path: &PathBuf| {
        // A child, because what opens a mount that hangs may never come back.
        let said = ask(Path::new("stat"), &["-f", "--", &path.to_string_lossy()], ASK_LIMIT);
        judge(path, said)
    };
    mounts.iter().take(MOUNT_LIMIT).map(judged).collect()
}

fn judge(path: &Path, said: Option<Said>) -> Finding {
    let check = "mounts";
    let unmount = format!("fusermount3 -uz {}", text::shell_word(&path.to_string_lossy()));
    match said {
        Some(said) if said.success => Finding::ok(check, format!("{} answers", path.display())),
        Some(said)
            if ["not connected", "connection abort"]
                .iter()
                .any(|word| said.text.contains(word)) =>
        {
            let what = format!("{} is dead: its daemon ended without unmounting", path.display());
            Finding::fail(check, what, format!("{unmount} (the next mount there does it too)"))
        }
        Some(said) => Finding::ok(
            check,
            format!("{} is another user's: {}", path.display(), said.text.trim()),
        ),
        None => {
            let what = format!("{} does not answer: its daemon hangs", path.display());
            Finding::fail(check, what, format!("{unmount}, and end the process `magnetfs mount`"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    #[test]
    fn a_dead_mount_and_one_that_hangs_are_named_with_what_mends_them() {
        let path = Path::new("/tmp/my films");
        let said = |success, text: &str| {
            Some(Said {
                success,
                text: text.to_owned(),
            })
        };
        let dead = judge(
            path,
            said(false, "stat: cannot read: Transport endpoint is not connected"),
        );
        assert_eq!(dead.level, Level::Fail);
        assert!(dead.remedy.unwrap().starts_with("fusermount3 -uz '/tmp/my films'"));
        assert_eq!(judge(path, None).level, Level::Fail);
        assert_eq!(judge(path, said(true, "")).level, Level::Ok);
        assert_eq!(judge(path, said(false, "Permission denied")).level, Level::Ok);
    }
}

//! Other programs, asked with a time limit.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use crate::config::Surroundings;

/// More is not read of what a program says.
const OUTPUT_LIMIT: u64 = 1 << 20;

/// What a program said, stdout and stderr together, and whether it ended well.
#[derive(Debug)]
pub(super) struct Said {
    pub(super) success: bool,
    pub(super) text: String,
}

/// Runs a program; `None` if it cannot be started or does not end in time. One that is stuck in the kernel is left
/// behind: its end cannot be waited for.
pub(super) fn ask(program: &Path, arguments: &[&str], limit: Duration) -> Option<Said> {
    let mut command = Command::new(program);
    command.args(arguments).env("LC_ALL", "C");
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().ok()?;
    let (sender, said) = mpsc::channel();
    let (out, err) = (child.stdout.take()?, child.stderr.take()?);
    // Both at once, or a program that fills one pipe would wait for ever; and not here, or this would.
    for pipe in [Box::new(out) as Box<dyn Read + Send>, Box::new(err)] {
        let sender = sender.clone();
        std::thread::spawn(move || {
            let mut text = Vec::new();
            let read = pipe.take(OUTPUT_LIMIT).read_to_end(&mut text);
            // Nobody listens any more if it took too long.
            let _ = sender.send(
                read.map(|_| String::from_utf8_lossy(&text).into_owned())
                    .unwrap_or_default(),
            );
        });
    }
    let deadline = std::time::Instant::now() + limit;
    let mut text = String::new();
    for _ in 0..2 {
        match said.recv_timeout(deadline.saturating_duration_since(std::time::Instant::now())) {
            Ok(part) => text.push_str(&part),
            Err(_) => {
                let _ = child.kill();
                let _ = child.try_wait();
                return None;
            }
        }
    }
    // Its pipes are closed, so it has ended or is about to.
    let status = child.wait().ok()?;
    Some(Said {
        success: status.success(),
        text,
    })
}

/// Where a program is, by the search path.
pub(super) fn find(name: &str, surroundings: &Surroundings) -> Option<PathBuf> {
    let path = surroundings.variables.get(&std::ffi::OsString::from("PATH"))?;
    std::env::split_paths(path)
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_asked_and_not_waited_for_without_end() {
        let said = ask(
            Path::new("/bin/sh"),
            &["-c", "echo out; echo err >&2; exit 3"],
            Duration::from_secs(10),
        )
        .unwrap();
        assert!(
            !said.success && said.text.contains("out\n") && said.text.contains("err\n"),
            "{said:?}"
        );
        let began = std::time::Instant::now();
        assert!(
            ask(
                Path::new("/bin/sh"),
                &["-c", "exec sleep 60"],
                Duration::from_millis(50)
            )
            .is_none()
        );
        assert!(began.elapsed() < Duration::from_secs(20));
        assert!(ask(Path::new("/nowhere/at/all"), &[], Duration::from_secs(1)).is_none());
    }
}

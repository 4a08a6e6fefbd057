//! `magnetfs demo`: it shows the main job by itself, and takes away what it made whatever ends it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use crate::support::daemon::PROGRAM;
use crate::support::{Background, DaemonOptions, Work, eventually, limited, run};

/// `magnetfs demo`, which makes everything in `temporary`. `hang_up` is what becomes of SIGHUP there, in
/// the words of env(1).
fn demo(work: &Work, temporary: &Path, hang_up: &str, arguments: &[&str]) -> Command {
    let mut demo = Command::new("env");
    let control = DaemonOptions::new(work).control(&[]);
    demo.envs(control.get_envs().filter_map(|(name, value)| Some((name, value?))));
    demo.arg(format!("--{hang_up}-signal=HUP"))
        .args([PROGRAM, "demo"])
        .args(arguments)
        .env("TMPDIR", temporary);
    demo
}

#[track_caller]
fn assert_nothing_left(work: &Work, temporary: &Path) {
    assert_eq!(work.mounts(), Vec::<PathBuf>::new(), "a mount is left");
    let files = fs::read_dir(temporary).expect("the directory").count();
    assert_eq!(files, 0, "files are left");
}

/// "`magnetfs demo --once` exits by itself, for CI."
#[test]
fn the_demo_runs_and_leaves_nothing() {
    limited(Duration::from_secs(120), || {
        let work = Work::new();
        let temporary = work.directory("temporary");
        let outcome = run(
            &mut demo(&work, &temporary, "default", &["--once"]),
            Duration::from_secs(110),
        )
        .ok();
        let text = outcome.text() + &outcome.stderr;
        assert!(text.contains("ffmpeg"), "{text}");
        assert_nothing_left(&work, &temporary);
    });
}

/// A service manager, or a terminal that is closed, sends no Ctrl-C; and nohup(1) lets a program outlive its terminal.
#[test]
fn a_demo_that_is_told_to_end_leaves_nothing() {
    limited(Duration::from_secs(120), || {
        let work = Work::new();
        let temporary = work.directory("temporary");
        for (hang_up, signal) in [("ignore", Signal::TERM), ("default", Signal::HUP)] {
            let mut demo = Background::spawn(&mut demo(&work, &temporary, hang_up, &[]));
            eventually("it mounts", Duration::from_secs(40), || {
                (!work.mounts().is_empty()).then_some(())
            });
            if hang_up == "ignore" {
                demo.signal(Signal::HUP);
                assert_eq!(
                    demo.ended_within(Duration::from_secs(1)),
                    None,
                    "it ends with its terminal"
                );
            }
            demo.signal(signal);
            demo.outcome(Duration::from_secs(10)).expect("it ends").ok();
            assert_nothing_left(&work, &temporary);
        }
    });
}

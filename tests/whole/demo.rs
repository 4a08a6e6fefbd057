//! `magnetfs demo`: it shows the main job by itself, and takes away what it made whatever ends it.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use crate::support::daemon::PROGRAM;
use crate::support::limit::unmount;
use crate::support::{Background, DaemonOptions, Work, eventually, limited, run};

/// The folder for a demo's files. Dropping it takes away the mounts that it was left with.
struct Folder(PathBuf);

impl Folder {
    /// The demo itself.
    fn demo(&self, work: &Work, arguments: &[&str]) -> Command {
        let mut demo = Command::new(PROGRAM);
        let control = DaemonOptions::new(work).control(&[]);
        demo.envs(control.get_envs().filter_map(|(name, value)| Some((name, value?))));
        demo.arg("demo").args(arguments).env("TMPDIR", &self.0);
        demo
    }

    fn mounts(&self) -> Vec<PathBuf> {
        let table = fs::read_to_string("/proc/self/mountinfo").expect("the table of mounts");
        let points = table.lines().filter_map(|line| line.split(' ').nth(4));
        let points = points.map(PathBuf::from);
        points.filter(|point| point.starts_with(&self.0)).collect()
    }

    #[track_caller]
    fn assert_empty(&self) {
        assert_eq!(self.mounts(), Vec::<PathBuf>::new(), "a mount is left");
        let files = fs::read_dir(&self.0).expect("the directory").count();
        assert_eq!(files, 0, "files are left");
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        self.mounts().iter().for_each(|mount| unmount(mount));
    }
}

/// "`magnetfs demo --once` exits by itself, for CI."
#[test]
fn the_demo_runs_and_leaves_nothing() {
    limited(Duration::from_secs(120), || {
        let work = Work::new();
        let folder = Folder(work.directory("temporary"));
        let outcome = run(&mut folder.demo(&work, &["--once"]), Duration::from_secs(110)).ok();
        let text = outcome.text() + &outcome.stderr;
        assert!(text.contains("ffmpeg"), "{text}");
        folder.assert_empty();
    });
}

/// A service manager, or a terminal that is closed, sends no Ctrl-C.
#[test]
fn a_demo_that_is_told_to_end_leaves_nothing() {
    limited(Duration::from_secs(120), || {
        let work = Work::new();
        for signal in [Signal::TERM, Signal::HUP] {
            let folder = Folder(work.directory("temporary"));
            let demo = Background::spawn(&mut folder.demo(&work, &[]));
            eventually("it mounts", Duration::from_secs(40), || {
                (!folder.mounts().is_empty()).then_some(())
            });
            demo.signal(signal);
            demo.outcome(Duration::from_secs(10)).expect("it ends").ok();
            folder.assert_empty();
        }
    });
}

//! FFmpeg, which makes the streams and which the demo plays with, and what keeps it in.

use std::time::Duration;

use super::Finding;
use super::child::{ask, find};
use crate::config::Surroundings;
use crate::ffmpeg::confinement::{self, Guard};

/// FFmpeg starts in a moment; on a slow disk it loads a hundred libraries.
const ASK_LIMIT: Duration = Duration::from_secs(10);

/// The oldest FFmpeg whose options are used.
const OLDEST: u32 = 5;

/// What the demo encodes its film with.
const ENCODERS: [&str; 2] = ["libx264", "aac"];

const INSTALL: &str = "sudo apt-get install ffmpeg";

pub(super) fn examine(surroundings: &Surroundings) -> Vec<Finding> {
    let said = |name: &str, argument: &str| {
        let path = find(name, surroundings)?;
        ask(&path, &["-hide_banner", argument], ASK_LIMIT)
            .filter(|said| said.success)
            .map(|said| said.text)
    };
    let mut findings = vec![
        version("ffmpeg", said("ffmpeg", "-version")),
        version("ffprobe", said("ffprobe", "-version")),
    ];
    if let Some(list) = said("ffmpeg", "-encoders") {
        findings.push(encoders(&list));
    }
    let offered = confinement::offered();
    findings.push(guard(
        "FFmpeg's files",
        offered.files,
        "FFmpeg could read any file of its user, were it taken over by a film",
    ));
    findings.push(guard(
        "FFmpeg's calls",
        offered.calls,
        "FFmpeg could reach the network, were it taken over by a film",
    ));
    findings
}

/// What the kernel offers to keep FFmpeg in.
fn guard(check: &'static str, guard: Guard, without: &str) -> Finding {
    match guard {
        Guard::Whole(what) | Guard::Part(what) => Finding::ok(check, format!("kept in by {what}")),
        Guard::Missing(why) => Finding::warn(
            check,
            format!("{why}: {without}"),
            "use a kernel of the distribution, 5.13 or newer",
        ),
    }
}

fn version(name: &'static str, said: Option<String>) -> Finding {
    let Some(said) = said else {
        return Finding::warn(
            name,
            "not installed: the mount works without it, streams over HTTP and `magnetfs demo` do not",
            INSTALL,
        );
    };
    let version = said
        .split_whitespace()
        .nth(2)
        .unwrap_or("of unknown version")
        .to_owned();
    // Builds from git are called N-12345-…, and are newer than any number.
    let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok());
    match major {
        Some(major) if major < OLDEST => Finding::warn(
            name,
            format!("{version} is old: {OLDEST} or newer is needed by the demo"),
            INSTALL,
        ),
        _ => Finding::ok(name, version),
    }
}

fn encoders(list: &str) -> Finding {
    let check = "encoders";
    let there = |name: &&str| list.lines().any(|line| line.split_whitespace().nth(1) == Some(name));
    let missing: Vec<&str> = ENCODERS.into_iter().filter(|name| !there(name)).collect();
    if missing.is_empty() {
        return Finding::ok(check, ENCODERS.join(", "));
    }
    Finding::warn(
        check,
        format!(
            "this FFmpeg has no {}: `magnetfs demo` cannot make its film",
            missing.join(" and no ")
        ),
        format!("{INSTALL} (the one of the distribution has them)"),
    )
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    #[test]
    fn versions_are_read_from_what_it_says() {
        let said = |text: &str| version("ffmpeg", Some(text.to_owned()));
        let debian = said("ffmpeg version 5.1.9-0+deb12u1 Copyright (c) 2000-2026 the FFmpeg developers\nbuilt with");
        assert_eq!((debian.level, debian.what.as_str()), (Level::Ok, "5.1.9-0+deb12u1"));
        assert_eq!(said("ffmpeg version 4.4.2 Copyright").level, Level::Warn);
        assert_eq!(said("ffmpeg version N-112233-gabc Copyright").level, Level::Ok);
        assert_eq!(version("ffprobe", None).level, Level::Warn);
    }

    #[test]
    fn what_does_not_keep_it_in_is_said() {
        let missing = guard("calls", Guard::Missing("none".to_owned()), "it could");
        assert!(
            missing.level == Level::Warn && missing.what == "none: it could",
            "{missing:?}"
        );
        let part = guard("files", Guard::Part("some".to_owned()), "it could");
        assert_eq!((part.level, part.what.as_str()), (Level::Ok, "kept in by some"));
    }

    #[test]
    fn encoders_are_names_not_parts_of_names() {
        let list = " V....D libx264              libx264 H.264 (codec h264)\n A....D aac                  AAC\n";
        assert_eq!(encoders(list).level, Level::Ok);
        let without = encoders(" V....D libx264rgb           x\n A....D aac                  AAC\n");
        assert!(
            without.level == Level::Warn && without.what.contains("no libx264:"),
            "{without:?}"
        );
    }
}

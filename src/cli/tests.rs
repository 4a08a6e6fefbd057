use std::collections::BTreeSet;
use std::path::Path;

use super::*;
use crate::config::KEYS;

fn parse(line: &str) -> Result<CommandLine, clap::Error> {
    CommandLine::try_parse_from(line.split(' '))
}

#[test]
fn the_definition_is_sound() {
    CommandLine::command().debug_assert();
}

/// "The same keys in a TOML file and in `MAGNETFS_*` variables."
#[test]
fn every_option_of_mount_is_a_key_and_every_key_an_option() {
    let command = CommandLine::command();
    let mount = command.find_subcommand("mount").unwrap();
    let options: BTreeSet<&str> = command
        .get_arguments()
        .chain(mount.get_arguments())
        .filter_map(clap::Arg::get_long)
        .collect();
    let keys: BTreeSet<&str> = KEYS.into_iter().collect();
    let only_options: Vec<_> = options.difference(&keys).filter(|name| **name != "config").collect();
    assert!(only_options.is_empty(), "{only_options:?}");
    assert!(keys.is_subset(&options), "{:?}", keys.difference(&options));
}

/// Each flag arrives in the layer under its own name: a layer of all flags says something to every key.
#[test]
fn no_flag_is_dropped_on_the_way() {
    let all = "magnetfs mount /m --allow-other --data-dir /d --dht off --download whole --download-limit 2M \
               --free-space-floor 10G --gid 7 --http 127.0.0.1:5 --http-host a.lan --http-token 0123456789abcdef \
               --stream-disk 1G --stream-memory 1M --stream-runs 1 \
               --listen 127.0.0.1:1 --log json --log-level debug --lsd off \
               --peer 127.0.0.1:2 --read-deadline 9 --seed always --socket /s --trackers off --uid 8 --umask 077 \
               --upload-limit 1M --upnp on";
    let line = CommandLine::try_parse_from(all.split_whitespace()).unwrap();
    let Command::Mount(mount) = &line.command else {
        panic!("another command")
    };
    let settings = settings(&line.common, Some(mount));
    // `over` keeps what is said: a lower layer of other values must not shine through anywhere.
    let lower = "magnetfs mount /m --allow-other=off --data-dir /e --dht on --download on-demand --download-limit 3M \
                 --free-space-floor 11G --gid 9 --http off --http-host b.lan --http-token fedcba9876543210 \
                 --stream-disk 2G --stream-memory 2M --stream-runs 2 \
                 --listen 127.0.0.1:3 --log text --log-level warn --lsd on \
                 --peer 127.0.0.1:4 --read-deadline 10 --seed never --socket /t --trackers on --uid 10 --umask 070 \
                 --upload-limit 4M --upnp off";
    let other = CommandLine::try_parse_from(lower.split_whitespace()).unwrap();
    let Command::Mount(mount) = &other.command else {
        panic!("another command")
    };
    assert_eq!(
        settings.clone().over(super::settings(&other.common, Some(mount))),
        settings
    );
    assert_eq!(settings.data_dir.as_deref(), Some(Path::new("/d")));
    assert_eq!(
        (settings.umask, settings.uid, settings.gid),
        (Some(0o77), Some(8), Some(7))
    );
}

#[test]
fn options_stand_before_or_after_the_command() {
    for line in ["magnetfs --socket /s list", "magnetfs list --socket /s"] {
        assert_eq!(
            parse(line).unwrap().common.socket.as_deref(),
            Some(Path::new("/s")),
            "{line}"
        );
    }
}

#[test]
fn a_switch_may_stand_alone_or_say_off() {
    let allow_other = |line: &str| match parse(line).unwrap().command {
        Command::Mount(mount) => (mount.allow_other, mount.sources.len()),
        _ => panic!("another command"),
    };
    assert_eq!(allow_other("magnetfs mount /m"), (None, 0));
    assert_eq!(
        allow_other("magnetfs mount --allow-other /m a.torrent"),
        (Some(true), 1)
    );
    assert_eq!(allow_other("magnetfs mount /m --allow-other=off"), (Some(false), 0));
}

#[test]
fn what_is_wrong_is_a_usage_error_that_says_what_would_do() {
    for (line, part) in [
        ("magnetfs mount", "MOUNTPOINT"),
        ("magnetfs mount /m --dht maybe", "`on` or `off`"),
        ("magnetfs mount /m --umask 9", "octal"),
        ("magnetfs mount /m --upload-limit fast", "512K"),
        ("magnetfs mount /m --peer nobody", "IP:PORT"),
        ("magnetfs add", "SOURCE"),
        ("magnetfs show", "TORRENT"),
        ("magnetfs show a --follow --json", "cannot be used"),
        ("magnetfs dance", "unrecognized"),
    ] {
        let error = parse(line).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{line}");
        assert!(error.to_string().contains(part), "{line}: {error}");
    }
}

#[test]
fn every_command_teaches() {
    let mut command = CommandLine::command();
    command.build();
    for subcommand in command.get_subcommands_mut() {
        let name = subcommand.get_name().to_owned();
        let help = subcommand.render_long_help().to_string();
        for argument in subcommand.get_arguments() {
            assert!(
                argument.get_help().is_some(),
                "{name} {} has no help",
                argument.get_id()
            );
        }
        for line in help.lines() {
            assert!(line.chars().count() <= 120, "{name}: {line}");
        }
    }
}

#[test]
fn the_manual_has_every_command_and_option() {
    let page = String::from_utf8(manual::page(CommandLine::command()).unwrap()).unwrap();
    let command = CommandLine::command();
    for subcommand in command.get_subcommands().filter(|subcommand| !subcommand.is_hide_set()) {
        assert!(
            page.contains(&format!(".SS \"magnetfs {}\"", subcommand.get_name())),
            "{}",
            subcommand.get_name()
        );
        for long in subcommand.get_arguments().filter_map(clap::Arg::get_long) {
            assert!(page.contains(&long.replace('-', "\\-")), "{long}");
        }
    }
    assert!(!page.contains("confine"));
    assert!(page.contains("MAGNETFS_UPLOAD_LIMIT") && page.contains(".SH FILES"));
}

#[test]
fn a_cause_is_told_once() {
    let own = Surroundings {
        variables: [("MAGNETFS_UMASK".into(), "9".into())].into(),
        ..Surroundings::default()
    };
    let error = anyhow::Error::from(Config::load(Settings::default(), None, &own).unwrap_err());
    assert_eq!(commands::words(&error).matches("`9` is not").count(), 1);
    let told = anyhow::Error::from(io::Error::other("cause")).context("what failed");
    assert_eq!(commands::words(&told), "what failed: cause");
}

/// What the launcher writes is what this reads, whatever the file is called.
#[test]
fn rules_arrive_as_they_were_given() {
    let rules = Rules {
        parent: 7,
        input: "/mount/-- --memory=1 \n.mkv".into(),
        memory: 1 << 30,
        files: 64,
    };
    let program = ["--", "/usr/bin/ffmpeg", "-v", "error", "--parent=9"].map(OsString::from);
    let line = [OsString::from("magnetfs")]
        .into_iter()
        .chain(rules.arguments())
        .chain(program);
    let Command::Confine(read) = CommandLine::try_parse_from(line).unwrap().command else {
        panic!("another command")
    };
    assert_eq!((read.parent, read.memory, read.files), (7, 1 << 30, 64));
    assert_eq!(read.input, rules.input);
    assert_eq!(read.program, ["/usr/bin/ffmpeg", "-v", "error", "--parent=9"]);
}

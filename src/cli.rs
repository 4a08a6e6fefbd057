//! The command line: what may be written, and what is done then. Nothing deeper names clap.

mod commands;
mod help;
mod manual;

use std::ffi::OsString;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueHint};

use crate::config::{self, Config, Limit, Listen, LogFormat, Secret, Settings, Surroundings};
use crate::ffmpeg::confinement::{self, Rules};
use crate::torrents::{Download, Floor, Seeding};
use crate::{daemon, demo, doctor};

/// Shows torrents as ordinary files that play while they download
///
/// magnetfs mounts torrents as a directory. Every file is there at once, at its full size, and can be read from any
/// place: what is read is fetched, and nothing else.
#[derive(Debug, Parser)]
#[command(name = "magnetfs", version, max_term_width = 110, after_help = help::PROGRAM)]
struct CommandLine {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

/// Options of every command.
#[derive(Debug, Args)]
#[command(next_help_heading = "Options of every command")]
struct Common {
    /// Keep the library and what is downloaded in this folder [default: ~/.local/share/magnetfs]
    #[arg(long, global = true, value_name = "DIR", value_hint = ValueHint::DirPath)]
    data_dir: Option<PathBuf>,
    /// Talk to the running mount over this Unix socket [default: one in the runtime folder for each data directory]
    #[arg(long, global = true, value_name = "PATH", value_hint = ValueHint::AnyPath)]
    socket: Option<PathBuf>,
    /// Read this configuration file [default: ~/.config/magnetfs/config.toml if it is there]
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    config: Option<PathBuf>,
    /// Write the log on stderr for people (text) or programs (json) [default: text]
    #[arg(long, global = true, value_name = "text|json")]
    log: Option<LogFormat>,
    /// Log from this level on: error, warn, info, debug, trace, or TARGET=LEVEL,… [default: info]
    #[arg(long, global = true, value_name = "LEVEL")]
    log_level: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Mount the library on a directory and stay in the foreground
    #[command(after_help = help::MOUNT)]
    Mount(Box<MountArguments>),
    /// Add torrents to the running mount
    #[command(after_help = help::ADD)]
    Add(AddArguments),
    /// List the torrents
    #[command(after_help = help::LIST)]
    List {
        #[command(flatten)]
        output: Output,
    },
    /// Show one torrent with its files
    #[command(after_help = help::SHOW)]
    Show {
        #[command(flatten)]
        torrent: Torrent,
        /// Show a progress bar until all of it is here
        #[arg(long, conflicts_with = "json")]
        follow: bool,
        #[command(flatten)]
        output: Output,
    },
    /// Take a torrent out of the library
    #[command(after_help = help::REMOVE)]
    Remove {
        #[command(flatten)]
        torrent: Torrent,
        /// Delete what was downloaded of it
        #[arg(long)]
        delete_data: bool,
    },
    /// Stop a torrent: it leaves its peers, and reads of what is missing fail
    Pause {
        #[command(flatten)]
        torrent: Torrent,
    },
    /// Start a paused torrent, and try again one that ended in an error
    Resume {
        #[command(flatten)]
        torrent: Torrent,
    },
    /// End the running mount, and wait until it is gone
    Unmount,
    /// Say how the running mount does
    Status {
        #[command(flatten)]
        output: Output,
    },
    /// Say what is missing or misconfigured on this machine, and what mends it
    #[command(after_help = help::DOCTOR)]
    Doctor {
        #[command(flatten)]
        output: Output,
    },
    /// Show what this program does, with a film that it makes and seeds itself
    Demo {
        /// Exit when everything has been shown, in place of waiting for Ctrl-C
        #[arg(long)]
        once: bool,
    },
    /// Print the completions of a shell
    #[command(after_help = help::COMPLETIONS)]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    #[command(after_help = help::MAN)]
    Man,
    /// Give up what FFmpeg does not need, and become it; the mount starts FFmpeg so
    #[command(hide = true)]
    Confine(ConfineArguments),
}

/// A torrent of the library.
#[derive(Debug, Args)]
struct Torrent {
    /// Its info hash, at least 4 digits of that, or its name in the mount
    torrent: String,
}

/// How something is printed.
#[derive(Debug, Args)]
struct Output {
    /// Print JSON, for scripts
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct AddArguments {
    /// A magnet link, a .torrent file, an http(s) address of one, or an info hash of 40 hex digits
    #[arg(required = true, value_name = "SOURCE", value_hint = ValueHint::AnyPath)]
    sources: Vec<OsString>,
    /// Fetch what is read (on-demand) or all of it (whole) [default: as the mount was told]
    #[arg(long, value_name = "on-demand|whole", value_parser = config::download)]
    download: Option<Download>,
    /// Try this peer too; may be given several times
    #[arg(long, value_name = "IP:PORT", value_parser = config::peer)]
    peer: Vec<SocketAddr>,
    /// Do not wait until a peer has told what a magnet link is
    #[arg(long)]
    no_wait: bool,
}

#[derive(Debug, Args)]
struct MountArguments {
    /// An empty directory, where the files will be shown
    #[arg(value_hint = ValueHint::DirPath)]
    mountpoint: PathBuf,
    /// Magnet links, .torrent files, http(s) addresses of those, or info hashes to add
    #[arg(value_name = "SOURCE", value_hint = ValueHint::AnyPath)]
    sources: Vec<OsString>,

    /// Fetch what is read and nothing else (on-demand), or all of each added torrent (whole) [default: on-demand]
    #[arg(long, value_name = "on-demand|whole", value_parser = config::download, help_heading = "Downloading")]
    download: Option<Download>,
    /// Receive at most so many bytes a second, such as 2M; under 16K counts as 16K [default: off]
    #[arg(long, value_name = "RATE|off", help_heading = "Downloading")]
    download_limit: Option<Limit>,
    /// Send at most so many bytes a second, such as 512K; under 16K counts as 16K [default: off]
    #[arg(long, value_name = "RATE|off", help_heading = "Downloading")]
    upload_limit: Option<Limit>,
    /// Give a torrent of which all is here to others: never, while it is in use (until 5 minutes after), or always
    /// [default: in-use]
    #[arg(long, value_name = "never|in-use|always", value_parser = config::seeding, help_heading = "Downloading")]
    seed: Option<Seeding>,
    /// Store nothing more when less than this is free, such as 10G [default: 5%]
    #[arg(long, value_name = "SIZE|PERCENT%", value_parser = config::floor, help_heading = "Downloading")]
    free_space_floor: Option<Floor>,

    /// Try this peer for the sources on the line; may be given several times
    #[arg(long, value_name = "IP:PORT", value_parser = config::peer, help_heading = "Finding peers")]
    peer: Vec<SocketAddr>,
    /// Let peers connect to this address [default: off]
    #[arg(long, value_name = "ADDR:PORT|off", help_heading = "Finding peers")]
    listen: Option<Listen>,
    /// Look for peers in the distributed hash table [default: on]
    #[arg(long, value_name = "on|off", value_parser = config::switch, help_heading = "Finding peers")]
    dht: Option<bool>,
    /// Look for peers in the local network [default: on]
    #[arg(long, value_name = "on|off", value_parser = config::switch, help_heading = "Finding peers")]
    lsd: Option<bool>,
    /// Ask trackers for peers [default: on]
    #[arg(long, value_name = "on|off", value_parser = config::switch, help_heading = "Finding peers")]
    trackers: Option<bool>,
    /// Ask the router to let peers in to --listen [default: off]
    #[arg(long, value_name = "on|off", value_parser = config::switch, help_heading = "Finding peers")]
    upnp: Option<bool>,

    /// Serve the player page, HLS and the files over HTTP here; port 0 takes any [default: 127.0.0.1:8642]
    #[arg(long, value_name = "ADDR:PORT|off", help_heading = "HTTP")]
    http: Option<Listen>,
    /// Answer to this name too; may be given several times [default: its own addresses and localhost]
    #[arg(long, value_name = "NAME", value_parser = config::host, help_heading = "HTTP")]
    http_host: Vec<String>,
    /// Serve only addresses that begin with /t/TOKEN/ [default: none on loopback, else one that `status` shows]
    #[arg(long, value_name = "TOKEN", help_heading = "HTTP")]
    http_token: Option<Secret>,
    /// Keep so much of the films being watched in memory [default: 64M]
    #[arg(long, value_name = "SIZE", value_parser = config::size, help_heading = "HTTP")]
    stream_memory: Option<u64>,
    /// Keep so much of the films that were watched on disk [default: 4G]
    #[arg(long, value_name = "SIZE", value_parser = config::size, help_heading = "HTTP")]
    stream_disk: Option<u64>,
    /// Run at most so many FFmpegs, one for each place that is watched [default: 8]
    #[arg(long, value_name = "NUMBER", value_parser = config::count, help_heading = "HTTP")]
    stream_runs: Option<usize>,

    /// Fail a read for which nothing has arrived for so many seconds [default: 60]
    #[arg(long, value_name = "SECONDS", value_parser = config::seconds, help_heading = "The mount")]
    read_deadline: Option<Duration>,
    /// Let other users read the mount, which needs user_allow_other in /etc/fuse.conf [default: off]
    #[arg(
        long,
        value_name = "on|off",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "on",
        value_parser = config::switch,
        help_heading = "The mount"
    )]
    allow_other: Option<bool>,
    /// Show the files as this user's, by number [default: who mounts]
    #[arg(long, value_name = "NUMBER", value_parser = config::identity, help_heading = "The mount")]
    uid: Option<u32>,
    /// Show the files as this group's, by number [default: who mounts]
    #[arg(long, value_name = "NUMBER", value_parser = config::identity, help_heading = "The mount")]
    gid: Option<u32>,
    /// Take these permissions from the files and folders, in octal [default: 022]
    #[arg(long, value_name = "MASK", value_parser = config::umask, help_heading = "The mount")]
    umask: Option<u16>,
}

/// What [`Rules::arguments`] says.
#[derive(Debug, Args)]
struct ConfineArguments {
    /// The process that starts this, and that it does not outlive
    #[arg(long, value_name = "PID")]
    parent: u32,
    /// Bytes of memory that it may use
    #[arg(long, value_name = "BYTES")]
    memory: u64,
    /// How many files it may have open
    #[arg(long, value_name = "NUMBER")]
    files: u64,
    /// The one file that it may read, beside its libraries
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// The program to become, and its arguments
    #[arg(last = true, required = true, value_name = "PROGRAM")]
    program: Vec<OsString>,
}

/// Does what the command line says, and gives the status to exit with.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let line = match CommandLine::try_parse_from(arguments) {
        Ok(line) => line,
        Err(error) => {
            // Help and version go to stdout with status 0; nobody has to read either.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    match perform(line) {
        Ok(status) => status,
        Err(error) if closed_by_reader(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "magnetfs: {}", commands::words(&error));
            ExitCode::FAILURE
        }
    }
}

/// `magnetfs list | head` is no failure.
fn closed_by_reader(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

fn perform(line: CommandLine) -> anyhow::Result<ExitCode> {
    let surroundings = Surroundings::of_process();
    let load = |mount: Option<&MountArguments>| {
        Config::load(
            settings(&line.common, mount),
            line.common.config.as_deref(),
            &surroundings,
        )
    };
    match line.command {
        Command::Mount(mount) => daemon::run(&load(Some(&mount))?, &mount.mountpoint, &mount.sources)?,
        Command::Add(add) => {
            let AddArguments {
                sources,
                download,
                peer,
                no_wait,
            } = add;
            return commands::add(&load(None)?, &sources, download, &peer, no_wait);
        }
        Command::List { output } => commands::list(&load(None)?, output.json)?,
        Command::Show {
            torrent, follow: true, ..
        } => commands::follow(&load(None)?, &torrent.torrent)?,
        Command::Show { torrent, output, .. } => commands::show(&load(None)?, &torrent.torrent, output.json)?,
        Command::Remove { torrent, delete_data } => commands::remove(&load(None)?, torrent.torrent, delete_data)?,
        Command::Pause { torrent } => commands::pause(&load(None)?, torrent.torrent)?,
        Command::Resume { torrent } => commands::resume(&load(None)?, torrent.torrent)?,
        Command::Unmount => commands::unmount(&load(None)?)?,
        Command::Status { output } => commands::status(&load(None)?, output.json)?,
        Command::Doctor { output } => {
            let findings = doctor::examine(load(None), &surroundings);
            let text = if output.json {
                commands::json(&findings)?
            } else {
                doctor::words(&findings)
            };
            commands::print(&text)?;
            return Ok(if doctor::healthy(&findings) {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            });
        }
        Command::Demo { once } => {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            let shown = runtime.block_on(demo::run(once));
            runtime.shutdown_background();
            shown?;
        }
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut CommandLine::command(), "magnetfs", &mut script);
            io::stdout().write_all(&script)?;
        }
        Command::Man => io::stdout().write_all(&manual::page(CommandLine::command())?)?,
        // Nothing was started yet that would be a second thread.
        Command::Confine(confine) => {
            let ConfineArguments {
                parent,
                memory,
                files,
                input,
                program,
            } = confine;
            let rules = Rules {
                parent,
                input,
                memory,
                files,
            };
            let [program, arguments @ ..] = program.as_slice() else {
                anyhow::bail!("there is no program to become");
            };
            let error = confinement::confine(&rules, program, arguments);
            return Err(anyhow::Error::from(error).context(format!("{} cannot be confined", program.display())));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What the command line says, as a layer of the configuration.
fn settings(common: &Common, mount: Option<&MountArguments>) -> Settings {
    let upper = Settings {
        data_dir: common.data_dir.clone(),
        socket: common.socket.clone(),
        log: common.log,
        log_level: common.log_level.clone(),
        ..Settings::default()
    };
    let Some(mount) = mount else { return upper };
    upper.over(Settings {
        allow_other: mount.allow_other,
        dht: mount.dht,
        download: mount.download,
        download_limit: mount.download_limit,
        free_space_floor: mount.free_space_floor,
        gid: mount.gid,
        http: mount.http,
        http_host: mount.http_host.clone(),
        http_token: mount.http_token.clone(),
        listen: mount.listen,
        lsd: mount.lsd,
        peer: mount.peer.clone(),
        read_deadline: mount.read_deadline,
        seed: mount.seed,
        stream_disk: mount.stream_disk,
        stream_memory: mount.stream_memory,
        stream_runs: mount.stream_runs,
        trackers: mount.trackers,
        uid: mount.uid,
        umask: mount.umask,
        upload_limit: mount.upload_limit,
        upnp: mount.upnp,
        ..Settings::default()
    })
}

#[cfg(test)]
mod tests;

//! `magnetfs mount`: starts and stops everything, in order.
//!
//! Start: what is on the command line is judged before anything is changed; the library's lock comes before the
//! socket, because who has the lock may take the socket's place; the mount comes after the socket, because it is what
//! others see; the sources come before the word that it is mounted, so that whoever waits for that word finds them. The
//! HTTP address is bound before the mount, so that one that is taken is said before anything is mounted, and served
//! after it, since FFmpeg reads there.
//!
//! Stop: nothing new is begun, and HTTP ends first, since it begins most; then the FFmpegs, which read from the mount;
//! reads fail while FUSE is still served, so that readers end and close their files; then
//! the library and the mount end together, because neither may wait for the other and both together have three
//! seconds. The lock goes last, with the library.

mod ending;
mod http;
mod service;
mod source;
mod sources;
mod web;

use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use indicatif::MultiProgress;
use magnetfs_mount::{Mount, MountOptions};
use sd_notify::NotifyState;
use tokio::runtime::Runtime;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

pub(crate) use self::ending::Signals;
use self::ending::{Reason, Watchdog};
use self::http::{Http, Serving};
use self::service::{MountState, Service, StateRequest};
use self::source::LibrarySource;
use self::sources::Given;
use crate::config::{Config, canonical};
use crate::control::prepare_folder;
use crate::control::server::Server;
use crate::progress::Bars;
use crate::stream::Streams;
use crate::torrents::{AddOptions, EngineOptions, Holder, Library, LibraryError, LibraryOptions, ShelfError};
use crate::{logging, text};

/// No read takes longer than this, whatever arrives; a longer deadline raises it.
const READ_CEILING: Duration = Duration::from_secs(600);

/// Killed FFmpegs are waited for no longer; it is a part of the three seconds.
const REAP_LIMIT: Duration = Duration::from_secs(1);

/// How often the bars of a terminal are drawn.
const DRAW_INTERVAL: Duration = Duration::from_millis(500);

/// What is left running when everything has ended (a hash check on its own thread, say) is not waited for longer.
const LEFTOVER_LIMIT: Duration = Duration::from_millis(200);

/// Mounts, serves until somebody ends it, and stops. The calling thread waits; the word `mounted MOUNTPOINT` goes to
/// stdout when it is so.
///
/// # Errors
/// It could not be started (then nothing is mounted), or the mount broke or could not be taken away.
pub fn run(config: &Config, mountpoint: &Path, sources: &[OsString]) -> anyhow::Result<()> {
    let bars = MultiProgress::new();
    logging::start(config.log, config.log_level.as_deref(), bars.clone())?;
    let given = sources::judge(sources)?;
    let mountpoint = place(mountpoint)?;
    keep_out(&mountpoint, config)?;
    raise_open_file_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("magnetfs")
        // Reads and hashes of stored data; waiting for the network takes no thread.
        .max_blocking_threads(512)
        .build()
        .context("no threads could be started")?;
    let watchdog = Watchdog::new(mountpoint.clone());
    let result = runtime.block_on(live(config, &mountpoint, given, sources, &runtime, &watchdog, bars));
    runtime.shutdown_timeout(LEFTOVER_LIMIT);
    drop(watchdog);
    result
}

async fn live(
    config: &Config,
    mountpoint: &Path,
    given: Vec<Given>,
    sources: &[OsString],
    runtime: &Runtime,
    watchdog: &Watchdog,
    bars: MultiProgress,
) -> anyhow::Result<()> {
    // Before anything is there to be cleaned up: a signal that comes during the start is answered after it.
    let mut signals = Signals::new().context("signals cannot be watched")?;
    let library = match Library::open(library_options(config, mountpoint)).await {
        Err(LibraryError::Shelf(ShelfError::Held { data_dir, holder })) => {
            bail!(held(config, &data_dir, holder.as_ref(), sources))
        }
        opened => opened?,
    };
    let started = start(config, mountpoint, &library, runtime).await;
    let Started {
        server,
        http,
        mut mount,
    } = match started {
        Ok(started) => started,
        Err(error) => {
            library.stop().await;
            return Err(error);
        }
    };
    add_given(&library, given, config).await;

    let stopping = CancellationToken::new();
    let unmount = Arc::new(Notify::new());
    let (state_requests, mut state_requested) = mpsc::channel(16);
    let service = Arc::new(Service::new(
        Arc::clone(&library),
        mountpoint,
        config,
        http.as_ref().map(Http::place),
        Arc::clone(&unmount),
        state_requests,
    ));
    let serving = tokio::spawn(server.serve(Arc::clone(&service), stopping.clone()));
    let web = match http {
        Some(http) => Some(
            http.serve(config, mountpoint, &library, service, stopping.clone())
                .await,
        ),
        None => None,
    };
    let drawing = tokio::spawn(draw(Arc::clone(&library), Bars::new(bars), stopping.clone()));
    announce(mountpoint);

    let reason = until_ended(&mut mount, &mut signals, &unmount, &mut state_requested).await;
    tracing::info!(%reason, "stopping");
    tell_manager(&[NotifyState::Stopping, NotifyState::Status("Unmounting")]);
    watchdog.start();
    stopping.cancel();
    let streams = match web {
        Some(Serving { http, streams }) => {
            // Its connections are cut, and waited for no longer than that takes.
            drop(http.await);
            streams
        }
        None => None,
    };
    drop(drawing.await);
    let stopped = tokio::select! {
        stopped = stop(mount, &library, streams.as_deref()) => stopped,
        () = Signals::second_interrupt() => {
            tracing::warn!("interrupted again: what is stored will be verified at the next start");
            ending::detach(mountpoint);
            Err(anyhow!("interrupted before everything was stored"))
        }
    };
    // Only now, because a client that asked to unmount waits for the end of its connection.
    serving.abort();
    stopped?;
    if reason == Reason::Ended && magnetfs_mount::is_mounted(mountpoint).is_some_and(|kind| kind == "fuse.magnetfs") {
        bail!(
            "the FUSE session of {} ended by an error: the log says why",
            text::path(mountpoint)
        );
    }
    Ok(())
}

/// What is started together.
struct Started {
    server: Server,
    http: Option<Http>,
    mount: Mount,
}

/// The socket, the HTTP address and the mount: all or none.
async fn start(
    config: &Config,
    mountpoint: &Path,
    library: &Arc<Library>,
    runtime: &Runtime,
) -> anyhow::Result<Started> {
    let socket = &config.socket;
    prepare_folder(socket, !config.socket_named)
        .with_context(|| format!("the folder of the control socket {} cannot be made", text::path(socket)))?;
    let server = Server::bind(socket)?;
    let http = Http::bind(config).await?;
    let options = MountOptions {
        mountpoint: mountpoint.to_owned(),
        allow_other: config.allow_other,
        uid: config.uid,
        gid: config.gid,
        umask: config.umask,
        read_deadline: config.read_deadline,
        read_ceiling: READ_CEILING.max(config.read_deadline),
    };
    let (catalog, handle) = (Arc::clone(library), runtime.handle().clone());
    let mount = tokio::task::spawn_blocking(move || Mount::start(catalog, options, handle)).await;
    let mount = mount.context("the mount could not be started")??;
    Ok(Started { server, http, mount })
}

/// Waits for the first of all that can end a mount, and says meanwhile how the mount does.
async fn until_ended(
    mount: &mut Mount,
    signals: &mut Signals,
    unmount: &Notify,
    state_requested: &mut mpsc::Receiver<StateRequest>,
) -> Reason {
    loop {
        tokio::select! {
            reason = signals.first() => return reason,
            () = unmount.notified() => return Reason::Asked,
            () = mount.ended() => return Reason::Ended,
            Some(request) = state_requested.recv() => {
                let state = MountState { waiting_reads: mount.waiting_reads(), passthrough: mount.passthrough() };
                // Who asked may have hung up.
                let _ = request.send(state);
            }
        }
    }
}

async fn stop(mount: Mount, library: &Arc<Library>, streams: Option<&Streams<LibrarySource>>) -> anyhow::Result<()> {
    let unmounting = async {
        let reaping = async {
            if let Some(streams) = streams {
                // What is left then dies with the process: the kernel sees to it.
                let _ = tokio::time::timeout(REAP_LIMIT, streams.stop()).await;
            }
        };
        // The FFmpegs are killed first; but one that waits for a read dies only when that fails, and its end sends a
        // FLUSH, which somebody has to answer.
        tokio::join!(biased; reaping, async { mount.fail_reads() });
        tokio::task::spawn_blocking(move || mount.stop()).await
    };
    let ((), unmounted) = tokio::join!(library.stop(), unmounting);
    unmounted.context("the mount could not be stopped")??;
    Ok(())
}

/// Adds what was on the line: what is here already before this returns, what comes from the web later.
async fn add_given(library: &Arc<Library>, given: Vec<Given>, config: &Config) {
    let alone = given.len() == 1;
    for Given { source, name, from_web } in given {
        let (library, options) = (
            Arc::clone(library),
            AddOptions {
                download: None,
                peers: config.peers.clone(),
                alone,
            },
        );
        let adding = async move {
            if let Err(error) = library.add(source, options).await {
                tracing::error!(source = name, %error, "not added");
            }
        };
        if from_web {
            tokio::spawn(adding);
        } else {
            adding.await;
        }
    }
}

fn library_options(config: &Config, mountpoint: &Path) -> LibraryOptions {
    LibraryOptions {
        data_dir: config.data_dir.clone(),
        mountpoint: mountpoint.to_owned(),
        socket: config.socket.clone(),
        download: config.download,
        seed: config.seed,
        floor: config.free_space_floor,
        engine: EngineOptions {
            listen: config.listen,
            dht: config.dht,
            lsd: config.lsd,
            upnp: config.upnp,
            trackers: config.trackers,
            upload_limit: config.upload_limit.map(Into::into),
            download_limit: config.download_limit.map(Into::into),
            // The library has a place for it.
            state_dir: PathBuf::new(),
        },
    }
}

/// The absolute name of the mount point. Its end is not looked at: a dead mount may be there, which is cleared later.
fn place(mountpoint: &Path) -> anyhow::Result<PathBuf> {
    std::path::absolute(mountpoint).with_context(|| format!("{} is no path", text::path(mountpoint)))
}

/// What this process opens must not lie below its own mount point: it would wait for itself.
fn keep_out(mountpoint: &Path, config: &Config) -> anyhow::Result<()> {
    // The folder above, because the mount point itself may be dead.
    let place = match (mountpoint.parent(), mountpoint.file_name()) {
        (Some(above), Some(name)) => canonical(above).join(name),
        _ => mountpoint.to_owned(),
    };
    for (what, path, remedy) in [
        ("data directory", &config.data_dir, "--data-dir"),
        ("control socket", &config.socket, "--socket"),
    ] {
        if path.starts_with(mountpoint) || canonical(path).starts_with(&place) {
            let (path, mountpoint) = (text::path(path), text::path(mountpoint));
            bail!("the {what} {path} would lie below the mount point {mountpoint}: choose another with {remedy}");
        }
    }
    Ok(())
}

/// Each stored file that is read, each peer and each client costs a descriptor; the soft limit is often 1024.
fn raise_open_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}

/// Why a second mount of a library is refused, and what would do in its place.
fn held(config: &Config, data_dir: &Path, holder: Option<&Holder>, sources: &[OsString]) -> String {
    let mut command = "magnetfs add".to_owned();
    if config.data_dir_named {
        command.push_str(&format!(
            " --data-dir {}",
            text::shell_word(&config.data_dir.to_string_lossy())
        ));
    }
    for peer in &config.peers {
        command.push_str(&format!(" --peer {peer}"));
    }
    if sources.is_empty() {
        command.push_str(" SOURCE");
    }
    for source in sources {
        command.push(' ');
        command.push_str(&text::shell_word(&source.to_string_lossy()));
    }
    let at = match holder {
        Some(Holder { pid, mountpoint, .. }) => format!("mounted at {} (process {pid})", text::path(mountpoint)),
        None => "in use by another magnetfs".to_owned(),
    };
    format!(
        "the data directory {} is {at} already. To add to it, run\n  {command}\nor mount another library with --data-dir",
        text::path(data_dir)
    )
}

/// Says that the mount is up, to whoever started it: a person or script, and systemd.
fn announce(mountpoint: &Path) {
    tracing::info!(mountpoint = %mountpoint.display(), "mounted");
    let mut line = b"mounted ".to_vec();
    line.extend_from_slice(std::os::unix::ffi::OsStrExt::as_bytes(mountpoint.as_os_str()));
    line.push(b'\n');
    let mut out = std::io::stdout().lock();
    // A closed stdout is no reason not to mount.
    let _ = out.write_all(&line).and_then(|()| out.flush());
    let status = format!("Mounted at {}", text::path(mountpoint));
    tell_manager(&[NotifyState::Ready, NotifyState::Status(&status)]);
}

fn tell_manager(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "the service manager was not told");
    }
}

/// Draws what goes on, on a terminal.
async fn draw(library: Arc<Library>, mut bars: Bars, stopping: CancellationToken) {
    if !std::io::stderr().is_terminal() {
        return;
    }
    let mut ticks = tokio::time::interval(DRAW_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while stopping.run_until_cancelled(ticks.tick()).await.is_some() {
        bars.update(&library.list());
    }
    bars.clear();
}

#[cfg(test)]
mod tests;

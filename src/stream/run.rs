//! One run: FFmpeg from its start to its end, its pipes drained into the cutters, what they cut handed out.

use std::mem;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{interval, sleep, timeout};

use super::cutter::{Cut, Cutter};
use super::error::StreamError;
use super::fetch;
use super::film::Facts;
use super::held::PipeHeld;
use super::house::{CEILING, Command, House};
use super::plan::RenditionId;
use super::policy::{End, Part, Place, RunId};
use super::source::Source;
use crate::ffmpeg::{Ended, Run};

/// A player asks for the segment before at once after a seek: the run may still begin there when it has come.
const GATHER: Duration = Duration::from_millis(10);

/// As much as a pipe holds.
const BUFFER: usize = 64 << 10;

/// How often the house looks for runs that nobody asks of.
const TICK: Duration = Duration::from_secs(1);

/// FFmpeg writes a cue that it has read within this time, also on a busy machine.
const LAG: Duration = Duration::from_millis(300);

/// FFmpeg ends when its outputs have, and when the mount has given up its reads; one that does not is killed after this.
const LINGER: Duration = Duration::from_secs(10);

/// What FFmpeg says when a read of its input fails. It exits with 0 all the same, after an MP4's packet that is cut
/// short and a fragment that is.
const UNREAD: [&str; 4] = ["Input/output error", "Read error", "partial file", "Stale file handle"];

/// Why a run's pipes are not read to their end.
enum Trouble {
    /// The house wants no more of it.
    Stopped,
    LandedLate,
    /// A read of the input failed: what FFmpeg makes of it is worth nothing.
    Unread,
    /// What FFmpeg gives cannot be cut, in words.
    Uncut(String),
}

/// A process whose pace may be told of: it is forgotten at the end, also that of a panic.
struct Paced<'a, S: Source> {
    house: &'a House<S>,
    pid: u32,
}

impl<S: Source> Drop for Paced<'_, S> {
    fn drop(&mut self) {
        self.house.source.forget(self.pid);
    }
}

/// Runs FFmpeg for as long as the house wants it. It is reaped when this is ready.
pub(super) async fn run<S: Source>(
    house: Arc<House<S>>,
    facts: Arc<Facts>,
    id: RunId,
    mut command: watch::Receiver<Command>,
) {
    let stopped = |command: &Command| *command == Command::Stop;
    tokio::select! {
        () = sleep(GATHER) => {}
        _ = command.wait_for(stopped) => return,
    }
    let Some(place) = house.launch(id) else { return };
    // Dropping it, with the run, withdraws the demand.
    let mut fetching = JoinSet::new();
    fetching.spawn(fetch::first_segment(
        house.clone(),
        facts.clone(),
        place,
        command.clone(),
    ));
    let started = tokio::select! {
        started = start(&house, &facts, place) => started,
        _ = command.wait_for(stopped) => return,
    };
    let ffmpeg = match started {
        Ok(ffmpeg) => ffmpeg,
        Err(refusal) => return house.ended(&facts, id, End::Over, &refusal),
    };
    let pid = ffmpeg.pid;
    tracing::debug!(film = %facts.name, pid, first = place.first, earlier = place.earlier, "FFmpeg runs");
    let paced = Paced { house: &house, pid };
    let went = follow(&house, &facts, id, place, ffmpeg, command).await;
    drop(paced);
    match went {
        Some((end, refusal)) => {
            tracing::debug!(film = %facts.name, pid, ?end, %refusal, "FFmpeg has ended");
            house.ended(&facts, id, end, &refusal);
        }
        None => tracing::debug!(film = %facts.name, pid, "FFmpeg was ended"),
    }
}

async fn start<S: Source>(house: &House<S>, facts: &Facts, place: Place) -> Result<Run, StreamError> {
    let job = facts.job(house.source.path(&facts.name)?, place);
    house.launcher.run(&job).await.map_err(|error| StreamError::Failed {
        last_words: error.to_string(),
    })
}

/// Follows FFmpeg until it is reaped. Unless the house ended it: how it ended, and what those hear who wait in vain.
async fn follow<S: Source>(
    house: &Arc<House<S>>,
    facts: &Arc<Facts>,
    id: RunId,
    place: Place,
    mut ffmpeg: Run,
    command: watch::Receiver<Command>,
) -> Option<(End, StreamError)> {
    let outputs = mem::take(&mut ffmpeg.outputs);
    let ffmpeg = Arc::new(ffmpeg);
    let mut pipes = JoinSet::new();
    let video_s = Arc::new(watch::Sender::new(f64::NEG_INFINITY));
    let gave = Arc::new(Mutex::new(Instant::now()));
    let held = house.held.run();
    for (track, (output, rendition)) in outputs.into_iter().zip(facts.plan.renditions()).enumerate() {
        let cutter = Cutter::new(&facts.plan, &facts.timeline, rendition.id, place.first);
        let pipe = Pipe {
            house: house.clone(),
            facts: facts.clone(),
            run: id,
            track,
            is_video: rendition.id == RenditionId::Video,
            is_text: matches!(rendition.id, RenditionId::Subtitles(_)),
            ffmpeg: Arc::downgrade(&ffmpeg),
            video_s: video_s.clone(),
            gave: gave.clone(),
        };
        let cutter = cutter.begun_at(place.first - place.earlier);
        pipes.spawn(pipe.drain(cutter, output, held.pipe(), command.clone()));
    }
    let drained = drained(house, facts, ffmpeg.pid, &mut pipes, &gave, command).await;
    if drained.is_err() {
        ffmpeg.kill();
    }
    pipes.shutdown().await;
    // Nobody else holds it any more; if somebody did, dropping it would kill it.
    let mut ffmpeg = Arc::into_inner(ffmpeg)?;
    let ended = match timeout(LINGER, ffmpeg.ended()).await {
        Ok(ended) => ended,
        Err(_) => {
            ffmpeg.kill();
            ffmpeg.ended().await
        }
    };
    let words = ffmpeg.last_words();
    let result = match drained {
        Ok(drained) => {
            let reached_s = drained
                .iter()
                .filter(|(pipe, _)| pipe.is_video)
                .map(|(_, cutter)| cutter.reached_s());
            let reached_s = reached_s.fold(0.0, f64::max);
            let complete = ended == Ended::Finished && !is_unread(&words) && facts.is_end(reached_s);
            tails(drained, complete).await.and_then(|()| match ended {
                _ if is_unread(&words) => Err(Trouble::Unread),
                Ended::Failed { status, .. } if words.is_empty() => Err(Trouble::Uncut(status.to_string())),
                _ if words.is_empty() => Err(Trouble::Uncut(format!("it came to an end at {reached_s:.1} s"))),
                _ => Err(Trouble::Uncut(words.clone())),
            })
        }
        Err(trouble) => Err(trouble),
    };
    let refusal = |last_words| StreamError::Failed { last_words };
    match result {
        Ok(()) | Err(Trouble::Stopped) => None,
        Err(Trouble::LandedLate) => {
            let words = "it does not begin where it should in this file".to_owned();
            Some((End::LandedLate, refusal(words)))
        }
        // Nobody sends it: that is no fault of FFmpeg's.
        Err(Trouble::Unread) if !house.arrives(facts) => Some((End::Over, house.unavailable(&facts.name))),
        Err(Trouble::Unread) => {
            let words = format!("The file could not be read: {words}");
            Some((End::Over, StreamError::Unavailable(words)))
        }
        Err(Trouble::Uncut(words)) => Some((End::Over, refusal(words))),
    }
}

/// The pipes and what is left in their cutters once all have ended.
async fn drained<S: Source>(
    house: &Arc<House<S>>,
    facts: &Arc<Facts>,
    pid: u32,
    pipes: &mut JoinSet<Result<(Pipe<S>, Cutter), Trouble>>,
    gave: &Mutex<Instant>,
    mut command: watch::Receiver<Command>,
) -> Result<Vec<(Pipe<S>, Cutter)>, Trouble> {
    let mut drained = Vec::new();
    let mut tick = interval(TICK);
    let mut urgent = None;
    loop {
        let orders = match *command.borrow_and_update() {
            Command::Stop => return Err(Trouble::Stopped),
            Command::Go(orders) => orders,
        };
        if urgent != Some(orders.urgent) {
            house.source.pace(pid, orders.urgent);
            urgent = Some(orders.urgent);
        }
        tokio::select! {
            changed = command.changed() => changed.map_err(|_| Trouble::Stopped)?,
            pipe = pipes.join_next() => match pipe {
                None => return Ok(drained),
                Some(Ok(pipe)) => drained.push(pipe?),
                Some(Err(panicked)) => return Err(Trouble::Uncut(panicked.to_string())),
            },
            _ = tick.tick() => {
                house.tick(facts);
                if !orders.open {
                    *gave.lock() = Instant::now();
                }
                let gave = *gave.lock();
                if hangs(house, facts, gave) {
                    return Err(Trouble::Uncut(format!("it gave nothing for {} s", gave.elapsed().as_secs())));
                }
            }
        }
    }
}

/// Whether FFmpeg, which is read and last gave something then, will never give anything more. While nothing comes of
/// the torrent, the mount ends its reads at their deadline, and it ends upon that; while something does, it may be what
/// is waited for, for as long as any request waits.
fn hangs<S: Source>(house: &House<S>, facts: &Facts, gave: Instant) -> bool {
    let came = house.last_came(facts).map_or(gave, |came| came.max(gave));
    came.elapsed() >= house.options.read_deadline + LINGER || gave.elapsed() >= CEILING
}

/// "A tail that did not reach its boundary is never cached": gives out what is left in the cutters only if the run came
/// to the end of the film and nothing went wrong on the way.
async fn tails<S: Source>(drained: Vec<(Pipe<S>, Cutter)>, complete: bool) -> Result<(), Trouble> {
    for (pipe, cutter) in drained {
        let cuts = cutter
            .finish(complete)
            .map_err(|error| Trouble::Uncut(error.to_string()))?;
        pipe.hand_out(cuts).await?;
    }
    Ok(())
}

fn is_unread(words: &str) -> bool {
    UNREAD.iter().any(|sign| words.contains(sign))
}

/// One output of a run.
struct Pipe<S: Source> {
    house: Arc<House<S>>,
    facts: Arc<Facts>,
    run: RunId,
    track: usize,
    is_video: bool,
    is_text: bool,
    ffmpeg: Weak<Run>,
    /// How far the video of the run has come.
    video_s: Arc<watch::Sender<f64>>,
    /// When any pipe of the run last gave something.
    gave: Arc<Mutex<Instant>>,
}

impl<S: Source> Pipe<S> {
    /// Reads whenever the run is open, to the end.
    async fn drain(
        self,
        mut cutter: Cutter,
        mut output: pipe::Receiver,
        mut held: PipeHeld,
        mut command: watch::Receiver<Command>,
    ) -> Result<(Pipe<S>, Cutter), Trouble> {
        let mut video = self.video_s.subscribe();
        let mut buffer = vec![0; BUFFER];
        let runs = |command: &Command| !matches!(command, Command::Go(orders) if !orders.open);
        loop {
            match command.wait_for(runs).await.as_deref() {
                Ok(Command::Go(_)) => {}
                Ok(Command::Stop) | Err(_) => return Err(Trouble::Stopped),
            }
            let length = tokio::select! {
                biased;
                read = output.read(&mut buffer) => read.unwrap_or(0),
                _ = command.changed() => continue,
                Ok(()) = video.changed(), if !self.is_video => {
                    // Taken before the look whether there is more to read: what belongs to it was written before.
                    let video_s = *video.borrow_and_update();
                    match output.try_read(&mut buffer) {
                        Ok(length) => {
                            video.mark_changed();
                            length
                        }
                        // FFmpeg writes each output from a thread of its own, which may be about to.
                        Err(_) if self.is_text && timeout(LAG, output.readable()).await.is_ok() => {
                            video.mark_changed();
                            continue;
                        }
                        Err(_) => {
                            let cuts = cutter.passed(video_s).map_err(|error| Trouble::Uncut(error.to_string()))?;
                            self.hand_out(cuts).await?;
                            continue;
                        }
                    }
                }
            };
            if length == 0 {
                break;
            }
            *self.gave.lock() = Instant::now();
            let cuts = cutter
                .push(&buffer[..length])
                .map_err(|error| Trouble::Uncut(error.to_string()))?;
            let whole: u64 = cuts.iter().map(Cut::held).sum();
            held.set(cutter.held() + whole).map_err(Trouble::Uncut)?;
            self.hand_out(cuts).await?;
            held.set(cutter.held()).map_err(Trouble::Uncut)?;
            self.came_to(cutter.reached_s());
        }
        self.house.track_ended(&self.facts, self.run, self.track);
        Ok((self, cutter))
    }

    fn came_to(&self, reached_s: f64) {
        if self.is_video {
            self.video_s.send_if_modified(|video_s| {
                let further = reached_s > *video_s;
                *video_s = video_s.max(reached_s);
                further
            });
        }
        self.house.reached(&self.facts, self.run, self.track, reached_s);
    }

    async fn hand_out(&self, cuts: Vec<Cut>) -> Result<(), Trouble> {
        let (house, facts, run, track) = (&self.house, &self.facts, self.run, self.track);
        if cuts.is_empty() {
            return Ok(());
        }
        let ffmpeg = self.ffmpeg.upgrade();
        if ffmpeg.is_some_and(|ffmpeg| is_unread(&ffmpeg.last_words())) {
            return Err(Trouble::Unread);
        }
        for cut in cuts {
            match cut {
                Cut::Init(bytes) => house.made(facts, run, track, Part::Init, bytes).await,
                Cut::Segment {
                    number,
                    bytes,
                    provisional: false,
                } => house.made(facts, run, track, Part::Segment(number), bytes).await,
                Cut::Segment { number, bytes, .. } => house.made_provisionally(facts, run, track, number, &bytes),
                Cut::LandedLate { .. } => return Err(Trouble::LandedLate),
            }
        }
        Ok(())
    }
}

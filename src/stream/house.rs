//! What all films share: the cache, the runs, and who waits for what.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::cache::{Provisional, Segments};
use super::error::StreamError;
use super::film::Facts;
use super::held::AllHeld;
use super::options::StreamOptions;
use super::policy::{Action, Ask, End, Limits, Orders, Part, Place, Policy, Refusal, RunId, WantId};
use super::run;
use super::source::{FileName, Source, SourceError};
use crate::ffmpeg::Launcher;

/// A player that was refused may ask again after this.
const RETRY_AFTER_S: u32 = 2;

/// No request waits longer, however slowly its data arrives.
pub(super) const CEILING: Duration = Duration::from_secs(1800);

/// How often a request that waits looks whether data still arrives.
const LOOK: Duration = Duration::from_secs(1);

/// Shared by all films, their requests and their runs.
pub(super) struct House<S> {
    pub(super) options: StreamOptions,
    pub(super) source: S,
    pub(super) launcher: Launcher,
    pub(super) segments: Arc<Segments>,
    pub(super) held: AllHeld,
    /// Ends every wait.
    pub(super) stopping: CancellationToken,
    pub(super) tasks: TaskTracker,
    began: Instant,
    desk: Mutex<Desk>,
}

/// Held for moments only.
struct Desk {
    policy: Policy,
    waiting: HashMap<WantId, oneshot::Sender<Result<Bytes, StreamError>>>,
    runs: HashMap<RunId, Desked>,
}

/// What is held of a run beside the policy.
struct Desked {
    facts: Arc<Facts>,
    command: watch::Sender<Command>,
    /// Subtitles that may not be kept, for those who ask while the run lasts.
    provisional: Provisional,
}

/// What a run is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Command {
    /// Go on like this.
    Go(Orders),
    /// End at once; nobody waits for how.
    Stop,
}

impl<S: Source> House<S> {
    pub(super) fn new(options: StreamOptions, source: S, launcher: Launcher, segments: Segments) -> House<S> {
        let limits = Limits {
            runs: options.max_runs.max(1),
            wants: options.max_waiting,
            ahead_s: options.ahead.as_secs_f64(),
            idle: options.idle,
        };
        House {
            options,
            source,
            launcher,
            segments: Arc::new(segments),
            held: AllHeld::default(),
            stopping: CancellationToken::new(),
            tasks: TaskTracker::new(),
            began: Instant::now(),
            desk: Mutex::new(Desk {
                policy: Policy::new(limits),
                waiting: HashMap::new(),
                runs: HashMap::new(),
            }),
        }
    }

    /// A part, from the cache or from a run.
    pub(super) async fn part(
        self: &Arc<Self>,
        facts: &Arc<Facts>,
        track: usize,
        part: Part,
    ) -> Result<Bytes, StreamError> {
        if self.stopping.is_cancelled() {
            return Err(StreamError::Stopping);
        }
        if let Some(bytes) = self.segments.get(facts.cached(track, part)).await {
            if let Part::Segment(number) = part {
                self.change(facts, |desk, now| {
                    desk.policy.touch(now, &facts.shape.key, number);
                    Vec::new()
                });
            }
            return Ok(bytes);
        }
        let local = facts.local(&self.source, part);
        let (reply, answer) = oneshot::channel();
        let mut outcome = None;
        self.change(facts, |desk, now| {
            // It may have been made since.
            if let Some(bytes) = self.made_meanwhile(desk, facts, track, part) {
                outcome = Some(Err(Ok(bytes)));
                return Vec::new();
            }
            let ask = Ask {
                film: facts.shape.clone(),
                track,
                part,
                earlier: facts.lead(track, part, &local),
                local,
            };
            match desk.policy.ask(now, ask) {
                Ok((id, actions)) => {
                    desk.waiting.insert(id, reply);
                    outcome = Some(Ok(id));
                    actions
                }
                Err(_) => Vec::new(),
            }
        });
        let id = match outcome {
            Some(Ok(id)) => id,
            Some(Err(answer)) => return answer,
            None => return Err(BUSY),
        };
        let _withdraws = Withdraws { house: self, facts, id };
        self.wait(facts, answer).await
    }

    fn made_meanwhile(&self, desk: &Desk, facts: &Facts, track: usize, part: Part) -> Option<Bytes> {
        let provisional = || {
            let Part::Segment(number) = part else { return None };
            let of_film = desk.runs.values().filter(|run| run.facts.shape.key == facts.shape.key);
            of_film.filter_map(|run| run.provisional.get(track, number)).next()
        };
        self.segments.get_now(facts.cached(track, part)).or_else(provisional)
    }

    /// A part as it will always be, if it is kept in memory.
    pub(super) fn kept(&self, facts: &Facts, track: usize, part: Part) -> Option<Bytes> {
        self.segments.get_now(facts.cached(track, part))
    }

    /// How many wait for a film and what for, since how long; how many runs work on it.
    pub(super) fn work_on(&self, film: &[u8; 20]) -> (usize, Option<(Part, Duration)>, usize) {
        let desk = self.desk.lock();
        let now = self.began.elapsed();
        let (waiting, longest) = desk.policy.waiting(film);
        let longest = longest.map(|(part, since)| (part, now.saturating_sub(since)));
        (waiting, longest, desk.policy.runs_of(film))
    }

    /// Where a run begins, once it is about to; none if it is no longer wanted.
    pub(super) fn launch(&self, id: RunId) -> Option<Place> {
        self.desk.lock().policy.launch(id)
    }

    /// A run has made a part that stays what it is. Ready when it is on disk.
    pub(super) async fn made(self: &Arc<Self>, facts: &Arc<Facts>, id: RunId, track: usize, part: Part, bytes: Bytes) {
        // First, so that whoever asks from now on finds it.
        let (house, of) = (self.clone(), facts.clone());
        let is_gone = move || house.source.path(&of.name) == Err(SourceError::Unknown);
        let kept = self.segments.put(facts.cached(track, part), bytes.clone(), is_gone);
        self.hand_out(facts, id, track, part, &bytes, false);
        // It fails only when the runtime ends.
        let _ = kept.await;
    }

    /// A run has made a segment of subtitles in which one that began earlier could have more.
    pub(super) fn made_provisionally(
        self: &Arc<Self>,
        facts: &Arc<Facts>,
        id: RunId,
        track: usize,
        number: u32,
        bytes: &Bytes,
    ) {
        self.hand_out(facts, id, track, Part::Segment(number), bytes, true);
    }

    fn hand_out(
        self: &Arc<Self>,
        facts: &Arc<Facts>,
        id: RunId,
        track: usize,
        part: Part,
        bytes: &Bytes,
        provisional: bool,
    ) {
        self.change(facts, |desk, now| {
            if let (Part::Segment(number), Some(run)) = (part, desk.runs.get_mut(&id)) {
                if provisional {
                    run.provisional.put(track, number, bytes.clone());
                } else {
                    run.provisional.remove(track, number);
                }
            }
            let (fed, actions) = desk.policy.made(now, id, track, part);
            for id in fed {
                desk.answer(id, Ok(bytes.clone()));
            }
            actions
        });
    }

    /// A track of a run has come so far.
    pub(super) fn reached(self: &Arc<Self>, facts: &Arc<Facts>, id: RunId, track: usize, reached_s: f64) {
        *facts.heard.lock() = Some(Instant::now());
        self.change(facts, |desk, _| {
            desk.policy.reached(id, track, reached_s);
            Vec::new()
        });
    }

    /// Nothing more comes of a track of a run.
    pub(super) fn track_ended(self: &Arc<Self>, facts: &Arc<Facts>, id: RunId, track: usize) {
        self.change(facts, |desk, _| {
            desk.policy.track_ended(id, track);
            Vec::new()
        });
    }

    /// A run is over. Whoever waited for it is given another one; those who did so before get this answer.
    pub(super) fn ended(self: &Arc<Self>, facts: &Arc<Facts>, id: RunId, end: End, refusal: &StreamError) {
        self.change(facts, |desk, now| {
            let mut actions = desk.policy.ended(now, id, end);
            desk.runs.remove(&id);
            actions.retain(|action| match action {
                Action::Refuse(id, Refusal::Failed) => {
                    desk.answer(*id, Err(refusal.clone()));
                    false
                }
                _ => true,
            });
            actions
        });
    }

    /// Time has passed for a run of this film.
    pub(super) fn tick(self: &Arc<Self>, facts: &Arc<Facts>) {
        self.change(facts, |desk, now| desk.policy.tick(now));
    }

    /// Kills every run.
    pub(super) fn stop_all(&self) {
        self.stopping.cancel();
        for run in self.desk.lock().runs.values() {
            run.command.send_replace(Command::Stop);
        }
    }

    async fn wait(
        &self,
        facts: &Facts,
        mut answer: oneshot::Receiver<Result<Bytes, StreamError>>,
    ) -> Result<Bytes, StreamError> {
        let since = Instant::now();
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                answer = &mut answer => return answer.unwrap_or(Err(StreamError::Stopping)),
                () = self.stopping.cancelled() => return Err(StreamError::Stopping),
                _ = look.tick() => {
                    let waited = since.elapsed();
                    if waited >= CEILING || (waited >= self.options.read_deadline && !self.arrives(facts)) {
                        return Err(self.unavailable(&facts.name));
                    }
                }
            }
        }
    }

    /// Whether anything has come for a film within the deadline.
    pub(super) fn arrives(&self, facts: &Facts) -> bool {
        let last = self.last_came(facts);
        last.is_some_and(|last| last.elapsed() < self.options.read_deadline)
    }

    /// When anything last came for a film, from the swarm or from FFmpeg.
    pub(super) fn last_came(&self, facts: &Facts) -> Option<Instant> {
        self.source.last_progress(&facts.name).max(*facts.heard.lock())
    }

    pub(super) fn unavailable(&self, file: &FileName) -> StreamError {
        let since = self.source.last_progress(file).map(|last| last.elapsed().as_secs());
        StreamError::Unavailable(match since {
            Some(seconds) => format!("No peer has sent anything of this torrent for {seconds} s. Try again later."),
            None => "No peer has sent anything of this torrent yet. Try again later.".to_owned(),
        })
    }

    /// The one way in which anything at the desk changes: what the policy decides upon it is done, and every run hears
    /// what it is to do now. Runs that are begun are of the film that the change is about.
    fn change(self: &Arc<Self>, facts: &Arc<Facts>, change: impl FnOnce(&mut Desk, Duration) -> Vec<Action>) {
        let mut desk = self.desk.lock();
        let actions = change(&mut desk, self.began.elapsed());
        for action in actions {
            match action {
                Action::Start(id) => self.start(&mut desk, facts, id),
                Action::Stop(id) => {
                    if let Some(run) = desk.runs.remove(&id) {
                        run.command.send_replace(Command::Stop);
                    }
                }
                Action::Refuse(id, Refusal::Busy) => desk.answer(id, Err(BUSY)),
                Action::Refuse(id, Refusal::Failed) => {
                    let last_words = "it left this part out".to_owned();
                    desk.answer(id, Err(StreamError::Failed { last_words }));
                }
            }
        }
        let Desk { policy, runs, .. } = &mut *desk;
        for (id, orders) in policy.orders() {
            if let Some(run) = runs.get(&id) {
                run.command.send_if_modified(|command| {
                    let new = Command::Go(orders);
                    let changes = *command != new && *command != Command::Stop;
                    if changes {
                        *command = new;
                    }
                    changes
                });
            }
        }
    }

    fn start(self: &Arc<Self>, desk: &mut Desk, facts: &Arc<Facts>, id: RunId) {
        if self.stopping.is_cancelled() {
            return;
        }
        let orders = Orders {
            open: true,
            urgent: true,
        };
        let (command, told) = watch::channel(Command::Go(orders));
        let run = Desked {
            facts: facts.clone(),
            command,
            provisional: Provisional::default(),
        };
        desk.runs.insert(id, run);
        let run = tokio::spawn(run::run(self.clone(), facts.clone(), id, told));
        let (house, facts) = (self.clone(), facts.clone());
        self.tasks.spawn(async move {
            if let Err(panicked) = run.await {
                let last_words = panicked.to_string();
                house.ended(&facts, id, End::Over, &StreamError::Failed { last_words });
            }
        });
    }
}

impl Desk {
    fn answer(&mut self, id: WantId, answer: Result<Bytes, StreamError>) {
        if let Some(reply) = self.waiting.remove(&id) {
            // Who has hung up withdraws.
            let _ = reply.send(answer);
        }
    }
}

/// A request that waits; nobody works for it any more once it is dropped.
struct Withdraws<'a, S: Source> {
    house: &'a Arc<House<S>>,
    facts: &'a Arc<Facts>,
    id: WantId,
}

impl<S: Source> Drop for Withdraws<'_, S> {
    fn drop(&mut self) {
        self.house.change(self.facts, |desk, _| {
            desk.waiting.remove(&self.id);
            desk.policy.withdraw(self.id);
            Vec::new()
        });
    }
}

impl<S> fmt::Debug for House<S> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("House")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

const BUSY: StreamError = StreamError::Busy {
    retry_after_s: RETRY_AFTER_S,
};

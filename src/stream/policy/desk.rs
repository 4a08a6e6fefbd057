//! The policy.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::kinds::{Action, Ask, End, Limits, Orders, Part, Place, Refusal, RunId, Shape, WantId};
use super::state::{FAR, Run, Track, Want, reaches};

/// A player that asks for nothing for so long does not play, or has enough: it would ask every 4 s.
const SETTLED: Duration = Duration::from_secs(5);

/// FFmpeg may be told so many segments too early when it lands late, before that is a failure.
const EARLIER_LIMIT: u32 = 3;

/// All runs and wants.
#[derive(Debug)]
pub(in crate::stream) struct Policy {
    pub(super) limits: Limits,
    pub(super) runs: BTreeMap<RunId, Run>,
    pub(super) wants: BTreeMap<WantId, Want>,
    last_id: u64,
}

impl Policy {
    pub(in crate::stream) fn new(limits: Limits) -> Policy {
        Policy {
            limits,
            runs: BTreeMap::new(),
            wants: BTreeMap::new(),
            last_id: 0,
        }
    }

    /// Somebody begins to wait.
    ///
    /// # Errors
    /// Nobody can serve it now, and nobody was disturbed for it.
    pub(in crate::stream) fn ask(&mut self, now: Duration, ask: Ask) -> Result<(WantId, Vec<Action>), Refusal> {
        if self.wants.len() >= self.limits.wants {
            return Err(Refusal::Busy);
        }
        let mut actions = Vec::new();
        let id = WantId(self.next_id());
        self.give(now, id, ask, (now, 0), &mut actions)?;
        Ok((id, actions))
    }

    /// Somebody no longer waits. A want that is gone is fine too.
    pub(in crate::stream) fn withdraw(&mut self, id: WantId) {
        let Some(want) = self.wants.remove(&id) else { return };
        let alone = !self.waited_for(want.run);
        if let Some(run) = self.runs.get_mut(&want.run) {
            run.abandoned |= alone && run.asked <= want.since;
        }
    }

    /// Somebody was given a segment from the cache: whoever works there works for him.
    pub(in crate::stream) fn touch(&mut self, now: Duration, film: &[u8; 20], number: u32) {
        let near = self
            .runs
            .values_mut()
            .filter(|run| run.film.key == *film)
            .filter(|run| {
                let next = run.tracks.iter().map(|track| track.next).max().unwrap_or(0);
                run.place.first <= number && number <= next && next - number <= 3 * FAR
            });
        if let Some(run) = near.max_by_key(|run| run.place.first) {
            run.asked_for(now, Some(number));
        }
    }

    /// FFmpeg is about to be started: from where. None if that is no longer wanted.
    pub(in crate::stream) fn launch(&mut self, id: RunId) -> Option<Place> {
        let run = self.runs.get_mut(&id)?;
        run.launched = true;
        Some(run.place)
    }

    /// A run has made a part: who gets it. The same part may be asked of another run too.
    pub(in crate::stream) fn made(
        &mut self,
        now: Duration,
        id: RunId,
        track: usize,
        part: Part,
    ) -> (Vec<WantId>, Vec<Action>) {
        let Some(run) = self.runs.get_mut(&id) else {
            return (Vec::new(), Vec::new());
        };
        let Some(state) = run.tracks.get_mut(track) else {
            return (Vec::new(), Vec::new());
        };
        match part {
            Part::Init => state.init = true,
            // Subtitles come a second time when they are final.
            Part::Segment(number) => state.next = state.next.max(number.saturating_add(1)),
        }
        let key = run.film.key;
        let fed: Vec<WantId> = self
            .wants
            .iter()
            .filter(|(_, want)| want.ask.film.key == key && want.ask.track == track && want.ask.part == part)
            .map(|(id, _)| *id)
            .collect();
        for id in &fed {
            self.wants.remove(id);
        }
        // A part that it went past will not come from it any more.
        let passed = self.taken_from(id, |want| {
            want.ask.track == track && matches!(part, Part::Segment(_)) && want.ask.part < part
        });
        let mut actions = Vec::new();
        let missed = passed.into_iter().map(|(id, want)| (id, want, true)).collect();
        self.again(now, missed, &mut actions);
        if self.is_covered(id) {
            self.runs.remove(&id);
            actions.push(Action::Stop(id));
        }
        (fed, actions)
    }

    /// Nobody waits for a run, and another one has made what it would make next: whoever asks goes there. Where there are
    /// subtitles it goes on until those of the other are as good as its own.
    fn is_covered(&self, id: RunId) -> bool {
        let Some(run) = self.runs.get(&id) else { return false };
        let lead = if run.film.tracks.iter().any(|track| track.text) {
            FAR
        } else {
            0
        };
        let covers = |(other_id, other): (&RunId, &Run)| {
            let mut tracks = run.tracks.iter().zip(&other.tracks).zip(&run.film.tracks);
            *other_id != id
                && other.film.key == run.film.key
                && tracks.all(|((mine, theirs), shape)| {
                    shape.text || (other.place.first + lead <= mine.next && mine.next <= theirs.next)
                })
        };
        !self.waited_for(id) && self.runs.iter().any(covers)
    }

    /// A track of a run has come to this time of the film.
    pub(in crate::stream) fn reached(&mut self, id: RunId, track: usize, reached_s: f64) {
        if let Some(track) = self.runs.get_mut(&id).and_then(|run| run.tracks.get_mut(track)) {
            track.reached_s = track.reached_s.max(reached_s);
        }
    }

    /// Nothing more comes of this track of a run.
    pub(in crate::stream) fn track_ended(&mut self, id: RunId, track: usize) {
        if let Some(track) = self.runs.get_mut(&id).and_then(|run| run.tracks.get_mut(track)) {
            track.ended = true;
        }
    }

    /// A run has ended by itself. Who still waited for it gets another, unless this was the second in vain.
    pub(in crate::stream) fn ended(&mut self, now: Duration, id: RunId, end: End) -> Vec<Action> {
        let mut actions = Vec::new();
        let Some(run) = self.runs.remove(&id) else {
            return actions;
        };
        let left = self.taken_from(id, |_| true);
        if left.is_empty() {
            return actions;
        }
        let place = Place {
            first: run.place.first,
            earlier: run.place.earlier + 1,
        };
        if end == End::LandedLate && place.earlier <= EARLIER_LIMIT.min(place.first) {
            let next = self.start(now, &run.film, place, &mut actions);
            for (id, want) in left {
                self.attach(now, id, want.ask, (want.since, want.strikes), next);
            }
            return actions;
        }
        let vain = |want: &Want| match run.tracks.get(want.ask.track) {
            Some(track) => track.next <= want.mark,
            None => true,
        };
        let left = left
            .into_iter()
            .map(|(id, want)| {
                let vain = vain(&want);
                (id, want, vain)
            })
            .collect();
        self.again(now, left, &mut actions);
        actions
    }

    /// Time has passed: ends runs that nobody asks of.
    pub(in crate::stream) fn tick(&mut self, now: Duration) -> Vec<Action> {
        let idle: Vec<RunId> = self
            .runs
            .iter()
            .filter(|(id, run)| now.saturating_sub(run.asked) >= self.limits.idle && !self.waited_for(**id))
            .map(|(id, _)| *id)
            .collect();
        for id in &idle {
            self.runs.remove(id);
        }
        idle.into_iter().map(Action::Stop).collect()
    }

    /// What each run does now.
    pub(in crate::stream) fn orders(&self) -> impl Iterator<Item = (RunId, Orders)> {
        self.runs.iter().map(|(id, run)| {
            let urgent = self.waited_for(*id);
            let open = urgent || !run.is_ahead(self.limits.ahead_s);
            (*id, Orders { open, urgent })
        })
    }

    /// Runs that work on a film.
    pub(in crate::stream) fn runs_of(&self, film: &[u8; 20]) -> usize {
        self.runs.values().filter(|run| run.film.key == *film).count()
    }

    /// How many wait for parts of a film; what is waited for longest, and since when.
    pub(in crate::stream) fn waiting(&self, film: &[u8; 20]) -> (usize, Option<(Part, Duration)>) {
        let wants = || self.wants.values().filter(|want| want.ask.film.key == *film);
        let oldest = wants().min_by_key(|want| want.since);
        (wants().count(), oldest.map(|want| (want.ask.part, want.since)))
    }

    /// Gives a want to a run: one that will come there soon, one that can still begin earlier, or a new one.
    fn give(
        &mut self,
        now: Duration,
        id: WantId,
        ask: Ask,
        past: (Duration, u32),
        actions: &mut Vec<Action>,
    ) -> Result<(), Refusal> {
        let run = match self.coming(&ask) {
            Some(run) => run,
            None => match self.brought_forward(now, &ask, actions) {
                Some(run) => run,
                None => self.begun(now, &ask, actions)?,
            },
        };
        self.attach(now, id, ask, past, run);
        Ok(())
    }

    fn attach(&mut self, now: Duration, id: WantId, ask: Ask, (since, strikes): (Duration, u32), run: RunId) {
        let number = match ask.part {
            Part::Init => None,
            Part::Segment(number) => Some(number),
        };
        let state = self.runs.get_mut(&run).expect("it was found or begun just now");
        state.asked_for(now, number);
        let mark = state.tracks[ask.track].next;
        self.wants.insert(
            id,
            Want {
                ask,
                since,
                run,
                mark,
                strikes,
            },
        );
    }

    /// The run that will make it soonest, if one will soon.
    fn coming(&self, ask: &Ask) -> Option<RunId> {
        let of_film = self.runs.iter().filter(|(_, run)| run.film.key == ask.film.key);
        let coming = of_film.filter(|(_, run)| {
            let track = &run.tracks[ask.track];
            // Of a track that has ended the tail may still come.
            match ask.part {
                Part::Init => !track.init && !track.ended,
                Part::Segment(number) => {
                    track.next <= number && reaches(number - track.next, ask.local.start <= track.next)
                }
            }
        });
        coming
            .max_by_key(|(_, run)| run.tracks[ask.track].next)
            .map(|(id, _)| *id)
    }

    /// A player asks for a segment and the one before it at once after a seek: the run that has hardly begun begins
    /// there instead.
    fn brought_forward(&mut self, now: Duration, ask: &Ask, actions: &mut Vec<Action>) -> Option<RunId> {
        let Part::Segment(number) = ask.part else { return None };
        let found = self.runs.iter().find(|(_, run)| {
            let first = run.place.first;
            run.film.key == ask.film.key
                && number < first
                && reaches(first - number, ask.local.end >= first)
                && run.is_young(now)
        });
        let (&id, run) = found?;
        let place = Place {
            first: number,
            earlier: 0,
        };
        if !run.launched {
            let run = self.runs.get_mut(&id)?;
            run.place = place;
            run.tracks.iter_mut().for_each(|track| track.next = number);
            for want in self.wants.values_mut().filter(|want| want.run == id) {
                want.mark = number;
            }
            return Some(id);
        }
        let old = self.runs.remove(&id)?;
        actions.push(Action::Stop(id));
        let next = self.start(now, &ask.film, place, actions);
        for (id, want) in self.taken_from(id, |_| true) {
            self.attach(now, id, want.ask, (want.since, want.strikes), next);
        }
        let run = self.runs.get_mut(&next)?;
        run.front = old.front;
        Some(next)
    }

    /// A new run, if need be in the place of one that nobody misses.
    fn begun(&mut self, now: Duration, ask: &Ask, actions: &mut Vec<Action>) -> Result<RunId, Refusal> {
        if self.runs.len() >= self.limits.runs {
            let victim = self.least_missed(now).ok_or(Refusal::Busy)?;
            self.runs.remove(&victim);
            actions.push(Action::Stop(victim));
        }
        let first = match ask.part {
            Part::Init => 0,
            Part::Segment(number) => number,
        };
        let earlier = ask.earlier.min(first);
        Ok(self.start(now, &ask.film, Place { first, earlier }, actions))
    }

    /// Abandoned before paused (its viewer has 30 s in the cache) before one that has not been asked for a while; of
    /// these, the one that was asked longest ago.
    fn least_missed(&self, now: Duration) -> Option<RunId> {
        let free = self.runs.iter().filter(|(id, _)| !self.waited_for(**id));
        let ranked = free.filter_map(|(id, run)| {
            let rank = if run.abandoned {
                0
            } else if run.is_ahead(self.limits.ahead_s) {
                1
            } else if now.saturating_sub(run.asked) >= SETTLED {
                2
            } else {
                return None;
            };
            Some((rank, run.asked, *id))
        });
        ranked.min().map(|(_, _, id)| id)
    }

    fn start(&mut self, now: Duration, film: &Arc<Shape>, place: Place, actions: &mut Vec<Action>) -> RunId {
        let id = RunId(self.next_id());
        let track = Track {
            next: place.first,
            init: false,
            reached_s: 0.0,
            ended: false,
        };
        self.runs.insert(
            id,
            Run {
                film: film.clone(),
                place,
                started: now,
                launched: false,
                tracks: vec![track; film.tracks.len()],
                front: None,
                asked: now,
                abandoned: false,
            },
        );
        actions.push(Action::Start(id));
        id
    }

    /// Gives these wants to other runs; those that waited in vain once before are refused.
    fn again(&mut self, now: Duration, mut left: Vec<(WantId, Want, bool)>, actions: &mut Vec<Action>) {
        // The earliest first: the others then find its run on their way.
        left.sort_by_key(|(_, want, _)| want.ask.part);
        for (id, want, vain) in left {
            let strikes = want.strikes + u32::from(vain);
            let refusal = match strikes {
                0 | 1 => self.give(now, id, want.ask, (want.since, strikes), actions).err(),
                _ => Some(Refusal::Failed),
            };
            if let Some(refusal) = refusal {
                actions.push(Action::Refuse(id, refusal));
            }
        }
    }

    fn taken_from(&mut self, run: RunId, taken: impl Fn(&Want) -> bool) -> Vec<(WantId, Want)> {
        let of_run = self.wants.iter().filter(|(_, want)| want.run == run && taken(want));
        let ids: Vec<WantId> = of_run.map(|(id, _)| *id).collect();
        let want = |id| self.wants.remove(&id).map(|want| (id, want));
        ids.into_iter().filter_map(want).collect()
    }

    fn waited_for(&self, run: RunId) -> bool {
        self.wants.values().any(|want| want.run == run)
    }

    fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }
}

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::*;

const VIDEO: usize = 0;
const AUDIO: usize = 1;

/// A film of 100 segments of 4 s with one audio track and subtitles.
fn film(name: u8) -> Arc<Shape> {
    let track = |text| TrackShape { text, end_s: 400.0 };
    Arc::new(Shape {
        key: [name; 20],
        edges_s: (0..=100).map(|number| f64::from(number) * 4.0).collect(),
        tracks: vec![track(false), track(false), track(true)],
    })
}

struct Desk {
    policy: Policy,
    film: Arc<Shape>,
    now: Duration,
    local: bool,
}

impl Desk {
    fn new(runs: usize) -> Desk {
        Desk {
            policy: Policy::new(Limits {
                runs,
                wants: 1000,
                ahead_s: 30.0,
                idle: Duration::from_secs(60),
            }),
            film: film(1),
            now: Duration::ZERO,
            local: true,
        }
    }

    fn sleep(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }

    fn try_ask(&mut self, track: usize, part: Part) -> Result<(WantId, Vec<Action>), Refusal> {
        let local = match part {
            Part::Segment(number) if self.local => number.saturating_sub(FAR)..number + FAR + 1,
            Part::Segment(number) => number..number,
            Part::Init => 0..0,
        };
        let ask = Ask {
            film: self.film.clone(),
            track,
            part,
            local,
            earlier: 0,
        };
        self.policy.ask(self.now, ask)
    }

    fn ask(&mut self, track: usize, number: u32) -> (WantId, Vec<Action>) {
        self.try_ask(track, Part::Segment(number)).unwrap()
    }

    /// Asks for what begins a run, and launches it there.
    fn begin(&mut self, number: u32) -> (WantId, RunId) {
        let (want, actions) = self.ask(VIDEO, number);
        let [Action::Start(run)] = actions[..] else {
            panic!("{actions:?}")
        };
        let place = Place {
            first: number,
            earlier: 0,
        };
        assert_eq!(self.policy.launch(run), Some(place));
        (want, run)
    }

    /// The run makes a segment of a track and comes to its end.
    fn make(&mut self, run: RunId, track: usize, number: u32) -> Vec<WantId> {
        self.policy.reached(run, track, f64::from(number + 1) * 4.0);
        let (fed, actions) = self.policy.made(self.now, run, track, Part::Segment(number));
        assert_eq!(actions, []);
        fed
    }

    fn orders(&self, run: RunId) -> Orders {
        self.policy.orders().find(|(id, _)| *id == run).expect("it runs").1
    }
}

#[test]
fn who_asks_for_the_same_or_soon_after_shares_a_run() {
    let mut desk = Desk::new(4);
    let (first, run) = desk.begin(10);
    let others: Vec<_> = (10..=18).map(|number| desk.ask(VIDEO, number)).collect();
    let audio = desk.ask(AUDIO, 12);
    assert!(others.iter().chain([&audio]).all(|(_, actions)| actions.is_empty()));
    assert_eq!(desk.make(run, VIDEO, 10), [first, others[0].0]);
    assert_eq!(desk.make(run, VIDEO, 11), [others[1].0]);
    assert_eq!(desk.make(run, AUDIO, 10), []);
    assert_eq!(desk.policy.runs_of(&desk.film.key), 1);
}

#[test]
fn a_run_is_not_waited_for_when_much_has_to_be_downloaded_before() {
    let mut desk = Desk::new(4);
    desk.local = false;
    desk.begin(10);
    assert_eq!(desk.ask(VIDEO, 12).1, []);
    assert!(matches!(desk.ask(VIDEO, 13).1[..], [Action::Start(_)]));
    assert!(matches!(desk.ask(VIDEO, 90).1[..], [Action::Start(_)]));
}

#[test]
fn the_segment_before_brings_a_run_forward_that_is_not_launched() {
    let mut desk = Desk::new(4);
    let (video, actions) = desk.ask(VIDEO, 10);
    let [Action::Start(run)] = actions[..] else { panic!() };
    let (audio, actions) = desk.ask(AUDIO, 9);
    assert_eq!(actions, []);
    let place = Place { first: 9, earlier: 0 };
    assert_eq!(desk.policy.launch(run), Some(place));
    desk.make(run, VIDEO, 9);
    assert_eq!(desk.make(run, AUDIO, 9), [audio]);
    assert_eq!(desk.make(run, VIDEO, 10), [video]);
}

#[test]
fn the_segment_before_replaces_a_young_run_and_all_wait_for_the_new_one() {
    let mut desk = Desk::new(1);
    let (video, old) = desk.begin(10);
    let (audio, actions) = desk.ask(AUDIO, 9);
    let [Action::Stop(stopped), Action::Start(new)] = actions[..] else {
        panic!("{actions:?}")
    };
    assert_eq!(stopped, old);
    assert_eq!(desk.policy.launch(new).unwrap().first, 9);
    // What the old one still gave is fine too, but its end is nobody's.
    assert_eq!(desk.policy.ended(desk.now, old, End::Over), []);
    assert_eq!(desk.make(new, AUDIO, 9), [audio]);
    desk.make(new, VIDEO, 9);
    assert_eq!(desk.make(new, VIDEO, 10), [video]);
    // It has made two segments: it is no longer young, and ends for another only when it is not asked.
    assert_eq!(desk.try_ask(VIDEO, Part::Segment(8)).unwrap_err(), Refusal::Busy);
    desk.sleep(5);
    assert_eq!(desk.ask(VIDEO, 8).1[0], Action::Stop(new));
}

#[test]
fn a_run_is_read_until_every_track_is_30_s_ahead_of_its_viewer() {
    let mut desk = Desk::new(4);
    let (want, run) = desk.begin(0);
    let (open, closed) = (true, false);
    // The audio comes 30 s after the video of the same time; nobody reads it.
    for number in 0..=15 {
        desk.make(run, VIDEO, number);
        assert_eq!(desk.orders(run).open, open);
    }
    for number in 0..7 {
        desk.make(run, AUDIO, number);
        assert_eq!(desk.orders(run).open, open, "{number}");
    }
    desk.make(run, AUDIO, 7);
    assert_eq!(desk.orders(run).open, closed);
    // The viewer goes on out of the cache, and the run with him.
    desk.policy.touch(desk.now, &desk.film.key.clone(), 1);
    assert_eq!(desk.orders(run).open, open);
    desk.make(run, AUDIO, 8);
    assert_eq!(desk.orders(run).open, closed);
    // Whatever else, a run that is waited for is read.
    let (audio, _) = desk.ask(AUDIO, 9);
    assert_eq!(desk.orders(run), Orders { open, urgent: true });
    desk.policy.withdraw(audio);
    assert!(!desk.orders(run).urgent);
    desk.policy.withdraw(want);
}

#[test]
fn a_track_without_data_does_not_have_the_whole_film_read() {
    let mut desk = Desk::new(4);
    let (_, run) = desk.begin(0);
    for number in 0..22 {
        desk.make(run, VIDEO, number);
        assert!(desk.orders(run).open);
    }
    desk.make(run, VIDEO, 22);
    assert!(!desk.orders(run).open);
    // But if it is asked for, it is read.
    desk.ask(AUDIO, 0);
    assert!(desk.orders(run).open);
}

#[test]
fn a_track_that_has_ended_holds_nobody_up() {
    let mut desk = Desk::new(4);
    let (_, run) = desk.begin(90);
    (90..=99).for_each(|number| drop(desk.make(run, VIDEO, number)));
    assert!(desk.orders(run).open);
    desk.policy.track_ended(run, AUDIO);
    desk.policy.reached(run, VIDEO, 399.9);
    assert!(!desk.orders(run).open);
}

#[test]
fn a_run_that_only_gave_a_header_reads_no_further_and_serves_the_first_segment() {
    let mut desk = Desk::new(4);
    let (want, actions) = desk.try_ask(VIDEO, Part::Init).unwrap();
    let [Action::Start(run)] = actions[..] else { panic!() };
    desk.policy.launch(run);
    assert!(desk.orders(run).open);
    assert_eq!(desk.policy.made(desk.now, run, VIDEO, Part::Init).0, [want]);
    let waits = Orders {
        open: false,
        urgent: false,
    };
    assert_eq!(desk.orders(run), waits);
    assert_eq!(desk.try_ask(AUDIO, Part::Init).unwrap().1, []);
    assert_eq!(desk.ask(VIDEO, 0).1, []);
    assert!(desk.orders(run).open);
}

#[test]
fn the_next_request_is_refused_while_every_run_is_waited_for() {
    let mut desk = Desk::new(2);
    let (first, one) = desk.begin(10);
    desk.begin(30);
    assert_eq!(desk.try_ask(VIDEO, Part::Segment(60)).unwrap_err(), Refusal::Busy);
    // Its viewer has what he asked for and will ask for more: he is not disturbed either.
    assert_eq!(desk.make(one, VIDEO, 10), [first]);
    desk.sleep(4);
    assert_eq!(desk.try_ask(VIDEO, Part::Segment(60)).unwrap_err(), Refusal::Busy);
    // Until he has 30 s of it.
    for number in 11..18 {
        desk.make(one, VIDEO, number);
        desk.make(one, AUDIO, number - 1);
    }
    desk.make(one, AUDIO, 17);
    let (_, actions) = desk.ask(VIDEO, 60);
    assert_eq!(actions[0], Action::Stop(one));
    assert_eq!(desk.policy.runs_of(&desk.film.key), 2);
}

#[test]
fn a_viewer_who_scrubs_does_not_lock_himself_out() {
    let mut desk = Desk::new(2);
    desk.local = false;
    for number in (0..100).step_by(5) {
        let (want, _) = desk.ask(VIDEO, number);
        desk.policy.withdraw(want);
        assert!(desk.policy.runs_of(&desk.film.key) <= 2);
    }
}

#[test]
fn an_abandoned_run_ends_before_one_that_plays() {
    let mut desk = Desk::new(2);
    let (playing, one) = desk.begin(10);
    desk.make(one, VIDEO, 10);
    desk.sleep(1);
    let (scrubbed, two) = desk.begin(50);
    desk.policy.withdraw(scrubbed);
    let (_, actions) = desk.ask(VIDEO, 90);
    assert_eq!(actions[0], Action::Stop(two));
    desk.policy.withdraw(playing);
}

#[test]
fn one_of_many_who_hangs_up_abandons_nothing() {
    let mut desk = Desk::new(1);
    let (one, run) = desk.begin(10);
    desk.sleep(1);
    let (other, _) = desk.ask(VIDEO, 10);
    desk.policy.withdraw(one);
    assert!(desk.orders(run).urgent);
    assert_eq!(desk.try_ask(VIDEO, Part::Segment(90)).unwrap_err(), Refusal::Busy);
    desk.policy.withdraw(other);
    assert!(desk.try_ask(VIDEO, Part::Segment(90)).is_ok());
}

#[test]
fn what_nobody_asks_of_ends() {
    let mut desk = Desk::new(4);
    let (want, run) = desk.begin(10);
    desk.sleep(600);
    // Somebody waits: however long.
    assert_eq!(desk.policy.tick(desk.now), []);
    desk.make(run, VIDEO, 10);
    desk.policy.withdraw(want);
    desk.policy.touch(desk.now, &desk.film.key.clone(), 10);
    desk.sleep(59);
    assert_eq!(desk.policy.tick(desk.now), []);
    desk.sleep(1);
    assert_eq!(desk.policy.tick(desk.now), [Action::Stop(run)]);
    assert_eq!(desk.policy.runs_of(&desk.film.key), 0);
}

#[test]
fn a_crash_is_tried_again_once_then_those_who_waited_hear_of_it() {
    let mut desk = Desk::new(1);
    let (want, run) = desk.begin(10);
    let actions = desk.policy.ended(desk.now, run, End::Over);
    let [Action::Start(again)] = actions[..] else {
        panic!("{actions:?}")
    };
    assert_eq!(desk.policy.launch(again).unwrap().first, 10);
    let late = desk.ask(VIDEO, 11).0;
    let actions = desk.policy.ended(desk.now, again, End::Over);
    // Who came later has one more try.
    let [Action::Refuse(refused, Refusal::Failed), Action::Start(third)] = actions[..] else {
        panic!("{actions:?}")
    };
    assert_eq!(refused, want);
    assert_eq!(
        desk.policy.ended(desk.now, third, End::Over),
        [Action::Refuse(late, Refusal::Failed)]
    );
    // The next request begins anew.
    desk.begin(10);
}

#[test]
fn a_crash_after_progress_counts_against_nobody() {
    let mut desk = Desk::new(1);
    let (_, mut run) = desk.begin(10);
    let wants: Vec<_> = (11..18).map(|number| desk.ask(VIDEO, number).0).collect();
    for number in 10..17 {
        desk.make(run, VIDEO, number);
        let actions = desk.policy.ended(desk.now, run, End::Over);
        let [Action::Start(next)] = actions[..] else {
            panic!("{actions:?}")
        };
        assert_eq!(desk.policy.launch(next).unwrap().first, number + 1);
        run = next;
    }
    assert_eq!(desk.make(run, VIDEO, 17), [wants[6]]);
}

#[test]
fn nobody_waits_for_a_crash_without_wants() {
    let mut desk = Desk::new(1);
    let (_, run) = desk.begin(10);
    desk.make(run, VIDEO, 10);
    assert_eq!(desk.policy.ended(desk.now, run, End::Over), []);
    assert_eq!(desk.policy.runs_of(&desk.film.key), 0);
}

#[test]
fn a_run_that_landed_late_begins_earlier_and_makes_the_same() {
    let mut desk = Desk::new(1);
    let (want, mut run) = desk.begin(10);
    for earlier in 1..=3 {
        let actions = desk.policy.ended(desk.now, run, End::LandedLate);
        let [Action::Start(next)] = actions[..] else {
            panic!("{actions:?}")
        };
        assert_eq!(desk.policy.launch(next), Some(Place { first: 10, earlier }));
        run = next;
    }
    let actions = desk.policy.ended(desk.now, run, End::LandedLate);
    let [Action::Start(run)] = actions[..] else {
        panic!("{actions:?}")
    };
    assert_eq!(
        desk.policy.ended(desk.now, run, End::LandedLate).len(),
        1,
        "it begins earlier once more"
    );
    desk.policy.withdraw(want);
}

#[test]
fn a_part_that_a_run_went_past_is_asked_of_another() {
    let mut desk = Desk::new(4);
    let (_, run) = desk.begin(10);
    let (want, _) = desk.ask(AUDIO, 11);
    let (fed, actions) = desk.policy.made(desk.now, run, AUDIO, Part::Segment(12));
    assert_eq!(fed, []);
    let [Action::Start(second)] = actions[..] else {
        panic!("{actions:?}")
    };
    assert_eq!(desk.make(second, AUDIO, 11), [want]);
}

#[test]
fn films_do_not_mix() {
    let mut desk = Desk::new(4);
    let (one, run) = desk.begin(10);
    desk.film = film(2);
    let (two, other) = desk.begin(10);
    assert_eq!(desk.make(other, VIDEO, 10), [two]);
    assert_eq!(desk.make(run, VIDEO, 10), [one]);
    assert_eq!(desk.policy.waiting(&[1; 20]), (0, None));
}

#[test]
fn waiting_requests_have_a_limit() {
    let mut desk = Desk::new(4);
    desk.policy.limits.wants = 2;
    desk.ask(VIDEO, 1);
    desk.ask(VIDEO, 1);
    assert_eq!(desk.try_ask(VIDEO, Part::Segment(1)).unwrap_err(), Refusal::Busy);
}

/// Whatever happens in whatever order: limits hold, every want is answered in the end, and none by a run that is gone.
#[test]
fn nothing_is_lost_in_any_order_of_events() {
    for seed in 0..300 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut desk = Desk::new(3);
        desk.local = random.bool();
        let mut open: Vec<WantId> = Vec::new();
        let mut runs: BTreeMap<RunId, bool> = BTreeMap::new();
        for _ in 0..400 {
            let mut done = Vec::new();
            let some = runs.keys().copied().nth(random.usize(..3));
            match random.u8(..10) {
                0..4 => {
                    let part = match random.u8(..8) {
                        0 => Part::Init,
                        _ => Part::Segment(random.u32(..100)),
                    };
                    if let Ok((id, actions)) = desk.try_ask(random.usize(..3), part) {
                        open.push(id);
                        done = actions;
                    }
                }
                4 if !open.is_empty() => {
                    let id = open.swap_remove(random.usize(..open.len()));
                    desk.policy.withdraw(id);
                }
                5 => desk.now += Duration::from_secs(random.u64(..30)),
                6 => done = desk.policy.tick(desk.now),
                7 => {
                    if let Some(run) = some {
                        runs.remove(&run);
                        let end = if random.bool() { End::Over } else { End::LandedLate };
                        done = desk.policy.ended(desk.now, run, end);
                    }
                }
                _ => {
                    if let Some(run) = some
                        && (runs[&run] || desk.policy.launch(run).is_some())
                    {
                        runs.insert(run, true);
                        let track = random.usize(..3);
                        let next = desk.policy.runs[&run].tracks[track].next;
                        let (fed, actions) = desk.policy.made(desk.now, run, track, Part::Segment(next));
                        open.retain(|id| !fed.contains(id));
                        done = actions;
                    }
                }
            }
            for action in done {
                match action {
                    Action::Start(run) => assert_eq!(runs.insert(run, false), None),
                    Action::Stop(run) => assert!(runs.remove(&run).is_some()),
                    Action::Refuse(id, _) => open.retain(|open| *open != id),
                }
            }
            assert!(runs.keys().eq(desk.policy.runs.keys()), "seed {seed}");
            assert!(runs.len() <= 3, "seed {seed}");
            let mut waiting: Vec<_> = desk.policy.wants.keys().copied().collect();
            open.sort();
            waiting.sort();
            assert_eq!(open, waiting, "seed {seed}");
            for want in desk.policy.wants.values() {
                let run = &desk.policy.runs[&want.run];
                match want.ask.part {
                    Part::Segment(number) => assert!(run.tracks[want.ask.track].next <= number, "seed {seed}"),
                    Part::Init => {}
                }
            }
        }
    }
}

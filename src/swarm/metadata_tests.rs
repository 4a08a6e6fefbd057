use proptest::prelude::*;

use super::*;

const SIZE: u32 = 3 * METADATA_PART + 77;

fn truth() -> Vec<u8> {
    (0..SIZE).map(|index| (index % 253) as u8).collect()
}

/// How a peer of the test behaves.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Honest,
    /// Sends wrong bytes.
    Lies,
    /// Names another size, and sends as much.
    OtherSize,
    Silent,
    Refuses,
}

fn size_of(kind: Kind) -> u32 {
    if kind == Kind::OtherSize {
        SIZE + METADATA_PART
    } else {
        SIZE
    }
}

fn part_of(kind: Kind, part: u32) -> Option<Vec<u8>> {
    let begin = (part * METADATA_PART) as usize;
    let end = begin + part_length(part, size_of(kind))? as usize;
    let mut bytes = truth();
    bytes.resize(size_of(kind) as usize, 0);
    let mut bytes = bytes[begin..end].to_vec();
    match kind {
        Kind::Honest | Kind::OtherSize => Some(bytes),
        Kind::Lies => {
            bytes[7] ^= 1;
            Some(bytes)
        }
        Kind::Silent | Kind::Refuses => None,
    }
}

struct Outcome {
    info: Option<Bytes>,
    liars: Vec<usize>,
    took: Duration,
    parts: usize,
}

/// Runs a fetcher against these peers, each of which answers within a tick, for at most so long.
fn run(kinds: &[Kind], limit: Duration) -> Outcome {
    let mut fetcher = Fetcher::new(hash(&truth()));
    let mut left: Vec<bool> = vec![true; kinds.len()];
    kinds
        .iter()
        .enumerate()
        .for_each(|(peer, kind)| fetcher.offered(peer, size_of(*kind)));
    let mut outcome = Outcome {
        info: None,
        liars: Vec::new(),
        took: Duration::ZERO,
        parts: 0,
    };
    while outcome.info.is_none() && outcome.took < limit {
        let mut requests = Vec::new();
        fetcher.decide(outcome.took, &mut requests);
        for (peer, part) in requests {
            assert!(left[peer], "a liar is asked again");
            if kinds[peer] == Kind::Refuses {
                fetcher.refused(outcome.took, peer, part);
            }
            let Some(bytes) = part_of(kinds[peer], part) else {
                continue;
            };
            outcome.parts += 1;
            if let Progress::Whole(assembly) = fetcher.data(outcome.took, peer, part, size_of(kinds[peer]), &bytes) {
                let verdict = fetcher.checked(assembly.check());
                for liar in verdict.liars {
                    assert!(
                        matches!(kinds[liar], Kind::Lies | Kind::OtherSize),
                        "peer {liar} did not lie"
                    );
                    left[liar] = false;
                    outcome.liars.push(liar);
                }
                outcome.info = outcome.info.or(verdict.info);
            }
            if outcome.info.is_some() {
                break;
            }
        }
        outcome.took += TICK;
    }
    outcome
}

#[test]
fn one_honest_peer_is_enough() {
    let outcome = run(&[Kind::Honest], Duration::from_secs(5));
    assert_eq!(outcome.info.unwrap(), truth());
    assert_eq!(outcome.parts, 4);
    assert_eq!(outcome.took, TICK);
}

#[test]
fn a_lone_liar_is_named_and_not_asked_again() {
    let outcome = run(&[Kind::Lies], Duration::from_secs(60));
    assert_eq!((outcome.info, outcome.liars), (None, vec![0]));
    assert_eq!(outcome.parts, 4);
}

#[test]
fn a_liar_among_honest_peers_is_found() {
    let outcome = run(&[Kind::Lies, Kind::Honest, Kind::Honest], Duration::from_secs(60));
    assert_eq!(outcome.info.unwrap(), truth());
    assert!(outcome.took < Duration::from_secs(5), "{:?}", outcome.took);
}

#[test]
fn silent_and_refusing_peers_cost_no_time_beside_an_honest_one() {
    let outcome = run(
        &[Kind::Silent, Kind::Refuses, Kind::Silent, Kind::Honest],
        Duration::from_secs(60),
    );
    assert_eq!(outcome.info.unwrap(), truth());
    assert!(outcome.took <= Duration::from_secs(6), "{:?}", outcome.took);
}

#[test]
fn what_was_not_asked_is_ignored() {
    let mut fetcher = Fetcher::new(hash(&truth()));
    let bytes = part_of(Kind::Honest, 0).unwrap();
    assert!(matches!(
        fetcher.data(Duration::ZERO, 0, 0, SIZE, &bytes),
        Progress::Ignored
    ));
    fetcher.offered(0, SIZE);
    assert!(matches!(
        fetcher.data(Duration::ZERO, 0, 0, SIZE, &bytes),
        Progress::Ignored
    ));
    let mut requests = Vec::new();
    fetcher.decide(Duration::ZERO, &mut requests);
    assert!(matches!(
        fetcher.data(Duration::ZERO, 0, 0, SIZE, &bytes),
        Progress::Kept
    ));
    assert!(matches!(
        fetcher.data(Duration::ZERO, 0, 0, SIZE, &bytes),
        Progress::Ignored
    ));
    assert!(matches!(
        fetcher.data(Duration::ZERO, 0, 1, SIZE + 1, &bytes),
        Progress::Contradicted
    ));
}

#[test]
fn absurd_sizes_are_not_offers() {
    let mut fetcher: Fetcher<u32> = Fetcher::new([0; 20]);
    fetcher.offered(1, 0);
    fetcher.offered(2, METADATA_LIMIT + 1);
    let mut requests = Vec::new();
    fetcher.decide(Duration::ZERO, &mut requests);
    assert_eq!(requests, []);
}

#[test]
fn a_peer_is_given_the_dictionary_twice_and_no_more() {
    let mut allowance = Allowance::default();
    let given = (0..100).filter(|part| allowance.take(part % 4, SIZE)).count();
    assert_eq!(given, 2 * 4 + 16);
    assert!(!Allowance::default().take(4, SIZE));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn one_honest_peer_among_any_others_is_found(others in prop::collection::vec(prop::sample::select(vec![
        Kind::Honest, Kind::Lies, Kind::OtherSize, Kind::Silent, Kind::Refuses,
    ]), 0..12), place in any::<prop::sample::Index>()) {
        let mut kinds = others;
        kinds.insert(place.index(kinds.len() + 1), Kind::Honest);
        let outcome = run(&kinds, Duration::from_secs(1_000));
        prop_assert!(outcome.info.is_some(), "not found in {:?}", outcome.took);
    }
}

//! A torrent's info dictionary, put together from the parts that several peers send (BEP 9), and how much of ours one
//! peer is given. Pure: the clock comes in, and hashing is the caller's to place.
//!
//! Peers may name different sizes and send wrong parts. Each size that peers name is tried by itself, a few at a time,
//! the one that most peers name first. If a dictionary of parts of several peers has the wrong hash, peers are then
//! asked one by one for the whole: what one peer alone sent wrong names the liar, and the right one, once there, names
//! all who sent a wrong part before.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use sha1::{Digest, Sha1};

use super::extension::{METADATA_LIMIT, METADATA_PART, part_count, part_length};

/// How often [`Fetcher::decide`] is to be called while nothing else happens.
pub const TICK: Duration = Duration::from_millis(500);
/// Dictionaries under way at a time: each may hold as many bytes as its size.
const ATTEMPT_LIMIT: usize = 3;
/// Peers that are kept in mind.
const PEER_LIMIT: usize = 1_000;
/// Failed attempts of several peers that are kept, by hash, to find out who lied.
const SUSPECT_LIMIT: usize = 8;
/// Parts asked of one peer at a time.
const DEPTH: usize = 4;
/// Peers that are asked for the same part at a time.
const ASKED_TWICE: usize = 2;
/// After this a part is asked of others as well, and the peer for no more.
const LATE: Duration = Duration::from_secs(2);
/// After this an answer is no longer waited for, and the peer asked anew.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// An attempt that got nothing for this long makes way for another.
const STALL_LIMIT: Duration = Duration::from_secs(10);
/// A peer that refused a part is left alone for this long: it may be fetching the dictionary itself.
const REFUSAL_PAUSE: Duration = Duration::from_secs(15);

/// Assembles one info dictionary. Times are those of a clock of the caller's.
#[derive(Debug)]
pub struct Fetcher<P> {
    info_hash: [u8; 20],
    peers: BTreeMap<P, Peer>,
    attempts: Vec<Attempt<P>>,
    suspects: Vec<Suspect<P>>,
    /// Sizes of which an attempt of several peers failed.
    spoiled: BTreeSet<u32>,
    /// How often an attempt at a size made way.
    strikes: BTreeMap<u32, u32>,
}

#[derive(Debug)]
struct Peer {
    size: u32,
    asked: Vec<(u32, Duration)>,
    not_before: Duration,
    strikes: u32,
}

#[derive(Debug)]
struct Attempt<P> {
    size: u32,
    /// The only peer that it is made of.
    alone: Option<P>,
    parts: Vec<Option<(P, Bytes)>>,
    missing: usize,
    progress: Duration,
}

#[derive(Debug)]
struct Suspect<P> {
    size: u32,
    parts: Vec<(P, [u8; 20])>,
}

/// What became of a part.
#[derive(Debug)]
pub enum Progress<P> {
    /// It was not asked for, or came late: nothing changed.
    Ignored,
    /// It is kept.
    Kept,
    /// All parts are there: check it, then hand the result to [`Fetcher::checked`].
    Whole(Assembly<P>),
    /// The peer contradicts the size that it named before; it is out.
    Contradicted,
}

/// A dictionary whose hash is not yet known to be right.
#[derive(Debug)]
pub struct Assembly<P> {
    info_hash: [u8; 20],
    size: u32,
    parts: Vec<(P, Bytes)>,
}

/// A dictionary whose hash was compared.
#[derive(Debug)]
pub struct Checked<P> {
    size: u32,
    outcome: Result<Bytes, Vec<(P, [u8; 20])>>,
}

impl<P> Assembly<P> {
    /// Compares the hash: up to 32 MiB of work for a processor, so not on a thread that serves the network.
    pub fn check(self) -> Checked<P> {
        let mut bytes = BytesMut::with_capacity(self.size as usize);
        for (_, part) in &self.parts {
            bytes.extend_from_slice(part);
        }
        if hash(&bytes) == self.info_hash {
            return Checked {
                size: self.size,
                outcome: Ok(bytes.freeze()),
            };
        }
        let hashed = self.parts.into_iter().map(|(peer, part)| (peer, hash(&part))).collect();
        Checked {
            size: self.size,
            outcome: Err(hashed),
        }
    }
}

/// What a check has shown.
#[derive(Debug, PartialEq, Eq)]
pub struct Verdict<P> {
    /// The info dictionary, if it was the right one. The fetcher has then nothing more to do.
    pub info: Option<Bytes>,
    /// Peers that are now known to have sent a wrong part; they are not asked again.
    pub liars: Vec<P>,
}

impl<P: Copy + Ord + Debug> Fetcher<P> {
    /// A fetcher for the dictionary with this hash.
    pub fn new(info_hash: [u8; 20]) -> Self {
        Self {
            info_hash,
            peers: BTreeMap::new(),
            attempts: Vec::new(),
            suspects: Vec::new(),
            spoiled: BTreeSet::new(),
            strikes: BTreeMap::new(),
        }
    }

    /// A peer offers a dictionary of this size. A size outside of 1 to 32 MiB is not one.
    pub fn offered(&mut self, peer: P, size: u32) {
        if !(1..=METADATA_LIMIT).contains(&size) || self.peers.len() >= PEER_LIMIT {
            return;
        }
        let known = self.peers.entry(peer).or_insert(Peer {
            size,
            asked: Vec::new(),
            not_before: Duration::ZERO,
            strikes: 0,
        });
        if known.size != size {
            known.size = size;
            known.asked.clear();
        }
    }

    /// A peer is gone. The parts that it sent stay.
    pub fn gone(&mut self, peer: P) {
        self.peers.remove(&peer);
        self.attempts
            .retain(|attempt| attempt.alone != Some(peer) || attempt.missing == 0);
    }

    /// A peer refused a part.
    pub fn refused(&mut self, now: Duration, peer: P, part: u32) {
        if let Some(peer) = self.peers.get_mut(&peer) {
            let asked = peer.asked.len();
            peer.asked.retain(|(asked, _)| *asked != part);
            if peer.asked.len() < asked {
                peer.not_before = now + REFUSAL_PAUSE;
            }
        }
    }

    /// Appends which parts are now to be asked of which peers.
    pub fn decide(&mut self, now: Duration, requests: &mut Vec<(P, u32)>) {
        for peer in self.peers.values_mut() {
            peer.asked
                .retain(|(_, since)| now.saturating_sub(*since) < ANSWER_LIMIT);
        }
        self.make_way(now);
        self.begin_attempts(now);
        for index in 0..self.attempts.len() {
            self.ask(now, index, requests);
        }
    }

    /// Ends attempts that stall while others wait for their place.
    fn make_way(&mut self, now: Duration) {
        if self.next_attempt().is_none() {
            return;
        }
        let (peers, strikes) = (&mut self.peers, &mut self.strikes);
        self.attempts.retain(|attempt| {
            let stalls = attempt.missing > 0 && now.saturating_sub(attempt.progress) >= STALL_LIMIT;
            if stalls {
                match attempt.alone.and_then(|peer| peers.get_mut(&peer)) {
                    Some(peer) => peer.strikes += 1,
                    None => *strikes.entry(attempt.size).or_default() += 1,
                }
            }
            !stalls
        });
    }

    fn begin_attempts(&mut self, now: Duration) {
        while self.attempts.len() < ATTEMPT_LIMIT {
            let Some((size, alone)) = self.next_attempt() else {
                return;
            };
            let count = part_count(size) as usize;
            let parts = std::iter::repeat_with(|| None).take(count).collect();
            self.attempts.push(Attempt {
                size,
                alone,
                parts,
                missing: count,
                progress: now,
            });
        }
    }

    /// The size, and the peer if one alone is to be tried, that deserve an attempt most and have none.
    fn next_attempt(&self) -> Option<(u32, Option<P>)> {
        let mut sizes: BTreeMap<u32, usize> = BTreeMap::new();
        for peer in self.peers.values() {
            *sizes.entry(peer.size).or_default() += 1;
        }
        let strikes_of = |size: u32| self.strikes.get(&size).copied().unwrap_or(0);
        let together = sizes
            .into_iter()
            .filter(|(size, _)| !self.spoiled.contains(size))
            .filter(|(size, _)| !self.attempts.iter().any(|attempt| attempt.size == *size))
            .min_by_key(|(size, peers)| (strikes_of(*size), std::cmp::Reverse(*peers)))
            .map(|(size, _)| (strikes_of(size), size, None));
        let alone = self
            .peers
            .iter()
            .filter(|(_, peer)| self.spoiled.contains(&peer.size))
            .filter(|(key, _)| !self.attempts.iter().any(|attempt| attempt.alone == Some(**key)))
            .min_by_key(|(_, peer)| peer.strikes)
            .map(|(key, peer)| (peer.strikes, peer.size, Some(*key)));
        [together, alone]
            .into_iter()
            .flatten()
            .min_by_key(|choice| choice.0)
            .map(|(_, size, alone)| (size, alone))
    }

    fn ask(&mut self, now: Duration, index: usize, requests: &mut Vec<(P, u32)>) {
        let attempt = &self.attempts[index];
        if attempt.missing == 0 {
            return;
        }
        let takes = |key: &P, peer: &Peer| match attempt.alone {
            Some(alone) => alone == *key,
            None => peer.size == attempt.size,
        };
        let is_late = |since: Duration| now.saturating_sub(since) >= LATE;
        let mut askers = vec![0usize; attempt.parts.len()];
        for (_, peer) in self.peers.iter().filter(|(key, peer)| takes(key, peer)) {
            for (part, _) in peer.asked.iter().filter(|(_, since)| !is_late(*since)) {
                if let Some(count) = askers.get_mut(*part as usize) {
                    *count += 1;
                }
            }
        }
        for limit in 1..=ASKED_TWICE {
            let mut next = 0;
            for (key, peer) in self.peers.iter_mut().filter(|(key, peer)| takes(key, peer)) {
                let late = peer.asked.iter().any(|(_, since)| is_late(*since));
                while !late && peer.asked.len() < DEPTH && now >= peer.not_before {
                    let open = |part: &usize| {
                        attempt.parts[*part].is_none()
                            && askers[*part] < limit
                            && !peer.asked.iter().any(|(asked, _)| *asked as usize == *part)
                    };
                    let Some(part) = (next..askers.len()).find(open) else {
                        break;
                    };
                    // Numbers of parts stay below METADATA_LIMIT / METADATA_PART.
                    let number = u32::try_from(part).unwrap_or(u32::MAX);
                    askers[part] += 1;
                    if limit == 1 {
                        next = part + 1;
                    }
                    peer.asked.push((number, now));
                    requests.push((*key, number));
                }
            }
        }
    }

    /// A part has come.
    pub fn data(&mut self, now: Duration, peer: P, part: u32, total: u32, data: &[u8]) -> Progress<P> {
        let Some(sender) = self.peers.get_mut(&peer) else {
            return Progress::Ignored;
        };
        if sender.size != total {
            self.gone(peer);
            return Progress::Contradicted;
        }
        let asked = sender.asked.len();
        sender.asked.retain(|(asked, _)| *asked != part);
        if sender.asked.len() == asked || part_length(part, total).map(|length| length as usize) != Some(data.len()) {
            return Progress::Ignored;
        }
        let takes = |attempt: &Attempt<P>| match attempt.alone {
            Some(alone) => alone == peer,
            None => attempt.size == total,
        };
        let Some(index) = self.attempts.iter().position(takes) else {
            return Progress::Ignored;
        };
        let attempt = &mut self.attempts[index];
        let Some(place) = attempt.parts.get_mut(part as usize).filter(|place| place.is_none()) else {
            return Progress::Ignored;
        };
        // Copied, for `data` is a view of a read buffer many times its size.
        *place = Some((peer, Bytes::copy_from_slice(data)));
        attempt.missing -= 1;
        attempt.progress = now;
        if attempt.missing > 0 {
            return Progress::Kept;
        }
        let parts = attempt.parts.iter_mut().filter_map(Option::take).collect();
        Progress::Whole(Assembly {
            info_hash: self.info_hash,
            size: total,
            parts,
        })
    }

    /// Takes in the result of a check.
    pub fn checked(&mut self, checked: Checked<P>) -> Verdict<P> {
        let size = checked.size;
        let mut liars = BTreeSet::new();
        let info = match checked.outcome {
            Ok(info) => {
                for suspect in &self.suspects {
                    let wrong = suspect.parts.iter().enumerate().filter(|(part, (_, hashed))| {
                        let begin = (part * METADATA_PART as usize).min(info.len());
                        let end = (begin + METADATA_PART as usize).min(info.len());
                        suspect.size != size || hash(&info[begin..end]) != *hashed
                    });
                    liars.extend(wrong.map(|(_, (peer, _))| *peer));
                }
                self.attempts.clear();
                Some(info)
            }
            Err(parts) => {
                let senders: BTreeSet<P> = parts.iter().map(|(peer, _)| *peer).collect();
                self.attempts.retain(|attempt| {
                    let is_this = attempt.size == size
                        && attempt.missing == 0
                        && attempt.alone.is_none_or(|alone| senders.contains(&alone));
                    !is_this
                });
                if senders.len() == 1 {
                    liars = senders;
                } else {
                    self.spoiled.insert(size);
                    if self.suspects.len() < SUSPECT_LIMIT {
                        self.suspects.push(Suspect { size, parts });
                    }
                }
                None
            }
        };
        for liar in &liars {
            self.gone(*liar);
        }
        Verdict {
            info,
            liars: liars.into_iter().collect(),
        }
    }
}

fn hash(bytes: &[u8]) -> [u8; 20] {
    Sha1::digest(bytes).into()
}

/// How much of our info dictionary one peer is given: twice the whole and a little more.
#[derive(Debug, Default)]
pub struct Allowance {
    given: u32,
}

impl Allowance {
    /// Whether the peer gets this part of a dictionary of `total` bytes; if so, it is counted.
    pub fn take(&mut self, part: u32, total: u32) -> bool {
        const SPARE: u32 = 16;
        let count = part_count(total);
        let gets = part < count && self.given < 2 * count + SPARE;
        self.given += u32::from(gets);
        gets
    }
}

#[cfg(test)]
#[path = "metadata_tests.rs"]
mod tests;

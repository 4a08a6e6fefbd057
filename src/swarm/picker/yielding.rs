//! What gives way: requests that are less urgent or no longer wanted, unfinished pieces when memory is short, and the
//! peers appointed to fetch a suspect piece.

use std::time::Duration;

use super::blame::Fetch;
use super::demands::Band;
use super::partial::Partial;
use super::peer::{Peer, RequestState};
use super::settings::FORGET;
use super::state::{Action, Picker};
use crate::swarm::shape::{BLOCK, Time};

/// Unfinished pieces that are always allowed, however large they are.
const LEAST_PARTIALS: u64 = 3;
/// The most, however small they are.
const MOST_PARTIALS: u64 = 4096;
/// A piece that a sequential reader comes to later than this gives way to a reader that waits.
const FAR: Duration = Duration::from_secs(3);
/// How many times faster an unproved peer must be to be appointed instead of one that sent good pieces.
const TRUST: f64 = 4.0;
/// What is here of a suspect piece is dropped for another peer that would bring all of it so much sooner.
const GAIN_S: f64 = 1.0;
/// A peer that has sent nothing for so long (in seconds) since it should have...
const SILENT_S: f64 = 0.7;
/// ...is not expected to send more than this, in bytes a second, where one peer is to fetch a piece alone.
const SILENT_RATE: f64 = 1.0;
/// How much longer than predicted a block is waited for after CANCEL was sent to a peer that does not reject.
const CANCEL_MARGIN: Duration = Duration::from_millis(100);

impl Picker {
    /// Cancels one request of a peer: its block stays counted until it is rejected, arrives, or cannot arrive any more.
    pub(super) fn cancel(&mut self, now: Time, slot: u32, place: usize) {
        let typical = self.typical_rate();
        let Some(peer) = self.peers.at_mut(slot) else {
            return;
        };
        let rate = peer.meter.rate().unwrap_or(typical);
        let arrives_s = peer.drain_s(now, rate, place + 1).max(2.0 * peer.meter.round_trip_s());
        let until = if peer.fast {
            now + FORGET
        } else {
            now + Duration::from_secs_f64(arrives_s.min(FORGET.as_secs_f64())) + CANCEL_MARGIN
        };
        let key = peer.key;
        let Some(request) = peer.requests.get_mut(place) else {
            return;
        };
        if request.state == RequestState::Live {
            request.state = RequestState::Cancelled(until);
            self.pending.push(Action::Cancel {
                peer: key,
                block: request.block,
            });
            self.counters.cancels += 1;
            self.mark(slot);
        }
    }

    /// Cancels what nothing asks for any more.
    pub(super) fn cancel_unwanted(&mut self, now: Time) {
        for (slot, place) in self.find_requests(|picker, _, piece| picker.demands.urgency(piece).is_none()) {
            self.cancel(now, slot, place);
        }
    }

    /// Cancels requests that can wait, as many as there are blocks that a reader waits for to take their places.
    ///
    /// What would arrive before the cancelling reaches the peer is left alone, and so is what a reader needs within
    /// seconds, and peers so slow that they would not be asked for urgent blocks.
    pub(super) fn cancel_for_waiting(&mut self, now: Time) {
        let waiting: Vec<u32> = self
            .index
            .open
            .iter()
            .take_while(|rank| rank.0 == Band::Waiting)
            .map(|rank| rank.2)
            .collect();
        let mut places: u32 = waiting
            .iter()
            .map(|piece| self.free_blocks(*piece))
            .fold(0, u32::saturating_add);
        if places == 0 {
            return;
        }
        let typical = self.typical_rate();
        let yielding = self.find_requests(|picker, peer, piece| {
            let band_yields = match picker.demands.urgency(piece) {
                None | Some((Band::Edge | Band::Whole, _)) => true,
                Some((Band::Soon, deadline)) => deadline > now + FAR,
                Some((Band::Waiting, _)) => false,
            };
            let worth = peer.meter.rate().unwrap_or(typical) * 4.0 >= typical;
            band_yields && worth && waiting.iter().any(|piece| peer.offers(*piece, now))
        });
        // From the back of the queues, which the peers come to last.
        for (slot, place) in yielding.into_iter().rev() {
            let Some(peer) = self.peers.at(slot) else {
                continue;
            };
            let arrives_s = peer.drain_s(now, peer.meter.rate().unwrap_or(typical), place + 1);
            if arrives_s > peer.meter.round_trip_s() && places > 0 {
                places -= 1;
                self.cancel(now, slot, place);
            }
        }
    }

    /// Live requests whose peer and piece `which` names, as slot and place in the queue.
    fn find_requests(&self, which: impl Fn(&Picker, &Peer, u32) -> bool) -> Vec<(u32, usize)> {
        let mut found = Vec::new();
        for (slot, peer) in self.peers.iter() {
            for (place, request) in peer.requests.iter().enumerate() {
                if request.state == RequestState::Live && which(self, peer, request.block.piece) {
                    found.push((slot, place));
                }
            }
        }
        found
    }

    /// How many unfinished pieces there may be.
    pub(super) fn partial_limit(&self) -> usize {
        let fit = self.settings.partial_bytes / u64::from(self.shape.piece_length());
        fit.clamp(LEAST_PARTIALS, MOST_PARTIALS) as usize
    }

    /// The unfinished piece that is given up first for one of `band`: one that nothing asks for, else one that is less
    /// urgent, and of these the one of which the least is here. Pieces that something is asked for of are kept.
    pub(super) fn least_partial(&self, band: Band) -> Option<u32> {
        let idle = self
            .partials
            .iter()
            .filter(|(_, partial)| !partial.is_asked() && !partial.is_complete());
        let less_urgent = idle.filter_map(|(piece, partial)| match self.demands.urgency(*piece) {
            None => Some((0, partial.here(), *piece)),
            Some((other, _)) if other > band && other == Band::Whole => Some((1, partial.here(), *piece)),
            Some(_) => None,
        });
        less_urgent.min().map(|(_, _, piece)| piece)
    }

    /// Makes room for one more unfinished piece.
    pub(super) fn make_room(&mut self, now: Time, piece: u32) {
        if self.partials.len() < self.partial_limit() {
            return;
        }
        let band = self.demands.urgency(piece).map_or(Band::Whole, |(band, _)| band);
        if let Some(least) = self.least_partial(band) {
            self.forget(now, least);
        }
    }

    /// Drops what is here of an unfinished piece.
    pub(super) fn forget(&mut self, now: Time, piece: u32) {
        if let Some(partial) = self.partials.remove(&piece) {
            self.counters.forgotten += u64::from(partial.here()) * u64::from(BLOCK);
            for (slot, place) in self.find_requests(|_, _, of| of == piece) {
                self.cancel(now, slot, place);
            }
            self.release(now, piece);
            self.pending.push(Action::Forget { piece });
            self.refresh(piece);
        }
    }

    /// The requests that stand for a piece stand for it no more: its unfinished state has gone.
    pub(super) fn release(&mut self, now: Time, piece: u32) {
        for (_, peer) in self.peers.iter_mut() {
            for request in peer.requests.iter_mut().filter(|request| request.block.piece == piece) {
                request.state = match request.state {
                    RequestState::Live => RequestState::GivenUp(now + FORGET),
                    RequestState::Cancelled(until) | RequestState::GivenUp(until) => RequestState::GivenUp(until),
                };
            }
        }
    }

    /// Settles who fetches the pieces that failed before.
    pub(super) fn appoint(&mut self, now: Time) {
        let typical = self.typical_rate();
        let rate = |peer: &Peer| {
            let rate = peer.meter.rate().unwrap_or(typical);
            let silent = peer.overdue_s(now, rate) > SILENT_S;
            if silent { SILENT_RATE.min(rate) } else { rate }
        };
        let mut changed = Vec::new();
        for suspect in self.suspects.iter_mut() {
            let (piece, peers) = (suspect.piece, &self.peers);
            if self.partials.get(&piece).is_some_and(Partial::is_complete) {
                // It is being hashed; the verdict decides.
                continue;
            }
            let able = || {
                peers
                    .iter()
                    .map(|(_, peer)| peer)
                    .filter(|peer| peer.offers(piece, now) && !peer.is_stuck())
            };
            if suspect.fetch == Fetch::Trusted && able().any(|peer| peer.good > 0) {
                continue;
            }
            let size = f64::from(self.shape.piece_size(piece));
            let here = f64::from(self.partials.get(&piece).map_or(0, Partial::here)) * f64::from(BLOCK);
            // Who proved good is worth waiting for, and who was late before is not, but neither for ever.
            let merit = |peer: &Peer| {
                let trust = if peer.good > 0 { TRUST } else { 1.0 };
                rate(peer) * trust / TRUST.powi(suspect.times_late(peer.key))
            };
            let best = able().max_by(|one, other| merit(one).total_cmp(&merit(other)));
            if suspect.fetch == Fetch::Others {
                // Unless those who are left are so slow that one of the doubted would be through before.
                let others = able().filter(|peer| !suspect.is_doubted(peer.key));
                let left_s = (size - here) / others.map(rate).sum::<f64>().max(1e-3);
                if best.is_none_or(|best| left_s < size / rate(best) + GAIN_S) {
                    continue;
                }
            }
            if let Fetch::Alone(Some(key)) = suspect.fetch {
                match able().find(|peer| peer.key == key) {
                    Some(appointed) => {
                        let left_s = (size - here) / rate(appointed);
                        if best
                            .is_none_or(|best| merit(best) <= merit(appointed) || left_s < size / rate(best) + GAIN_S)
                        {
                            continue;
                        }
                    }
                    None => suspect.was_late(key),
                }
            }
            let fetch = Fetch::Alone(best.map(|peer| peer.key));
            if suspect.fetch != fetch {
                suspect.fetch = fetch;
                changed.push((piece, best.map(|peer| peer.key)));
            }
        }
        for (piece, appointed) in changed {
            let senders = self
                .partials
                .get(&piece)
                .into_iter()
                .flat_map(Partial::senders)
                .flatten();
            let of_another = senders.into_iter().any(|sender| Some(sender) != appointed);
            // What was asked of the one before would keep the appointed one from it for as long as that one is silent.
            let another_asked = appointed.is_some_and(|appointed| {
                !self
                    .find_requests(|_, peer, of| of == piece && peer.key != appointed)
                    .is_empty()
            });
            if of_another || another_asked {
                self.forget(now, piece);
            }
            self.all_ready = true;
        }
    }
}

//! Pieces in the order of how few peers have them, kept in order by constant-time steps.

use std::ops::Range;

const ABSENT: u32 = u32::MAX;

/// Some pieces of a torrent, sorted into buckets by how many peers that are not seeders have them. (Seeders have every
/// piece, so they do not change the order, and coming and going they cost nothing.)
#[derive(Debug, Clone)]
pub(super) struct Rarity {
    /// Peers that have the piece, less the seeders; for every piece of the torrent.
    counts: Vec<u16>,
    /// The members, rarest first.
    order: Vec<u32>,
    /// Where a piece stands in `order`.
    places: Vec<u32>,
    /// Where each bucket begins in `order`; bucket `n` ends where `n + 1` begins.
    begins: Vec<u32>,
}

impl Rarity {
    pub(super) fn new(pieces: u32) -> Rarity {
        Rarity {
            counts: vec![0; pieces as usize],
            order: Vec::new(),
            places: vec![ABSENT; pieces as usize],
            begins: vec![0, 0],
        }
    }

    pub(super) fn count(&self, piece: u32) -> u16 {
        self.counts.get(piece as usize).copied().unwrap_or(0)
    }

    pub(super) fn len(&self) -> usize {
        self.order.len()
    }

    pub(super) fn contains(&self, piece: u32) -> bool {
        self.places.get(piece as usize).is_some_and(|&place| place != ABSENT)
    }

    /// One more peer has `piece`.
    pub(super) fn more(&mut self, piece: u32) {
        let count = self.counts[piece as usize];
        if count == u16::MAX {
            return;
        }
        self.counts[piece as usize] = count + 1;
        self.grow(count + 1);
        if self.contains(piece) {
            self.last_of(piece, count);
            self.begins[count as usize + 1] -= 1;
        }
    }

    /// One peer less has `piece`.
    pub(super) fn fewer(&mut self, piece: u32) {
        let count = self.counts[piece as usize];
        if count == 0 {
            return;
        }
        self.counts[piece as usize] = count - 1;
        if self.contains(piece) {
            self.first_of(piece, count);
            self.begins[count as usize] += 1;
        }
    }

    pub(super) fn insert(&mut self, piece: u32) {
        if self.contains(piece) {
            return;
        }
        self.places[piece as usize] = self.order.len() as u32;
        self.order.push(piece);
        let top = self.begins.len() - 1;
        self.begins[top] += 1;
        // It stands in the last bucket now, and steps down to its own.
        for bucket in (usize::from(self.count(piece)) + 1..top).rev() {
            self.first_of(piece, bucket as u16);
            self.begins[bucket] += 1;
        }
    }

    pub(super) fn remove(&mut self, piece: u32) {
        if !self.contains(piece) {
            return;
        }
        let top = self.begins.len() - 1;
        for bucket in usize::from(self.count(piece))..top {
            self.last_of(piece, bucket as u16);
            self.begins[bucket + 1] -= 1;
        }
        self.order.pop();
        self.places[piece as usize] = ABSENT;
    }

    /// The members that the fewest peers have.
    pub(super) fn rarest(&self) -> &[u32] {
        self.order
            .first()
            .map_or(&[], |&first| &self.order[self.bucket(self.count(first))])
    }

    /// All members, rarest first.
    pub(super) fn order(&self) -> &[u32] {
        &self.order
    }

    fn bucket(&self, count: u16) -> Range<usize> {
        self.begins[count as usize] as usize..self.begins[count as usize + 1] as usize
    }

    fn grow(&mut self, count: u16) {
        let end = self.order.len() as u32;
        while self.begins.len() < usize::from(count) + 2 {
            self.begins.push(end);
        }
    }

    fn last_of(&mut self, piece: u32, bucket: u16) {
        self.swap(piece, self.begins[bucket as usize + 1] - 1);
    }

    fn first_of(&mut self, piece: u32, bucket: u16) {
        self.swap(piece, self.begins[bucket as usize]);
    }

    fn swap(&mut self, piece: u32, place: u32) {
        let from = self.places[piece as usize];
        let other = self.order[place as usize];
        self.order.swap(from as usize, place as usize);
        self.places[other as usize] = from;
        self.places[piece as usize] = place;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_buckets_stay_sorted_under_any_steps() {
        for seed in 0..50 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut rarity = Rarity::new(40);
            let mut members = std::collections::BTreeSet::new();
            for _ in 0..2_000 {
                let piece = random.u32(0..40);
                match random.u8(0..4) {
                    0 => rarity.more(piece),
                    1 => rarity.fewer(piece),
                    2 => {
                        rarity.insert(piece);
                        members.insert(piece);
                    }
                    _ => {
                        rarity.remove(piece);
                        members.remove(&piece);
                    }
                }
                let order = rarity.order();
                assert!(order.is_sorted_by_key(|&piece| rarity.count(piece)), "seed {seed}");
                assert_eq!(
                    order.iter().copied().collect::<std::collections::BTreeSet<_>>(),
                    members
                );
                assert_eq!(rarity.len(), members.len());
                let least = members.iter().map(|&piece| rarity.count(piece)).min();
                let rarest = members
                    .iter()
                    .filter(|&&piece| Some(rarity.count(piece)) == least)
                    .count();
                assert_eq!(rarity.rarest().len(), rarest);
                assert_eq!(*rarity.begins.last().unwrap() as usize, members.len());
            }
        }
    }
}

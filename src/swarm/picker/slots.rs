//! Tables whose keys are never reused.

/// Slots for values, found by slot number and generation: a key of a value that was removed finds nothing, for ever.
#[derive(Debug, Clone)]
pub(super) struct Slots<T> {
    slots: Vec<(u32, Option<T>)>,
    free: Vec<u32>,
    live: usize,
    limit: usize,
}

impl<T> Slots<T> {
    pub(super) fn new(limit: usize) -> Slots<T> {
        Slots {
            slots: Vec::new(),
            free: Vec::new(),
            live: 0,
            limit,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.live
    }

    /// Adds what `make` gives for the new (slot, generation); `None` at the limit.
    pub(super) fn insert(&mut self, make: impl FnOnce(u32, u32) -> T) -> Option<(u32, u32)> {
        if self.live >= self.limit {
            return None;
        }
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                let slot = u32::try_from(self.slots.len()).ok()?;
                self.slots.push((0, None));
                slot
            }
        };
        let entry = &mut self.slots[slot as usize];
        entry.1 = Some(make(slot, entry.0));
        self.live += 1;
        Some((slot, entry.0))
    }

    pub(super) fn remove(&mut self, slot: u32, generation: u32) -> Option<T> {
        let entry = self
            .slots
            .get_mut(slot as usize)
            .filter(|entry| entry.0 == generation)?;
        let value = entry.1.take()?;
        self.live -= 1;
        // A slot whose generations are used up is left empty for good.
        if let Some(next) = entry.0.checked_add(1) {
            entry.0 = next;
            self.free.push(slot);
        }
        Some(value)
    }

    pub(super) fn get(&self, slot: u32, generation: u32) -> Option<&T> {
        self.slots
            .get(slot as usize)
            .filter(|entry| entry.0 == generation)?
            .1
            .as_ref()
    }

    pub(super) fn get_mut(&mut self, slot: u32, generation: u32) -> Option<&mut T> {
        self.slots
            .get_mut(slot as usize)
            .filter(|entry| entry.0 == generation)?
            .1
            .as_mut()
    }

    /// The live value of a slot, whatever its generation.
    pub(super) fn at(&self, slot: u32) -> Option<&T> {
        self.slots.get(slot as usize)?.1.as_ref()
    }

    pub(super) fn at_mut(&mut self, slot: u32) -> Option<&mut T> {
        self.slots.get_mut(slot as usize)?.1.as_mut()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        (0..)
            .zip(&self.slots)
            .filter_map(|(slot, entry)| Some((slot, entry.1.as_ref()?)))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (u32, &mut T)> {
        (0..)
            .zip(&mut self.slots)
            .filter_map(|(slot, entry)| Some((slot, entry.1.as_mut()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_something_removed_finds_nothing() {
        let mut slots = Slots::new(2);
        let (slot, generation) = slots.insert(|_, _| 'a').unwrap();
        slots.insert(|_, _| 'b').unwrap();
        assert_eq!(slots.insert(|_, _| 'c'), None);
        assert_eq!(slots.remove(slot, generation), Some('a'));
        let (again, next) = slots.insert(|_, _| 'c').unwrap();
        assert_eq!(again, slot);
        assert_eq!(slots.get(slot, generation), None);
        assert_eq!(slots.remove(slot, generation), None);
        assert_eq!(slots.get(slot, next), Some(&'c'));
        assert_eq!(slots.len(), 2);
    }
}

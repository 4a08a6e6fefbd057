//! What a peer has: as it is said, and as it is gathered while the torrent's shape is unknown.

use super::Gone;
use crate::swarm::shape::{MAX_PIECES, PieceSet, Shape, ShapeError};
use crate::swarm::wire::Message;

/// Which pieces one side of a connection has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holdings {
    /// None.
    None,
    /// All.
    All,
    /// These.
    Some(PieceSet),
}

impl Holdings {
    /// The message that says it at the beginning, if one is needed. A peer without the fast extension has no word for
    /// all pieces of a torrent of unknown shape.
    pub(super) fn message(&self, fast: bool, shape: Option<&Shape>) -> Option<Message> {
        match (self, shape) {
            (Self::None, _) => fast.then_some(Message::HaveNone),
            (Self::All, _) if fast => Some(Message::HaveAll),
            (Self::All, shape) => {
                shape.map(|shape| Message::Bitfield(PieceSet::all(shape.piece_count()).to_wire_bytes().into()))
            }
            (Self::Some(set), _) => Some(Message::Bitfield(set.to_wire_bytes().into())),
        }
    }

    /// What a bitfield, have-all or have-none message says.
    pub(super) fn of(message: &Message, shape: &Shape) -> Result<Self, Gone> {
        match message {
            Message::HaveAll => Ok(Self::All),
            Message::Bitfield(bits) => match PieceSet::from_wire_bytes(bits, shape.piece_count()) {
                Ok(set) => Ok(Self::Some(set)),
                Err(ShapeError::SpareBits) => Err(Gone::Breach("a bitfield with pieces beyond the last")),
                Err(_) => Err(Gone::Breach("a bitfield of the wrong length")),
            },
            _ => Ok(Self::None),
        }
    }
}

/// What a peer says to have before we know how many pieces there are.
#[derive(Debug, Default)]
pub(super) struct Unchecked {
    said: Option<Message>,
    /// Pieces told one by one since.
    since: Vec<u8>,
}

impl Unchecked {
    /// Keeps what was said of all pieces.
    pub(super) fn say(&mut self, message: Message) {
        self.since.clear();
        self.said = Some(message);
    }

    /// Keeps one piece.
    pub(super) fn have(&mut self, piece: u32) -> Result<(), Gone> {
        if piece >= MAX_PIECES {
            return Err(Gone::Breach("a piece beyond any torrent"));
        }
        let byte = piece as usize / 8;
        if self.since.len() <= byte {
            self.since.resize(byte + 1, 0);
        }
        self.since[byte] |= 0x80 >> (piece % 8);
        Ok(())
    }

    /// What it comes to, now that the shape is known; `None` if the peer said nothing.
    pub(super) fn check(self, shape: &Shape) -> Result<Option<Holdings>, Gone> {
        let said = self.said.map(|message| Holdings::of(&message, shape)).transpose()?;
        if self.since.is_empty() || said == Some(Holdings::All) {
            return Ok(said);
        }
        let mut set = match said {
            Some(Holdings::Some(set)) => set,
            _ => PieceSet::new(shape.piece_count()),
        };
        for (index, byte) in (0u32..).zip(&self.since) {
            for bit in (0..8).filter(|bit| byte & (0x80 >> bit) != 0) {
                let piece = index * 8 + bit;
                if piece >= shape.piece_count() {
                    return Err(Gone::Breach("a piece that the torrent does not have"));
                }
                set.set(piece);
            }
        }
        Ok(Some(Holdings::Some(set)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape() -> Shape {
        Shape::new(16 * 1024, 10 * 16 * 1024).unwrap()
    }

    #[test]
    fn says_all_in_the_words_that_the_peer_knows() {
        assert_eq!(Holdings::All.message(true, None), Some(Message::HaveAll));
        assert_eq!(Holdings::All.message(false, None), None);
        let bits = Message::Bitfield(vec![0xFF, 0xC0].into());
        assert_eq!(Holdings::All.message(false, Some(&shape())), Some(bits));
        assert_eq!(Holdings::None.message(false, Some(&shape())), None);
    }

    #[test]
    fn gathers_what_is_said_before_the_shape_is_known() {
        let mut unchecked = Unchecked::default();
        unchecked.say(Message::Bitfield(vec![0x80, 0].into()));
        unchecked.have(9).unwrap();
        let Some(Holdings::Some(set)) = unchecked.check(&shape()).unwrap() else {
            panic!("a set")
        };
        assert_eq!(set.iter().collect::<Vec<_>>(), [0, 9]);
        assert_eq!(Unchecked::default().check(&shape()).unwrap(), None);
    }

    #[test]
    fn refuses_what_does_not_fit_the_shape() {
        for message in [
            Message::Bitfield(vec![0].into()),
            Message::Bitfield(vec![0, 0x20].into()),
        ] {
            assert!(Holdings::of(&message, &shape()).is_err());
        }
        let mut unchecked = Unchecked::default();
        unchecked.have(10).unwrap();
        assert!(unchecked.check(&shape()).is_err());
        assert!(Unchecked::default().have(u32::MAX).is_err());
    }
}

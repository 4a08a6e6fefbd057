//! Pieces on their way: blocks are kept in memory until their piece is whole, then hashed and stored as one.
//!
//! Links write into it without asking the torrent's owner, so block data never passes the task that picks. What may be
//! written is decided by the owner alone: only pieces that it [expects](Assembly::expect) have room here, and the
//! picker bounds how many those are.

use std::collections::hash_map::RandomState;
use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasher;
use std::io;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Semaphore, mpsc};

use super::peer::{Sink, Source};
use super::shape::{BLOCK, Block, PeerKey, Shape};
use super::wire::Span;

/// Peers whose blocks are refused; a link that was hung up on ends long before so many others are.
const BARRED: usize = 256;

/// Pieces that are hashed and stored at once, of one torrent: as many as a small machine has cores.
const FINISHING: usize = 2;

/// Where whole pieces go and come from. The calls may wait for the disk.
pub trait Storage: Send + Sync + 'static {
    /// Whether the piece is here. Never waits.
    fn has(&self, piece: u32) -> bool;

    /// Whether there is room to store more. Never waits.
    fn storing(&self) -> bool;

    /// Compares a whole piece with its hash and stores it.
    fn finish(&self, piece: u32, bytes: &[u8]) -> Finished;

    /// Verified bytes of a stored piece, exactly as many as asked for.
    ///
    /// # Errors
    /// They are not here, or cannot be read.
    fn read(&self, piece: u32, begin: u32, length: u32) -> io::Result<Bytes>;

    /// The info dictionary, as it stands in the metainfo.
    ///
    /// # Errors
    /// It cannot be read.
    fn info(&self) -> io::Result<Bytes>;
}

/// What became of a whole piece.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finished {
    /// It is right, and stored.
    Stored,
    /// It is right, but there is no room to store it: it is kept in memory, and these pieces, kept there before, had
    /// to make way.
    Held {
        /// They are missing again.
        evicted: Vec<u32>,
    },
    /// It does not match its hash.
    Bad,
    /// It could be neither compared nor kept; it is missing, and so is the means to tell who sent what.
    Failed,
}

/// The end of a piece, as the torrent's owner hears of it.
#[derive(Debug)]
pub(super) struct Verdict {
    /// Which.
    pub(super) piece: u32,
    /// What became of it.
    pub(super) finished: Finished,
    /// One number for each block, by which the same block of another attempt can be compared. No peer can foresee it.
    /// Empty unless they were asked for, or the piece is bad.
    pub(super) digests: Vec<u64>,
    /// The blocks of a bad piece, some of which may be good.
    pub(super) blocks: Option<Blocks>,
}

/// What is here of a piece, to be [kept](Assembly::keep).
pub(super) struct Blocks(Partial);

impl std::fmt::Debug for Blocks {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_tuple("Blocks").field(&self.0.from).finish()
    }
}

/// The unfinished pieces of one torrent.
pub(super) struct Assembly {
    shape: Shape,
    pieces: RwLock<HashMap<u32, Arc<Mutex<Partial>>>>,
    storage: Arc<dyn Storage>,
    finishing: Arc<Semaphore>,
    hasher: RandomState,
    /// The peers that were hung up on last. Their links may still be at work.
    barred: RwLock<VecDeque<PeerKey>>,
}

/// One unfinished piece.
struct Partial {
    /// Empty until the first block arrives.
    bytes: Vec<u8>,
    /// Who sent each block that is here.
    from: Vec<Option<PeerKey>>,
}

impl Assembly {
    pub(super) fn new(shape: Shape, storage: Arc<dyn Storage>) -> Assembly {
        Assembly {
            shape,
            pieces: RwLock::default(),
            storage,
            finishing: Arc::new(Semaphore::new(FINISHING)),
            hasher: RandomState::new(),
            barred: RwLock::default(),
        }
    }

    /// From now on blocks of the piece are kept.
    pub(super) fn expect(&self, piece: u32) {
        if self.pieces.read().contains_key(&piece) {
            return;
        }
        let blocks = self.shape.block_count(piece) as usize;
        let partial = Partial {
            bytes: Vec::new(),
            from: vec![None; blocks],
        };
        self.pieces
            .write()
            .entry(piece)
            .or_insert_with(|| Arc::new(Mutex::new(partial)));
    }

    /// Drops what is here of a piece, and what comes of it.
    pub(super) fn forget(&self, piece: u32) {
        self.pieces.write().remove(&piece);
    }

    /// Goes on with a piece that was bad: those of its blocks that `holds` names stay.
    pub(super) fn keep(&self, piece: u32, blocks: Blocks, holds: impl Fn(Block) -> bool) {
        let Blocks(mut partial) = blocks;
        for (index, from) in (0..).zip(&mut partial.from) {
            *from = from.filter(|_| holds(Block { piece, index }));
        }
        self.pieces.write().insert(piece, Arc::new(Mutex::new(partial)));
    }

    /// Whether the block is here and came from `peer`.
    pub(super) fn holds(&self, peer: PeerKey, block: Block) -> bool {
        self.partial(block.piece)
            .is_some_and(|partial| partial.lock().from[block.index as usize] == Some(peer))
    }

    /// The peer is not heard any more: what came of it and is not `known` to the owner would never be asked for again,
    /// so it is dropped, and nothing more is taken of it.
    pub(super) fn bar(&self, peer: PeerKey, known: impl Fn(Block) -> bool) {
        {
            let mut barred = self.barred.write();
            barred.push_back(peer);
            if barred.len() > BARRED {
                barred.pop_front();
            }
        }
        for (piece, partial) in self.pieces.read().iter() {
            for (index, from) in (0..).zip(&mut partial.lock().from) {
                if *from == Some(peer) && !known(Block { piece: *piece, index }) {
                    *from = None;
                }
            }
        }
    }

    /// Hashes and stores a piece whose blocks are all here, and says what came of it, with `digests` if they are
    /// wanted even of a good piece. It waits for its turn.
    pub(super) fn finish(self: &Arc<Self>, piece: u32, digests: bool, verdicts: mpsc::UnboundedSender<Verdict>) {
        let Some(partial) = self.pieces.write().remove(&piece) else {
            return;
        };
        let assembly = self.clone();
        tokio::spawn(async move {
            // Never closed; and without a permit there would only be more at once.
            let _permit = assembly.finishing.clone().acquire_owned().await;
            let blocks = {
                let mut partial = partial.lock();
                let bytes = std::mem::take(&mut partial.bytes);
                let from = partial.from.clone();
                Partial { bytes, from }
            };
            let finished = tokio::task::spawn_blocking(move || assembly.judge(piece, blocks, digests)).await;
            let verdict = finished.unwrap_or_else(|_| Verdict {
                piece,
                finished: Finished::Failed,
                digests: Vec::new(),
                blocks: None,
            });
            // An owner that is gone has no use for it; what was stored is stored.
            let _ = verdicts.send(verdict);
        });
    }

    fn judge(&self, piece: u32, blocks: Partial, digests: bool) -> Verdict {
        let finished = self.storage.finish(piece, &blocks.bytes);
        let is_bad = finished == Finished::Bad;
        // Nearly every piece is good at once, and this hash costs as much as the piece's own.
        let digests = if digests || is_bad {
            blocks
                .bytes
                .chunks(BLOCK as usize)
                .map(|block| self.hasher.hash_one(block))
                .collect()
        } else {
            Vec::new()
        };
        Verdict {
            piece,
            finished,
            digests,
            blocks: is_bad.then_some(Blocks(blocks)),
        }
    }

    fn partial(&self, piece: u32) -> Option<Arc<Mutex<Partial>>> {
        self.pieces.read().get(&piece).cloned()
    }

    fn block(&self, span: Span) -> Option<Block> {
        self.shape.block_at(span.piece, span.begin, span.length)
    }
}

impl Sink for Assembly {
    fn wanted(&self, span: Span) -> bool {
        let Some(block) = self.block(span) else { return false };
        self.partial(span.piece)
            .is_some_and(|partial| partial.lock().from[block.index as usize].is_none())
    }

    fn block(&self, from: PeerKey, piece: u32, begin: u32, data: Bytes) -> bool {
        let span = Span {
            piece,
            begin,
            length: data.len() as u32,
        };
        let (Some(block), Some(partial)) = (self.block(span), self.partial(piece)) else {
            return false;
        };
        let mut partial = partial.lock();
        // The first copy stays: it is by its sender that the picker knows the block.
        if partial.from[block.index as usize].is_some() || self.barred.read().contains(&from) {
            return false;
        }
        if partial.bytes.is_empty() {
            partial.bytes = vec![0; self.shape.piece_size(piece) as usize];
        }
        let begin = begin as usize;
        match partial.bytes.get_mut(begin..begin + data.len()) {
            Some(place) => place.copy_from_slice(&data),
            // It was taken to be hashed just now, so this is a second copy.
            None => return false,
        }
        partial.from[block.index as usize] = Some(from);
        true
    }
}

/// What is served to peers: stored pieces, and the info dictionary.
pub(super) struct Supply {
    storage: Arc<dyn Storage>,
    /// Read once, when the first peer comes; `None` inside if it cannot be read.
    info: OnceLock<Option<Bytes>>,
}

impl Supply {
    pub(super) fn new(storage: Arc<dyn Storage>) -> Supply {
        Supply {
            storage,
            info: OnceLock::new(),
        }
    }

    fn info(&self) -> Option<&Bytes> {
        self.info.get_or_init(|| self.storage.info().ok()).as_ref()
    }
}

impl Source for Supply {
    fn read(&self, span: Span) -> BoxFuture<'_, io::Result<Bytes>> {
        let storage = self.storage.clone();
        let read = tokio::task::spawn_blocking(move || storage.read(span.piece, span.begin, span.length));
        async move { read.await.map_err(io::Error::other)? }.boxed()
    }

    fn info_length(&self) -> Option<u32> {
        self.info().and_then(|info| u32::try_from(info.len()).ok())
    }

    fn read_info(&self, begin: u32, length: u32) -> BoxFuture<'_, io::Result<Bytes>> {
        let (begin, end) = (begin as usize, begin as usize + length as usize);
        let part = self
            .info()
            .filter(|info| end <= info.len())
            .map(|info| info.slice(begin..end));
        async move { part.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound)) }.boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Everything is bad.
    struct Nothing;

    impl Storage for Nothing {
        fn has(&self, _: u32) -> bool {
            false
        }

        fn storing(&self) -> bool {
            true
        }

        fn finish(&self, _: u32, _: &[u8]) -> Finished {
            Finished::Bad
        }

        fn read(&self, _: u32, _: u32, _: u32) -> io::Result<Bytes> {
            Err(io::ErrorKind::NotFound.into())
        }

        fn info(&self) -> io::Result<Bytes> {
            Err(io::ErrorKind::NotFound.into())
        }
    }

    #[test]
    fn what_a_barred_peer_sent_unheard_is_taken_of_others_again() {
        let assembly = Assembly::new(Shape::new(4 * BLOCK, u64::from(4 * BLOCK)).unwrap(), Arc::new(Nothing));
        let [liar, other] = [0, 1].map(|slot| PeerKey { slot, generation: 0 });
        let data = || Bytes::from(vec![1; BLOCK as usize]);
        let block = |index| Block { piece: 0, index };
        assembly.expect(0);
        assert!(Sink::block(&assembly, liar, 0, 0, data()));
        assert!(Sink::block(&assembly, liar, 0, BLOCK, data()));
        assert!(!Sink::block(&assembly, other, 0, BLOCK, data()));
        // The owner heard of the first one only.
        assembly.bar(liar, |block| block.index == 0);
        assert!(assembly.holds(liar, block(0)));
        assert!(!assembly.holds(liar, block(1)));
        assert!(!Sink::block(&assembly, liar, 0, 2 * BLOCK, data()));
        assert!(!Sink::block(&assembly, other, 0, 0, data()));
        assert!(Sink::block(&assembly, other, 0, BLOCK, data()));
        assert!(assembly.holds(other, block(1)));
    }

    #[tokio::test]
    async fn of_a_bad_piece_the_blocks_are_kept_that_are_not_doubted() {
        let shape = Shape::new(2 * BLOCK, u64::from(2 * BLOCK)).unwrap();
        let assembly = Arc::new(Assembly::new(shape, Arc::new(Nothing)));
        let [good, liar] = [0, 1].map(|slot| PeerKey { slot, generation: 0 });
        let data = |byte| Bytes::from(vec![byte; BLOCK as usize]);
        assembly.expect(0);
        assert!(Sink::block(&*assembly, good, 0, 0, data(1)));
        assert!(Sink::block(&*assembly, liar, 0, BLOCK, data(2)));
        let (verdicts, mut judged) = mpsc::unbounded_channel();
        assembly.finish(0, false, verdicts.clone());
        let verdict = judged.recv().await.unwrap();
        assert_eq!(verdict.finished, Finished::Bad);
        assembly.keep(0, verdict.blocks.unwrap(), |block| block.index == 0);
        assert!(!Sink::block(&*assembly, liar, 0, 0, data(3)), "it is here");
        assert!(Sink::block(&*assembly, good, 0, BLOCK, data(4)));
        assembly.finish(0, false, verdicts);
        let again = judged.recv().await.unwrap();
        assert_eq!(again.digests[0], verdict.digests[0]);
        assert_ne!(again.digests[1], verdict.digests[1]);
    }
}

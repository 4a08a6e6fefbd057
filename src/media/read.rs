//! Reading a file that may still be on the network: few reads, of whole blocks, and none twice.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;

use super::MediaError;

/// The bytes of one file, wherever they are.
pub trait ReadAt: Send + Sync {
    /// Bytes in the file.
    fn size(&self) -> u64;

    /// Exactly `length` bytes at `offset`, which lie inside the file; waits as long as that takes. Dropping it
    /// withdraws the demand.
    ///
    /// # Errors
    /// What the implementation cannot read.
    fn read_at(&self, offset: u64, length: usize) -> impl Future<Output = io::Result<Vec<u8>>> + Send;

    /// Does what takes a processor up to some seconds. Here it is done at once, by whoever waits; a file for which
    /// others must not be held up does it elsewhere.
    ///
    /// # Errors
    /// It was not done to its end.
    fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> impl Future<Output = io::Result<T>> + Send {
        async move { Ok(work()) }
    }
}

/// What is read at a time: the smallest demand that is no more work to a swarm than a smaller one, and enough for the
/// whole head of a Matroska.
pub(super) const BLOCK: u64 = 64 << 10;

/// Bytes read of one file at most: the `moov` of a film of twelve hours.
pub(super) const INDEX_LIMIT: u64 = 64 << 20;

/// What is longer than this is read as it is and not kept, for memory's sake.
pub(super) const KEPT_LIMIT: u64 = 1 << 20;

/// What is longer than this is asked for in parts, so that no more is allocated than the file proves to have.
const PART: u64 = 8 << 20;

/// The blocks of a file that were read.
pub(super) struct Reader<'a, R> {
    file: &'a R,
    blocks: BTreeMap<u64, Vec<u8>>,
    left: u64,
}

impl<'a, R: ReadAt> Reader<'a, R> {
    pub(super) fn new(file: &'a R) -> Reader<'a, R> {
        Reader {
            file,
            blocks: BTreeMap::new(),
            left: INDEX_LIMIT,
        }
    }

    pub(super) fn size(&self) -> u64 {
        self.file.size()
    }

    /// See [`ReadAt::work`].
    pub(super) async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, MediaError> {
        Ok(self.file.work(work).await?)
    }

    /// These bytes, fewer only where the file ends.
    pub(super) async fn bytes(&mut self, offset: u64, length: u64) -> Result<Vec<u8>, MediaError> {
        let end = offset.saturating_add(length).min(self.size());
        let Some(length) = end.checked_sub(offset).filter(|length| *length > 0) else {
            return Ok(Vec::new());
        };
        if length > self.left.saturating_add(BLOCK) {
            return Err(too_large());
        }
        if length > KEPT_LIMIT {
            return self.unkept(offset, end).await;
        }
        let (first, last) = (offset / BLOCK, (end - 1) / BLOCK);
        let mut next = first;
        while next <= last {
            if self.blocks.contains_key(&next) {
                next += 1;
                continue;
            }
            let until = (next..=last)
                .find(|block| self.blocks.contains_key(block))
                .unwrap_or(last + 1);
            let read = self.read(next * BLOCK, (until * BLOCK).min(self.size())).await?;
            for (block, bytes) in (next..until).zip(read.chunks(BLOCK as usize)) {
                self.blocks.insert(block, bytes.to_vec());
            }
            next = until;
        }
        let mut bytes = Vec::with_capacity(length as usize);
        for block in first..=last {
            let begin = block * BLOCK;
            let (from, to) = (offset.max(begin) - begin, end.min(begin + BLOCK) - begin);
            bytes.extend_from_slice(&self.blocks[&block][from as usize..to as usize]);
        }
        Ok(bytes)
    }

    /// What was read already from here on without a gap, so much of it at most; reads nothing.
    pub(super) fn known(&self, offset: u64, most: u64) -> Vec<u8> {
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let mut bytes = Vec::new();
        let mut block = offset / BLOCK;
        let mut from = (offset % BLOCK) as usize;
        while let Some(known) = self.blocks.get(&block).filter(|_| bytes.len() < most) {
            let known = known.get(from..).unwrap_or_default();
            bytes.extend_from_slice(&known[..known.len().min(most - bytes.len())]);
            from = 0;
            block += 1;
        }
        bytes
    }

    async fn unkept(&mut self, mut offset: u64, end: u64) -> Result<Vec<u8>, MediaError> {
        let mut bytes = self.known(offset, end - offset);
        offset += bytes.len() as u64;
        while offset < end {
            let part = self.read(offset, end.min(offset + PART)).await?;
            offset += part.len() as u64;
            bytes.extend_from_slice(&part);
        }
        Ok(bytes)
    }

    async fn read(&mut self, offset: u64, end: u64) -> Result<Vec<u8>, MediaError> {
        let length = end - offset;
        self.left = self.left.checked_sub(length).ok_or_else(too_large)?;
        let bytes = self.file.read_at(offset, length as usize).await?;
        if bytes.len() as u64 != length {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        Ok(bytes)
    }
}

fn too_large() -> MediaError {
    MediaError::TooLarge {
        what: "bytes of index",
        limit: INDEX_LIMIT,
    }
}

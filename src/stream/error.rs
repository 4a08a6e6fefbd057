//! Why a film, or a part of it, is not given out.

use super::source::SourceError;

/// Each variant is one answer of the HTTP side.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// It can never be played as it is: not a film, no index, a codec that no browser knows. In words for a person.
    #[error("{0}")]
    NotPlayable(String),
    /// There is no such file, rendition or segment.
    #[error("there is no such film, or no such part of it")]
    Unknown,
    /// As many viewers at different places as are allowed; ask again after this time.
    #[error("this machine is busy: too many viewers at different places")]
    Busy {
        /// Seconds.
        retry_after_s: u32,
    },
    /// FFmpeg failed, and failed again when it was started anew. The next request starts it again.
    #[error("FFmpeg could not make this part of the film: {last_words}")]
    Failed {
        /// The end of what it said.
        last_words: String,
    },
    /// The bytes did not come: nobody has them, or the torrent is paused. In words for a person.
    #[error("{0}")]
    Unavailable(String),
    /// The program is ending.
    #[error("the program is ending")]
    Stopping,
}

impl From<SourceError> for StreamError {
    fn from(error: SourceError) -> StreamError {
        match error {
            SourceError::Unknown => StreamError::Unknown,
            SourceError::Unavailable(why) => StreamError::Unavailable(why),
        }
    }
}

//! One film: its playlists, and its parts as they are asked for.

use std::marker::PhantomData;
use std::sync::Arc;

use bytes::Bytes;

use super::error::StreamError;
use super::rendition::RenditionId;

/// A film whose index is known. Holding it keeps no FFmpeg and no file open.
#[derive(Debug)]
pub struct Film<S> {
    source: PhantomData<S>,
}

impl<S: super::Source> Film<S> {
    /// The master playlist; its URIs are relative to it.
    pub fn master(&self) -> String {
        String::new()
    }

    /// The media playlist of a rendition, if there is such a one.
    pub fn media(&self, _rendition: &RenditionId) -> Option<String> {
        None
    }

    /// The initialisation segment of a rendition; waits as [`Film::segment`] does.
    ///
    /// # Errors
    /// See [`StreamError`]; subtitles have none: unknown.
    pub async fn init(self: &Arc<Self>, _rendition: &RenditionId) -> Result<Bytes, StreamError> {
        Err(StreamError::Unknown)
    }

    /// A segment, counted from 0. From the cache at once; else it waits for FFmpeg, which waits for the swarm: as long as
    /// data still arrives. Dropping it withdraws the request.
    ///
    /// # Errors
    /// See [`StreamError`].
    pub async fn segment(self: &Arc<Self>, _rendition: &RenditionId, _number: u32) -> Result<Bytes, StreamError> {
        Err(StreamError::Unknown)
    }
}

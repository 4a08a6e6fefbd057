//! What every HTTP client of ours needs: a body that is not larger than expected, and errors in words.

use std::error::Error;

use reqwest::Response;

/// Why there is no body.
#[derive(Debug)]
pub enum BodyError {
    /// It is larger than it may be.
    TooLarge,
    /// It broke off, or took too long.
    Broken(reqwest::Error),
}

/// The body of an answer, read until it is over the limit: what the server says of its length is not believed. The
/// client limits the time.
///
/// # Errors
/// Then nothing of it is given.
pub async fn body(mut response: Response, limit: usize) -> Result<Vec<u8>, BodyError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(BodyError::Broken)? {
        if body.len() + chunk.len() > limit {
            return Err(BodyError::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// What reqwest says and what it blames: by itself it says no more than "error sending request". Without the URL, which
/// may hold a key.
pub fn reasons(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

//! Fetching a .torrent from a web server.

use std::time::Duration;

use reqwest::redirect::Policy;
use reqwest::{Client, ClientBuilder};
use url::Url;

use super::{METAINFO_LIMIT, SourceError};
use crate::swarm::web::{self, BodyError, reasons};

/// From the first packet to the last byte.
const TIME_LIMIT: Duration = Duration::from_secs(60);
/// A server that is there answers a SYN sooner.
const CONNECT_LIMIT: Duration = Duration::from_secs(15);
const REDIRECT_LIMIT: usize = 5;

/// Fetches a .torrent: at most [`METAINFO_LIMIT`] bytes, 60 s and five redirects. Dropping the future gives it up.
///
/// # Errors
/// Names the URL (without user, password and query, which may hold a key) and what went wrong.
pub async fn fetch(url: &Url) -> Result<Vec<u8>, SourceError> {
    fetch_within(url, Client::builder(), METAINFO_LIMIT, TIME_LIMIT).await
}

async fn fetch_within(
    url: &Url,
    client: ClientBuilder,
    size_limit: usize,
    time_limit: Duration,
) -> Result<Vec<u8>, SourceError> {
    let shown = shown(url);
    let failed = |error: reqwest::Error| {
        if error.is_timeout() && !error.is_connect() {
            SourceError::Slow {
                url: shown.clone(),
                seconds: time_limit.as_secs(),
            }
        } else {
            SourceError::Fetch {
                url: shown.clone(),
                why: reasons(error),
            }
        }
    };
    let client = client
        .user_agent(concat!("magnetfs/", env!("CARGO_PKG_VERSION")))
        .redirect(Policy::limited(REDIRECT_LIMIT))
        .connect_timeout(CONNECT_LIMIT)
        .timeout(time_limit)
        .build()
        .map_err(failed)?;
    let response = client.get(url.clone()).send().await.map_err(failed)?;
    if !response.status().is_success() {
        return Err(SourceError::Status {
            url: shown,
            status: response.status(),
        });
    }
    web::body(response, size_limit).await.map_err(|error| match error {
        BodyError::TooLarge => SourceError::TooLarge { what: shown.clone() },
        BodyError::Broken(error) => failed(error),
    })
}

/// The URL without what may be secret.
fn shown(url: &Url) -> String {
    let mut url = url.clone();
    // Neither fails for http and https, which have a host.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_query(None);
    url.set_fragment(None);
    url.into()
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::thread;

    use super::*;

    /// A web server on loopback that gives every connection to `answer` after its request; it ends with the process.
    fn serve(answer: impl Fn(&mut TcpStream, &str) + Send + 'static) -> Url {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!(
            "http://name:secret@{}/a.torrent?key=secret",
            listener.local_addr().unwrap()
        );
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { continue };
                let mut request = Vec::new();
                let mut byte = [0];
                while !request.ends_with(b"\r\n\r\n") && stream.read_exact(&mut byte).is_ok() {
                    request.push(byte[0]);
                }
                answer(&mut stream, &String::from_utf8_lossy(&request));
            }
        });
        url.parse().unwrap()
    }

    /// Fetches with small limits, and never for longer than 20 s.
    fn get(url: &Url) -> Result<Vec<u8>, SourceError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let fetching = fetch_within(url, Client::builder().no_proxy(), 1000, Duration::from_secs(1));
        runtime
            .block_on(async { tokio::time::timeout(Duration::from_secs(20), fetching).await })
            .unwrap()
    }

    fn send(stream: &mut TcpStream, text: &str) {
        // The client may have gone.
        let _ = stream.write_all(text.as_bytes());
    }

    #[test]
    fn a_file_is_fetched() {
        let url = serve(|stream, request| {
            assert!(
                request.starts_with("GET /a.torrent?key=secret HTTP/1.1\r\n"),
                "{request}"
            );
            assert!(request.contains("user-agent: magnetfs/"), "{request}");
            send(
                stream,
                "HTTP/1.1 200 OK\r\ncontent-length: 4\r\nconnection: close\r\n\r\nd1:a",
            );
        });
        assert_eq!(get(&url).unwrap(), b"d1:a");
    }

    #[test]
    fn an_error_names_the_url_without_secrets() {
        let url = serve(|stream, _| send(stream, "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"));
        let error = get(&url).unwrap_err().to_string();
        assert!(error.ends_with("/a.torrent answered 404 Not Found"), "{error}");
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let closed = format!("http://name:secret@{}/?secret", listener.local_addr().unwrap())
            .parse()
            .unwrap();
        drop(listener);
        let refused = get(&closed).unwrap_err().to_string();
        assert!(refused.to_lowercase().contains("connection refused"), "{refused}");
        assert!(
            !error.contains("secret") && !refused.contains("secret"),
            "{error} {refused}"
        );
    }

    #[test]
    fn what_is_too_large_is_given_up() {
        let endless = serve(|stream, _| {
            send(stream, "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n");
            while stream.write_all(&[0; 4096]).is_ok() {}
        });
        assert!(matches!(get(&endless), Err(SourceError::TooLarge { .. })));
    }

    #[test]
    fn what_is_slow_is_given_up() {
        let silent = serve(|stream, _| drop(stream.read(&mut [0])));
        assert!(matches!(get(&silent), Err(SourceError::Slow { seconds: 1, .. })));
        let stalled = serve(|stream, _| {
            send(stream, "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nd");
            drop(stream.read(&mut [0]));
        });
        assert!(matches!(get(&stalled), Err(SourceError::Slow { seconds: 1, .. })));
    }

    #[test]
    fn what_breaks_off_is_no_file() {
        let broken = serve(|stream, _| send(stream, "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nd"));
        assert!(matches!(get(&broken), Err(SourceError::Fetch { .. })));
    }

    #[test]
    fn redirects_are_followed_and_limited() {
        let target = serve(|stream, _| send(stream, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nde"));
        let once = serve(move |stream, _| {
            send(
                stream,
                &format!("HTTP/1.1 302 Found\r\nlocation: {target}\r\ncontent-length: 0\r\n\r\n"),
            );
        });
        assert_eq!(get(&once).unwrap(), b"de");
        let endless = serve(|stream, _| {
            send(
                stream,
                "HTTP/1.1 302 Found\r\nlocation: /again\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
            );
        });
        let error = get(&endless).unwrap_err().to_string();
        assert!(error.contains("too many redirects"), "{error}");
    }
}

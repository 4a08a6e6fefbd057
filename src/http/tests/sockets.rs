//! What only a real connection shows.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::fake::{Fake, HASH};
use crate::http::crowd;
use crate::http::server::{HttpOptions, Patience, Server};

/// Longer than anything here takes that does not wait for a limit of the server's.
const PATIENCE: Duration = Duration::from_secs(10);

struct Served {
    fake: Arc<Fake>,
    address: SocketAddr,
    stopping: CancellationToken,
    serving: JoinHandle<()>,
}

async fn serve() -> Served {
    serve_with(None).await
}

async fn serve_with(patience: Option<Patience>) -> Served {
    let fake = Fake::new();
    let options = HttpOptions {
        address: "127.0.0.1:0".parse().unwrap(),
        hosts: Vec::new(),
    };
    let mut server = Server::bind(options).await.unwrap();
    server.patience = patience.unwrap_or(server.patience);
    let (address, stopping) = (server.address(), CancellationToken::new());
    Served {
        serving: tokio::spawn(server.serve(fake.clone(), None, stopping.clone())),
        fake,
        address,
        stopping,
    }
}

impl Served {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends this, and reads until the server hangs up.
    async fn talk(&self, text: &str) -> String {
        let mut stream = self.connect().await;
        // A refusal may come, and end the connection, before all is sent.
        let _ = stream.write_all(text.as_bytes()).await;
        let mut answer = Vec::new();
        let _ = timeout(PATIENCE, stream.read_to_end(&mut answer))
            .await
            .expect("the server hangs up");
        String::from_utf8_lossy(&answer).into_owned()
    }
}

#[tokio::test]
async fn a_forged_host_is_refused_in_every_form() {
    let served = serve().await;
    let end = "Connection: close\r\n\r\n";
    for (request, status) in [
        (
            format!("GET /api/torrents HTTP/1.1\r\nHost: {}\r\n{end}", served.address),
            "200",
        ),
        (
            format!("GET /api/torrents HTTP/1.1\r\nHost: evil.example\r\n{end}"),
            "421",
        ),
        (format!("GET /api/torrents HTTP/1.1\r\n{end}"), "400"),
        ("GET /api/torrents HTTP/1.0\r\n\r\n".to_owned(), "400"),
        (
            "GET /api/torrents HTTP/1.0\r\nHost: localhost\r\n\r\n".to_owned(),
            "200",
        ),
        (
            format!("GET http://evil.example/api/torrents HTTP/1.1\r\nHost: localhost\r\n{end}"),
            "421",
        ),
        (
            format!("GET http://localhost/api/torrents HTTP/1.1\r\nHost: evil.example\r\n{end}"),
            "421",
        ),
        (
            format!("GET http://localhost/api/torrents HTTP/1.1\r\nHost: localhost\r\n{end}"),
            "200",
        ),
        (
            format!("CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n{end}"),
            "400",
        ),
        (format!("OPTIONS * HTTP/1.1\r\nHost: localhost\r\n{end}"), "400"),
        (
            format!("GET /api/torrents HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n{end}"),
            "400",
        ),
    ] {
        let answer = served.talk(&request).await;
        assert_eq!(answer.split(' ').nth(1), Some(status), "{request}\n{answer}");
        assert_eq!(answer.contains("\"Films\""), status == "200", "{request}\n{answer}");
    }
}

#[tokio::test]
async fn requests_may_follow_each_other_without_waiting() {
    let served = serve().await;
    let head = "Host: localhost\r\n";
    let post = r#"{"source":"magnet:?a"}"#;
    let requests = format!(
        "GET /files/{HASH}/page.html HTTP/1.1\r\n{head}\r\n\
         POST /api/torrents HTTP/1.1\r\n{head}Sec-Fetch-Site: same-origin\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{post}\
         GET /files/{HASH}/none HTTP/1.1\r\n{head}\r\n\
         GET /api/torrents HTTP/1.1\r\n{head}Connection: close\r\n\r\n",
        post.len()
    );
    let answers = served.talk(&requests).await;
    let statuses: Vec<&str> = answers.split("HTTP/1.1 ").skip(1).map(|answer| &answer[..3]).collect();
    assert_eq!(statuses, ["200", "201", "404", "200"], "{answers}");
}

/// A body that nobody reads must not be taken for the next request.
#[tokio::test]
async fn a_body_is_never_a_request() {
    let served = serve().await;
    let smuggled = "DELETE /api/torrents/x HTTP/1.1\r\nHost: localhost\r\nSec-Fetch-Site: same-origin\r\n\r\n";
    let request = format!(
        "GET /files/{HASH}/page.html HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{smuggled}\
         GET /other HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        smuggled.len()
    );
    served.talk(&request).await;
    let both = "POST /api/torrents HTTP/1.1\r\nHost: localhost\r\nSec-Fetch-Site: same-origin\r\n\
                Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    let answer = served.talk(&format!("{both}{smuggled}")).await;
    assert!(
        served.fake.done.lock().iter().all(|done| !done.starts_with("remove")),
        "{answer}"
    );
}

#[tokio::test]
async fn headers_have_a_size() {
    let served = serve().await;
    let long = format!(
        "GET / HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n",
        "a".repeat(64 << 10)
    );
    assert!(served.talk(&long).await.starts_with("HTTP/1.1 431"), "a long header");
    let many = format!("GET / HTTP/1.1\r\nHost: localhost\r\n{}\r\n", "X: a\r\n".repeat(200));
    assert!(served.talk(&many).await.starts_with("HTTP/1.1 431"), "many headers");
    let path = format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "a".repeat(64 << 10));
    assert!(served.talk(&path).await.starts_with("HTTP/1.1 4"), "a long address");
}

const SHORT: Duration = Duration::from_millis(400);

/// Slow-loris, and a connection that is kept for nothing: both end with the limit, however busy they look.
#[tokio::test]
async fn who_sends_a_byte_now_and_then_is_hung_up_on() {
    let served = serve_with(Some(Patience {
        headers: SHORT,
        rest: PATIENCE,
    }))
    .await;
    let (mut slow, mut idle) = (served.connect().await, served.connect().await);
    idle.write_all(b"GET /none HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await
        .unwrap();
    let began = Instant::now();
    let (mut reading, mut writing) = slow.split();
    let sending = async {
        for byte in b"GET / HTTP/1.1\r\nHost: localhost\r\n".iter().cycle() {
            tokio::time::sleep(Duration::from_millis(20)).await;
            // Once it is hung up on, writes fail; the read tells.
            let _ = writing.write_all(&[*byte]).await;
        }
    };
    let end = async {
        let mut answer = Vec::new();
        let _ = reading.read_to_end(&mut answer).await;
    };
    let ended = async {
        tokio::select! {
            () = sending => unreachable!("it never ends"),
            () = end => {}
        }
    };
    timeout(PATIENCE, ended).await.expect("the slow client is hung up on");
    assert!(began.elapsed() >= SHORT, "{:?}", began.elapsed());
    let mut answer = Vec::new();
    let end = timeout(PATIENCE, idle.read_to_end(&mut answer))
        .await
        .expect("the idle one too");
    assert!(end.is_ok() && answer.starts_with(b"HTTP/1.1 404"), "{end:?}");
}

#[tokio::test]
async fn who_takes_nothing_is_hung_up_on_and_the_file_is_closed() {
    let served = serve_with(Some(Patience {
        headers: PATIENCE,
        rest: SHORT,
    }))
    .await;
    let mut stream = served.connect().await;
    // More than the buffers of both ends take.
    let request = format!("GET /files/{HASH}/long.mp4 HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let mut open = served.fake.open.subscribe();
    stream.write_all(request.as_bytes()).await.unwrap();
    timeout(PATIENCE, open.wait_for(|open| *open == 1))
        .await
        .expect("it is opened")
        .unwrap();
    timeout(PATIENCE, open.wait_for(|open| *open == 0))
        .await
        .expect("it is closed")
        .unwrap();
    drop(stream);
}

#[tokio::test]
async fn who_hangs_up_withdraws_what_was_asked() {
    let served = serve().await;
    let mut stream = served.connect().await;
    let request = format!("GET /files/{HASH}/dead.mp4 HTTP/1.1\r\nHost: localhost\r\nRange: bytes=-5\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut open = served.fake.open.subscribe();
    timeout(PATIENCE, open.wait_for(|open| *open == 1))
        .await
        .expect("it waits")
        .unwrap();
    drop(stream);
    timeout(PATIENCE, open.wait_for(|open| *open == 0))
        .await
        .expect("it is closed")
        .unwrap();
}

#[tokio::test]
async fn stopping_ends_every_connection_at_once() {
    let served = serve().await;
    let mut waiting = served.connect().await;
    let request = format!("GET /files/{HASH}/dead.mp4 HTTP/1.1\r\nHost: localhost\r\nRange: bytes=-5\r\n\r\n");
    waiting.write_all(request.as_bytes()).await.unwrap();
    let mut open = served.fake.open.subscribe();
    timeout(PATIENCE, open.wait_for(|open| *open == 1))
        .await
        .expect("it waits")
        .unwrap();
    served.stopping.cancel();
    timeout(PATIENCE, served.serving).await.expect("it ends").unwrap();
    timeout(PATIENCE, open.wait_for(|open| *open == 0))
        .await
        .expect("it is closed")
        .unwrap();
    assert!(TcpStream::connect(served.address).await.is_err());
}

#[tokio::test]
async fn one_client_has_so_many_connections() {
    let served = serve().await;
    let mut held = Vec::new();
    for _ in 0..crowd::EACH {
        let mut stream = served.connect().await;
        // Once it is answered it has surely been let in.
        stream
            .write_all(b"GET /none HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .await
            .unwrap();
        let mut answer = [0; 64];
        let read = timeout(PATIENCE, stream.read(&mut answer))
            .await
            .expect("an answer")
            .unwrap();
        assert!(answer[..read].starts_with(b"HTTP/1.1 404"));
        held.push(stream);
    }
    let refused = served.talk("").await;
    assert!(refused.starts_with("HTTP/1.1 503"), "{refused}");
    assert!(refused.ends_with("close some first"), "{refused}");
    drop(held.pop());
    // The place is free when the server has seen it go.
    let freed = async {
        while !served
            .talk("GET /none HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .await
            .starts_with("HTTP/1.1 404")
        {}
    };
    timeout(PATIENCE, freed).await.expect("a place is free again");
}

#[tokio::test]
async fn events_tell_what_changes() {
    let served = serve().await;
    let mut stream = served.connect().await;
    let film = "a%20b/Film%20%231%20100%25.mkv";
    let request = format!("GET /api/events?film={HASH}/{film} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    let mut buffer = [0; 4096];
    let both = async {
        while !(text.contains("event: torrents\ndata: [{")
            && text.contains("event: film\ndata: {\"state\":\"streaming\""))
        {
            let read = stream.read(&mut buffer).await.unwrap();
            assert!(read > 0, "it ended: {text}");
            text.push_str(&String::from_utf8_lossy(&buffer[..read]));
        }
    };
    timeout(PATIENCE, both).await.expect("both are told");
    assert!(text.contains("content-type: text/event-stream\r\n"), "{text}");
    assert!(text.contains("cache-control: no-store\r\n"), "{text}");
    // Nothing changes, so nothing more is said.
    let more = timeout(Duration::from_millis(2500), stream.read(&mut buffer)).await;
    assert!(
        more.is_err(),
        "{:?}",
        more.map(|read| String::from_utf8_lossy(&buffer[..read.unwrap()]).into_owned())
    );
}

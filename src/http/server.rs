//! Connections: who may have one, and how long it may take.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::backend::Backend;
use super::crowd::{Crowd, Entered};
use super::guard::Guard;
use super::patience::Patient;
use super::routes::{self, App};

/// How long a client may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// A request's headers must have come whole by then, counted from the connection's begin or from the end of the
    /// answer before: so it also ends a connection that is kept for nothing.
    pub(super) headers: Duration,
    /// A client that takes nothing for so long is gone, or is up to no good. A player that is paused over a raw file
    /// takes nothing either, and goes on where it was if its pause was shorter; after a longer one it asks anew, which
    /// players do.
    pub(super) rest: Duration,
}

const PATIENCE: Patience = Patience {
    headers: Duration::from_secs(30),
    rest: Duration::from_secs(600),
};

/// Bytes of a request line and its headers. An address has a path of up to 4 KiB, percent-encoded.
const HEADERS_SIZE: usize = 32 << 10;

/// Lines of headers.
const HEADERS_COUNT: usize = 64;

/// What a client that is one too many hears before it is hung up on.
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nCache-Control: no-store\r\n\
    Content-Type: text/plain; charset=utf-8\r\nContent-Length: 38\r\nConnection: close\r\n\r\n\
    too many connections: close some first";

/// Where and to whom HTTP is served.
#[derive(Debug, Clone)]
pub struct HttpOptions {
    /// Port 0 stands for any that is free.
    pub address: SocketAddr,
    /// Names and addresses besides our own that we may be called by, without a port.
    pub hosts: Vec<String>,
}

/// A bound listener. Dropping it closes it.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    hosts: Vec<String>,
    pub(super) patience: Patience,
}

impl Server {
    /// Binds; nothing is answered before [`Server::serve`].
    ///
    /// # Errors
    /// The address is taken, or not one of this machine's.
    pub async fn bind(options: HttpOptions) -> io::Result<Server> {
        let listener = TcpListener::bind(options.address).await?;
        Ok(Server {
            address: listener.local_addr()?,
            listener,
            hosts: options.hosts,
            patience: PATIENCE,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether only this machine can connect.
    pub fn is_private(&self) -> bool {
        self.address.ip().to_canonical().is_loopback()
    }

    /// Serves until `stopping`, and then ends every connection at once, whatever it was doing. With a token only what
    /// lies below `/t/<token>/` is answered; beyond loopback there must be one.
    pub async fn serve<B: Backend>(self, backend: Arc<B>, token: Option<String>, stopping: CancellationToken) {
        if token.is_none() && !self.is_private() {
            tracing::error!(address = %self.address, "nothing is served beyond this machine without a token");
            return;
        }
        let guard = Arc::new(Guard::new(&self.hosts, token));
        let router = routes::router(Arc::new(App::new(backend)));
        let crowd = Arc::new(Crowd::default());
        // Connections end with this future, because dropping a JoinSet aborts its tasks.
        let mut connections = JoinSet::new();
        while let Some(accepted) = stopping.run_until_cancelled(self.listener.accept()).await {
            while connections.try_join_next().is_some() {}
            let (stream, client) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of descriptors, most likely: without a pause this would spin until some are free.
                    tracing::warn!(%error, "an HTTP connection was not accepted");
                    tokio::time::sleep(Duration::from_millis(200)).await;
                    continue;
                }
            };
            match crowd.enter(client.ip()) {
                Some(entered) => {
                    connections.spawn(connection(
                        stream,
                        router.clone(),
                        guard.clone(),
                        self.patience,
                        entered,
                    ));
                }
                // One short answer fits the socket's buffer, so this waits for nobody.
                None => drop(stream.try_write(FULL)),
            }
        }
    }
}

/// An address by which others may reach who listens on this one: where that is all of them, the one that leads out of
/// this machine, or loopback.
pub fn reachable(listening: IpAddr) -> IpAddr {
    let (any, documentation, loopback): (IpAddr, IpAddr, IpAddr) = match listening {
        IpAddr::V4(_) => (
            Ipv4Addr::UNSPECIFIED.into(),
            Ipv4Addr::new(192, 0, 2, 1).into(),
            Ipv4Addr::LOCALHOST.into(),
        ),
        IpAddr::V6(_) => (
            Ipv6Addr::UNSPECIFIED.into(),
            Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(),
            Ipv6Addr::LOCALHOST.into(),
        ),
    };
    if !listening.is_unspecified() {
        return listening;
    }
    // Connecting a UDP socket sends nothing: it asks the kernel which way it would go.
    let leading_out = UdpSocket::bind((any, 0)).and_then(|socket| {
        socket.connect((documentation, 9))?;
        socket.local_addr()
    });
    leading_out.map_or(loopback, |address| address.ip())
}

async fn connection(stream: TcpStream, router: Router, guard: Arc<Guard>, patience: Patience, _entered: Entered) {
    let Ok(local) = stream.local_addr() else { return };
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "an HTTP connection is slower than it could be");
    }
    let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let (router, guard) = (router.clone(), guard.clone());
        async move {
            Ok::<_, std::convert::Infallible>(routes::answer(router, &guard, local.ip(), request.map(Body::new)).await)
        }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(patience.headers)
        .max_header_size(HEADERS_SIZE)
        .max_headers(HEADERS_COUNT)
        .keep_alive(true)
        // Who has closed its half has gone: what was asked for is dropped, and its demand on the swarm with it.
        .half_close(false)
        .serve_connection(TokioIo::new(Patient::new(stream, patience.rest)), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "an HTTP connection ended");
    }
}

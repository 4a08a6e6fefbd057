//! Download from, upload to and metadata from other clients, over TCP on loopback.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::clients::{Client, Role};
use super::support::{LIMIT, Owner, Store, Torrent};
use crate::swarm::peer::{HandshakeError, Holdings, accept, connect, tcp};
use crate::swarm::wire::GREETING_LENGTH;

/// The info dictionary has two parts: 20 bytes for each of 1,025 pieces.
const LENGTH: usize = 1_024 * PIECE_LENGTH as usize + 4_321;
const PIECE_LENGTH: u32 = 16 * 1024;

fn torrent() -> Arc<Torrent> {
    Torrent::new(LENGTH, PIECE_LENGTH)
}

/// Connects; more than once, for a client may hang up on a newcomer while it is still busy with itself.
async fn meet(address: SocketAddr, store: &Arc<Store>, holdings: Holdings) -> Owner {
    loop {
        let (reader, writer) = tcp(TcpStream::connect(address).await.unwrap()).unwrap();
        match connect(reader, writer, store.torrent.handshake(b'm')).await {
            Ok(connection) => return Owner::start(connection, store, holdings),
            Err(HandshakeError::Broken(_)) => tokio::time::sleep(Duration::from_millis(50)).await,
            Err(error) => panic!("{error}"),
        }
    }
}

async fn met(listener: &TcpListener, store: &Arc<Store>, holdings: Holdings) -> Owner {
    let (mut reader, writer) = tcp(listener.accept().await.unwrap().0).unwrap();
    let mut greeting = [0; GREETING_LENGTH];
    reader.read_exact(&mut greeting).await.unwrap();
    let connection = accept(reader, writer, &greeting, store.torrent.handshake(b'm'))
        .await
        .unwrap();
    Owner::start(connection, store, holdings)
}

/// Metadata and every byte from a client that seeds.
async fn fetch_from(client: &Client, torrent: &Arc<Torrent>) {
    let store = Store::new(torrent);
    let mut owner = meet(client.address, &store, Holdings::None).await;
    assert_eq!(owner.metadata().await, torrent.info);
    assert_eq!(owner.download().await, torrent.spans().count());
    assert_eq!(owner.link.as_ref().unwrap().counters().unasked(), 0);
}

/// Every byte to a client that has none.
async fn give_to(client: &Client, torrent: &Arc<Torrent>) {
    let store = Store::new(torrent);
    let mut owner = meet(client.address, &store, Holdings::All).await;
    owner.serve().await;
    has_everything(client, torrent).await;
}

async fn has_everything(client: &Client, torrent: &Torrent) {
    while client.file().ok().as_deref() != Some(&torrent.data[..]) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_libtorrent() {
    let torrent = torrent();
    let exchange = async {
        fetch_from(&Client::libtorrent(&torrent, Role::Seed, &[]).await, &torrent).await;
        give_to(&Client::libtorrent(&torrent, Role::Leech, &[]).await, &torrent).await;
        let (listener, address) = listener().await;
        let mut client = Client::libtorrent(&torrent, Role::Leech, &[address]).await;
        met(&listener, &Store::new(&torrent), Holdings::All).await.serve().await;
        client.done().await;
        has_everything(&client, &torrent).await;
    };
    timeout(LIMIT, exchange).await.expect("in time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_transmission() {
    let torrent = torrent();
    let exchange = async {
        fetch_from(&Client::transmission(&torrent, Role::Seed).await, &torrent).await;
        give_to(&Client::transmission(&torrent, Role::Leech).await, &torrent).await;
    };
    timeout(LIMIT, exchange).await.expect("in time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_aria2() {
    let torrent = torrent();
    let exchange = async {
        fetch_from(&Client::aria2(&torrent, Role::Seed).await, &torrent).await;
        give_to(&Client::aria2(&torrent, Role::Leech).await, &torrent).await;
    };
    timeout(LIMIT, exchange).await.expect("in time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_librqbit() {
    let torrent = torrent();
    let exchange = async {
        fetch_from(&Client::librqbit(&torrent, Role::Seed, &[]).await, &torrent).await;
        give_to(&Client::librqbit(&torrent, Role::Leech, &[]).await, &torrent).await;
        let (listener, address) = listener().await;
        let client = Client::librqbit(&torrent, Role::Leech, &[address]).await;
        met(&listener, &Store::new(&torrent), Holdings::All).await.serve().await;
        has_everything(&client, &torrent).await;
    };
    timeout(LIMIT, exchange).await.expect("in time");
}

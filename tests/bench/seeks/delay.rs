//! A line that is long: what comes in goes out some time later, in both directions.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// Chunks on their way in one direction, of at most 16 KiB.
const CHUNKS: usize = 4096;

/// Listens at the address (with a port of its own), and passes each connection on to `to`. It ends with the process.
pub(super) fn line(at: SocketAddr, to: SocketAddr, each_way: Duration) -> SocketAddr {
    let listener = TcpListener::bind(at).expect("an address for the line");
    let address = listener.local_addr().expect("its address");
    thread::spawn(move || {
        for near in listener.incoming().map_while(Result::ok) {
            let Ok(far) = TcpStream::connect(to) else { continue };
            for stream in [&near, &far] {
                let _ = stream.set_nodelay(true);
            }
            if let (Ok(near_too), Ok(far_too)) = (near.try_clone(), far.try_clone()) {
                pass(near, far, each_way);
                pass(far_too, near_too, each_way);
            }
        }
    });
    address
}

fn pass(mut from: TcpStream, mut to: TcpStream, delay: Duration) {
    let (sender, chunks) = mpsc::sync_channel::<(Instant, Vec<u8>)>(CHUNKS);
    thread::spawn(move || {
        let mut buffer = [0; 16 * 1024];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            if sender
                .send((Instant::now() + delay, buffer[..length].to_vec()))
                .is_err()
            {
                break;
            }
        }
        let _ = from.shutdown(Shutdown::Read);
    });
    thread::spawn(move || {
        for (due, chunk) in chunks {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if to.write_all(&chunk).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
    });
}

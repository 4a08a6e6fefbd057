//! The router over a made-up library, and the server over real sockets.

mod fake;
mod router;
mod sockets;

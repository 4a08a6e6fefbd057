//! A link from outside: against one of ours, against bare bytes, and against other clients.

mod clients;
mod floods;
mod interop;
mod pair;
mod support;
mod throughput;

//! The whole program from outside: the binary, real mounts, real seeders on loopback.

mod bad_input;
mod bytes;
mod churn;
mod containment;
mod control;
mod demo;
mod hang;
mod hls;
mod house;
mod http;
mod interop;
mod library;
mod ordinary_user;
mod outage;
mod page;
mod players;
mod seeders;
mod support;
mod systemd;

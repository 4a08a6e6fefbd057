//! The whole program from outside: the binary, real mounts, real seeders on loopback.

mod bad_input;
mod bytes;
mod control;
mod hang;
mod library;
mod ordinary_user;
mod outage;
mod players;
mod seeders;
mod systemd;
mod support;

//! The whole program from outside: the binary, real mounts, real seeders on loopback.

mod seeders;
mod support;

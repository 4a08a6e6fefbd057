//! The program `magnetfs`.

fn main() {}

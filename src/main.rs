//! The program `magnetfs`.

use std::process::ExitCode;

fn main() -> ExitCode {
    magnetfs::cli::run(std::env::args_os())
}

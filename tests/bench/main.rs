//! `make bench`: magnetfs side by side with what could be used in its place, in one run on one machine.
//!
//! Ratios are what counts: the figures themselves are those of the machine and of what else it does.

mod files;
mod hls;
mod live;
mod seeks;
mod serving;
mod start;
#[path = "../whole/support/mod.rs"]
#[expect(dead_code, reason = "the tests share more than the bench needs")]
mod support;
mod viewers;

use std::time::Duration;

fn main() {
    // `cargo bench` passes `--bench`; what else there is chooses among the parts.
    let wanted: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with("--"))
        .collect();
    let parts: [(&str, fn()); 7] = [
        ("files", files::compare),
        ("live", live::compare),
        ("start", start::compare),
        ("seeks", seeks::compare),
        ("hls", hls::compare),
        ("serving", serving::compare),
        ("viewers", viewers::compare),
    ];
    for (name, part) in parts {
        if wanted.is_empty() || wanted.iter().any(|other| other == name) {
            support::limited(Duration::from_secs(900), part);
        }
    }
}

/// Prints a table: a heading, then rows of a name and as many values as there are columns.
fn table(title: &str, columns: &[&str], rows: &[(String, Vec<String>)]) {
    println!("\n{title}");
    print!("  {:<54}", "");
    columns.iter().for_each(|column| print!("{column:>18}"));
    println!();
    for (name, values) in rows {
        print!("  {name:<54}");
        values.iter().for_each(|value| print!("{value:>18}"));
        println!();
    }
}

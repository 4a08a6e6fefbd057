//! Log lines on stderr, for people or as JSON.

use std::io::{self, Write};

use indicatif::MultiProgress;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::config::LogFormat;

/// Why the log cannot be written as asked.
#[derive(Debug, thiserror::Error)]
#[error(
    "the log level `{level}` is not understood ({reason}): write error, warn, info, debug or trace, or TARGET=LEVEL,…"
)]
pub struct LogLevelError {
    level: String,
    reason: String,
}

/// Begins to log. `bars` are taken off the terminal while a line is written.
///
/// # Errors
/// [`LogLevelError`] for a level that is none.
pub fn start(format: LogFormat, level: Option<&str>, bars: MultiProgress) -> Result<(), LogLevelError> {
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter(level)?)
        .with_writer(Terminal { bars });
    // A second start in one process (tests) goes on with the first.
    let _ = match format {
        LogFormat::Text => builder.with_ansi(false).with_target(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    Ok(())
}

/// Ours at `info`, what we use at `warn`. A level alone is for ours; directives are added to that.
fn filter(level: Option<&str>) -> Result<EnvFilter, LogLevelError> {
    let level = level.unwrap_or("info").trim();
    let directives = if level.contains(['=', ',']) {
        format!("warn,magnetfs=info,magnetfs_mount=info,{level}")
    } else {
        let known = ["off", "error", "warn", "info", "debug", "trace"].contains(&level.to_ascii_lowercase().as_str());
        if !known {
            return Err(LogLevelError {
                level: level.to_owned(),
                reason: "no such level".to_owned(),
            });
        }
        let others = if level.eq_ignore_ascii_case("off") {
            "off"
        } else {
            "warn"
        };
        format!("{others},magnetfs={level},magnetfs_mount={level}")
    };
    EnvFilter::builder().parse(&directives).map_err(|error| LogLevelError {
        level: level.to_owned(),
        reason: error.to_string(),
    })
}

#[derive(Debug, Clone)]
struct Terminal {
    bars: MultiProgress,
}

impl Write for Terminal {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.bars.suspend(|| io::stderr().write_all(line))?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

impl<'a> MakeWriter<'a> for Terminal {
    type Writer = Terminal;

    fn make_writer(&'a self) -> Terminal {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(level: Option<&str>, expected: &[&str]) {
        let filter = filter(level).unwrap().to_string();
        let mut directives: Vec<&str> = filter.split(',').collect();
        directives.sort_unstable();
        assert_eq!(directives, expected);
    }

    #[test]
    fn a_level_is_for_us_and_others_are_quiet() {
        check(None, &["magnetfs=info", "magnetfs_mount=info", "warn"]);
        check(Some("debug"), &["magnetfs=debug", "magnetfs_mount=debug", "warn"]);
        check(Some("off"), &["magnetfs=off", "magnetfs_mount=off", "off"]);
        check(
            Some("librqbit=debug"),
            &["librqbit=debug", "magnetfs=info", "magnetfs_mount=info", "warn"],
        );
        check(
            Some("info,magnetfs=trace"),
            &["info", "magnetfs=trace", "magnetfs_mount=info"],
        );
    }

    #[test]
    fn what_is_no_level_is_refused() {
        for level in ["loud", "", "magnetfs=loud"] {
            let message = filter(Some(level)).unwrap_err().to_string();
            assert!(
                message.starts_with(&format!("the log level `{level}` is not understood")),
                "{message}"
            );
        }
    }
}

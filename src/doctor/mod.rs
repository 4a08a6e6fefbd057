//! What on this machine keeps magnetfs from working, and the command that mends it. It changes nothing.

mod child;
mod fuse;
mod mounts;
mod storage;
mod tools;

use serde::Serialize;

use crate::config::{Config, SettingsError, Surroundings};
use crate::text;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// Something will not work, but not the mount itself.
    Warn,
    /// `magnetfs mount` will not work.
    Fail,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at, in a word or two.
    pub check: &'static str,
    /// How it is.
    pub level: Level,
    /// What was found.
    pub what: String,
    /// The command that mends it, or what else does.
    pub remedy: Option<String>,
}

impl Finding {
    fn ok(check: &'static str, what: impl Into<String>) -> Finding {
        Finding {
            check,
            level: Level::Ok,
            what: what.into(),
            remedy: None,
        }
    }

    fn warn(check: &'static str, what: impl Into<String>, remedy: impl Into<String>) -> Finding {
        Finding {
            check,
            level: Level::Warn,
            what: what.into(),
            remedy: Some(remedy.into()),
        }
    }

    fn fail(check: &'static str, what: impl Into<String>, remedy: impl Into<String>) -> Finding {
        Finding {
            check,
            level: Level::Fail,
            what: what.into(),
            remedy: Some(remedy.into()),
        }
    }
}

/// Looks at everything. Other programs are asked with a time limit, so it ends within some seconds.
pub fn examine(config: Result<Config, SettingsError>, surroundings: &Surroundings) -> Vec<Finding> {
    let mut findings = Vec::new();
    let config = match config {
        Ok(config) => Some(config),
        Err(error) => {
            findings.push(Finding::fail(
                "configuration",
                error.to_string(),
                "correct it, or take it away",
            ));
            None
        }
    };
    findings.extend(fuse::examine(config.as_ref(), surroundings));
    findings.extend(mounts::examine());
    findings.extend(storage::examine(config.as_ref()));
    findings.extend(tools::examine(surroundings));
    findings
}

/// Whether nothing failed.
pub fn healthy(findings: &[Finding]) -> bool {
    findings.iter().all(|finding| finding.level != Level::Fail)
}

/// For people: one finding a line, with its remedy below.
pub fn words(findings: &[Finding]) -> String {
    let widest = findings.iter().map(|finding| finding.check.len()).max().unwrap_or(0);
    let mut out = String::new();
    for Finding {
        check,
        level,
        what,
        remedy,
    } in findings
    {
        let mark = match level {
            Level::Ok => "ok  ",
            Level::Warn => "warn",
            Level::Fail => "FAIL",
        };
        out.push_str(&format!("{mark}  {check:<widest$}  {}\n", text::printable(what)));
        if let Some(remedy) = remedy {
            out.push_str(&format!("      {:widest$}  -> {}\n", "", text::printable(remedy)));
        }
    }
    let count = |level| findings.iter().filter(|finding| finding.level == level).count();
    let (fails, warns) = (count(Level::Fail), count(Level::Warn));
    out.push_str(&match (fails, warns) {
        (0, 0) => "\nEverything is as it should be.\n".to_owned(),
        (0, _) => format!(
            "\nThe mount will work; there is more to mend: {}.\n",
            text::count(warns, "warning")
        ),
        _ => format!(
            "\n{} to mend before the mount will work.\n",
            text::count(fails, "fault")
        ),
    });
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_are_told_with_their_remedy() {
        let findings = [
            Finding::ok("one", "fine"),
            Finding::warn("second", "so so", "do this"),
            Finding::fail("third", "bad\x1b", "do that"),
        ];
        let text = words(&findings);
        assert!(
            text.starts_with("ok    one     fine\nwarn  second  so so\n              -> do this\n"),
            "{text}"
        );
        assert!(
            text.contains("FAIL  third   bad\u{fffd}\n")
                && text.ends_with("1 fault to mend before the mount will work.\n")
        );
        assert!(!healthy(&findings) && healthy(&findings[..2]));
        assert!(words(&findings[..2]).contains("1 warning"));
        assert!(words(&findings[..1]).ends_with("as it should be.\n"));
    }

    #[test]
    fn a_wrong_configuration_is_a_finding_and_the_rest_is_still_looked_at() {
        let findings = examine(Err(SettingsError::NoDataDir), &Surroundings::default());
        assert_eq!((findings[0].check, findings[0].level), ("configuration", Level::Fail));
        assert!(findings.iter().any(|finding| finding.check == "/dev/fuse"));
    }
}

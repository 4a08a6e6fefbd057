//! What drives a browser, in the tests of what people see.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::{Work, run};

/// A driver whose browser writes in the test's own directories. The browser ends with it.
pub(crate) fn in_its_own<'a>(driver: &'a mut Command, work: &Work) -> &'a mut Command {
    driver
        .env("TMPDIR", work.directory("browser"))
        .env("HOME", work.directory("viewer"))
}

/// Where the drivers lie, beside what they import: in the build directory, so that `cargo clean` takes it too.
pub(crate) fn driver() -> PathBuf {
    static INSTALLING: Mutex<()> = Mutex::new(());
    let _alone = INSTALLING.lock().unwrap_or_else(PoisonError::into_inner);
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/whole");
    let to = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("test-browser");
    fs::create_dir_all(&to).expect("a directory for the drivers");
    let lock = |folder: &Path| fs::read(folder.join("package-lock.json")).ok();
    let installed = to.join("node_modules/.package-lock.json").exists() && lock(&to) == lock(&from);
    for name in ["package.json", "package-lock.json", "page.mjs", "shaka.mjs"] {
        fs::copy(from.join(name), to.join(name)).expect("a driver is copied");
    }
    if !installed {
        let mut npm = Command::new("npm");
        npm.args(["ci", "--ignore-scripts", "--prefer-offline", "--no-audit", "--no-fund"]);
        run(npm.current_dir(&to), Duration::from_secs(120)).ok();
    }
    to
}

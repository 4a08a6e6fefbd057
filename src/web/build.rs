//! Puts hls.js where the program can include it. It comes from the npm registry, in the version and with the hash of
//! `package-lock.json`: at build time once, and at run time never. A copy that `npm ci` put beside this file is taken
//! as it is, so that a build without a network has a way.

use std::path::{Path, PathBuf};
use std::process::{Command, exit};
use std::{env, fs, io};

/// What is wanted of the package.
const SCRIPT: &str = "node_modules/hls.js/dist/hls.min.mjs";

fn main() {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo says where the package lies"));
    let web = root.join("src/web");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo says where to build"));
    // What does not exist counts as changed each time.
    let watched = ["build.rs", "package-lock.json", "node_modules/.package-lock.json"].map(|name| web.join(name));
    for path in watched.iter().filter(|path| path.exists()) {
        println!("cargo::rerun-if-changed={}", path.display());
    }
    if let Err(error) = script(&web, &out) {
        println!("cargo::error=hls.js, which plays films on the page, is missing: {error}");
        println!("cargo::error=npm fetches it once. Debian has it: apt-get install npm (make does that by itself).");
        println!("cargo::error=Without a network, run `npm ci` in src/web where there is one, and copy node_modules.");
        exit(1);
    }
}

/// Leaves `hls.min.mjs` in the output directory.
fn script(web: &Path, out: &Path) -> io::Result<()> {
    let here = if wanted_version(web)? {
        web.to_owned()
    } else {
        install(web, out)?
    };
    fs::copy(here.join(SCRIPT), out.join("hls.min.mjs")).map(drop)
}

/// Whether what lies beside `package.json` is what it asks for. A whole `npm ci` leaves the lock file in it.
fn wanted_version(web: &Path) -> io::Result<bool> {
    let integrity = |path: &Path| -> io::Result<String> {
        let text = fs::read_to_string(path)?;
        let after = text
            .split_once("\"node_modules/hls.js\"")
            .map_or("", |(_, after)| after);
        Ok(after
            .split_once("\"integrity\":")
            .map_or("", |(_, after)| after.split('"').nth(1).unwrap_or(""))
            .to_owned())
    };
    match integrity(&web.join("node_modules/.package-lock.json")) {
        Ok(installed) => Ok(installed == integrity(&web.join("package-lock.json"))? && web.join(SCRIPT).exists()),
        Err(_) => Ok(false),
    }
}

/// Installs what the lock file names below the output directory, and says where.
fn install(web: &Path, out: &Path) -> io::Result<PathBuf> {
    let folder = out.join("npm");
    fs::create_dir_all(&folder)?;
    for name in ["package.json", "package-lock.json", ".npmrc"] {
        fs::copy(web.join(name), folder.join(name))?;
    }
    let output = Command::new("npm")
        .args(["ci", "--ignore-scripts", "--prefer-offline", "--no-audit", "--no-fund"])
        .current_dir(&folder)
        .output()
        .map_err(|error| io::Error::new(error.kind(), format!("npm does not start: {error}")))?;
    if output.status.success() {
        return Ok(folder);
    }
    let words = String::from_utf8_lossy(&output.stderr);
    let words: Vec<&str> = words.lines().filter(|line| !line.trim().is_empty()).take(4).collect();
    Err(io::Error::other(format!(
        "npm ci: {}: {}",
        output.status,
        words.join("; ")
    )))
}

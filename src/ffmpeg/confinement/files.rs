//! Which files a confined program may open: Landlock.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, LandlockStatus, PathBeneath, PathFd, RestrictionStatus, Ruleset,
    RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};

use super::Guard;

/// What is asked for: files, TCP, abstract sockets and signals (Linux 6.12). An older kernel gives what it has.
const WANTED: ABI = ABI::V6;

/// Where libraries are.
const LIBRARIES: [&str; 6] = [
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/lib",
    "/nix/store",
];

/// Where the loader is that a program names and that is run with it.
const LOADERS: [&str; 2] = ["/lib", "/lib64"];

/// Where the loader looks up where libraries are.
const CACHE: &str = "/etc/ld.so.cache";

/// Confines the thread that calls this, and what it starts and becomes, to this program, its libraries and the input.
///
/// # Errors
/// When the kernel offers Landlock and yet it failed. That it offers less, or none, is no error.
pub(super) fn confine(input: Option<&Path>, program: &OsStr) -> Result<RestrictionStatus, RulesetError> {
    let program = Path::new(program);
    let mut rules = Ruleset::default()
        .handle_access(AccessFs::from_all(WANTED))?
        .handle_access(AccessNet::from_all(WANTED))?
        .scope(Scope::from_all(WANTED))?
        .create()?;
    rules = allow(rules, program, AccessFs::Execute | AccessFs::ReadFile)?;
    for loader in loaders() {
        rules = allow(rules, &loader, AccessFs::Execute | AccessFs::ReadFile)?;
    }
    for folder in LIBRARIES {
        rules = allow(rules, Path::new(folder), AccessFs::ReadFile.into())?;
    }
    // Of an FFmpeg that is kept in a folder of its own.
    if let Some(beside) = program.parent().and_then(Path::parent) {
        rules = allow(rules, &beside.join("lib"), AccessFs::ReadFile.into())?;
    }
    // The loader of a Nix program is in the store too.
    rules = allow(rules, Path::new("/nix/store"), AccessFs::Execute | AccessFs::ReadFile)?;
    rules = allow(rules, Path::new(CACHE), AccessFs::ReadFile.into())?;
    if let Some(input) = input {
        rules = allow(rules, input, AccessFs::ReadFile.into())?;
    }
    rules.restrict_self()
}

/// What is not there needs no rule. Nothing is read: it is only looked up.
fn allow(rules: RulesetCreated, path: &Path, access: BitFlags<AccessFs>) -> Result<RulesetCreated, RulesetError> {
    match PathFd::new(path) {
        Ok(file) => rules.add_rule(PathBeneath::new(file, access)),
        Err(_) => Ok(rules),
    }
}

fn loaders() -> Vec<PathBuf> {
    let folders = LOADERS.iter().flat_map(std::fs::read_dir).flatten().flatten();
    folders
        .filter(|entry| entry.file_name().as_encoded_bytes().starts_with(b"ld-"))
        .map(|entry| entry.path())
        .collect()
}

/// Confines the thread that calls this, to find out.
pub(super) fn offered() -> Guard {
    match confine(None, OsStr::new("/bin/true")) {
        Ok(status) => words(&status),
        Err(error) => Guard::Missing(format!("Landlock failed: {error}")),
    }
}

fn words(status: &RestrictionStatus) -> Guard {
    let version = match status.landlock {
        LandlockStatus::NotImplemented => {
            return Guard::Missing("this kernel has no Landlock (it came with Linux 5.13)".to_owned());
        }
        LandlockStatus::NotEnabled => {
            return Guard::Missing("Landlock is not enabled (lsm=landlock,… on the kernel's command line)".to_owned());
        }
        LandlockStatus::Available {
            effective_abi,
            kernel_abi,
        } => kernel_abi.unwrap_or(effective_abi as i32),
    };
    match status.ruleset {
        RulesetStatus::FullyEnforced => Guard::Whole(format!("Landlock {version}")),
        RulesetStatus::PartiallyEnforced => Guard::Part(format!(
            "Landlock {version}: files; newer kernels (6.12) also guard signals and TCP by it"
        )),
        RulesetStatus::NotEnforced => Guard::Missing(format!("Landlock {version} enforces nothing")),
    }
}

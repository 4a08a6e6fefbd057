//! The rules of the house that a compiler does not keep.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::support::torrents::files_below;

/// Every Rust file below a directory, without its comments.
fn sources(directory: &str) -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(directory);
    let files = files_below(&root)
        .into_iter()
        .filter(|path| path.extension().is_some_and(|it| it == "rs"));
    let code = |path: &PathBuf| {
        let text = fs::read_to_string(root.join(path)).expect("a source file");
        text.lines()
            .filter(|line| !line.trim_start().starts_with("//"))
            .collect::<Vec<_>>()
            .join("\n")
    };
    files.map(|path| (path.clone(), code(&path))).collect()
}

/// The room of a file: `torrents` of `torrents/shelf/mod.rs` and of `torrents.rs`.
fn room(path: &Path) -> String {
    let first = path
        .components()
        .next()
        .expect("a path of a source file")
        .as_os_str()
        .to_string_lossy()
        .into_owned();
    first.trim_end_matches(".rs").to_owned()
}

/// The words that follow `prefix` in a text: `config` of `crate::config::Config`, and both of `crate::{cli, config}`.
fn named_after(code: &str, prefix: &str) -> BTreeSet<String> {
    let word = |text: &str| {
        text.chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect::<String>()
    };
    let mut found = BTreeSet::new();
    for (place, _) in code.match_indices(prefix) {
        let before = code[..place].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = &code[place + prefix.len()..];
        match rest.strip_prefix('{') {
            Some(list) => {
                let mut depth = 1;
                let mut item = String::new();
                for character in list.chars() {
                    match character {
                        '{' => depth += 1,
                        '}' => depth -= 1,
                        _ => {}
                    }
                    if depth == 0 || (depth == 1 && character == ',') {
                        found.insert(word(item.trim_start()));
                        item.clear();
                    } else {
                        item.push(character);
                    }
                    if depth == 0 {
                        break;
                    }
                }
            }
            None => {
                found.insert(word(rest));
            }
        }
    }
    found.remove("");
    found
}

/// Who names whom among the rooms of the program.
fn arrows() -> BTreeMap<String, BTreeSet<String>> {
    let files = sources("src");
    let rooms: BTreeSet<String> = files.iter().map(|(path, _)| room(path)).collect();
    let mut arrows: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (path, code) in &files {
        let from = room(path);
        // `main` names the rooms by the name of the library, the rooms each other by `crate`.
        let prefix = if from == "main" { "magnetfs::" } else { "crate::" };
        let to = named_after(code, prefix)
            .into_iter()
            .filter(|name| rooms.contains(name) && *name != from);
        arrows.entry(from.clone()).or_default().extend(to);
    }
    arrows
}

/// "Imports form a tree." No arrow goes up, none both ways.
#[test]
fn imports_form_a_tree() {
    let arrows = arrows();
    assert!(arrows.values().any(|to| !to.is_empty()), "no arrow is seen: {arrows:?}");
    // Rooms that name only rooms already taken away are taken away; a circle stays.
    let mut left = arrows.clone();
    while let Some(leaf) = left
        .iter()
        .find(|(_, to)| !to.iter().any(|name| left.contains_key(name)))
    {
        let leaf = leaf.0.clone();
        left.remove(&leaf);
    }
    assert!(left.is_empty(), "these rooms name each other in a circle: {left:#?}");
}

/// The rooms at the bottom know nothing of those above.
#[test]
fn the_library_knows_nothing_of_the_command_line() {
    let arrows = arrows();
    for above in ["cli", "config", "control", "daemon", "demo", "doctor"] {
        assert!(!arrows["torrents"].contains(above), "torrents names {above}");
    }
    for above in ["cli", "daemon"] {
        assert!(!arrows["control"].contains(above), "control names {above}");
    }
}

/// "FFmpeg knows nothing of the other rooms, and what shuts it in stands in `ffmpeg/confinement`."
#[test]
fn ffmpeg_knows_nothing_of_the_other_rooms() {
    let arrows = arrows();
    assert!(arrows["ffmpeg"].is_empty(), "{:?}", arrows["ffmpeg"]);
}

/// Files that name this crate, of all below this directory.
fn naming(directory: &str, name: &str) -> Vec<PathBuf> {
    let name = format!("{name}::");
    let found = sources(directory).into_iter().filter(|(_, code)| {
        code.match_indices(&name)
            .any(|(place, _)| !code[..place].ends_with(|before: char| before.is_alphanumeric() || before == '_'))
    });
    found.map(|(path, _)| path).collect()
}

/// "Kernel types stop in `fuse.rs`, clap in `cli`, axum in `http`; librqbit's session is a peer in the tests and nothing
/// else."
#[test]
fn outside_libraries_stop_at_their_door() {
    let kept_in = |directory: &str, name: &str, door: &str| {
        let files = naming(directory, name);
        assert!(!files.is_empty(), "nobody names {name}: this test looks at nothing");
        for file in files {
            assert!(
                file.to_string_lossy().starts_with(door),
                "{directory}/{} names {name}",
                file.display()
            );
        }
    };
    kept_in("mount/src", "fuser", "fuse.rs");
    kept_in("src", "clap", "cli");
    for of_http in ["axum", "hyper", "hyper_util", "tower"] {
        kept_in("src", of_http, "http");
    }
    for name in ["landlock", "libc", "seccompiler"] {
        kept_in("src", name, "ffmpeg/confinement/");
    }
    kept_in("src", "command_fds", "ffmpeg/launcher.rs");
    let manifest = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).expect("it");
    let (before, after) = manifest.split_once("[dev-dependencies]").expect("there are some");
    let session = "librqbit.workspace = true";
    assert!(!before.contains(session), "the program depends on librqbit's session");
    assert!(
        after.contains(session),
        "librqbit's session is no longer met in the tests"
    );
    assert!(naming("src", "fuser").is_empty());
}

/// "The mount crate knows nothing of torrents, HTTP or the command line."
#[test]
fn the_mount_knows_nothing_of_torrents() {
    let manifest = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("mount/Cargo.toml")).expect("it");
    for library in ["librqbit", "reqwest", "axum", "clap", "magnetfs ="] {
        assert!(!manifest.contains(library), "mount depends on {library}");
    }
}

/// "Each line is kept by a test that quotes it."
#[test]
fn each_promise_of_the_readme_is_quoted_by_a_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = fs::read_to_string(root.join("README.md")).expect("the README");
    let mut comments = String::new();
    for directory in ["tests", "src", "mount"] {
        let files = files_below(&root.join(directory));
        for file in files
            .iter()
            .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        {
            let text = fs::read_to_string(root.join(directory).join(file)).expect("a source file");
            let lines = text.lines().filter_map(|line| line.trim_start().strip_prefix("//"));
            lines.for_each(|line| comments.extend([line.trim_start_matches(['/', '!']).trim(), " "]));
        }
    }
    for heading in ["## What it promises", "Invariants, each with its test:"] {
        let section = readme
            .split(heading)
            .nth(1)
            .unwrap_or_else(|| panic!("the README has no {heading:?}"));
        let promises = bullets(section);
        assert!(promises.len() > 3, "{heading}: {promises:?}");
        for promise in promises {
            assert!(
                comments.contains(&format!("\"{promise}\"")),
                "no test quotes this promise: {promise}"
            );
        }
    }
}

/// The items of the first list of a text, each on one line.
fn bullets(text: &str) -> Vec<String> {
    let lines = text
        .lines()
        .skip_while(|line| !line.starts_with("- "))
        .take_while(|line| !line.is_empty());
    let mut items: Vec<String> = Vec::new();
    for line in lines {
        match line.strip_prefix("- ") {
            Some(first) => items.push(first.trim().to_owned()),
            None => items
                .iter_mut()
                .last()
                .expect("a list begins with an item")
                .extend([" ", line.trim()]),
        }
    }
    items
}

#[test]
fn the_scan_of_names_sees_them() {
    let names = |code: &str| named_after(code, "crate::").into_iter().collect::<Vec<_>>();
    assert_eq!(
        names("use crate::cli::run; let x = crate::text::pad();"),
        ["cli", "text"]
    );
    assert_eq!(
        names("use crate::{cli::{a, b}, text, torrents::{self, Floor}};"),
        ["cli", "text", "torrents"]
    );
    assert_eq!(names("use other_crate::cli;"), Vec::<String>::new());
}

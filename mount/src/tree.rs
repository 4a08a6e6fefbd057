//! Paths and inode numbers: the list of groups turned into something that answers lookups. Pure.
//!
//! Groups are told apart by pointer, so a change costs what changed and not what is there. A group stands alone: its
//! entries hang from the root or from folders of the same group.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use crate::catalog::{Entry, Group, Kind};

/// The inode number of the mount point itself.
pub(crate) const ROOT: u64 = 1;

/// Where the listing of a folder stands behind `.`, and behind `..`; children count on from there.
const BEHIND_SELF: u64 = 1;
const BEHIND_PARENT: u64 = 2;

/// A name in a directory may have so many bytes (NAME_MAX of Linux).
const NAME_LIMIT: usize = 255;

/// Everything shown now, by inode number and by name.
#[derive(Debug)]
pub(crate) struct Tree {
    /// By the address of the group, which stays taken for as long as the group is held here.
    groups: HashMap<usize, Arc<Group>>,
    nodes: HashMap<u64, Node>,
    folders: HashMap<u64, Folder>,
    modified: SystemTime,
}

#[derive(Debug)]
struct Node {
    group: Arc<Group>,
    position: usize,
    parent: u64,
}

/// The children of a folder. Their order is that of their coming and never changes, so that a listing that is read in
/// parts shows every child that stays exactly once.
#[derive(Debug, Default)]
struct Folder {
    by_name: HashMap<Box<OsStr>, Child>,
    by_order: BTreeMap<u64, u64>,
    last: u64,
}

#[derive(Debug, Clone, Copy)]
struct Child {
    inode: u64,
    order: u64,
}

/// What [`Tree::update`] changed.
#[derive(Debug, Default)]
pub(crate) struct Change {
    /// Inode numbers that are shown no more.
    pub(crate) removed: Vec<u64>,
    /// Names, with the folder they were in, that mean nothing or something else now. Only the topmost of what went.
    pub(crate) names: Vec<(u64, OsString)>,
    /// Entries that cannot be shown.
    pub(crate) refused: Vec<(PathBuf, Refusal)>,
}

/// Why an entry cannot be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("its path is not made of plain names")]
    Path,
    #[error("its inode number is 0, 1 or taken")]
    Inode,
    #[error("its folder is not shown before it in the same group")]
    Parent,
    #[error("its name is taken")]
    Name,
}

/// One line of a listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Listed<'tree> {
    pub(crate) inode: u64,
    /// Where the listing goes on behind this line.
    pub(crate) behind: u64,
    pub(crate) kind: Kind,
    pub(crate) name: &'tree OsStr,
}

impl Tree {
    pub(crate) fn new() -> Tree {
        Tree {
            groups: HashMap::new(),
            nodes: HashMap::new(),
            folders: HashMap::from([(ROOT, Folder::default())]),
            modified: SystemTime::UNIX_EPOCH,
        }
    }

    /// Makes the tree show exactly these groups.
    pub(crate) fn update(&mut self, groups: &[Arc<Group>]) -> Change {
        let wanted: HashMap<usize, &Arc<Group>> = groups.iter().map(|group| (address(group), group)).collect();
        let leaving: Vec<Arc<Group>> = self
            .groups
            .values()
            .filter(|group| !wanted.contains_key(&address(group)))
            .cloned()
            .collect();

        // What leaves goes first, so that a newcomer may have its names and numbers.
        let mut gone = Vec::new();
        for group in &leaving {
            self.groups.remove(&address(group));
            self.take_out(group, &mut gone);
        }
        let mut change = Change::default();
        for group in groups {
            if self.groups.insert(address(group), group.clone()).is_none() {
                self.put_in(group, &mut change.refused);
            }
        }
        for (entry, parent) in gone {
            if !self.nodes.contains_key(&entry.inode) {
                change.removed.push(entry.inode);
            }
            let name = entry.path.file_name().unwrap_or_default();
            if self.folders.contains_key(&parent) && self.child(parent, name) != Some(entry.inode) {
                change.names.push((parent, name.to_owned()));
            }
        }
        let first = groups.iter().filter_map(|group| group.entries.first());
        self.modified = first
            .map(|entry| entry.modified)
            .max()
            .unwrap_or(SystemTime::UNIX_EPOCH);
        change
    }

    fn take_out<'group>(&mut self, group: &'group Arc<Group>, gone: &mut Vec<(&'group Entry, u64)>) {
        for (position, entry) in group.entries.iter().enumerate() {
            let ours = |node: &Node| Arc::ptr_eq(&node.group, group) && node.position == position;
            if !self.nodes.get(&entry.inode).is_some_and(ours) {
                continue;
            }
            let Some(node) = self.nodes.remove(&entry.inode) else {
                continue;
            };
            self.folders.remove(&entry.inode);
            if let Some(folder) = self.folders.get_mut(&node.parent)
                && let Some(child) = folder.by_name.remove(entry.path.file_name().unwrap_or_default())
            {
                folder.by_order.remove(&child.order);
            }
            gone.push((entry, node.parent));
        }
    }

    fn put_in(&mut self, group: &Arc<Group>, refused: &mut Vec<(PathBuf, Refusal)>) {
        let mut folders: HashMap<&Path, u64> = HashMap::new();
        for (position, entry) in group.entries.iter().enumerate() {
            match self.put_in_one(group, position, entry, &folders) {
                Ok(()) if entry.kind == Kind::Folder => {
                    folders.insert(&entry.path, entry.inode);
                }
                Ok(()) => {}
                Err(refusal) => refused.push((entry.path.to_path_buf(), refusal)),
            }
        }
    }

    fn put_in_one(
        &mut self,
        group: &Arc<Group>,
        position: usize,
        entry: &Entry,
        folders: &HashMap<&Path, u64>,
    ) -> Result<(), Refusal> {
        let name = plain_name(&entry.path).ok_or(Refusal::Path)?;
        if entry.inode <= ROOT || self.nodes.contains_key(&entry.inode) {
            return Err(Refusal::Inode);
        }
        let above = entry.path.parent().unwrap_or(Path::new(""));
        let parent = if above.as_os_str().is_empty() {
            ROOT
        } else {
            *folders.get(above).ok_or(Refusal::Parent)?
        };
        let folder = self.folders.get_mut(&parent).ok_or(Refusal::Parent)?;
        if folder.by_name.contains_key(name) {
            return Err(Refusal::Name);
        }
        folder.last = folder.last.max(BEHIND_PARENT) + 1;
        folder.by_name.insert(
            name.into(),
            Child {
                inode: entry.inode,
                order: folder.last,
            },
        );
        folder.by_order.insert(folder.last, entry.inode);
        self.nodes.insert(
            entry.inode,
            Node {
                group: group.clone(),
                position,
                parent,
            },
        );
        if entry.kind == Kind::Folder {
            self.folders.insert(entry.inode, Folder::default());
        }
        Ok(())
    }

    /// The entry of an inode number; `None` for the root and for numbers that are not shown.
    pub(crate) fn entry(&self, inode: u64) -> Option<&Entry> {
        self.nodes.get(&inode).and_then(Node::entry)
    }

    /// The inode number of a name in a folder.
    pub(crate) fn child(&self, folder: u64, name: &OsStr) -> Option<u64> {
        self.folders.get(&folder)?.by_name.get(name).map(|child| child.inode)
    }

    /// The lines of a folder's listing from `from` on (0 is its start, else [`Listed::behind`] of the line before), `.`
    /// and `..` among them. `None` if it is not a folder.
    pub(crate) fn list(&self, folder: u64, from: u64) -> Option<impl Iterator<Item = Listed<'_>>> {
        let children = self.folders.get(&folder)?;
        let parent = self.nodes.get(&folder).map_or(ROOT, |node| node.parent);
        let dots = [(folder, BEHIND_SELF, "."), (parent, BEHIND_PARENT, "..")]
            .into_iter()
            .filter(move |(_, behind, _)| *behind > from)
            .map(|(inode, behind, name)| Listed {
                inode,
                behind,
                kind: Kind::Folder,
                name: OsStr::new(name),
            });
        let rest = children
            .by_order
            .range(from.saturating_add(1)..)
            .filter_map(|(&behind, &inode)| {
                let entry = self.entry(inode)?;
                Some(Listed {
                    inode,
                    behind,
                    kind: entry.kind,
                    name: entry.path.file_name()?,
                })
            });
        Some(dots.chain(rest))
    }

    /// How many files and folders are shown.
    pub(crate) fn count(&self) -> usize {
        self.nodes.len()
    }

    /// The time shown for the root: that of the newest group, which is the same after a restart.
    pub(crate) fn modified(&self) -> SystemTime {
        self.modified
    }
}

impl Node {
    fn entry(&self) -> Option<&Entry> {
        self.group.entries.get(self.position)
    }
}

fn address(group: &Arc<Group>) -> usize {
    Arc::as_ptr(group).addr()
}

/// The last name of a path of plain names only.
fn plain_name(path: &Path) -> Option<&OsStr> {
    let plain = |part: Component<'_>| matches!(part, Component::Normal(name) if name.len() <= NAME_LIMIT);
    // A path that was written in another way than its components spell it ("a//b", "a/./b") is not plain either.
    let spelled: PathBuf = path.components().collect();
    (path.components().all(plain) && spelled.as_os_str() == path.as_os_str())
        .then(|| path.file_name())
        .flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(inode: u64, path: &str, kind: Kind) -> Entry {
        Entry {
            inode,
            path: Path::new(path).into(),
            kind,
            modified: SystemTime::UNIX_EPOCH,
        }
    }

    fn group(entries: Vec<Entry>) -> Arc<Group> {
        Arc::new(Group {
            entries: entries.into(),
        })
    }

    const FILE: Kind = Kind::File { size: 1 };

    fn names(tree: &Tree, folder: u64) -> Vec<String> {
        tree.list(folder, 0)
            .unwrap()
            .map(|line| line.name.to_str().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn a_removed_group_invalidates_its_topmost_name_only() {
        let film = group(vec![entry(2, "film", Kind::Folder), entry(3, "film/a", FILE)]);
        let song = group(vec![entry(4, "song", FILE)]);
        let mut tree = Tree::new();
        assert!(tree.update(&[film, song.clone()]).removed.is_empty());
        let change = tree.update(&[song]);
        assert_eq!(change.removed, [2, 3]);
        assert_eq!(change.names, [(ROOT, "film".into())]);
        assert_eq!(names(&tree, ROOT), [".", "..", "song"]);
        assert!(tree.list(2, 0).is_none());
    }

    #[test]
    fn a_group_that_comes_again_with_the_same_numbers_invalidates_nothing() {
        let build = || group(vec![entry(2, "film", Kind::Folder), entry(3, "film/a", FILE)]);
        let mut tree = Tree::new();
        tree.update(&[build()]);
        let change = tree.update(&[build()]);
        assert!(change.removed.is_empty() && change.names.is_empty() && change.refused.is_empty());
        assert_eq!(tree.child(2, OsStr::new("a")), Some(3));
    }

    #[test]
    fn what_cannot_be_shown_is_refused_and_harms_nothing() {
        let mut tree = Tree::new();
        let change = tree.update(&[group(vec![
            entry(2, "good", FILE),
            entry(1, "root", FILE),
            entry(2, "twice", FILE),
            entry(3, "good", FILE),
            entry(4, "../up", FILE),
            entry(5, "/absolute", FILE),
            entry(6, "", FILE),
            entry(7, "nowhere/file", FILE),
            entry(8, "a//b", FILE),
            entry(9, &"x".repeat(256), FILE),
        ])]);
        let why: Vec<Refusal> = change.refused.iter().map(|(_, refusal)| *refusal).collect();
        use Refusal::*;
        assert_eq!(why, [Inode, Inode, Name, Path, Path, Path, Parent, Path, Path]);
        assert_eq!(names(&tree, ROOT), [".", "..", "good"]);
    }

    #[test]
    fn a_listing_read_in_parts_survives_changes_in_between() {
        let groups: Vec<_> = (2..10)
            .map(|inode| group(vec![entry(inode, &format!("f{inode}"), FILE)]))
            .collect();
        let mut tree = Tree::new();
        tree.update(&groups);
        let behind = tree.list(ROOT, 0).unwrap().nth(4).unwrap().behind;
        tree.update(&groups[1..]);
        let rest: Vec<u64> = tree.list(ROOT, behind).unwrap().map(|line| line.inode).collect();
        assert_eq!(rest, [5, 6, 7, 8, 9]);
    }

    #[test]
    fn two_hundred_thousand_entries_are_quick() {
        let entries = std::iter::once(entry(2, "big", Kind::Folder))
            .chain((0..200_000).map(|number| entry(3 + number, &format!("big/{number}"), FILE)))
            .collect();
        let big = group(entries);
        let start = std::time::Instant::now();
        let mut tree = Tree::new();
        tree.update(std::slice::from_ref(&big));
        let more: Vec<_> = (0..500)
            .map(|at| group(vec![entry(1_000_000 + at, &format!("m{at}"), FILE)]))
            .collect();
        let mut list = vec![big];
        for one in more {
            list.push(one);
            tree.update(&list);
        }
        assert_eq!(tree.count(), 200_501);
        assert_eq!(tree.child(2, OsStr::new("199999")), Some(200_002));
        assert_eq!(tree.update(&[]).removed.len(), 200_501);
        assert!(start.elapsed().as_secs() < 20, "took {:?}", start.elapsed());
    }

    /// Groups of a small world: few names and numbers, so that they clash often.
    fn any_group() -> impl Strategy<Value = Vec<(u64, String, bool)>> {
        let path = prop::collection::vec("[ab]", 1..4).prop_map(|parts| parts.join("/"));
        prop::collection::vec((0u64..12, path, any::<bool>()), 0..6)
    }

    /// The naive model: what is shown, as (group, number, path, folder), found by scanning.
    type Shown = Vec<(usize, u64, String, bool)>;

    fn show(model: &mut Shown, number: usize, entries: &[(u64, String, bool)]) {
        for (inode, path, folder) in entries {
            let parent = path.rsplit_once('/').map(|(above, _)| above);
            let parent_is = |above: &str| model.iter().any(|(g, _, p, f)| *g == number && *f && p == above);
            let free = !model.iter().any(|(_, i, p, _)| i == inode || p == path);
            if *inode > ROOT && free && parent.is_none_or(parent_is) {
                model.push((number, *inode, path.clone(), *folder));
            }
        }
    }

    proptest! {
        #[test]
        fn the_tree_is_what_a_scan_of_the_shown_groups_finds(
            pool in prop::collection::vec(any_group(), 1..5),
            lists in prop::collection::vec(prop::collection::vec(any::<prop::sample::Index>(), 0..4), 1..6),
        ) {
            let built: Vec<_> = pool.iter().map(|entries| {
                group(entries.iter().map(|(inode, path, folder)| {
                    entry(*inode, path, if *folder { Kind::Folder } else { FILE })
                }).collect())
            }).collect();
            let mut tree = Tree::new();
            let mut model: Shown = Vec::new();
            let mut shown: Vec<usize> = Vec::new();
            for list in lists {
                let mut wanted: Vec<usize> = list.iter().map(|index| index.index(pool.len())).collect();
                wanted.sort_unstable();
                wanted.dedup();
                let before = std::mem::take(&mut model);
                model.extend(before.iter().filter(|one| wanted.contains(&one.0)).cloned());
                for number in wanted.iter().filter(|number| !shown.contains(number)) {
                    show(&mut model, *number, &pool[*number]);
                }
                let change = tree.update(&wanted.iter().map(|one| built[*one].clone()).collect::<Vec<_>>());
                shown = wanted;

                prop_assert_eq!(tree.count(), model.len());
                for (_, inode, path, folder) in &model {
                    let found = tree.entry(*inode).unwrap();
                    prop_assert_eq!(found.path.to_str().unwrap(), path);
                    prop_assert_eq!(found.kind == Kind::Folder, *folder);
                    let at = found.path.iter().try_fold(ROOT, |at, part| tree.child(at, part));
                    prop_assert_eq!(at, Some(*inode), "a path leads to its own entry");
                    let children = model.iter().filter(|one| Path::new(&one.2).parent() == Some(Path::new(path)));
                    let listed = tree.list(*inode, BEHIND_PARENT).map(|lines| lines.count());
                    prop_assert_eq!(listed, folder.then(|| children.count()));
                }
                for (_, inode, _, _) in &before {
                    let stays = model.iter().any(|one| one.1 == *inode);
                    prop_assert_eq!(change.removed.contains(inode), !stays);
                }
            }
        }
    }
}

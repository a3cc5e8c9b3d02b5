//! The tree of watched directories, by watch descriptor.

use std::collections::{BTreeMap, HashMap};
use std::ffi::CStr;
use std::sync::Arc;
use treeferry_core::path::RelPath;

/// A watch descriptor, as inotify(7) gives them out; none comes twice.
pub(super) type Watch = i32;

struct Node {
    parent: Watch,
    name: Arc<CStr>,
    children: BTreeMap<Arc<CStr>, Watch>,
}

/// What became of a directory that was put somewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Placed {
    /// It was not known.
    New,
    /// It was known there.
    Here,
    /// It was known at another place.
    FromElsewhere,
    /// It cannot be there: the place lies below the directory itself, as far as is known, or its parent is unknown.
    Refused,
}

/// The tree of watched directories.
pub(super) struct Nodes {
    root: Watch,
    all: HashMap<Watch, Node>,
}

impl Nodes {
    /// Only the root.
    pub(super) fn new(root: Watch) -> Nodes {
        let node = Node { parent: root, name: c"".into(), children: BTreeMap::new() };
        Nodes { root, all: HashMap::from([(root, node)]) }
    }

    /// The root's watch.
    pub(super) fn root(&self) -> Watch {
        self.root
    }

    /// Whether a watch is that of a directory in the tree.
    pub(super) fn has(&self, watch: Watch) -> bool {
        self.all.contains_key(&watch)
    }

    /// The directory of this name in a directory.
    pub(super) fn child(&self, parent: Watch, name: &CStr) -> Option<Watch> {
        self.all.get(&parent)?.children.get(name).copied()
    }

    /// The directory at a path.
    pub(super) fn find(&self, path: &RelPath) -> Option<Watch> {
        match path.split() {
            None => Some(self.root),
            Some((dir, name)) => self.child(self.find(&dir)?, &name),
        }
    }

    /// The path of a directory; `None` if it or one above it is not known.
    pub(super) fn path(&self, watch: Watch) -> Option<RelPath> {
        let mut names: Vec<&CStr> = Vec::new();
        let mut at = watch;
        while at != self.root {
            let node = self.all.get(&at)?;
            names.push(&node.name);
            at = node.parent;
        }
        let mut path = Vec::with_capacity(names.iter().map(|n| n.count_bytes() + 1).sum());
        for name in names.iter().rev() {
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(name.to_bytes());
        }
        RelPath::new(path).ok()
    }

    /// Whether a directory is `top` or lies below it.
    pub(super) fn is_below(&self, watch: Watch, top: Watch) -> bool {
        let mut at = watch;
        loop {
            if at == top {
                return true;
            }
            match self.all.get(&at) {
                Some(node) if at != self.root => at = node.parent,
                _ => return false,
            }
        }
    }

    /// Puts a directory, with all below it, at a place. What was there before is removed, with all below it; its
    /// watches are added to `removed`.
    pub(super) fn place(
        &mut self,
        watch: Watch,
        parent: Watch,
        name: &CStr,
        removed: &mut Vec<Watch>,
    ) -> Placed {
        if !self.has(parent) {
            return Placed::Refused;
        }
        let placed = if self.has(watch) {
            if self.child(parent, name) == Some(watch) {
                return Placed::Here;
            }
            if self.is_below(parent, watch) {
                return Placed::Refused;
            }
            self.unlink(watch);
            Placed::FromElsewhere
        } else {
            Placed::New
        };
        if let Some(old) = self.child(parent, name) {
            self.remove(old, removed);
        }
        let name: Arc<CStr> = name.into();
        if let Some(dir) = self.all.get_mut(&parent) {
            dir.children.insert(Arc::clone(&name), watch);
        }
        match self.all.get_mut(&watch) {
            Some(node) => (node.parent, node.name) = (parent, name),
            None => {
                self.all.insert(watch, Node { parent, name, children: BTreeMap::new() });
            }
        }
        placed
    }

    /// Takes a directory out of its parent: the name is free, but the directory and all below it stay known under
    /// their paths until it is placed or removed.
    pub(super) fn detach(&mut self, parent: Watch, name: &CStr) -> Option<Watch> {
        self.all.get_mut(&parent)?.children.remove(name)
    }

    /// Whether a directory is known but in no place.
    pub(super) fn is_detached(&self, watch: Watch) -> bool {
        let in_parent = |node: &Node| self.child(node.parent, &node.name) == Some(watch);
        watch != self.root && self.all.get(&watch).is_some_and(|node| !in_parent(node))
    }

    /// Removes a directory and all below it; their watches are added to `removed`.
    pub(super) fn remove(&mut self, watch: Watch, removed: &mut Vec<Watch>) {
        self.unlink(watch);
        let mut stack = vec![watch];
        while let Some(watch) = stack.pop() {
            if let Some(node) = self.all.remove(&watch) {
                stack.extend(node.children.values());
                removed.push(watch);
            }
        }
    }

    fn unlink(&mut self, watch: Watch) {
        let Some(node) = self.all.get(&watch) else { return };
        let (parent, name) = (node.parent, Arc::clone(&node.name));
        if let Some(dir) = self.all.get_mut(&parent)
            && dir.children.get(&name) == Some(&watch)
        {
            dir.children.remove(&name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(s: &str) -> Option<RelPath> {
        Some(RelPath::new(s).unwrap())
    }

    #[test]
    fn a_directory_takes_all_below_it_along() {
        let (mut n, mut gone) = (Nodes::new(1), Vec::new());
        for (watch, parent, name) in [(2, 1, c"a"), (3, 2, c"b"), (4, 3, c"c"), (5, 1, c"d")] {
            assert_eq!(n.place(watch, parent, name, &mut gone), Placed::New);
        }
        assert_eq!(n.path(4), path("a/b/c"));
        assert_eq!(n.find(&RelPath::new("a/b").unwrap()), Some(3));
        assert_eq!(n.place(3, 5, c"x", &mut gone), Placed::FromElsewhere);
        assert_eq!((n.path(4), n.child(2, c"b")), (path("d/x/c"), None));
        assert_eq!(n.place(4, 3, c"c", &mut gone), Placed::Here);
        assert_eq!(n.place(5, 4, c"loop", &mut gone), Placed::Refused);
        assert!(gone.is_empty());
        // over another one
        assert_eq!(n.place(2, 1, c"d", &mut gone), Placed::FromElsewhere);
        gone.sort_unstable();
        assert_eq!((gone, n.path(2), n.path(4)), (vec![3, 4, 5], path("d"), None));
    }

    #[test]
    fn a_detached_directory_leaves_its_name_and_keeps_its_path() {
        let (mut n, mut gone) = (Nodes::new(1), Vec::new());
        n.place(2, 1, c"a", &mut gone);
        n.place(3, 2, c"b", &mut gone);
        assert_eq!((n.detach(1, c"a"), n.detach(1, c"a")), (Some(2), None));
        assert!(n.is_detached(2) && !n.is_detached(3) && !n.is_detached(1));
        assert_eq!(n.path(3), path("a/b"));
        assert_eq!(n.place(4, 1, c"a", &mut gone), Placed::New);
        n.remove(2, &mut gone);
        assert_eq!((gone.as_slice(), n.child(1, c"a")), (&[2, 3][..], Some(4)));
    }
}

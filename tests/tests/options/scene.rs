//! Two trees with a typical difference of each kind between them.

use treeferry_tests::{Plant, Scratch};

const T: i64 = 1_500_000_000;

/// Plants the same tree at `src` and at each of `others`, then changes `src`.
///
/// rsync names in the same way all that happens here; where it has a way of its own the tests say so.
pub fn plant(s: &Scratch, others: &[&Plant]) {
    let src = s.src();
    base(&src);
    others.iter().for_each(|o| base(o));
    change(&src);
}

fn base(t: &Plant) {
    t.file("same", "1").file("longer", "1").file("touched", "1").file("chmod", "1").file("chown", "1");
    t.file("chgrp", "1").file("xattr", "1").file("acl", "1").file("gone", "1").file("dir/in", "1");
    t.file("becomes-link", "1").file("gone-dir/a", "1").file("gone-dir/sub/b", "1").file("many", "1");
    t.symlink("link", "old").symlink("gone-link", "x").fifo("fifo").device("null", 1, 3);
    t.file("one", "group").link("one", "two").file("apart", "group");
    t.dir("meta-dir").dir("empty-dir");
    for name in ["same", "longer", "touched", "chmod", "chown", "chgrp", "xattr", "acl", "gone", "dir/in"]
        .iter()
        .chain(&["becomes-link", "gone-dir/a", "gone-dir/sub/b", "many", "link", "gone-link", "fifo", "null"])
        .chain(&["one", "apart", "dir", "meta-dir", "empty-dir", "gone-dir/sub", "gone-dir", ""])
    {
        t.time(name, T);
    }
}

fn change(t: &Plant) {
    t.file("longer", "22").time("longer", T).time("touched", T + 1).mode("chmod", 0o600);
    t.owner("chown", 7, 0).owner("chgrp", 0, 8).xattr("xattr", "user.k", b"v").acl("acl", 5, 6);
    t.time("acl", T).file("many", "333").owner("many", 1, 2).mode("many", 0o711).time("many", T + 3);
    t.remove("gone").remove("gone-dir").remove("gone-link").remove("link").symlink("link", "new");
    t.remove("becomes-link").symlink("becomes-link", "same").time("becomes-link", T).time("link", T + 9);
    t.file("new", "1").dir("new-dir").symlink("new-link", "same").fifo("new-fifo").device("new-null", 1, 3);
    t.file("new-dir/deep/file", "1").link("one", "three").remove("fifo").fifo("fifo").time("fifo", T);
    t.remove("apart").link("one", "apart").mode("meta-dir", 0o700).owner("meta-dir", 3, 4);
    t.file("dir/added", "1").time("dir", T + 2).mode("fifo", 0o600).time("", T + 4);
}

/// Itemised lines without those of the one hard-link group: which of its names is the first is everybody's own
/// choice.
pub fn without_group<'a>(lines: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let of_group = |l: &str| ["one", "two", "three", "apart"].iter().any(|n| l.ends_with(&format!(" {n}")));
    lines.into_iter().filter(|l| !of_group(l)).collect()
}

//! `--delete`, `--max-delete`, `--trash`, `--force`.

use treeferry_kit::mounts::{FsKind, scratch};
use treeferry_tests::{Plant, Run, Scratch, args, sync};

#[test]
fn nothing_is_deleted_unless_asked_for() {
    let s = Scratch::disk();
    s.src().file("x", "1");
    s.dst().file("extra", "2").file("d/extra", "3");
    assert_eq!(s.sync("").expect(0).count("deleted"), 0);
    assert_eq!(s.dst().list(""), ["d", "extra", "x"]);
    assert_eq!(s.sync("--delete").expect(0).count("deleted"), 3);
    s.assert_same();
}

/// Ten extra files here and there.
fn ten_extra(s: &Scratch) {
    s.src().file("kept/new", "1").file("x", "2");
    for i in 0..5 {
        s.dst().file(&format!("kept/{i}"), "1").file(&format!("{i}"), "1");
    }
}

fn extra_files(s: &Scratch) -> usize {
    (0..5).map(|i| ["", "kept/"].iter().filter(|d| s.dst().has(&format!("{d}{i}"))).count()).sum()
}

#[test]
fn max_delete_deletes_exactly_so_many_and_the_next_run_the_rest() {
    for s in Scratch::both() {
        ten_extra(&s);
        let r = s.sync("--delete --max-delete 3").expect(25);
        assert_eq!((r.count("deleted"), r.count("not_deleted"), extra_files(&s)), (3, 7, 7));
        assert!(s.dst().has("kept/new") && s.dst().has("x"), "the copying is not held up");
        let r = s.sync("--delete --max-delete 7").expect(0);
        assert_eq!((r.count("deleted"), r.count("not_deleted")), (7, 0));
        s.assert_same();
    }
}

/// An extra directory of nine files.
fn nine_in_one(s: &Scratch) {
    for i in 0..9 {
        s.dst().file(&format!("d/{i}"), "1");
    }
}

#[test]
fn max_delete_counts_every_entry_of_a_directory() {
    let s = Scratch::disk();
    nine_in_one(&s);
    let r = s.sync("--delete --max-delete 4").expect(25);
    assert_eq!((r.count("deleted"), s.dst().list("d").len()), (4, 5));
    assert_eq!(r.count("not_deleted"), 6, "five files and the directory");
    s.sync("--delete --max-delete 6").expect(0);
    s.assert_same();
}

#[test]
fn max_delete_0_deletes_nothing() {
    let s = Scratch::disk();
    ten_extra(&s);
    s.sync("--delete --max-delete 0").expect(25);
    assert_eq!(extra_files(&s), 10);
}

#[test]
fn max_delete_spares_the_directory_in_the_way_too() {
    let s = Scratch::disk();
    s.src().file("d", "a file now");
    s.dst().file("d/in", "1").file("d/too", "2");
    let r = s.sync("--delete --max-delete 0");
    assert_eq!(s.dst().list("d"), ["in", "too"]);
    assert_eq!((r.count("not_deleted"), r.failed()), (3, vec!["d"]), "each is spared once: {r}");
}

#[test]
fn max_delete_and_the_trash_hold_for_an_empty_directory_in_the_way_too() {
    let s = Scratch::disk();
    s.src().file("d", "a file now").file("e", "a group now").link("e", "f");
    s.dst().dir("d").dir("e").dir("f");
    let r = s.sync("--delete --max-delete 0");
    assert_eq!((r.count("not_deleted"), r.count("deleted")), (3, 0), "{r}");
    assert!(["d", "e", "f"].iter().all(|n| s.dst().meta(n).is_dir()));
    let r = sync_to_trash(&s, "trash").expect(0);
    let trash = Plant::new(s.at("trash"));
    assert!(["d", "e", "f"].iter().all(|n| trash.meta(n).is_dir()), "{r}");
    assert_eq!(r.count("deleted"), 3);
    s.assert_same();
}

fn sync_to_trash(s: &Scratch, trash: &str) -> Run {
    sync(args!["--delete", "--trash", s.at(trash), s.at("src"), s.at("dst")])
}

#[test]
fn what_would_be_deleted_is_moved_to_the_trash_with_its_path() {
    for s in Scratch::both() {
        s.src().file("x", "1");
        s.dst().file("extra", "2").file("d/e/f", "3").symlink("d/l", "x").fifo("d/p");
        let r = sync_to_trash(&s, "trash").expect(0);
        let trash = Plant::new(s.at("trash"));
        assert_eq!((trash.read("extra"), trash.read("d/e/f")), ("2".to_owned(), "3".to_owned()));
        assert!(trash.has("d/l") && trash.has("d/p"));
        assert_eq!(r.count("deleted"), 6);
        s.assert_same();
    }
}

#[test]
fn what_is_in_the_trash_already_is_not_overwritten() {
    let s = Scratch::disk();
    for content in ["first", "second", "third"] {
        s.dst().file("f", content).file("d/g", content);
        sync_to_trash(&s, "trash").expect(0);
        s.assert_same();
    }
    let mut seen = Vec::new();
    let mut left = vec![s.at("trash")];
    while let Some(dir) = left.pop() {
        for e in std::fs::read_dir(dir).unwrap() {
            let path = e.unwrap().path();
            if path.is_dir() { left.push(path) } else { seen.push(std::fs::read_to_string(path).unwrap()) }
        }
    }
    seen.sort_unstable();
    assert_eq!(seen, ["first", "first", "second", "second", "third", "third"]);
}

#[test]
fn a_directory_of_which_the_trash_has_the_name_as_something_else_gets_a_number() {
    let s = Scratch::disk();
    s.dst().file("a", "file").symlink("l", "/").dir("e");
    std::fs::create_dir(s.at("trash")).unwrap();
    Plant::new(s.at("trash")).file("e", "in the way");
    sync_to_trash(&s, "trash").expect(0);
    for _ in 0..2 {
        s.dst().file("a/b", "below").file("a/c/d", "further below").file("l/b", "below");
        sync_to_trash(&s, "trash").expect(0);
        s.assert_same();
    }
    let trash = Plant::new(s.at("trash"));
    assert_eq!(trash.list(""), ["a", "a.~1~", "e", "e.~1~", "l", "l.~1~"]);
    assert_eq!((trash.read("a"), trash.read("e")), ("file".to_owned(), "in the way".to_owned()));
    assert_eq!(
        (trash.list("a.~1~"), trash.list("a.~1~/c")),
        (vec!["b", "b.~1~", "c"].into_iter().map(Into::into).collect(), vec!["d".into(), "d.~1~".into()])
    );
    assert_eq!(trash.list("l.~1~"), ["b", "b.~1~"]);
}

#[test]
fn a_trash_inside_the_target_is_neither_walked_nor_deleted() {
    let s = Scratch::disk();
    s.src().file("x", "1").file("keep/.trash/mine", "never over the trash");
    s.dst().file("extra", "2").file("keep/.trash/before", "3");
    for _ in 0..2 {
        sync_to_trash(&s, "dst/keep/.trash").expect(0);
    }
    assert_eq!(s.dst().list("keep/.trash"), ["before", "extra"]);
    assert_eq!(s.dst().list(""), ["keep", "x"]);
}

#[test]
fn a_trash_of_the_target_that_the_source_does_not_know_stays() {
    let s = Scratch::disk();
    s.src().file("x", "1");
    s.dst().file("extra", "2").file("only-here/.trash/before", "3").file("only-here/gone", "4");
    sync_to_trash(&s, "dst/only-here/.trash").expect(0);
    assert_eq!(s.dst().list("only-here"), [".trash"]);
    assert!(s.dst().has("only-here/.trash/extra") && s.dst().has("only-here/.trash/only-here/gone"));
}

#[test]
fn a_trash_on_another_file_system_is_refused_before_anything_happens() {
    let s = Scratch::disk();
    let other = scratch(FsKind::Tmpfs, "trash");
    s.src().file("x", "1");
    s.dst().file("extra", "2");
    let before = s.snapshot();
    let r = sync(args!["--delete", "--trash", other.path(), s.at("src"), s.at("dst")]).expect(1);
    assert!(r.stderr.contains("--trash"), "{r}");
    s.assert_untouched(&before);
}

#[test]
fn the_target_itself_is_no_trash() {
    let s = Scratch::disk();
    s.dst().file("extra", "2");
    sync_to_trash(&s, "dst").expect(1);
    assert!(s.dst().has("extra"));
}

#[test]
fn the_source_is_no_trash() {
    let s = Scratch::disk();
    s.src().file("x", "1");
    s.dst().file("extra", "2");
    for trash in ["src", "src/below"] {
        let before = s.src().list("");
        sync_to_trash(&s, trash).expect(1);
        assert_eq!(s.src().list(""), before);
    }
}

#[test]
fn the_directory_in_the_way_goes_to_the_trash() {
    let s = Scratch::disk();
    s.src().file("d", "a file now");
    s.dst().file("d/in", "1");
    sync_to_trash(&s, "trash").expect(0);
    assert_eq!(Plant::new(s.at("trash")).read("d/in"), "1");
    s.assert_same();
}

#[test]
fn max_delete_holds_for_the_trash_too() {
    let s = Scratch::disk();
    nine_in_one(&s);
    let words = args!["--delete", "--max-delete", "4", "--trash", s.at("t"), s.at("src"), s.at("dst")];
    let r = sync(words).expect(25);
    assert_eq!((r.count("deleted"), s.dst().list("d").len()), (4, 5));
}

#[test]
fn force_replaces_a_directory_in_the_way_and_deletes_nothing_else() {
    let s = Scratch::disk();
    s.src().file("d", "a file now").file("x", "1");
    s.dst().file("d/in/deep", "1").file("extra", "2");
    let r = s.sync("").expect(23);
    assert_eq!((r.failed(), s.dst().read("d/in/deep")), (vec!["d"], "1".to_owned()));
    s.sync("--force").expect(0);
    assert_eq!((s.dst().read("d"), s.dst().read("extra")), ("a file now".to_owned(), "2".to_owned()));
}

#[test]
fn force_is_told_of_in_itemised_lines() {
    let s = Scratch::disk();
    s.src().file("d", "a file now");
    s.dst().file("d/in", "1");
    let r = s.sync("--force -i").expect(0);
    assert_eq!(r.item("d/in"), Some("*deleting"));
    assert!(r.item("d").is_some(), "{r}");
}

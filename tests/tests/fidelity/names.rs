//! Names are bytes: whatever a name holds, its entry is made, changed, replaced and deleted.

use crate::checks::settle;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use treeferry_tests::Scratch;

fn awkward() -> Vec<Vec<u8>> {
    let mut names: Vec<Vec<u8>> = [
        &b"new\nline"[..],
        b"\n",
        b"\x01\x1b[31m",
        b"-rf",
        b"--delete",
        b" ",
        b"back\\slash",
        b"\\#012",
        b"*?[a]",
        b"...",
        b"..a",
        b"\xff\xfe",
        b".treeferry.",
        b".treeferry.conf",
    ]
    .map(<[u8]>::to_vec)
    .to_vec();
    names.extend([vec![b'n'; 255], vec![0xe9; 255]]);
    names
}

fn each(dir: &Path, mut f: impl FnMut(PathBuf)) {
    for name in awkward() {
        f(dir.join(OsStr::from_bytes(&name)));
    }
}

#[test]
fn entries_with_awkward_names_are_made_changed_replaced_and_deleted() {
    for s in Scratch::both() {
        let src = s.at("src");
        for dir in ["files", "dirs", "links", "linked"] {
            s.src().dir(dir);
        }
        each(&src.join("files"), |p| fs::write(p, "x").unwrap());
        each(&src.join("dirs"), |p| {
            fs::create_dir(&p).unwrap();
            each(&p, |q| fs::write(q, "y").unwrap());
        });
        each(&src.join("links"), |p| std::os::unix::fs::symlink(&p, &p).unwrap());
        each(&src.join("linked"), |p| fs::hard_link(src.join("files/-rf"), p).unwrap());
        settle(&s, "");

        each(&src.join("files"), |p| fs::write(p, "longer").unwrap());
        // each kind becomes another
        each(&src.join("links"), |p| {
            fs::remove_file(&p).unwrap();
            fs::create_dir(&p).unwrap();
        });
        each(&src.join("dirs"), |p| {
            fs::remove_dir_all(&p).unwrap();
            std::os::unix::fs::symlink("x", &p).unwrap();
        });
        settle(&s, "--delete");

        for dir in ["files", "dirs", "links", "linked"] {
            each(&src.join(dir), |p| fs::remove_file(&p).or_else(|_| fs::remove_dir(&p)).unwrap());
        }
        let run = settle(&s, "--delete");
        assert_eq!(run.count("deleted"), 4 * awkward().len() as u64, "{run}");
    }
}

#[test]
fn entries_in_paths_longer_than_path_max_are_changed_and_deleted() {
    let s = Scratch::disk();
    let names: Vec<String> = (0..30).map(|i| format!("{i:0255}")).collect();
    // a path of 7 680 bytes: made from the inside out, as no call takes it whole
    let build = |middle: &str| {
        let _ = fs::remove_dir_all(s.at("src"));
        s.src().file("0/file", middle);
        for name in names.iter().skip(1) {
            fs::rename(s.at("src"), s.at("inner")).unwrap();
            fs::create_dir(s.at("src")).unwrap();
            fs::rename(s.at("inner"), s.at("src").join(name)).unwrap();
        }
    };
    build("x");
    s.sync("").expect(0);
    s.assert_same();
    build("longer");
    let run = s.sync("").expect(0);
    assert_eq!(run.count("copied_files"), 1, "{run}");
    s.assert_same();
    fs::remove_dir_all(s.at("src")).unwrap();
    s.src().file("left", "x");
    let run = s.sync("--delete").expect(0);
    assert_eq!(run.count("deleted"), 31, "{run}");
    s.assert_same();
}

//! What the kernel or a file system does not have is done another way, with the same result.

use crate::checks::{assert_idle, is_root, settle};
use crate::scene::{change, faulty, plant};
use treeferry_tests::Scratch;

/// Operations that a kernel or a file system may lack, and the errors that say so.
const LACKING: &[&str] = &[
    "call=xattrat,errno=ENOSYS",
    "call=openat2,errno=ENOSYS",
    "call=openat2,errno=ENOSYS;call=xattrat,errno=ENOSYS",
    "call=copy_file_range,errno=ENOSYS",
    "call=copy_file_range,errno=EXDEV",
    "call=copy_file_range,errno=EINVAL",
    "call=copy_file_range,errno=EOPNOTSUPP",
    "call=ficlone,errno=EOPNOTSUPP",
    "call=ficlone,errno=EXDEV",
    "call=ficlone,errno=EINVAL",
    "call=lseek,errno=EINVAL",
    "call=fallocate,errno=EOPNOTSUPP",
    // the first creation is the trial whether files without a name can be made
    "call=create,errno=EOPNOTSUPP,times=1",
    "call=create,errno=EOPNOTSUPP,times=1;call=xattrat,errno=ENOSYS",
];

#[test]
fn without_newer_calls_the_result_is_the_same() {
    if !is_root() {
        return;
    }
    for rules in LACKING {
        for options in ["", "--chunk-size 64K", "--verify"] {
            let s = Scratch::disk();
            plant(&s);
            s.src().xattr("dir/symlink", "trusted.a", b"1").xattr("dir/fifo", "trusted.a", b"1");
            let run = faulty(&s, rules, options).expect(0);
            assert_eq!(run.count("retried"), 0, "{rules} {options}: {run}");
            s.assert_same();
            change(&s);
            faulty(&s, rules, &format!("--delete {options}")).expect(0);
            s.assert_same();
            assert_idle(&faulty(&s, rules, &format!("--delete {options}")).expect(0));
        }
    }
}

#[test]
fn holes_are_kept_however_content_is_copied() {
    use std::os::unix::fs::MetadataExt;
    for rules in
        ["call=copy_file_range,errno=ENOSYS", "call=ficlone,errno=EOPNOTSUPP", "call=xattrat,errno=ENOSYS"]
    {
        let s = Scratch::disk();
        let f = std::fs::File::create(s.at("src/f")).unwrap();
        f.set_len(64 << 20).unwrap();
        treeferry_kit::put::write_at(std::os::fd::AsFd::as_fd(&f), &[1; 4096], 32 << 20).unwrap();
        faulty(&s, rules, "").expect(0);
        s.assert_same();
        assert!(s.dst().meta("f").blocks() <= 64, "{rules}: {} blocks", s.dst().meta("f").blocks());
    }
}

#[test]
fn paths_longer_than_path_max_need_no_new_call() {
    let s = Scratch::disk();
    treeferry_kit::tree::Spec::new(treeferry_kit::tree::Kind::Deep)
        .count(400)
        .make(&s.at("src/deep"))
        .unwrap();
    faulty(&s, "call=openat2,errno=ENOSYS", "").expect(0);
    s.assert_same();
    std::fs::remove_dir_all(s.at("src/deep")).unwrap();
    faulty(&s, "call=openat2,errno=ENOSYS", "--delete").expect(0);
    settle(&s, "--delete");
}

#[test]
fn a_rule_that_cannot_be_read_ends_the_program_before_it_begins() {
    let s = Scratch::disk();
    s.src().file("f", "x");
    let run = faulty(&s, "call=write,errno=EWHATEVER", "").expect(1);
    assert!(run.stderr.contains("EWHATEVER"), "{run}");
    assert!(!s.at("dst").exists());
}

//! The kit's programs, as scripts use them: make a tree, clone it, compare, delete.

use std::path::Path;

use treeferry_kit::run::{Outcome, run};

fn tree(args: &[&str]) -> Outcome {
    run(env!("CARGO_BIN_EXE_kit-tree"), args)
}

fn limit(args: &[&str]) -> Outcome {
    run(env!("CARGO_BIN_EXE_kit-limit"), args)
}

fn oracle(args: &[&str]) -> Outcome {
    run(env!("CARGO_BIN_EXE_kit-oracle"), args)
}

#[test]
fn a_clone_by_the_ruler_is_alike_and_a_second_run_finds_nothing() {
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name).to_str().unwrap().to_owned();
    for kind in ["S", "G", "L", "E", "W"] {
        let src = at(kind);
        // Of L the count is bytes: larger than what the ruler makes a task of its own.
        let count = if kind == "L" { "3000000" } else { "400" };
        tree(&[kind, &src, "--count", count, "--seed", "5"]).expect_code(0);
        for (i, options) in [
            &["--publish", "rename", "--xattr"][..],
            &["--publish", "direct", "-t", "1", "--copy", "cfr"],
            &["--publish", "mknod", "--chmod", "always", "--chunk", "1000000"],
        ]
        .iter()
        .enumerate()
        {
            let dst = at(&format!("{kind}-{i}"));
            limit(&[&["clone", &src, &dst], *options].concat()).expect_code(0);
            oracle(&[&src, &dst, "--show", "3"]).expect_code(0);
            let again = limit(&["noop", &src, &dst, "--xattr"]).expect_code(0);
            assert!(again.stderr_text().contains(" 0 differ"), "{again}");
            limit(&["rm", &dst]).expect_code(0);
            assert!(!Path::new(&dst).exists());
        }
    }
}

#[test]
fn the_oracle_tells_by_its_exit_code() {
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name).to_str().unwrap().to_owned();
    tree(&["R", &at("a"), "--seed", "1"]).expect_code(0);
    tree(&["R", &at("b"), "--seed", "2"]).expect_code(0);
    assert!(oracle(&[&at("a"), &at("a")]).expect_code(0).stdout_text().starts_with("IDENTICAL"));
    assert!(oracle(&[&at("a"), &at("b"), "--show", "1"]).expect_code(1).stdout_text().contains("missing-"));
    oracle(&[&at("a")]).expect_code(2);
}

#[test]
fn wrong_usage_is_told() {
    assert!(tree(&["X", "/nowhere"]).expect_code(2).stderr_text().contains("\"X\""));
    limit(&["clone", "only-one"]).expect_code(2);
    limit(&["noop", "a", "b", "--no-such"]).expect_code(2);
}

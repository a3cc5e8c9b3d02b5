//! fanotify: what every detector tells, and what only concerns this one. Needs root.

mod common;

use common::{BASES, Scene, Start, changes, everything, storm};
use std::fs;
use std::path::Path;
use std::process::Command;
use treeferry_event::{Error, What, fanotify};
use treeferry_kit::caps::own_ids;

const START: Start = |root, excluded| Ok(Box::new(fanotify(root, excluded)?.with_own()));

/// Says so if we are not root.
fn is_root() -> bool {
    let root = own_ids().0 == 0;
    if !root {
        eprintln!("left out: only root may use fanotify");
    }
    root
}

macro_rules! conformance {
    ($($name:ident)*) => { $( #[test] fn $name() { if is_root() { changes::$name(START); } } )* };
}
conformance! {
    files open_files other_entries directories renames chains_of_renames borders metadata odd_names no_gap exclusion
    waking removal_of_the_source deep mounts two_places
    first_of_two_places
}

#[test]
fn in_the_end_all_is_known() {
    if is_root() {
        storm::in_the_end_all_is_known(START, 0..5);
    }
}

#[test]
fn up_to_keeps_its_word() {
    if is_root() {
        storm::up_to_keeps_its_word(START);
    }
}

#[test]
fn others_are_told_where_to_turn() {
    if is_root() {
        eprintln!("left out: root may use fanotify");
        return;
    }
    let error = fanotify(Path::new("/tmp"), everything()).err().unwrap();
    assert!(matches!(error, Error::Privilege), "{error}");
    assert!(error.to_string().contains("CAP_SYS_ADMIN") && error.to_string().contains("inotify"));
}

#[test]
fn a_file_system_without_handles_is_refused() {
    if is_root() {
        let error = fanotify(Path::new("/proc/self"), everything()).err().unwrap();
        assert!(matches!(error, Error::NoHandles(_)), "{error}");
    }
}

/// What this process does itself is not told.
#[test]
fn own_changes_are_left_out() {
    if !is_root() {
        return;
    }
    let quiet: Start = |root, excluded| Ok(Box::new(fanotify(root, excluded)?));
    let mut s = Scene::new(BASES[0], quiet, everything(), |_| {});
    let told = s.after(|s| fs::write(s.at("own"), "").unwrap());
    assert_eq!(told.hints().count(), 0, "{told:?}");
    s.after(|s| assert!(Command::new("touch").arg(s.at("other")).status().unwrap().success()))
        .expect("other", What::Changed);
}

/// The source is moved, with all above it: paths below it stay what they are.
#[test]
fn a_source_that_moves() {
    if !is_root() {
        return;
    }
    let mut s = Scene::new(BASES[0], START, everything(), |at| fs::create_dir(at.join("a")).unwrap());
    let away = s.source.with_file_name("away");
    s.after(|s| {
        fs::write(s.at("a/one"), "").unwrap();
        fs::rename(&s.source, &away).unwrap();
        fs::write(away.join("a/two"), "").unwrap();
    })
    .expect("a/one", What::Changed)
    .expect("a/two", What::Changed);
}

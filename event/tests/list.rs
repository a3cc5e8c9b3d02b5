//! Paths from a stream.

use std::io::Write;
use std::path::Path;
use std::time::Duration;
use treeferry_core::path::RelPath;
use treeferry_event::{Detector, Hint, List, News, Separator, What, list};
use treeferry_kit::run::wait_until;

fn read(list: &mut List) -> Vec<News> {
    let mut news = Vec::new();
    list.read(Duration::from_millis(20), &mut |n| news.push(n)).unwrap();
    news
}

fn paths(news: &[News]) -> Vec<String> {
    let hint = |n: &News| match n {
        News::Hint(Hint { path, what: What::Tree }) => Some(path.to_string()),
        _ => None,
    };
    news.iter().filter_map(hint).collect()
}

/// All that is told up to the end.
fn all(input: &'static [u8], root: &str, separator: Separator) -> (Vec<String>, u64) {
    let mut list = list(input, Path::new(root), separator).unwrap();
    let mut news = Vec::new();
    wait_until("the list ends", Duration::from_secs(60), || {
        news.extend(read(&mut list));
        list.ended()
    });
    assert!(matches!(news.last(), Some(News::UpTo(_))), "{news:?}");
    (paths(&news), list.bad())
}

#[test]
fn paths_are_cleaned_and_bad_ones_left_out() {
    let input = b"a\n./b//c/\n/src/d\n//src/./e\n/src\n\n/srcx/f\n/etc/passwd\na/../b\n..\nx\0y\nlast";
    let (paths, bad) = all(input, "/src", Separator::Newline);
    assert_eq!(paths, ["a", "b/c", "d", "e", ".", "last"]);
    assert_eq!(bad, 5);
    let (paths, bad) = all(b"two\nlines\0b\0\0a", "/", Separator::Nul);
    assert_eq!((paths.len(), bad), (3, 0), "{paths:?}");
    assert_eq!(all(b"/etc/x", "/", Separator::Nul).0, ["etc/x"]);
}

#[test]
fn both_paths_of_a_source_behind_a_symlink_are_known() {
    let place = tempfile::tempdir().unwrap();
    std::fs::create_dir(place.path().join("real")).unwrap();
    std::os::unix::fs::symlink("real", place.path().join("link")).unwrap();
    let lines = ["real/a", "link/b"].map(|p| place.path().join(p).into_os_string().into_encoded_bytes());
    let mut list =
        list(std::io::Cursor::new(lines.join(&b'\n')), &place.path().join("link"), Separator::Newline)
            .unwrap();
    let mut news = Vec::new();
    wait_until("the list ends", Duration::from_secs(60), || {
        news.extend(read(&mut list));
        list.ended()
    });
    assert_eq!(paths(&news), ["a", "b"]);
}

/// A list that goes on says nothing of what is not in it.
#[test]
fn there_is_no_up_to_before_the_end() {
    let (reader, mut writer) = std::io::pipe().unwrap();
    let mut list = list(reader, Path::new("/src"), Separator::Newline).unwrap();
    assert!(read(&mut list).is_empty());
    writer.write_all(b"one\ntwo\nhal").unwrap();
    let mut news = Vec::new();
    wait_until("two paths are told", Duration::from_secs(60), || {
        news.extend(read(&mut list));
        news.len() == 2
    });
    assert!(paths(&news) == ["one", "two"] && !list.ended(), "{news:?}");
    writer.write_all(b"f\n").unwrap();
    drop(writer);
    wait_until("the list ends", Duration::from_secs(60), || {
        news.extend(read(&mut list));
        list.ended()
    });
    let half = News::Hint(Hint { path: RelPath::new("half").unwrap(), what: What::Tree });
    assert!(matches!(&news[2..], [h, News::UpTo(_)] if *h == half), "{news:?}");
}

#[test]
fn records_of_a_policy_are_taken_for_the_paths_in_them() {
    let input = b"12345 65538 0   -- /src/a b -- /c\n1 2 3 100 /x 2026 -- /src/d\n1 2 3 -- /elsewhere\n1 2 x -- /src/e\n\
        1 2 3 -- f\n4 5 6 -- ";
    let (paths, bad) = all(input, "/src", Separator::Newline);
    assert_eq!(
        (paths, bad),
        (["a b -- /c", "d", "1 2 x -- /src/e", "1 2 3 -- f", "4 5 6 -- "].map(Into::into).to_vec(), 1)
    );
}

#[test]
fn records_of_a_changelog_are_no_paths() {
    let input = b"2 02MKDIR 4.12.456 2018.01.09 0x0 t=[0x200000405:0x15f9:0x0] j=mkdir.500 ef=0xf u=500:500 \
        nid=10.128.11.159@tcp p=[0x200000007:0x1:0x0] pics\n\
        1 08RENME 16:22:28.905834168 2022.06.13 0x1 t=[0:0x0:0x0] ef=0xf u=0:0 p=[0x200000007:0x1:0x0] new \
        s=[0x200000401:0x3:0x0] sp=[0x200000007:0x1:0x0] old\n\
        17 11CLOSE 02:52:19.798 2026.03.16 0x242 t=[0x200000401:0x3:0x0]\n\
        02MKDIR t=[0x1:0x1:0x0]\n1 02MKDIR x\n1 2 t=[0x1:0x1:0x0]\n/src/1 02MKDIR t=[0x1:0x1:0x0]\na";
    let (paths, bad) = all(input, "/src", Separator::Newline);
    let like =
        ["02MKDIR t=[0x1:0x1:0x0]", "1 02MKDIR x", "1 2 t=[0x1:0x1:0x0]", "1 02MKDIR t=[0x1:0x1:0x0]", "a"];
    assert_eq!(paths, like);
    assert_eq!(bad, 3);
}

//! Rings in memory that is not shared with anybody.

extern crate std;

use crate::*;
use std::collections::HashMap;
use std::string::{String, ToString};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::*};
use std::time::{Duration, Instant};
use std::vec::Vec;
use std::{format, thread, vec};

fn memory(slots: usize) -> Vec<AtomicU64> {
    (0..bytes_for(slots) / 8).map(|_| AtomicU64::new(0)).collect()
}

fn changed(path: &[u8]) -> Record<'_> {
    Record { kind: Kind::Changed, cut: false, pid: 7, id: 0, path, other: b"" }
}

fn alive(_: u32) -> bool {
    false
}

const NOW: Duration = Duration::ZERO;

#[test]
fn records_come_out_as_they_went_in() {
    let memory = memory(64);
    let ring = Ring::format(&memory, 5, 6).unwrap();
    let mut cursor = Cursor::new(0);
    let mut buffer = Buffer::default();
    let bytes: Vec<u8> = (1..=255).cycle().take(MAX_PATH_BYTES).collect();
    // around the ring, with all lengths in all places
    for length in (1..=MAX_PATH_BYTES).chain([1, 215, 216, 217, 248, MAX_PATH_BYTES]) {
        let (path, other) = (&bytes[..length], &bytes[..MAX_PATH_BYTES - length]);
        let kind = if length % 2 == 0 { Kind::Moved } else { Kind::Open };
        let record =
            Record { kind, cut: length % 3 == 0, pid: length as u32, id: length as u64 * 5, path, other };
        assert_eq!(ring.push(&record), Pushed { told: true, wake: false });
        assert_eq!(cursor.next(&ring, &mut buffer, NOW, &alive), Next::Record(record), "{length}");
        assert_eq!(cursor.next(&ring, &mut buffer, NOW, &alive), Next::Nothing);
        ring.set_tail(cursor.at());
    }
    assert_eq!(ring.figures(), Figures::default());
}

#[test]
fn what_has_no_room_is_counted() {
    let memory = memory(64);
    let ring = Ring::format(&memory, 0, 0).unwrap();
    for _ in 0..70 {
        ring.push(&changed(b"/a"));
    }
    assert_eq!(ring.figures(), Figures { lost: 6, unnamed: 0 });
    let mut cursor = Cursor::new(ring.tail());
    let mut buffer = Buffer::default();
    for _ in 0..64 {
        assert_eq!(cursor.next(&ring, &mut buffer, NOW, &alive), Next::Record(changed(b"/a")));
    }
    assert_eq!(cursor.next(&ring, &mut buffer, NOW, &alive), Next::Nothing);
    ring.push(&changed(b"/a"));
    assert_eq!(ring.figures().lost, 7, "what was read is not free before that is said");
    ring.set_tail(cursor.at());
    ring.push(&changed(b"/b"));
    assert_eq!(cursor.next(&ring, &mut buffer, NOW, &alive), Next::Record(changed(b"/b")));
    ring.push(&changed(&[b'x'; MAX_PATH_BYTES + 1]));
    assert_eq!(ring.figures().lost, 8);
}

#[test]
fn a_writer_wakes_a_reader_that_sleeps_and_no_other() {
    let memory = memory(64);
    let ring = Ring::format(&memory, 0, 0).unwrap();
    let wakes = || ring.push(&changed(b"/a")).wake;
    assert!(!wakes());
    ring.fall_asleep();
    assert!(wakes());
    assert!(!wakes(), "once is enough");
    ring.fall_asleep();
    ring.wake_up();
    assert!(!wakes());
    for _ in 0..64 {
        wakes();
    }
    ring.fall_asleep();
    assert!(wakes(), "also when it has to hear that something was lost");
    ring.fall_asleep();
    assert!(ring.add_unnamed());
}

#[test]
fn a_writer_that_dies_in_the_midst_is_skipped() {
    let memory = memory(64);
    let ring = Ring::format(&memory, 0, 0).unwrap();
    let mut buffer = Buffer::default();
    let at = |ms| Duration::from_millis(ms);

    // before it said who it is: 1 s, and that for all of its slots at once
    let mut cursor = Cursor::new(0);
    ring.push(&changed(b"/a"));
    ring.reserve(5).unwrap();
    ring.push(&changed(b"/b"));
    assert_eq!(cursor.next(&ring, &mut buffer, at(0), &alive), Next::Record(changed(b"/a")));
    assert_eq!(cursor.next(&ring, &mut buffer, at(0), &alive), Next::Waiting);
    assert_eq!(cursor.next(&ring, &mut buffer, at(999), &|_| true), Next::Waiting);
    assert_eq!(cursor.next(&ring, &mut buffer, at(1000), &alive), Next::Skipped);
    assert_eq!(cursor.next(&ring, &mut buffer, at(1000), &alive), Next::Record(changed(b"/b")));
    assert_eq!(cursor.next(&ring, &mut buffer, at(1000), &alive), Next::Nothing);

    // after that: as soon as it is known to be gone
    let position = ring.reserve(3).unwrap();
    let claim = crate::write::claim_of(99, 3, position);
    ring.slot(position)[crate::write::CLAIM].store(claim, Relaxed);
    ring.push(&changed(b"/c"));
    assert_eq!(cursor.next(&ring, &mut buffer, at(2000), &|_| true), Next::Waiting);
    assert_eq!(cursor.next(&ring, &mut buffer, at(2020), &|pid| pid == 98), Next::Waiting);
    assert_eq!(cursor.next(&ring, &mut buffer, at(2020), &|pid| pid == 99), Next::Skipped);
    assert_eq!(cursor.next(&ring, &mut buffer, at(2020), &alive), Next::Record(changed(b"/c")));

    // what is reserved later has a second of its own
    ring.reserve(1).unwrap();
    assert_eq!(cursor.next(&ring, &mut buffer, at(3000), &alive), Next::Waiting);
    ring.reserve(1).unwrap();
    assert_eq!(cursor.next(&ring, &mut buffer, at(4000), &alive), Next::Skipped);
    assert_eq!(cursor.next(&ring, &mut buffer, at(4000), &alive), Next::Waiting);
    assert_eq!(cursor.next(&ring, &mut buffer, at(5000), &alive), Next::Skipped);
    assert_eq!(cursor.next(&ring, &mut buffer, at(5000), &alive), Next::Nothing);
}

#[test]
fn a_writer_that_wakes_up_a_lap_later_spoils_no_record_unnoticed() {
    let memory = memory(64);
    let ring = Ring::format(&memory, 0, 0).unwrap();
    let mut buffer = Buffer::default();
    let mut cursor = Cursor::new(ring.reserve(1).unwrap() + 1);
    ring.set_tail(cursor.at());
    for _ in 0..63 {
        ring.push(&changed(b"/a"));
        cursor.next(&ring, &mut buffer, NOW, &alive);
        ring.set_tail(cursor.at());
    }
    ring.push(&changed(b"/the/second/lap"));
    // the first writer of this slot goes on with its path
    ring.slot(64)[crate::write::FIRST_DATA].store(crate::table::word_of(b"/another"), Relaxed);
    assert_eq!(cursor.next(&ring, &mut buffer, NOW, &alive), Next::Skipped);
    assert_eq!(cursor.next(&ring, &mut buffer, NOW, &alive), Next::Nothing);
}

#[test]
fn many_writers_and_one_reader() {
    const WRITERS: u32 = 6;
    const EACH: u32 = 20_000;
    let memory = memory(256);
    let ring = Ring::format(&memory, 0, 0).unwrap();
    let done = AtomicBool::new(false);
    let mut seen: HashMap<u32, u32> = HashMap::new();
    let mut records = 0;
    thread::scope(|s| {
        let writers: Vec<_> = (1..=WRITERS)
            .map(|pid| {
                s.spawn(move || {
                    for n in 0..EACH {
                        // mostly there is room, so that each gets through
                        while ring.head().wrapping_sub(ring.tail()) > 240 {
                            thread::yield_now();
                        }
                        let length = 20 + (n as usize * 7) % 900;
                        let path = format!("/{n}/{}", "x".repeat(length));
                        ring.push(&Record {
                            kind: Kind::Closed,
                            cut: false,
                            pid,
                            id: u64::from(n),
                            path: path.as_bytes(),
                            other: b"",
                        });
                    }
                })
            })
            .collect();
        let (reader_done, records, seen) = (&done, &mut records, &mut seen);
        s.spawn(move || {
            let (mut cursor, mut buffer, began) = (Cursor::new(0), Buffer::default(), Instant::now());
            loop {
                let over = reader_done.load(Acquire);
                match cursor.next(&ring, &mut buffer, began.elapsed(), &alive) {
                    Next::Record(r) => {
                        let text = std::str::from_utf8(r.path).unwrap();
                        let n: u32 = text.split('/').nth(1).unwrap().parse().unwrap();
                        assert_eq!(text.len(), 22 + n.to_string().len() + (n as usize * 7) % 900);
                        let last = seen.insert(r.pid, n);
                        assert!(last.is_none_or(|l| l < n), "{last:?} before {n}: out of order");
                        *records += 1;
                    }
                    Next::Nothing if over => break,
                    // a writer that is not given a core for a second is none of this test
                    Next::Skipped => panic!("a record was spoiled"),
                    Next::Nothing | Next::Waiting => thread::yield_now(),
                }
                ring.set_tail(cursor.at());
            }
        });
        writers.into_iter().for_each(|w| w.join().unwrap());
        done.store(true, Release);
    });
    let lost = ring.figures().lost;
    assert_eq!(records + lost, u64::from(WRITERS * EACH), "{lost} lost");
    assert!(records > 0 && seen.len() == WRITERS as usize);
}

#[test]
fn a_writer_that_is_interrupted_while_it_looks_for_room_looks_again() {
    let memory = memory(64);
    let ring = Ring::format(&memory, 0, 0).unwrap();
    for n in 0..40 {
        ring.push(&Record { kind: Kind::Closed, cut: false, pid: 1, id: n, path: b"/a", other: b"" });
    }
    ring.set_tail(40);
    // it has seen the head before, and now the reader is ahead of that
    assert_eq!(ring.reserve_from(3, 1), Some(40));
    assert_eq!(ring.reserve_from(3, 64), None, "there is room for 63");
    assert!(!ring.is_full());
}

#[test]
fn nonsense_stops_nobody() {
    // a small generator, so that a failure can be repeated
    let mut state = 0x1234_5678_9abc_def1_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let memory = memory(64);
    let mut buffer = Buffer::default();
    let mut skipped = 0;
    for round in 0..300 {
        memory.iter().for_each(|w| w.store(0, Relaxed));
        let ring = Ring::format(&memory, 0, 0).unwrap();
        let mut cursor = Cursor::new(0);
        let mut now = Duration::ZERO;
        for step in 0..200 {
            let place = random() as usize;
            // header, table, or the slots
            let at = match random() % 4 {
                0 => memory.len() - 1 - place % 48,
                1 => place % memory.len(),
                _ => place % (64 * 32),
            };
            let value = match random() % 4 {
                0 => random(),
                1 => random() % 100,
                2 => memory[at].load(Relaxed) ^ 1 << (random() % 64),
                _ => ring.head().wrapping_add(random() % 3).wrapping_sub(1),
            };
            memory[at].store(value, Relaxed);
            ring.push(&changed(
                format!("/{round}/{step}/{}", "y".repeat((random() % 700) as usize)).as_bytes(),
            ));
            ring.holds(b"/a/b");
            ring.may_hold(random() % 3);
            now += Duration::from_millis(random() % 700);
            for _ in 0..(2 * 64 + 2) {
                match cursor.next(&ring, &mut buffer, now, &|pid| pid % 2 == 0) {
                    Next::Record(r) => assert!(!r.path.is_empty() || r.id != 0),
                    Next::Skipped => skipped += 1,
                    Next::Nothing | Next::Waiting => break,
                }
            }
            ring.set_tail(cursor.at());
        }
        // and afterwards it works again
        for _ in 0..3 {
            now += Duration::from_secs(1);
            while matches!(cursor.next(&ring, &mut buffer, now, &alive), Next::Record(_) | Next::Skipped) {}
        }
        ring.set_tail(cursor.at());
        ring.push(&changed(b"/in/step"));
        let next = cursor.next(&ring, &mut buffer, now, &alive);
        assert_eq!(next, Next::Record(changed(b"/in/step")), "round {round}");
    }
    assert!(skipped > 100, "{skipped}");
}

#[test]
fn only_a_ring_is_one() {
    let memory = memory(64);
    assert_eq!(Ring::open(&memory).err(), Some(Bad::Magic));
    Ring::format(&memory, 3, 4).unwrap();
    let ring = Ring::open(&memory).unwrap();
    assert_eq!((ring.generation(), ring.namespace(), ring.slots()), (3, 4, 64));
    assert_eq!(Ring::open(&memory[..memory.len() - 1]).err(), Some(Bad::Size));
    assert_eq!(Ring::open(&[]).err(), Some(Bad::Size));
    let header = |word: usize| &memory[memory.len() - 1 - word];
    header(1).store(VERSION + 1, Relaxed);
    assert_eq!(Ring::open(&memory).err(), Some(Bad::Version(VERSION + 1)));
    header(1).store(VERSION, Relaxed);
    header(2).store(128, Relaxed);
    assert_eq!(Ring::open(&memory).err(), Some(Bad::Size));
    header(2).store(64, Relaxed);
    ring.set_tail(1);
    assert_eq!(ring.check_positions(), Err(Bad::Positions));
    // those of version 2 began with their header
    memory[0].store(header(0).swap(0, Relaxed), Relaxed);
    memory[1].store(2, Relaxed);
    assert_eq!(Ring::open(&memory).err(), Some(Bad::Version(2)));
    for (bytes, slots) in [
        (bytes_for(64), Some(64)),
        (bytes_for(65536), Some(65536)),
        (bytes_for(32), None),
        (bytes_for(96), None),
        (bytes_for(64) + 8, None),
        (0, None),
        (usize::MAX, None),
    ] {
        assert_eq!(slots_in(bytes), slots, "{bytes}");
    }
}

#[test]
fn the_table_says_what_is_mirrored() {
    let memory = memory(64);
    let ring = Ring::format(&memory, 0, 0).unwrap();
    assert!(!ring.holds(b"/a") && !ring.may_hold(1));
    let root = |path: &'static str, device| Root { path: path.as_bytes(), device };
    assert!(ring.set_roots([root("/data/mirrored", 5), root("/x", 6)].into_iter()));
    for (path, held) in [
        ("/data/mirrored", true),
        ("/data/mirrored/a", true),
        ("/data/mirrored2", false),
        ("/data/mirrore", false),
        ("/data/Mirrored/a", false),
        ("/x/y", true),
        ("/xy", false),
        ("/", false),
        ("", false),
    ] {
        assert_eq!(ring.holds(path.as_bytes()), held, "{path}");
    }
    assert!(ring.may_hold(5) && ring.may_hold(6) && !ring.may_hold(7));
    assert!(ring.set_roots([root("/", 0)].into_iter()));
    assert!(ring.holds(b"/any") && ring.holds(b"/") && ring.may_hold(7));
    assert!(ring.set_roots([].into_iter()));
    assert!(!ring.holds(b"/any"));
    assert!(!ring.set_roots(vec![root("/a", 1); MAX_ROOTS + 1].into_iter()));
    let long: String = "/x".repeat(2048);
    assert!(!ring.set_roots([Root { path: long.as_bytes(), device: 1 }].into_iter()));
    assert!(ring.set_roots([Root { path: &long.as_bytes()[..4095], device: 1 }].into_iter()));
    assert!(ring.holds(&long.as_bytes()[..4095]) && !ring.holds(&long.as_bytes()[..4094]));
    // a reader that died while it changed the table: better too much than too little
    memory[memory.len() - 1 - 6].store(7, Relaxed);
    assert!(ring.holds(b"/any"));
    assert!(ring.set_roots([root("/a", 1)].into_iter()));
    assert!(!ring.holds(b"/any"));
}

#[test]
fn the_table_is_seen_whole_while_it_changes() {
    let memory = memory(64);
    let ring = Ring::format(&memory, 0, 0).unwrap();
    let over = AtomicBool::new(false);
    let roots = [["/aaaaaaaaaaaaaaaa/x", "/b"], ["/b", "/aaaaaaaaaaaaaaaa/x"]];
    let set = |n: usize| roots[n].iter().map(|p| Root { path: p.as_bytes(), device: 3 });
    assert!(ring.set_roots(set(0)));
    thread::scope(|s| {
        for _ in 0..3 {
            s.spawn(|| {
                while !over.load(Relaxed) {
                    assert!(ring.holds(b"/aaaaaaaaaaaaaaaa/x/f") && ring.holds(b"/b/f") && ring.may_hold(3));
                }
            });
        }
        for n in 0..50_000 {
            assert!(ring.set_roots(set(n % 2)));
        }
        over.store(true, Relaxed);
    });
}

#[test]
fn what_a_program_knows_is_found_by_that_which_takes_its_place() {
    let memory = memory(64);
    let ring = Ring::format(&memory, 9, 0).unwrap();
    let (a, b) = (id_of(1, 2), id_of(2, 1));
    assert_ne!(a, b);
    assert_eq!(ring.handed_over(7, a), None);
    ring.hand_over(7, a, Handed::Told);
    ring.hand_over(7, b, Handed::Elsewhere);
    assert_eq!(
        (ring.handed_over(7, a), ring.handed_over(7, b)),
        (Some(Handed::Told), Some(Handed::Elsewhere))
    );
    assert_eq!(ring.handed_over(8, a), None);
    // something came from elsewhere: it may be this
    ring.add_arrival();
    assert_eq!((ring.handed_over(7, a), ring.handed_over(7, b)), (Some(Handed::Told), None));
    for n in 0..8192 {
        assert!(n > 4096 || ring.handed_over(7, a).is_some(), "{n}");
        ring.push(&changed(b"/a"));
        ring.set_tail(ring.head());
    }
    assert_eq!(ring.handed_over(7, a), None, "another process may have its number by now");
    ring.hand_over(7, a, Handed::Told);
    ring.begin_session();
    assert_eq!(ring.handed_over(7, a), None);
}

#[test]
fn an_epoch_says_what_holds() {
    let memory = memory(64);
    let ring = Ring::format(&memory, u64::MAX, 0).unwrap();
    let first = ring.epoch();
    assert_eq!(Epoch::of(first.number()), first);
    assert!(first.number() < 1 << 61);
    ring.add_arrival();
    assert!(ring.epoch() != first && ring.epoch().session() == first.session());
    ring.begin_session();
    assert_ne!(ring.epoch().session(), first.session());
    let other = self::memory(64);
    assert_ne!(Ring::format(&other, 1, 0).unwrap().epoch().session(), first.session());
}

#[test]
fn a_record_without_a_path_names_a_file_that_the_reader_knows() {
    let memory = memory(64);
    let ring = Ring::format(&memory, 0, 0).unwrap();
    let mut buffer = Buffer::default();
    let mut cursor = Cursor::new(0);
    let record = |kind, id| Record { kind, cut: false, pid: 3, id, path: b"", other: b"" };
    for (kind, id, is) in [
        (Kind::Closed, 5, true),
        (Kind::Left, 5, true),
        (Kind::Changed, 5, true),
        (Kind::Forked, 2, true),
        (Kind::Closed, 0, false),
        (Kind::Open, 5, false),
        (Kind::Moved, 5, false),
        (Kind::Attributes, 5, false),
        (Kind::Tree, 5, false),
        (Kind::MovedDir, 5, false),
    ] {
        ring.push(&record(kind, id));
        let next = cursor.next(&ring, &mut buffer, NOW, &alive);
        assert_eq!(next, if is { Next::Record(record(kind, id)) } else { Next::Skipped }, "{kind:?} {id}");
    }
}

#[test]
fn what_is_under_way_is_seen_until_it_is_told_or_its_process_is_dead() {
    let memory = memory(64);
    let ring = Ring::format(&memory, 0, 0).unwrap();
    assert!(ring.begins(0, 1).is_none() && ring.under_way().next().is_none());
    let marks: Vec<Mark> = (0..40).map(|n| ring.begins(7, 2 * n).unwrap()).collect();
    assert_eq!(ring.under_way().count(), 40);
    for mark in &marks[..39] {
        assert!(mark.pid() == 7 && ring.is_under_way(*mark));
        ring.ends(*mark);
        assert!(!ring.is_under_way(*mark));
    }
    assert_eq!(ring.under_way().collect::<Vec<_>>(), marks[39..]);
    ring.is_dead(marks[39]);
    assert_eq!((ring.under_way().count(), ring.figures().unnamed), (0, 1));
    // who was taken for dead and is not takes nothing from whoever has the place by now
    let others: Vec<Mark> = (0..128).filter_map(|n| ring.begins(9, n)).collect();
    assert!(others.len() > 64, "{}", others.len());
    ring.ends(marks[39]);
    assert_eq!(ring.under_way().count(), others.len());
}

#[test]
fn who_has_but_the_end_of_a_ring_says_that_something_was_changed() {
    let words = memory(MIN_SLOTS);
    let end_of = |words: &[AtomicU64]| words.len() - END_BYTES / 8;
    assert!(End::open(&words[end_of(&words)..]).is_none());
    let ring = Ring::format(&words, 1, 0).unwrap();
    let end = End::open(&words[end_of(&words)..]).unwrap();
    assert!(!end.add_unnamed());
    ring.fall_asleep();
    assert!(end.add_unnamed());
    assert_eq!(ring.figures().unnamed, 2);
    ring.replace();
    assert!(end.is_replaced());
    assert!(End::again(&words[words.len() - 8..]).is_none());
}

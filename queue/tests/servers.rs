//! Servers that refuse, are short of memory, or still know what was meant for others. They are the real ones.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;
use treeferry_core::{JobId, JobSpec};
use treeferry_kit::run::wait_until;
use treeferry_kit::services::Services;
use treeferry_queue::{Control, JobRecord, Node, Shutdown, Site, mirrors};

/// Longer than anything here takes.
const DEADLINE: Duration = Duration::from_secs(60);

fn site(services: &Services) -> Site {
    Site::new(services.broker.clone(), services.ledger.clone())
}

#[test]
fn a_ledger_that_wants_a_password_is_refused_at_once_without_it() {
    let services = Services::start();
    let place = services.ledger.rsplit_once('@').expect("it has a password").1;
    for ledger in [format!("redis://{place}"), format!("redis://:wrong@{place}")] {
        let mut site = site(&services);
        site.ledger = ledger;
        let e = Node::connect(&site, "n").err().expect("it is refused").to_string();
        assert!(e.contains("the ledger refuses us") && e.contains(":PASSWORD@"), "{e}");
        assert!(Control::connect(&site).is_err());
    }
}

#[test]
fn what_a_process_was_told_is_not_for_the_next_of_its_name() {
    let services = Services::start();
    let (site, control) = (site(&services), Control::connect(&site(&services)).unwrap());
    let hset = |field: String, value: &str| {
        services.redis_cli(["hset", "treeferry:control", &field, value]);
    };
    let told = |node: &Node| {
        hset(format!("pause:{}", node.worker()), "1");
        hset("pool".to_owned(), "3");
        control.shutdown(&[node.worker().to_owned()], false).unwrap();
        wait_until("it is heard", DEADLINE, || node.wanted().shutdown == Some(Shutdown::Graceful));
    };
    let starts = || {
        let next = Node::connect(&site, "w").unwrap();
        // what is meant for all is heard by the same answer
        wait_until("it hears something", DEADLINE, || next.wanted().pool == Some(3));
        assert_eq!((next.wanted().shutdown, next.wanted().paused), (None, false));
    };
    // one that was killed
    let first = Node::connect(&site, "w").unwrap();
    told(&first);
    drop(first);
    starts();
    // one that has obeyed leaves nothing
    let third = Node::connect(&site, "w").unwrap();
    told(&third);
    third.forget_orders();
    let left = services.redis_cli(["hkeys", "treeferry:control"]);
    assert_eq!(left, "pool");
}

#[test]
fn a_mirror_that_is_forgotten_leaves_no_queue_though_somebody_still_sends() {
    let services = Services::start();
    let node = Node::connect(&site(&services), "n").unwrap();
    let (id, line) = (JobId(7), mirrors::line(JobId(7)));
    let record = JobRecord {
        spec: JobSpec::new("/s", "/d"),
        made_target: false,
        roots: (1, 2),
        limits: String::new(),
        created_ms: 1,
    };
    node.put_mirror(id, &record, Vec::new()).unwrap();
    let outgoing = node.outgoing();
    assert!(outgoing.send(&line, vec![1], true).wait(DEADLINE));
    assert_eq!(node.has_line(&line), Ok(true));
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // as an agent, which looks every half a second which mirrors there are
            while !over.load(Relaxed) && node.mirrors_now().unwrap().contains(&id) {
                (0..10).for_each(|_| {
                    outgoing.send(&line, vec![2], true).wait(DEADLINE);
                    std::thread::sleep(Duration::from_millis(50));
                });
            }
        });
        std::thread::sleep(Duration::from_millis(200));
        node.forget_mirror(id).unwrap();
        over.store(true, Relaxed);
    });
    assert_eq!(node.has_line(&line), Ok(false));
}

#[test]
fn while_the_broker_is_short_of_memory_who_sends_keeps_his_connection() {
    let services = Services::start();
    let node = Node::connect(&site(&services), "n").unwrap();
    let (outgoing, line) = (node.outgoing(), mirrors::line(JobId(7)));
    assert!(outgoing.send(&line, vec![1], true).wait(DEADLINE));
    let connections =
        || services.rabbitmqctl(&["-q", "list_connections", "--no-table-headers", "pid"]).lines().count();
    services.rabbitmqctl(&["set_vm_memory_high_watermark", "0.00001"]);
    let before = connections();
    let sent = outgoing.send(&line, vec![2], true);
    // longer than a confirm may take otherwise
    assert!(!sent.wait(Duration::from_secs(35)));
    assert_eq!(connections(), before);
    let sent = outgoing.send(&line, vec![3], true);
    services.rabbitmqctl(&["set_vm_memory_high_watermark", "0.6"]);
    assert!(sent.wait(DEADLINE), "what was kept is sent when it has memory again");
    assert_eq!(outgoing.unsent(), 0);
}

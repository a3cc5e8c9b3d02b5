//! Messages that are none of ours, and what becomes of them. The servers are the real ones.

use futures_util::StreamExt;
use lapin::options::{BasicConsumeOptions, BasicPublishOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Connection, ConnectionProperties};
use std::time::Duration;
use treeferry_core::JobId;
use treeferry_core::wire::{self, MessageKind};
use treeferry_kit::services::Services;
use treeferry_queue::{Lane, Node, Site};

/// Longer than anything here takes.
const DEADLINE: Duration = Duration::from_secs(60);

/// An errand that names a job and a task; bytes as [`MessageKind::Errand`] has them.
fn errand(job: u64, task: u64) -> Vec<u8> {
    wire::encode(MessageKind::Errand, &(JobId(job), task))
}

#[test]
fn what_nobody_can_work_on_goes_to_the_dead_letters_with_its_reason_and_the_worker_lives() {
    let services = Services::start();
    let site = Site::new(services.broker.clone(), services.ledger.clone());
    let node = Node::connect(&site, "hostile").unwrap();
    node.listen(&[Lane::Walk], 10);
    let mut newer = errand(1, 1);
    newer[3] = 99;
    let mut other_kind = errand(1, 1);
    other_kind[2] ^= 0x7f;
    let mut longer = errand(1, 1);
    longer.extend([0; 3]);
    let hostile: Vec<(Vec<u8>, &str)> = vec![
        (Vec::new(), "not a"),
        (b"../../etc/passwd".to_vec(), "not a"),
        (vec![0xff; 100_000], "not a"),
        (newer, "version"),
        (other_kind, "kind"),
        (errand(1, 1)[..5].to_vec(), ""),
        (longer, ""),
        (errand(0xdead_beef, 1), "a job that the ledger does not have"),
    ];
    let rt = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (conn, ch) = rt.block_on(async {
        let conn = Connection::connect(&services.broker, ConnectionProperties::default()).await.unwrap();
        let ch = conn.create_channel().await.unwrap();
        for (body, _) in &hostile {
            let p = BasicProperties::default();
            ch.basic_publish("".into(), "treeferry.walk".into(), BasicPublishOptions::default(), body, p)
                .await
                .unwrap();
        }
        (conn, ch)
    });
    // readable, but of no job: whoever is offered it declines
    while let Some(offer) = node.next_offer(Duration::from_secs(2)) {
        assert_eq!(offer.job(), JobId(0xdead_beef));
        offer.decline();
    }
    rt.block_on(async {
        let mut dead = ch
            .basic_consume(
                "treeferry.dead".into(),
                "".into(),
                BasicConsumeOptions::default(),
                FieldTable::default(),
            )
            .await
            .unwrap();
        let mut left = hostile.clone();
        while !left.is_empty() {
            let d = tokio::time::timeout(DEADLINE, dead.next()).await.expect("all arrive").unwrap().unwrap();
            let headers = d.properties.headers().clone().unwrap_or_default();
            let why = match headers.inner().get("treeferry-reason") {
                Some(AMQPValue::LongString(s)) => String::from_utf8_lossy(s.as_bytes()).into_owned(),
                other => panic!("no reason: {other:?}"),
            };
            let i = left.iter().position(|(body, _)| *body == d.data).expect("one of ours");
            let (_, word) = left.swap_remove(i);
            assert!(why.contains(word), "{why}");
        }
        conn.close(200, "done".into()).await.unwrap();
    });
    // it still takes what is right
    assert!(!node.is_running(JobId(1)));
}

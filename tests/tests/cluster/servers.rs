//! Servers that lose messages, have no memory, are slow, not there, or asked for by TLS.

use super::*;

#[test]
fn lost_queues_are_filled_again_from_the_ledger() {
    let c = Cluster::start(2, 1);
    let s = Scratch::memory();
    plant(&s, 12, 300);
    let expected = looked_at(&s.sync("").expect(0).json);
    s.dst().remove("");
    let mut run = Live::of(&mut c.sync_command(&s, "--iops 300"));
    run.until("it has come so far", || count(&s.at("dst")) > 50);
    c.kill_server("rabbitmq");
    c.services.lose_queues();
    c.services.call("start");
    let end = run.finish().expect(0);
    assert_clean(&s);
    assert_eq!(looked_at(&end.json), expected, "{end}");
}

#[test]
fn a_broker_without_memory_blocks_publishing_and_not_the_work() {
    let c = Cluster::start(2, 1);
    let s = Scratch::memory();
    plant(&s, 13, 600);
    // nobody works until the broker has its alarm, so that only the root's message is out by then
    c.call("pause");
    wait_until("all rest", PATIENCE, || c.reports().iter().all(|w| w["paused"] == true));
    let id = c.detach(&s, "");
    wait_until("the root waits in the queue", PATIENCE, || {
        c.status()["queues"].as_array().unwrap().iter().any(|q| q["ready"] == 1)
    });
    c.services.rabbitmqctl(&["set_vm_memory_high_watermark", "0.00001"]);
    c.call("resume");
    let files = |side| {
        let names = checks::entries(&s.at(side)).into_keys();
        names.filter(|p| p.starts_with("small")).collect::<Vec<_>>()
    };
    let all = files("src");
    wait_until("all is copied that is to be copied", PATIENCE, || files("dst") == all);
    // links are the hardlinker's, who cannot be told
    assert_eq!(c.job(&id)["state"], "running");
    c.services.rabbitmqctl(&["set_vm_memory_high_watermark", "0.6"]);
    assert_eq!(c.await_end(&id)["state"], "done");
    assert_clean(&s);
}

#[test]
fn a_message_that_is_worked_on_for_long_does_not_run_into_the_brokers_timeout() {
    let mut c = Cluster::start(0, 0);
    // the broker closes the channel of whoever has not acknowledged a message for three seconds, and looks each second
    for setting in ["consumer_timeout, 3000", "channel_tick_interval, 1000"] {
        c.services.rabbitmqctl(&["eval", &format!("application:set_env(rabbit, {setting}).")]);
    }
    let mut config = std::fs::read_to_string(c.services.config()).unwrap();
    config.push_str("\nacknowledge-after = 1\n");
    std::fs::write(c.services.config(), config).unwrap();
    c.worker("w0", 1);
    c.hardlinker("h0");
    let s = Scratch::disk();
    for i in 0..100 {
        s.src().file(&format!("f{i}"), "x");
    }
    // more than twice the broker's patience
    let began = Instant::now();
    let id = c.detach(&s, "--iops 10");
    wait_until("the broker has no unacknowledged message while the job goes on", PATIENCE, || {
        let queues = c.services.rabbitmqctl(&["-q", "list_queues", "--no-table-headers", "messages"]);
        queues.lines().all(|l| l.trim() == "0") && c.reports().iter().any(|r| r["busy"] == 1)
    });
    // whoever has it may die, and the ledger remembers
    c.kill("w0");
    c.start_again("w0");
    let r = c.await_end(&id);
    assert!(began.elapsed().as_secs() > 6, "the test has proven nothing: {r}");
    assert_eq!((r["state"].as_str(), looked_at(&r)), (Some("done"), [1, 100, 100, 100]), "{r}");
    assert_clean(&s);
    let said =
        std::fs::read_to_string(c.services.home().join("rabbitmq/log/rabbitmq.log")).unwrap_or_default();
    assert!(!said.contains("timeout"), "{said}");
}

#[test]
fn servers_that_cannot_be_reached_are_named_and_the_code_is_69() {
    let s = Scratch::disk();
    s.src().file("a", "a");
    let words = ["--broker", "amqp://127.0.0.1:1/%2f", "--ledger", "redis://127.0.0.1:1/0"];
    for command in
        [vec!["worker"], vec!["hardlinker"], vec!["status"], vec!["jobs"], vec!["pause"], vec!["shutdown"]]
    {
        let mut call = treeferry_tests::command(command.iter().chain(&words));
        let r = Run::of(&mut call).expect(69);
        assert!(r.stderr.contains("refused"), "{r}");
    }
    let mut call = treeferry_tests::command(["sync", "--json"].iter().chain(&words));
    let r = Run::of(call.args(s.words(""))).expect(69);
    assert!(!s.dst().has("a"), "{r}");
    let none = Run::of(&mut treeferry_tests::command(["status"])).expect(1);
    assert!(none.stderr.contains("no cluster"), "{none}");
    let half =
        Run::of(&mut treeferry_tests::command(["worker", "--broker", "amqp://127.0.0.1:1/%2f"])).expect(1);
    assert!(half.stderr.contains("--ledger"), "{half}");
    let wrong =
        Run::of(&mut treeferry_tests::command(["worker", "--broker", "http://x", "--ledger", "redis://x"]))
            .expect(1);
    assert!(wrong.stderr.contains("amqp://"), "{wrong}");
}

/// The port of a URL, and the URL with TLS at another.
fn with_tls(url: &str, port: &str) -> String {
    let (head, rest) = url.rsplit_once(':').expect("a port");
    let path = rest.split_once('/').expect("a path").1;
    let (scheme, rest) = head.split_once("://").expect("a scheme");
    let user = rest.rsplit_once('@').expect("a password").0;
    format!("{scheme}s://{user}@localhost:{port}/{path}")
}

fn port_of(url: &str) -> &str {
    url.rsplit_once(':').and_then(|(_, rest)| rest.split('/').next()).expect("a port")
}

#[test]
fn both_servers_can_be_reached_by_tls_and_a_certificate_that_nobody_vouches_for_is_refused() {
    use std::io::BufRead;
    let c = Cluster::start(1, 1);
    let s = Scratch::disk();
    s.src().file("a", "a");
    let dir = s.at("tls");
    std::fs::create_dir(&dir).unwrap();
    let made = std::process::Command::new("sh")
        .current_dir(&dir)
        .args(["-ec", "openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 2 -subj /CN=ca
            openssl req -newkey rsa:2048 -nodes -keyout key.pem -out leaf.csr -subj /CN=localhost
            printf 'subjectAltName=DNS:localhost\nbasicConstraints=CA:FALSE\n' > ext
            openssl x509 -req -in leaf.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out cert.pem -days 2 -extfile ext"])
        .output()
        .expect("sh");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/tls-proxy");
    let mut proxy = std::process::Command::new(script)
        .args([dir.join("cert.pem"), dir.join("key.pem")])
        .args([port_of(&c.services.broker), port_of(&c.services.ledger)])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("python3");
    let mut lines = std::io::BufReader::new(proxy.stdout.take().unwrap()).lines();
    let mut url = |plain: &str| with_tls(plain, lines.next().unwrap().unwrap().trim());
    let (broker, ledger) = (url(&c.services.broker), url(&c.services.ledger));
    let call = || {
        let mut call = treeferry_tests::command(["sync", "--json"]);
        call.args(s.words("")).env("TREEFERRY_BROKER", &broker).env("TREEFERRY_LEDGER", &ledger);
        call
    };
    let refused = Run::of(&mut call()).expect(69);
    assert!(refused.stderr.contains("certificate"), "{refused}");
    let password = ledger.split('@').next().and_then(|u| u.rsplit(':').next()).unwrap();
    assert!(!refused.stderr.contains(password), "a password in a message");
    let done = Run::of(call().env("SSL_CERT_FILE", dir.join("ca.pem")));
    let _ = proxy.kill();
    let _ = proxy.wait();
    done.expect(0);
    s.assert_same();
}

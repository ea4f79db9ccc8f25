//! A wide-area network of namespaces, and a swarm over it. It takes root and TUN devices: without, these tests say so and
//! pass, except in CI.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

use std::net::UdpSocket;
use std::process::Command;
use std::time::Duration;

use swarm_client::{GenerationConfig, GenerationEvent};
use swarm_tests::harness::{Client, DEADLINE, Local, PROMPT, TestSwarm, greedy, host};
use swarm_tests::wan::{Link, Wan};

/// From one end to the other, as across a continent.
const DELAY: Duration = Duration::from_millis(25);

const FAR: Link = Link::of_delay(DELAY);

/// Tokens of each text.
const TOKENS: usize = 40;

/// A network, or `None` where there cannot be one; in CI there must be.
fn wan(hosts: &[&str]) -> Option<Wan> {
    match Wan::available() {
        Ok(()) => Some(Wan::new(hosts, FAR).unwrap()),
        Err(why) if std::env::var_os("CI").is_some_and(|ci| ci == "true") => panic!("CI tests the network: {why}"),
        Err(why) => {
            eprintln!("SKIPPED, since there is no wide-area network here: {why}");
            None
        }
    }
}

/// Bytes that have come to a host.
fn received_bytes(wan: &Wan, host: &str) -> u64 {
    let output = wan.command_in(host, Command::new("cat").arg("/proc/net/dev")).unwrap().output().unwrap();
    let devices = String::from_utf8(output.stdout).unwrap();
    let device = devices.lines().find_map(|line| line.trim().strip_prefix("wan0:")).expect("the host's device");
    device.split_whitespace().next().unwrap().parse().unwrap()
}

fn exists(namespace: &str) -> bool {
    let list = Command::new("ip").args(["netns", "list"]).output().unwrap();
    String::from_utf8(list.stdout).unwrap().lines().any(|line| line.split(' ').next() == Some(namespace))
}

/// What arrives next.
fn received(socket: &UdpSocket) -> Vec<u8> {
    let mut bytes = [0; 64];
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let length = socket.recv(&mut bytes).expect("a packet");
    bytes[..length].to_vec()
}

#[test]
fn packets_take_as_long_as_the_link_says() {
    let Some(mut wan) = wan(&["a", "b", "c"]) else { return };
    let median = |wan: &Wan, from: &str, to: &str| {
        let mut times = wan.one_way(from, to, 11).unwrap();
        times.sort();
        assert_eq!(times.len(), 11, "none is lost");
        times[times.len() / 2]
    };
    // No packet is early. How late one may be is this machine's affair.
    assert!(median(&wan, "a", "b") + median(&wan, "b", "a") >= 2 * DELAY);
    wan.set_link("c", "a", Link::of_delay(4 * DELAY)).unwrap();
    assert!(median(&wan, "a", "c") >= 4 * DELAY, "the link has changed");
    assert!(median(&wan, "b", "c") < 4 * DELAY, "no other has");
}

#[test]
fn a_cut_link_passes_nothing_until_it_is_mended() {
    let Some(mut wan) = wan(&["a", "b", "c"]) else { return };
    let (a, b, c) = (wan.udp_socket("a").unwrap(), wan.udp_socket("b").unwrap(), wan.udp_socket("c").unwrap());
    let send = |text: &str| {
        for to in [&b, &c] {
            a.send_to(text.as_bytes(), to.local_addr().unwrap()).unwrap();
        }
    };
    wan.cut("b", "a").unwrap();
    send("while a and b are parted");
    assert_eq!(received(&c), b"while a and b are parted");
    wan.cut_off("a").unwrap();
    send("while a is cut off");
    wan.heal("a", "b").unwrap();
    send("to b alone");
    // Order is kept, so nothing that was sent before is still to come.
    assert_eq!(received(&b), b"to b alone");
    wan.heal_all("a").unwrap();
    send("to both");
    assert_eq!((received(&b), received(&c)), (b"to both".to_vec(), b"to both".to_vec()));
    assert!(wan.cut("a", "nobody").is_err());
}

#[test]
fn the_namespaces_go_away_with_the_network() {
    let Some(wan) = wan(&["a", "b"]) else { return };
    let namespaces = ["a", "b"].map(|host| wan.namespace(host));
    assert!(namespaces.iter().all(|namespace| exists(namespace)));
    // Who still runs there does not keep them.
    let mut sleeper = wan.command_in("a", Command::new("sleep").arg("600")).unwrap().spawn().unwrap();
    drop(wan);
    assert!(!namespaces.iter().any(|namespace| exists(namespace)));
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();
}

#[test]
fn a_swarm_tells_the_local_text_over_far_links() {
    let Some(wan) = wan(&["client", "entry", "h1", "h2", "h3"]) else { return };
    let place = |host: &str| wan.place(host).unwrap();
    let mut swarm = TestSwarm::empty_at(&place("entry"), "demo", &[]);
    let servers = [(place("h1"), (0, 4)), (place("h2"), (4, 8)), (place("h3"), (8, 12))];
    swarm.serve_at(&servers, &[]);
    // Threads of the runtime are made by this one, hence there too.
    wan.enter("client").unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let told = runtime.block_on(async { Client::of(&swarm).await.tell(PROMPT, greedy(), TOKENS).await.unwrap() });
    let expected = Local::demo().text(PROMPT, &greedy(), TOKENS);
    assert_eq!(told.summary.tokens, expected.tokens);
    assert_eq!(told.summary.text, expected.text);
    assert!(told.lost.is_empty(), "{:?}", told.lost);
    for (server, block) in swarm.servers.iter().zip([0, 4, 8]) {
        assert_eq!(host(&told.summary.route, block), server.peer);
    }
    // Such links are slow: rows travel packed, from and to the client too.
    const EXACT: u32 = 128 * 2;
    let (first, last) = (&told.summary.route[0], &told.summary.route[2]);
    assert!(first.bytes_in < EXACT && last.bytes_out < EXACT, "{:?}", told.summary.route);
}

#[test]
fn every_way_is_up_to_speed_when_a_session_was_warmed_up() {
    const HOPS: [&str; 2] = ["h1", "h2"];
    /// All that the session may ever send: no more is sent to warm its ways up.
    const TOKENS: usize = 1600;
    /// What comes at least, however slow this machine is: the first two pieces. Opening a session is a tenth of it.
    const AT_LEAST: u64 = 40 << 10;
    let Some(wan) = wan(&["client", "entry", "h1", "h2"]) else { return };
    let place = |host: &str| wan.place(host).unwrap();
    let mut swarm = TestSwarm::empty_at(&place("entry"), "demo", &[]);
    swarm.serve_at(&[(place("h1"), (0, 6)), (place("h2"), (6, 12))], &[]);
    wan.enter("client").unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let client = Client::of(&swarm).await;
        let before = HOPS.map(|host| received_bytes(&wan, host));
        let mut session = client.model.text_session(TOKENS).await.unwrap();
        session.warm_up().await.unwrap();
        let after = HOPS.map(|host| received_bytes(&wan, host));
        let row = client.model.config().hidden * 2;
        for ((before, after), host) in before.iter().zip(after).zip(HOPS) {
            let (came, all) = (after - before, (TOKENS * row) as u64);
            assert!((AT_LEAST..2 * all).contains(&came), "{host} received {came} bytes");
        }
        let prompt = client.model.encode(PROMPT).unwrap();
        let config = GenerationConfig { max_tokens: 8, sampling: greedy(), ..Default::default() };
        let mut generation = session.generate(&prompt, config).unwrap();
        let summary = loop {
            match generation.next().await.unwrap() {
                Some(GenerationEvent::Done(summary)) => break summary,
                Some(_) => {}
                None => panic!("the text has no end"),
            }
        };
        assert_eq!(summary.tokens, Local::demo().text(PROMPT, &greedy(), 8).tokens);
    });
}

//! What a session takes comes back, whoever ends it and however.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use swarm_client::{ClientConfig, GenerationConfig, PeerFilter};
use swarm_model::{KvFormat, ModelSpec};
use swarm_protocol::session::TokenCount;
use swarm_tests::harness::{Client, Local, PROMPT, Server, TestSwarm, eventually_async, greedy};

/// Free KV tokens of a server, by its own word.
async fn free(client: &Client, server: &Server) -> u32 {
    client.info(server).await.expect("the server answers").announcement.load.free_tokens.0
}

/// Waits until a server has as much room as `room` asks for.
async fn until_free(client: &Client, server: &Server, what: &str, room: impl Fn(u32) -> bool) {
    eventually_async(what, || async { room(free(client, server).await).then_some(()) }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_room_of_a_client_that_vanishes_comes_back() {
    let swarm = TestSwarm::demo(&[(0, 6), (6, 12)]);
    let watcher = Client::of(&swarm).await;
    let before = [free(&watcher, &swarm.servers[0]).await, free(&watcher, &swarm.servers[1]).await];
    for running in [true, false] {
        let mut generating = swarm.generate(&["--prompt", PROMPT, "--max-tokens", "1900"]);
        generating.tokens(3);
        // So that it does not end by itself while its sessions are looked at.
        generating.process.freeze();
        for (server, before) in swarm.servers.iter().zip(before) {
            until_free(&watcher, server, "room is reserved", |free| free < before).await;
        }
        if running {
            generating.process.thaw();
        }
        generating.process.kill();
        for (server, before) in swarm.servers.iter().zip(before) {
            until_free(&watcher, server, "the room of a killed client", |free| free == before).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_client_is_ended_in_time() {
    let mut swarm = TestSwarm::empty("demo", &[]);
    swarm.serve(&[(0, 12)], &["--idle-timeout", "1s"]);
    let (watcher, client) = (Client::of(&swarm).await, Client::of(&swarm).await);
    let before = free(&watcher, &swarm.servers[0]).await;
    let mut session = client.model.text_session(200).await.unwrap();
    until_free(&watcher, &swarm.servers[0], "room is reserved", |free| free < before).await;
    until_free(&watcher, &swarm.servers[0], "the room of a silent client", |free| free == before).await;
    // Its next text begins on a new hop, and is whole.
    let ids = client.model.encode(PROMPT).unwrap();
    let config = GenerationConfig { max_tokens: 10, sampling: greedy(), ..Default::default() };
    let mut generation = session.generate(&ids, config).unwrap();
    let mut tokens = Vec::new();
    while let Some(event) = generation.next().await.unwrap() {
        if let swarm_client::GenerationEvent::Token { id, .. } = event {
            tokens.push(id);
        }
    }
    assert_eq!(tokens, Local::demo().text(PROMPT, &greedy(), 10).tokens);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_server_sends_clients_to_another_or_says_so() {
    let mut swarm = TestSwarm::empty("demo", &[]);
    // Room is counted in pages of 64 tokens.
    swarm.serve(&[(0, 12)], &["--cache-tokens", "384"]);
    let full = swarm.servers[0].peer;
    let (holder, late) = (Client::of(&swarm).await, Client::of(&swarm).await);
    let held = holder.model.text_session(300).await.unwrap();
    until_free(&holder, &swarm.servers[0], "room is reserved", |free| free == 64).await;
    let Err(error) = late.model.text_session(200).await else { panic!("200 tokens fit into 64") };
    let said = error.to_string();
    assert!(said.contains("room") && said.contains("200") && said.contains("64"), "{said}");
    // What fits is still taken.
    assert_eq!(late.tell(PROMPT, greedy(), 5).await.unwrap().summary.tokens.len(), 5);

    swarm.serve(&[(0, 12)], &[]);
    let fresh = Client::of(&swarm).await;
    let elsewhere = fresh.model.text_session(200).await.unwrap();
    assert_ne!(elsewhere.route()[0].peer, full);
    drop(held);
    until_free(&holder, &swarm.servers[0], "the held room", |free| free == 384).await;
    let only = PeerFilter { allowed: Some([full].into()), ..PeerFilter::default() };
    let config = ClientConfig { peers: only, ..ClientConfig::default() };
    let again = Client::with(&swarm, &ModelSpec::Demo, None, config).await;
    assert_eq!(again.model.text_session(200).await.unwrap().capacity(), TokenCount(200).as_usize());
}

/// Sessions after which memory must not have grown.
const SESSIONS: usize = 50;

/// Sessions before memory is looked at: allocator and tables have their size then.
const WARM_UP: usize = 15;

/// What an allocator may keep, in bytes; a fraction of the KV caches of all sessions together.
const GROWTH: u64 = 16 << 20;

/// One of three ways to end a session: in the middle, at its end, or by vanishing.
async fn session(swarm: &TestSwarm, client: &Client, prompt: &str, way: usize) {
    match way % 3 {
        0 => {
            let ids = client.model.encode(prompt).unwrap();
            let mut session = client.model.text_session(ids.len() + 50).await.unwrap();
            let mut generation = session.generate(&ids, GenerationConfig::default()).unwrap();
            generation.next().await.unwrap();
            generation.next().await.unwrap();
        }
        1 => {
            client.tell(prompt, greedy(), 5).await.unwrap();
        }
        _ => {
            let mut generating = swarm.generate(&["--prompt", prompt, "--max-tokens", "500"]);
            generating.tokens(1);
            generating.process.kill();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_does_not_grow_with_sessions_that_are_over() {
    let mut swarm = TestSwarm::empty("demo", &[]);
    // So little room that pages kept for later sessions fill it during the warm-up.
    swarm.serve(&[(0, 12)], &["--cache-tokens", "2048"]);
    let client = Client::of(&swarm).await;
    let server = &swarm.servers[0];
    let before = free(&client, server).await;
    let prompt = PROMPT.repeat(60);
    let kv = client.model.encode(&prompt).unwrap().len() as u64
        * 12
        * client.model.config().kv_bytes_per_token_block(client.model.format(), KvFormat::Activations);
    assert!(kv * SESSIONS as u64 > 4 * GROWTH, "{kv} bytes a session: a leak would not show");
    for way in 0..WARM_UP {
        session(&swarm, &client, &prompt, way).await;
        // A client that was killed is gone a moment before the server has heard of it.
        until_free(&client, server, "all room in the warm-up", |free| free == before).await;
    }
    let warm = server.process.memory();
    for way in 0..SESSIONS {
        session(&swarm, &client, &prompt, way).await;
        until_free(&client, server, "all room", |free| free == before).await;
    }
    let grown = server.process.memory().saturating_sub(warm);
    assert!(grown < GROWTH, "{SESSIONS} sessions of {kv} bytes of KV left {grown} bytes behind ({warm} before)");
    println!("{SESSIONS} sessions of {kv} bytes of KV left {grown} bytes behind ({warm} before)");
}

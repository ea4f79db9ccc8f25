//! Servers with KV caches in eight bits: one text whatever dies, and only servers of their kind stand in for them.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use swarm_model::{KvFormat, ModelSpec};
use swarm_protocol::PeerId;
use swarm_protocol::model_id::WeightFormat;
use swarm_tests::harness::{Client, Local, PROMPT, TestSwarm, greedy, host};

/// Tokens of the text.
const TOKENS: usize = 60;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_text_with_eight_bits_survives_losses_among_servers_with_sixteen() {
    let expected = Local::open(&ModelSpec::Demo, WeightFormat::Bf16).with_kv(KvFormat::Int8);
    let expected = expected.text(PROMPT, &greedy(), TOKENS);
    let mut swarm = TestSwarm::empty("demo", &[]);
    swarm.serve(&[(0, 6), (0, 6), (6, 12), (6, 12)], &["--kv-bits", "8"]);
    // With the nearest of these a route would be complete, and its text another one's.
    let others: Vec<PeerId> = swarm.serve(&[(0, 6), (0, 6)], &[]).iter().map(|server| server.peer).collect();
    let client = Client::of(&swarm).await;
    let class = client.info(&swarm.servers[0]).await.unwrap().announcement.class;
    assert!(class.as_str().starts_with("bf16+kv8/"), "{class}");
    let mut lost = Vec::new();
    let meanwhile = async |tokens: usize, route: &[swarm_client::HopInfo]| {
        // One is killed and its keys and values computed anew, the other hands them over.
        let (block, kill) = match tokens {
            12 => (0, true),
            35 => (6, false),
            _ => return,
        };
        let victim = swarm.server(host(route, block));
        match kill {
            true => victim.process.kill(),
            false => victim.process.terminate(),
        }
        lost.push(victim.peer);
    };
    let told = client.tell_with(PROMPT, greedy(), TOKENS, meanwhile).await.unwrap();
    assert_eq!((told.summary.tokens, told.summary.text), (expected.tokens, expected.text));
    assert_eq!(lost.len(), 2);
    let hops = told.routes.iter().flatten().chain(&told.summary.route);
    assert!(hops.clone().all(|hop| !others.contains(&hop.peer)), "a route mixes classes");
    assert!(told.summary.route.iter().all(|hop| !lost.contains(&hop.peer)));
}

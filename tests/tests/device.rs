//! Servers that compute on a device: `SWARM_TEST_DEVICE`, or candle's operations on the CPU. In f32 a greedy text hangs on
//! differences far larger than those between two orders of additions, so that it can be compared with our kernels'.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use swarm_client::{ClientConfig, HopInfo};
use swarm_model::ModelSpec;
use swarm_protocol::PeerId;
use swarm_protocol::model_id::WeightFormat;
use swarm_tests::harness::{Client, Local, PROMPT, TestSwarm, greedy, host};

/// Tokens of each text: across a page of the KV cache.
const TOKENS: usize = 80;

fn device() -> String {
    std::env::var("SWARM_TEST_DEVICE").unwrap_or_else(|_| "cpu-candle".into())
}

async fn client(swarm: &TestSwarm) -> Client {
    Client::with(swarm, &ModelSpec::Demo, Some(WeightFormat::F32), ClientConfig::default()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_text_on_devices_survives_a_kill_and_a_hand_over() {
    let mut swarm = TestSwarm::empty("demo", &[]);
    swarm.serve(&[(0, 6), (0, 6), (6, 12), (6, 12)], &["--format", "f32", "--device", &device()]);
    // It has the blocks that will be lost, in another class.
    let other = swarm.serve(&[(0, 6)], &["--format", "f32", "--device", "cpu"])[0].peer;
    let expected = Local::open(&ModelSpec::Demo, WeightFormat::F32).text(PROMPT, &greedy(), TOKENS);
    let client = client(&swarm).await;
    let mut victims = Vec::new();
    let meanwhile = async |tokens: usize, route: &[HopInfo]| {
        let block = match tokens {
            20 => 0,
            50 => 11,
            _ => return,
        };
        let victim = swarm.server(host(route, block));
        match tokens {
            20 => victim.process.kill(),
            _ => victim.process.terminate(),
        }
        victims.push(victim.peer);
    };
    let told = client.tell_with(PROMPT, greedy(), TOKENS, meanwhile).await.unwrap();
    assert_eq!(told.summary.tokens, expected.tokens);
    assert_eq!(told.summary.text, expected.text);
    assert_eq!(victims.len(), 2);
    assert!(told.lost.iter().any(|(peer, _)| *peer == victims[0]), "{:?}", told.lost);
    assert!(told.summary.route.iter().all(|hop| !victims.contains(&hop.peer)));
    assert!(told.routes.iter().flatten().all(|hop| hop.peer != other), "{:?}", told.routes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_and_our_kernels_never_share_a_route() {
    let mut swarm = TestSwarm::empty("demo", &[]);
    let on_device = ["--format", "f32", "--device", &device()];
    swarm.serve(&[(0, 6)], &on_device);
    swarm.serve(&[(0, 6), (6, 12)], &["--format", "f32", "--device", "cpu"]);
    let peers: Vec<PeerId> = swarm.servers.iter().map(|server| server.peer).collect();
    let client = client(&swarm).await;
    for _ in 0..3 {
        let told = client.tell(PROMPT, greedy(), 4).await.unwrap();
        let route: Vec<PeerId> = told.summary.route.iter().map(|hop| hop.peer).collect();
        assert_eq!(route, peers[1..], "not by way of {}", peers[0]);
    }
}

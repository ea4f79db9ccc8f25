//! A whole swarm out of one GGUF file, and a server of it that dies.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use swarm_client::{ClientConfig, HopInfo};
use swarm_model::synthetic::{GgufTypes, SyntheticSpec, gguf_of, write_gguf};
use swarm_model::{Checkpoint, Family, ModelSpec};
use swarm_protocol::model_id::WeightFormat;
use swarm_tests::harness::{Client, Local, PROMPT, TestSwarm, greedy, host};

/// Tokens of the text, and after how many the server is killed.
const TOKENS: usize = 40;
const KILLED_AFTER: usize = 12;

/// A model wide enough for every type, whose vocabulary is the demo model's.
const SPEC: SyntheticSpec = SyntheticSpec {
    hidden: 256,
    intermediate: 512,
    family: Family::Llama,
    keys: Vec::new(),
    blocks: 4,
    heads: 4,
    kv_heads: 2,
    head_dim: 64,
    vocab: 1024,
    max_positions: 2048,
    dtype: WeightFormat::Bf16,
    seed: 3,
    tied: true,
    rope_theta: 10_000.0,
    rope_scaling: swarm_model::RopeScaling::Default,
    biases: false,
    shards: 1,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_of_mixed_types_is_served_and_survives_a_kill() {
    let directory = tempfile::tempdir().unwrap();
    SPEC.write(directory.path()).unwrap();
    let from = Checkpoint::open(&ModelSpec::Directory(directory.path().into())).unwrap();
    let types = GgufTypes { matrices: "q4_k", careful: "q6_k", edges: "q6_k" };
    let file = gguf_of(&from, &types).unwrap();
    let path = write_gguf(&file, &directory.path().join("mixed.gguf"), 2).unwrap();
    let spec = ModelSpec::Gguf(path.clone());
    let mut swarm = TestSwarm::of(path.to_str().unwrap(), &[(0, 2), (2, 4), (2, 4)]);
    let client = Client::with(&swarm, &spec, None, ClientConfig::default()).await;
    let mut victim = None;
    let meanwhile = async |tokens: usize, route: &[HopInfo]| {
        if tokens == KILLED_AFTER && victim.is_none() {
            let server = swarm.server(host(route, 2));
            server.process.kill();
            victim = Some(server.peer);
        }
    };
    let told = client.tell_with(PROMPT, greedy(), TOKENS, meanwhile).await.unwrap();
    let expected = Local::open(&spec, WeightFormat::Gguf).text(PROMPT, &greedy(), TOKENS);
    assert!(expected.tokens.len() > KILLED_AFTER, "the text is long enough for a kill");
    assert_eq!(told.summary.tokens, expected.tokens);
    assert_eq!(told.summary.text, expected.text);
    let lost: Vec<_> = told.lost.iter().map(|(peer, _)| *peer).collect();
    assert_eq!(lost, victim.into_iter().collect::<Vec<_>>());
}

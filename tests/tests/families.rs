//! Whole swarms of models that are no Llamas: one with windows and caps, one with experts. Random weights; one text whatever dies.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use swarm_client::ClientConfig;
use swarm_model::synthetic::SyntheticSpec;
use swarm_model::{Family, ModelSpec};
use swarm_protocol::model_id::WeightFormat;
use swarm_tests::harness::{Client, Local, PROMPT, TestSwarm, greedy, host};

/// Tokens of the text: well past the window.
const TOKENS: usize = 60;

async fn a_text_survives_a_kill(family: Family) {
    let folder = tempfile::tempdir().unwrap();
    // Without ids that end a text: a random model says anything.
    let spec = SyntheticSpec::of(family).with("eos_token_id", serde_json::Value::Null);
    spec.write(folder.path()).unwrap();
    let expected = Local::open(&ModelSpec::Directory(folder.path().into()), WeightFormat::Bf16);
    let expected = expected.text(PROMPT, &greedy(), TOKENS);
    let mut swarm = TestSwarm::of(folder.path().to_str().unwrap(), &[(0, 2), (0, 2), (2, 4), (2, 4)]);
    let model = ModelSpec::Directory(folder.path().into());
    let client = Client::with(&swarm, &model, None, ClientConfig::default()).await;
    let mut lost = Vec::new();
    let meanwhile = async |tokens: usize, route: &[swarm_client::HopInfo]| {
        let block = match tokens {
            12 => 0,
            45 => 2,
            _ => return,
        };
        let victim = swarm.server(host(route, block));
        victim.process.kill();
        lost.push(victim.peer);
    };
    let told = client.tell_with(PROMPT, greedy(), TOKENS, meanwhile).await.unwrap();
    assert_eq!((told.summary.tokens, told.summary.text), (expected.tokens, expected.text));
    assert_eq!(lost.len(), 2);
    assert!(told.summary.route.iter().all(|hop| !lost.contains(&hop.peer)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dense_model_with_windows() {
    a_text_survives_a_kill(Family::Gemma2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mixture_of_experts() {
    a_text_survives_a_kill(Family::Qwen3Moe).await;
}

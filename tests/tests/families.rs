//! Whole swarms of models that are no Llamas: one with windows and caps, those with experts. Random weights; one text whatever dies.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::path::Path;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use swarm_client::ClientConfig;
use swarm_model::synthetic::SyntheticSpec;
use swarm_model::{Family, ModelSpec};
use swarm_protocol::model_id::WeightFormat;
use swarm_tests::harness::{Client, Local, PROMPT, TestSwarm, greedy, host};

/// Tokens of the text: well past the window.
const TOKENS: usize = 60;

/// Without ids that end a text: a random model says anything.
fn endless(family: Family) -> SyntheticSpec {
    SyntheticSpec::of(family).with("eos_token_id", serde_json::Value::Null)
}

async fn a_text_survives_a_kill(spec: &SyntheticSpec, change: impl Fn(&Path)) {
    let folder = tempfile::tempdir().unwrap();
    spec.write(folder.path()).unwrap();
    change(folder.path());
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
    a_text_survives_a_kill(&endless(Family::Gemma2), |_| ()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mixture_of_experts() {
    a_text_survives_a_kill(&endless(Family::Qwen3Moe), |_| ()).await;
}

/// Puts the experts of a gpt-oss checkpoint into stacks of MXFP4, as they are published: random nibbles, with scales of the size of
/// the weights that were there.
fn microscale(directory: &Path, spec: &SyntheticSpec, experts: usize) {
    const NEAR_AN_EIGHTH: std::ops::Range<u8> = 122..125;
    let path = directory.join("model.safetensors");
    let file = std::fs::read(&path).unwrap();
    let read = SafeTensors::deserialize(&file).unwrap();
    let tensors = read.tensors().into_iter().filter(|(name, _)| !name.contains(".experts."));
    let mut contents: BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)> =
        tensors.map(|(name, view)| (name, (view.dtype(), view.shape().to_vec(), view.data().to_vec()))).collect();
    let mut rng = StdRng::seed_from_u64(spec.seed);
    for block in 0..spec.blocks {
        for (part, rows, inner) in
            [("gate_up_proj", 2 * spec.intermediate, spec.hidden), ("down_proj", spec.hidden, spec.intermediate)]
        {
            let name = format!("model.layers.{block}.mlp.experts.{part}");
            let cells = experts * rows * inner / 32;
            let mut nibbles = vec![0; cells * 16];
            rng.fill(&mut nibbles[..]);
            let scales = (0..cells).map(|_| rng.random_range(NEAR_AN_EIGHTH)).collect();
            contents.insert(format!("{name}_blocks"), (Dtype::U8, vec![experts, rows, inner / 32, 16], nibbles));
            contents.insert(format!("{name}_scales"), (Dtype::U8, vec![experts, rows, inner / 32], scales));
            contents.insert(format!("{name}_bias"), (Dtype::BF16, vec![experts, rows], vec![0; experts * rows * 2]));
        }
    }
    let views = contents
        .iter()
        .map(|(name, (dtype, shape, bytes))| (name, TensorView::new(*dtype, shape.clone(), bytes).unwrap()));
    std::fs::write(&path, safetensors::serialize(views, None).unwrap()).unwrap();
    let path = directory.join("config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    config["quantization_config"] = serde_json::json!({"quant_method": "mxfp4"});
    std::fs::write(path, config.to_string()).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gpt_oss_as_it_is_published() {
    const EXPERTS: usize = 5;
    let spec = SyntheticSpec { intermediate: 96, ..endless(Family::GptOss) };
    let spec = spec.with("num_local_experts", EXPERTS.into());
    a_text_survives_a_kill(&spec, |directory| microscale(directory, &spec, EXPERTS)).await;
}

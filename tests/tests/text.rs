//! What a swarm computes is what one process computes, bit for bit, however the model is cut.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use futures::future::join_all;
use swarm_client::ClientConfig;
use swarm_model::{ModelSpec, SamplingConfig, activations};
use swarm_protocol::model_id::WeightFormat;
use swarm_tests::harness::{Client, Local, PROMPT, Reference, TestSwarm, greedy, range, sampled};

const PROMPTS: [&str; 4] = [PROMPT, "One night, a big storm came.", "\"Hello!\" said the crow.", "a"];

/// Tokens of each text: across a page of the KV cache.
const TOKENS: usize = 80;

/// Every prompt, greedy and sampled, gives the local text.
async fn tells_the_same(client: &Client, local: &Local, what: &str) {
    for prompt in PROMPTS {
        for sampling in [greedy(), sampled(7)] {
            let told = client.tell(prompt, sampling.clone(), TOKENS).await.unwrap();
            let expected = local.text(prompt, &sampling, TOKENS);
            assert!(!expected.tokens.is_empty());
            assert_eq!(told.summary.tokens, expected.tokens, "{what}, {prompt:?}, {sampling:?}");
            assert_eq!(told.summary.text, expected.text, "{what}, {prompt:?}, {sampling:?}");
            assert_eq!(told.summary.prompt_tokens, local.encode(prompt).len());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_text_is_the_same_over_any_cut() {
    let cuts: [&[(u32, u32)]; 4] = [
        &[(0, 12)],
        &[(0, 6), (6, 12)],
        &[(0, 1), (1, 11), (11, 12)],
        // Servers that overlap are used in part.
        &[(0, 5), (3, 8), (5, 10), (8, 12)],
    ];
    for cut in cuts {
        let swarm = TestSwarm::demo(cut);
        tells_the_same(&Client::of(&swarm).await, Local::demo(), &format!("{cut:?}")).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_format_is_another_model_with_its_own_text() {
    for format in [WeightFormat::F32, WeightFormat::Q8_0, WeightFormat::Q4_0, WeightFormat::Q4K] {
        let mut swarm = TestSwarm::demo(&[(0, 12)]);
        swarm.serve(&[(0, 7), (7, 12)], &["--format", &format.to_string()]);
        let client = Client::with(&swarm, &ModelSpec::Demo, Some(format), ClientConfig::default()).await;
        let local = Local::open(&ModelSpec::Demo, format);
        tells_the_same(&client, &local, &format.to_string()).await;
        let told = client.tell(PROMPT, greedy(), 4).await.unwrap();
        assert_eq!(told.summary.route.len(), 2, "the bf16 server is of no use to it");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_of_several_numeric_classes_go_together_only_when_told_to() {
    let mut swarm = TestSwarm::demo(&[(0, 6)]);
    swarm.serve(&[(6, 12)], &["--kv-bits", "8"]);
    let Err(error) = Client::of(&swarm).await.tell(PROMPT, greedy(), 4).await else {
        panic!("two classes in one route")
    };
    assert!(error.to_string().contains("numeric class"), "{error}");
    let config = ClientConfig { mixed_classes: true, ..ClientConfig::default() };
    let client = Client::with(&swarm, &ModelSpec::Demo, None, config).await;
    let told = client.tell(PROMPT, greedy(), TOKENS).await.unwrap();
    assert_eq!((told.summary.route.len(), told.summary.tokens.len()), (2, TOKENS));
    // As long as one class does, it is taken.
    swarm.serve(&[(6, 12)], &[]);
    let client =
        Client::with(&swarm, &ModelSpec::Demo, None, ClientConfig { mixed_classes: true, ..Default::default() });
    tells_the_same(&client.await, Local::demo(), "one class").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logits_are_the_local_ones_and_those_of_candle_transformers() {
    let mut swarm = TestSwarm::demo(&[(0, 4), (4, 9), (9, 12)]);
    swarm.serve(&[(0, 6), (6, 12)], &["--format", "f32"]);
    let reference = Reference::demo();
    for format in [WeightFormat::Bf16, WeightFormat::F32] {
        let client = Client::with(&swarm, &ModelSpec::Demo, Some(format), ClientConfig::default()).await;
        let local = Local::open(&ModelSpec::Demo, format);
        for prompt in PROMPTS {
            let ids = local.encode(prompt);
            let mut session = client.model.session(range(0, 12), ids.len()).await.unwrap();
            let hidden = session.forward(&client.model.embed(&ids).await.unwrap()).await.unwrap();
            let logits = client.model.logits(&hidden).await.unwrap();
            let expected = local.logits(&local.forward(range(0, 12), &local.embed(&ids)));
            assert!(logits == expected, "{format}, {prompt:?}: the logits differ from the local ones");
            let theirs = reference.logits(&ids);
            let pairs = logits.last().unwrap().iter().zip(&theirs);
            let difference = pairs.map(|(ours, theirs)| (ours - theirs).abs()).fold(0.0, f32::max);
            let near = if format == WeightFormat::F32 { 1e-4 } else { 0.5 };
            assert!(difference < near, "{format}, {prompt:?}: {difference} from candle-transformers");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inner_blocks_take_and_give_hidden_states() {
    let swarm = TestSwarm::demo(&[(0, 5), (5, 8), (8, 12)]);
    let client = Client::of(&swarm).await;
    let local = Local::demo();
    let ids = local.encode(PROMPT);
    for (start, end) in [(0, 12), (0, 1), (3, 9), (5, 8), (7, 8), (11, 12)] {
        let blocks = range(start, end);
        let input = local.embed(&ids);
        let mut session = client.model.session(blocks, ids.len()).await.unwrap();
        let output = session.forward(&input).await.unwrap();
        let expected = local.forward(blocks, &input);
        assert_eq!(activations::to_bytes(&output).unwrap(), activations::to_bytes(&expected).unwrap(), "{blocks}");
        let hosted = session.route();
        assert_eq!((hosted[0].blocks.start(), hosted.last().unwrap().blocks.end()), (start, end));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_truncated_leaves_no_trace() {
    let swarm = TestSwarm::demo(&[(0, 6), (6, 12)]);
    let client = Client::of(&swarm).await;
    let local = Local::demo();
    let all = range(0, 12);
    let (first, second) = (local.encode(PROMPT), local.encode("One night, a big storm came. The wind was loud."));
    let mut session = client.model.session(all, 200).await.unwrap();
    // To nothing, into the middle, and to where it is.
    for keep in [0, 1, 7, first.len()] {
        session.truncate(0);
        session.forward(&local.embed(&first)).await.unwrap();
        session.truncate(keep);
        assert_eq!(session.position(), keep);
        let output = session.forward(&local.embed(&second)).await.unwrap();
        let whole = [&first[..keep], &second[..]].concat();
        let expected = local.forward(all, &local.embed(&whole)).narrow(0, keep, second.len()).unwrap();
        assert!(local.logits(&output) == local.logits(&expected), "other tokens after position {keep}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_at_once_do_not_disturb_one_another() {
    let swarm = TestSwarm::demo(&[(0, 6), (6, 12), (0, 6)]);
    let clients = join_all((0..3).map(|_| Client::of(&swarm))).await;
    let tellings = clients.iter().enumerate().flat_map(|(index, client)| {
        let choices: [SamplingConfig; 2] = [greedy(), sampled(index as u64)];
        PROMPTS.iter().zip(choices).map(move |(prompt, sampling)| async move {
            let told = client.tell(prompt, sampling.clone(), TOKENS).await.unwrap();
            (*prompt, sampling, told)
        })
    });
    for (prompt, sampling, told) in join_all(tellings).await {
        let expected = Local::demo().text(prompt, &sampling, TOKENS);
        assert_eq!(told.summary.text, expected.text, "{prompt:?}, {sampling:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conversation_computes_only_what_is_new() {
    let swarm = TestSwarm::demo(&[(0, 6), (6, 12)]);
    let client = Client::of(&swarm).await;
    let local = Local::demo();
    let mut session = client.model.text_session(400).await.unwrap();
    let mut text = PROMPT.to_string();
    for turn in 0..3 {
        let ids = local.encode(&text);
        let config = swarm_client::GenerationConfig { max_tokens: 20, sampling: greedy(), ..Default::default() };
        let mut generation = session.generate(&ids, config).unwrap();
        let summary = loop {
            if let Some(swarm_client::GenerationEvent::Done(summary)) = generation.next().await.unwrap() {
                break summary;
            }
        };
        assert_eq!(summary.text, local.text(&text, &greedy(), 20).text, "turn {turn}");
        assert_eq!(summary.reused_tokens > 0, turn > 0, "turn {turn} reused {}", summary.reused_tokens);
        // The person takes back half of the answer: the hops forget it.
        let half: String = summary.text.chars().take(summary.text.chars().count() / 2).collect();
        text = format!("{text}{half} And then");
    }
}

#[test]
fn the_command_line_tells_the_same_text() {
    let swarm = TestSwarm::demo(&[(0, 6), (6, 12)]);
    let told = swarm.generate(&["--prompt", PROMPT, "--max-tokens", "80"]).finish();
    let expected = Local::demo().text(PROMPT, &greedy(), TOKENS);
    assert_eq!((told.exit.code, &told.text, &told.tokens), (Some(0), &expected.text, &expected.tokens));
    assert_eq!((&told.streamed_tokens, &told.streamed_text), (&told.tokens, &told.text));
    let seeded = ["--temperature", "0.9", "--top-k", "50", "--top-p", "0.95", "--seed", "7"];
    let options = [&["--prompt", PROMPT, "--max-tokens", "80"][..], &seeded].concat();
    assert_eq!(swarm.generate(&options).finish().tokens, Local::demo().text(PROMPT, &sampled(7), TOKENS).tokens);
}

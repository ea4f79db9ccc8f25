//! Embedding, head and sampling left to servers: the text is the one that the client would have chosen itself.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::Duration;

use futures::StreamExt;
use swarm_client::{ClientConfig, EdgesPlace, GenerationConfig, GenerationEvent, Prompt, SessionError};
use swarm_model::{LogProbabilities, ModelSpec, SamplingConfig};
use swarm_protocol::PeerId;
use swarm_protocol::model_id::BlockDigest;
use swarm_protocol::p2p::{FrameReader, FrameWriter, StreamKind};
use swarm_protocol::wire::{
    ChooseToken, ChooseWith, EdgesOffer, EdgesRefusal, EdgesReply, EdgesRequest, MAX_STEP_ROWS, MAX_TOP_TOKENS,
    OpenEdges, RowEncoding, RowsHeader,
};
use swarm_tests::harness::{Client, Local, PROMPT, Server, TestSwarm, greedy, sampled};

const TOKENS: usize = 40;

/// The demo model's vocabulary and width.
const VOCAB: u32 = 1024;
const HIDDEN: u32 = 128;

/// Two servers of all blocks, the second of which offers edges, and as many more that do.
fn swarm(offering: usize) -> TestSwarm {
    let mut swarm = TestSwarm::demo(&[(0, 12)]);
    swarm.serve(&vec![(0, 1); offering], &["--edges"]);
    swarm
}

async fn client(swarm: &TestSwarm, config: ClientConfig) -> Client {
    let config = ClientConfig { edges: EdgesPlace::Served, ..config };
    Client::with(swarm, &ModelSpec::Demo, None, config).await
}

/// What the first question of this protocol had no word for.
fn counted() -> SamplingConfig {
    let (presence_penalty, frequency_penalty) = (Some(0.4), Some(0.7));
    SamplingConfig { min_p: Some(0.05), presence_penalty, frequency_penalty, ..sampled(6) }
}

fn penalised() -> SamplingConfig {
    SamplingConfig { repetition_penalty: Some(1.3), ..sampled(5) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn texts_are_those_of_a_client_that_chooses_itself() {
    let swarm = swarm(1);
    let client = client(&swarm, ClientConfig::default()).await;
    let warm = SamplingConfig { temperature: Some(1.1), seed: 9, ..greedy() };
    for sampling in [greedy(), sampled(7), warm, penalised(), counted()] {
        let told = client.tell(PROMPT, sampling.clone(), TOKENS).await.unwrap();
        assert_eq!(told.summary.tokens, Local::demo().text(PROMPT, &sampling, TOKENS).tokens, "{sampling:?}");
        assert_eq!(told.summary.edges, Some(swarm.servers[1].peer));
    }
    // A prompt of several chunks, most of which was embedded ahead.
    let long = [PROMPT; 20].join(" ");
    let told = client.tell(&long, sampled(3), TOKENS).await.unwrap();
    assert_eq!(told.summary.tokens, Local::demo().text(&long, &sampled(3), TOKENS).tokens);
    // Two at a time.
    let samplings = [greedy(), sampled(1), sampled(2), penalised()];
    let prompts = samplings.clone().map(|sampling| Prompt {
        ids: client.model.encode(PROMPT).unwrap(),
        config: GenerationConfig { max_tokens: TOKENS, sampling, ..GenerationConfig::default() },
    });
    let texts: Vec<_> = client.model.generate_many(prompts, 2).collect().await;
    assert_eq!(texts.len(), samplings.len());
    for (place, text) in texts {
        assert_eq!(text.unwrap().tokens, Local::demo().text(PROMPT, &samplings[place], TOKENS).tokens, "text {place}");
    }
    // This client has no head.
    let embedded = client.model.embed(&[1, 2, 3]).await.unwrap();
    let expected = Local::demo().embed(&[1, 2, 3]);
    assert_eq!(format!("{embedded}"), format!("{expected}"));
    assert!(matches!(client.model.logits(&embedded).await, Err(SessionError::NoLogits)));
}

/// The tokens of a text with their probabilities.
async fn told_with_probabilities(client: &Client, top: usize) -> Vec<(u32, LogProbabilities)> {
    let ids = client.model.encode(PROMPT).unwrap();
    let mut session = client.model.text_session_for(&ids, ids.len() + TOKENS).await.unwrap();
    let config = GenerationConfig {
        max_tokens: TOKENS,
        sampling: penalised(),
        probabilities: Some(top),
        ..GenerationConfig::default()
    };
    let mut generation = session.generate(&ids, config).unwrap();
    let mut tokens = Vec::new();
    while let Some(event) = generation.next().await.unwrap() {
        if let GenerationEvent::Token { id, probabilities, .. } = event {
            tokens.push((id, probabilities.unwrap()));
        }
    }
    tokens
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn probabilities_are_the_models_own() {
    let swarm = swarm(1);
    let served = told_with_probabilities(&client(&swarm, ClientConfig::default()).await, 5).await;
    let own = told_with_probabilities(&Client::of(&swarm).await, 5).await;
    assert_eq!(served, own, "to the bit, wherever they are computed");
    let local = Local::demo();
    let mut ids = local.encode(PROMPT);
    let position = ids.len() - 1;
    ids.extend(served.iter().map(|(id, _)| *id));
    let all = swarm_tests::harness::range(0, 12);
    let logits = local.logits(&local.forward(all, &local.embed(&ids)));
    for (at, (id, found)) in served.iter().enumerate() {
        let logits = &logits[position + at];
        let sum: f64 = logits.iter().map(|logit| f64::from(*logit).exp()).sum();
        let log = |id: u32| (f64::from(logits[id as usize]).exp() / sum).ln();
        assert!((f64::from(found.chosen) - log(*id)).abs() < 1e-4, "token {at}");
        assert_eq!(found.top.len(), 5);
        assert!(found.top.iter().all(|(id, found)| (f64::from(*found) - log(*id)).abs() < 1e-4), "token {at}");
        assert!(found.top.windows(2).all(|pair| pair[0].1 >= pair[1].1), "token {at}");
        assert!(logits.iter().filter(|logit| **logit > logits[found.top[4].0 as usize]).count() < 5, "token {at}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_server_costs_nothing_but_the_question() {
    for sampling in [greedy(), penalised(), counted()] {
        let mut swarm = swarm(2);
        let client = client(&swarm, ClientConfig::default()).await;
        let ids = client.model.encode(PROMPT).unwrap();
        let mut session = client.model.text_session_for(&ids, ids.len() + TOKENS).await.unwrap();
        let config = GenerationConfig { max_tokens: TOKENS, sampling: sampling.clone(), ..GenerationConfig::default() };
        let mut generation = session.generate(&ids, config).unwrap();
        let (mut tokens, mut lost) = (0, None::<PeerId>);
        let summary = loop {
            match generation.next().await.unwrap().expect("the end comes first") {
                GenerationEvent::Token { .. } => {
                    tokens += 1;
                    if tokens == TOKENS / 2 {
                        let server = generation.edges_server().unwrap();
                        lost = Some(server);
                        swarm.server(server).process.kill();
                    }
                }
                GenerationEvent::Done(summary) => break summary,
                _ => {}
            }
        };
        assert_eq!(summary.tokens, Local::demo().text(PROMPT, &sampling, TOKENS).tokens);
        assert!(summary.edges.is_some() && summary.edges != lost, "{:?} chose the last token", summary.edges);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_server_the_error_says_what_to_do() {
    let brief = Duration::from_secs(1);
    let config = || ClientConfig { start_patience: brief, repair_patience: brief, ..ClientConfig::default() };
    let mut swarm = TestSwarm::demo(&[(0, 12)]);
    let error = client(&swarm, config()).await.tell(PROMPT, greedy(), TOKENS).await.unwrap_err();
    assert!(matches!(error, SessionError::NoEdges { last: None, .. }), "{error}");
    for hint in ["serve --model demo --edges`", "leave out `--edges served`"] {
        assert!(error.to_string().contains(hint), "{error}");
    }
    // The last one dies in the middle of a text; that blocks are still served does not help.
    let peer = swarm.serve(&[(0, 1)], &["--edges"])[0].peer;
    let client = client(&swarm, config()).await;
    let told = client.tell_with(PROMPT, greedy(), TOKENS, async |tokens, _| {
        if tokens == 5 {
            swarm.server(peer).process.kill();
        }
    });
    let error = told.await.unwrap_err();
    assert!(
        matches!(&error, SessionError::NoEdges { last: Some(last), .. } if last.contains(&peer.to_string())),
        "{error}"
    );
}

#[test]
fn the_command_line_says_who_chose() {
    let swarm = swarm(1);
    let options = ["--prompt", PROMPT, "--max-tokens", "8", "--edges", "served"];
    let told = swarm.generate(&[&options[..], &["--logprobs", "2"]].concat()).finish();
    let edges = swarm.servers[1].peer.to_string();
    assert_eq!(told.tokens, Local::demo().text(PROMPT, &greedy(), 8).tokens);
    assert_eq!(told.done["edges_peer"], edges.as_str());
    let mut command = swarm.node("generate");
    command.args(["--model", "demo", "--show-route"]).args(options);
    let shown = swarm.run("generate", command);
    assert!(shown.stderr.contains(&format!("embedding and head on {edges}")), "{}", shown.stderr);
    let blocked = swarm.generate(&[&options[..], &["--block-peer", &edges]].concat()).finish();
    assert_ne!(blocked.exit.code, Some(0));
    assert!(blocked.exit.stderr.contains("serve --model demo --edges"), "{}", blocked.exit.stderr);
}

/// A stream on which anything may be said.
struct Stream(FrameReader<EdgesReply>, FrameWriter<EdgesRequest>);

impl Stream {
    async fn open(client: &Client, server: &Server) -> Self {
        let addresses = std::slice::from_ref(&server.address);
        let stream = client.swarm.network().open(server.peer, addresses, StreamKind::Edges).await.unwrap();
        let (reader, writer) = stream.into_frames(1 << 20);
        Self(reader, writer)
    }

    async fn say(&mut self, request: &EdgesRequest, payload: &[u8]) -> EdgesReply {
        self.1.send(request, payload).await.unwrap();
        self.answer().await.expect("an answer")
    }

    async fn answer(&mut self) -> Option<EdgesReply> {
        let answer = tokio::time::timeout(Duration::from_secs(30), self.0.next()).await.expect("an answer in time");
        answer.ok().flatten().map(|(reply, _)| reply)
    }
}

fn choose() -> ChooseToken {
    ChooseToken {
        row: RowsHeader { rows: 1, hidden: HIDDEN, element: RowEncoding::Bf16 },
        temperature: None,
        top_k: None,
        top_p: None,
        repetition_penalty: None,
        seed: 0,
        drawn: 0,
        seen: 0,
        top: 0,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_requests_are_answered_and_bounded() {
    let swarm = swarm(1);
    let (client, server) = (Client::of(&swarm).await, &swarm.servers[1]);
    let info = client.info(server).await.unwrap();
    let EdgesOffer { class, digest, choose_us } = info.edges.clone().unwrap();
    assert!(choose_us > 0 && info.announcement.edges);
    let open = OpenEdges { model: info.announcement.model, class, digest };
    let others = [
        OpenEdges { digest: BlockDigest([7; 32]), ..open.clone() },
        OpenEdges { model: swarm_protocol::model_id::ModelId([7; 32]), ..open.clone() },
        OpenEdges { class: swarm_protocol::model_id::NumericClass::new("bf16/other").unwrap(), ..open.clone() },
    ];
    for other in others {
        let reply = Stream::open(&client, server).await.say(&EdgesRequest::Open(other), &[]).await;
        assert_eq!(reply, EdgesReply::Refused(EdgesRefusal::Other));
    }
    let row = vec![0; 2 * HIDDEN as usize];
    let nan = [0xc0, 0x7f].repeat(HIDDEN as usize);
    let wide = RowsHeader { hidden: 2 * HIDDEN, ..choose().row };
    let short = RowsHeader { hidden: HIDDEN / 2, ..choose().row };
    let none = RowsHeader { rows: 0, ..choose().row };
    let with = |choose: ChooseToken| EdgesRequest::Choose(choose);
    let counting =
        ChooseWith { choose: choose(), min_p: None, presence_penalty: 0.5, frequency_penalty: 0.5, generated: 1 };
    let counted = |with: ChooseWith, id: u32| {
        (EdgesRequest::ChooseWith(with), [&row[..], &id.to_le_bytes(), &u32::MAX.to_le_bytes()].concat())
    };
    let requests: Vec<(EdgesRequest, Vec<u8>)> = vec![
        (EdgesRequest::Embed(vec![]), vec![]),
        (EdgesRequest::Embed(vec![VOCAB]), vec![]),
        (EdgesRequest::Embed(vec![u32::MAX; 3]), vec![]),
        (EdgesRequest::Embed(vec![1; MAX_STEP_ROWS as usize + 1]), vec![]),
        (EdgesRequest::Open(open.clone()), vec![]),
        (with(ChooseToken { row: wide, ..choose() }), row.repeat(2)),
        (with(ChooseToken { row: short, ..choose() }), row[..row.len() / 2].to_vec()),
        (with(ChooseToken { row: none, ..choose() }), vec![]),
        (with(ChooseToken { top: MAX_TOP_TOKENS + 1, ..choose() }), row.clone()),
        (with(ChooseToken { top: u32::MAX, ..choose() }), row.clone()),
        (with(ChooseToken { temperature: Some(f64::NAN), ..choose() }), row.clone()),
        (with(ChooseToken { temperature: Some(-1.0), ..choose() }), row.clone()),
        (with(ChooseToken { top_p: Some(7.0), ..choose() }), row.clone()),
        (with(ChooseToken { top_k: Some(0), ..choose() }), row.clone()),
        (with(ChooseToken { repetition_penalty: Some(-1.0), ..choose() }), row.clone()),
        (with(ChooseToken { seen: 1, ..choose() }), [&row[..], &VOCAB.to_le_bytes()].concat()),
        counted(counting, VOCAB),
        counted(ChooseWith { presence_penalty: f32::NAN, ..counting }, 1),
        counted(ChooseWith { frequency_penalty: 3.0, ..counting }, 1),
        counted(ChooseWith { min_p: Some(1.5), ..counting }, 1),
        (with(choose()), nan.clone()),
        (with(ChooseToken { temperature: Some(1.0), ..choose() }), nan),
    ];
    for (request, payload) in requests {
        let mut stream = Stream::open(&client, server).await;
        assert_eq!(stream.say(&EdgesRequest::Open(open.clone()), &[]).await, EdgesReply::Opened);
        let reply = stream.say(&request, &payload).await;
        assert!(matches!(reply, EdgesReply::Refused(_)), "{request:?}: {reply:?}");
        assert_eq!(stream.answer().await, None, "the stream has ended");
    }
    // Nothing comes before Open, and there are no more ids than the vocabulary has.
    let reply = Stream::open(&client, server).await.say(&EdgesRequest::Embed(vec![1]), &[]).await;
    assert!(matches!(reply, EdgesReply::Refused(EdgesRefusal::BadRequest(_))), "{reply:?}");
    let mut stream = Stream::open(&client, server).await;
    stream.say(&EdgesRequest::Open(open.clone()), &[]).await;
    let seen = VOCAB + 1;
    let ids = vec![0; 4 * seen as usize];
    let reply = stream.say(&with(ChooseToken { seen, ..choose() }), &[&row[..], &ids].concat()).await;
    assert!(matches!(reply, EdgesReply::Refused(EdgesRefusal::BadRequest(_))), "{reply:?}");
    let mut stream = Stream::open(&client, server).await;
    stream.say(&EdgesRequest::Open(open.clone()), &[]).await;
    let many = ChooseWith { generated: VOCAB + 1, ..counting };
    let ids = vec![0; 8 * many.generated as usize];
    let reply = stream.say(&EdgesRequest::ChooseWith(many), &[&row[..], &ids].concat()).await;
    assert!(matches!(reply, EdgesReply::Refused(EdgesRefusal::BadRequest(_))), "{reply:?}");
    // What is merely large is no harm: the largest k there is, and a text that has gone on for ever.
    let mut stream = Stream::open(&client, server).await;
    stream.say(&EdgesRequest::Open(open), &[]).await;
    let large = ChooseToken { top_k: Some(u32::MAX), temperature: Some(1.0), drawn: u64::MAX, top: 20, ..choose() };
    let reply = stream.say(&with(large), &row).await;
    assert!(matches!(&reply, EdgesReply::Chosen(chosen) if chosen.id < VOCAB && chosen.top.len() == 20), "{reply:?}");
    // And it still serves others.
    let told = self::client(&swarm, ClientConfig::default()).await.tell(PROMPT, greedy(), 5).await.unwrap();
    assert_eq!(told.summary.tokens, Local::demo().text(PROMPT, &greedy(), 5).tokens);
}

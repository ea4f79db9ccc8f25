//! Servers are asked to leave, and nobody who uses them notices.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use swarm_client::{GenerationConfig, GenerationEvent};
use swarm_protocol::PeerId;
use swarm_tests::harness::{Client, Local, PROMPT, TestSwarm, Told, greedy, host};

/// Tokens of each text.
const TOKENS: usize = 200;

/// Tokens of a part of one.
const PART: usize = 50;

/// Longer than any test waits: whoever ends sooner did not wait for it.
const ENDLESS_DRAIN: [&str; 2] = ["--drain-timeout", "1h"];

/// Tells texts, one after the other, until `enough`.
async fn keep_telling(client: Client, enough: Arc<AtomicBool>) -> Vec<Told> {
    let mut told = Vec::new();
    while !enough.load(Ordering::Relaxed) {
        told.push(client.tell(PROMPT, greedy(), TOKENS).await.expect("a text"));
    }
    told
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_server_can_be_restarted_while_texts_are_told() {
    let mut swarm = TestSwarm::empty("demo", &[]);
    swarm.serve(&[(0, 6), (6, 12), (0, 6), (6, 12)], &ENDLESS_DRAIN);
    let enough = Arc::new(AtomicBool::new(false));
    let client = Client::of(&swarm).await;
    let telling = tokio::spawn(keep_telling(client, enough.clone()));
    for round in 0..4 {
        let mut leaving = swarm.servers.remove(0);
        let (start, end) = (leaving.blocks.start(), leaving.blocks.end());
        let exit = tokio::task::block_in_place(|| {
            leaving.process.terminate();
            leaving.process.exit()
        });
        assert_eq!(exit.code, Some(0), "{}", exit.stderr);
        tokio::task::block_in_place(|| swarm.serve(&[(start, end)], &ENDLESS_DRAIN));
        assert_eq!(swarm.servers.len(), 4, "round {round}");
    }
    enough.store(true, Ordering::Relaxed);
    let told = telling.await.expect("texts");
    let expected = Local::demo().text(PROMPT, &greedy(), TOKENS);
    for text in &told {
        assert_eq!(text.summary.tokens, expected.tokens);
        let abrupt: Vec<_> = text.lost.iter().filter(|(_, reason)| !reason.contains("leaving")).collect();
        assert!(abrupt.is_empty(), "servers were lost, not left: {abrupt:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_at_rest_keeps_no_server_from_leaving_and_goes_on_elsewhere() {
    let mut swarm = TestSwarm::empty("demo", &[]);
    swarm.serve(&[(0, 6), (6, 12), (6, 12)], &ENDLESS_DRAIN);
    let client = Client::of(&swarm).await;
    let prompt = client.model.encode(PROMPT).unwrap();
    let mut session = client.model.text_session(prompt.len() + 2 * PART).await.unwrap();
    let first = tell(&mut session, &prompt).await;
    let victim: PeerId = host(&session.route(), 6);
    let leaving = swarm.server(victim);
    let exit = tokio::task::block_in_place(|| {
        leaving.process.terminate();
        leaving.process.exit()
    });
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    let longer: Vec<u32> = prompt.iter().chain(&first).copied().collect();
    let second = tell(&mut session, &longer).await;
    let expected = Local::demo().text(PROMPT, &greedy(), 2 * PART).tokens;
    assert_eq!([first, second].concat(), expected, "the answer goes on where it was");
    assert!(session.route().iter().all(|hop| hop.peer != victim));
}

async fn tell(session: &mut swarm_client::TextSession, prompt: &[u32]) -> Vec<u32> {
    let config = GenerationConfig { max_tokens: PART, sampling: greedy(), ..Default::default() };
    let mut generation = session.generate(prompt, config).unwrap();
    loop {
        if let Some(GenerationEvent::Done(summary)) = generation.next().await.unwrap() {
            return summary.tokens;
        }
    }
}

//! `swarm-node api`: what tools that speak OpenAI's API get from a swarm.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "api/answers.rs"]
mod answers;
#[path = "api/crowd.rs"]
mod crowd;
#[path = "api/errors.rs"]
mod errors;
#[path = "api/limits.rs"]
mod limits;
#[path = "api/losses.rs"]
mod losses;

use serde_json::{Value, json};
use swarm_tests::harness::{Local, PROMPT, TestSwarm, greedy};

/// Tokens of most texts here.
const TOKENS: usize = 40;

/// A swarm of two servers.
fn swarm() -> TestSwarm {
    TestSwarm::demo(&[(0, 6), (6, 12)])
}

/// A request to continue [`PROMPT`] with the likeliest tokens.
fn completion() -> Value {
    json!({"model": "demo", "prompt": PROMPT, "max_tokens": TOKENS, "temperature": 0})
}

/// Its text.
fn expected(most: usize) -> String {
    Local::demo().text(PROMPT, &greedy(), most).text
}

/// A request to answer one message with the likeliest tokens.
fn chat() -> Value {
    json!({
        "model": "demo",
        "messages": [{"role": "user", "content": "Tell me a story about a fox."}],
        "max_tokens": TOKENS,
        "temperature": 0,
    })
}

/// `request` with another field.
fn with(mut request: Value, field: &str, value: Value) -> Value {
    request[field] = value;
    request
}

/// The text of all chunks of a chat's only answer.
fn chat_text(chunks: &[Value]) -> String {
    let pieces = chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str());
    pieces.collect()
}

/// The text of all chunks of a completion's only answer.
fn completion_text(chunks: &[Value]) -> String {
    chunks.iter().filter_map(|chunk| chunk["choices"][0]["text"].as_str()).collect()
}

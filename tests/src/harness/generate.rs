//! `swarm-node generate --json` as a person's script reads it.

use serde_json::Value;
use swarm_protocol::PeerId;
use swarm_protocol::block::BlockRange;

use super::process::{Exit, Process};
use super::range;

/// A hop of a printed route.
pub type Hop = (PeerId, BlockRange);

/// A running `generate`.
pub struct Generating {
    /// The process.
    pub process: Process,
    events: Vec<Value>,
}

/// What a finished `generate` has printed.
#[derive(Debug)]
pub struct GenerateOutput {
    /// The `done` event; null if there was none.
    pub done: Value,
    /// The text of `done`.
    pub text: String,
    /// The ids of `done`.
    pub tokens: Vec<u32>,
    /// The texts of all `token` events.
    pub streamed_text: String,
    /// The ids of all `token` events.
    pub streamed_tokens: Vec<u32>,
    /// Each `route` event.
    pub routes: Vec<Vec<Hop>>,
    /// The lost peer and the reason of each `reroute` event.
    pub reroutes: Vec<(PeerId, String)>,
    /// How the process ended.
    pub exit: Exit,
}

impl Generating {
    pub(super) fn new(process: Process) -> Self {
        Self { process, events: Vec::new() }
    }

    /// The next event; `None` at the end.
    pub fn next_event(&mut self) -> Option<Value> {
        let event = self.process.any_event()?;
        self.events.push(event.clone());
        Some(event)
    }

    /// Waits for the `count`-th token counted from here; gives the newest route.
    ///
    /// # Panics
    /// If it ends before.
    pub fn tokens(&mut self, count: usize) -> Vec<Hop> {
        for _ in 0..count {
            while self.next_event().expect("more tokens")["event"] != "token" {}
        }
        let routes = self.events.iter().rev().filter(|event| event["event"] == "route");
        hops(&routes.map(|event| &event["hops"]).next().expect("a route before the first token").clone())
    }

    /// Waits for the end.
    pub fn finish(mut self) -> GenerateOutput {
        while self.next_event().is_some() {}
        let exit = self.process.exit();
        let of = |kind: &'static str| self.events.iter().filter(move |event| event["event"] == kind);
        let done = of("done").next().cloned().unwrap_or(Value::Null);
        let string = |value: &Value| value.as_str().unwrap_or_default().to_string();
        let id = |value: &Value| value.as_u64().expect("a token id") as u32;
        GenerateOutput {
            text: string(&done["text"]),
            tokens: done["tokens"].as_array().into_iter().flatten().map(id).collect(),
            streamed_text: of("token").map(|event| string(&event["text"])).collect(),
            streamed_tokens: of("token").map(|event| id(&event["id"])).collect(),
            routes: of("route").map(|event| hops(&event["hops"])).collect(),
            reroutes: of("reroute").map(|event| (peer(&event["lost_peer"]), string(&event["reason"]))).collect(),
            done,
            exit,
        }
    }
}

/// A printed route, checked: its hops join without a hole.
fn hops(value: &Value) -> Vec<Hop> {
    let hop = |hop: &Value| {
        let block = |index: usize| hop["blocks"][index].as_u64().expect("a block") as u32;
        (peer(&hop["peer_id"]), range(block(0), block(1)))
    };
    let hops: Vec<Hop> = value.as_array().expect("hops").iter().map(hop).collect();
    let joined = hops.windows(2).all(|pair| pair[0].1.end() == pair[1].1.start());
    assert!(!hops.is_empty() && joined, "the hops of a route do not join: {value}");
    hops
}

fn peer(value: &Value) -> PeerId {
    value.as_str().and_then(|peer| peer.parse().ok()).unwrap_or_else(|| panic!("{value} is no peer id"))
}

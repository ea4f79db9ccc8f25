//! What a request took: OpenAI's `usage`, and what a swarm adds to it.

use serde_json::{Value, json};
use swarm_client::HopInfo;

use super::run::End;

/// Adds up over the answers of one request.
#[derive(Debug, Clone, Default)]
pub(crate) struct Taken {
    prompt: usize,
    cached: usize,
    completion: usize,
    ends: usize,
    first_token_ms: Option<f64>,
    tokens_per_second: f64,
    reroutes: usize,
    route: Vec<Value>,
    edges: Option<String>,
}

impl Taken {
    /// An answer has ended.
    pub(crate) fn add(&mut self, end: &End) {
        let summary = &end.summary;
        // The answers to one prompt are continued from one computation of it.
        if end.is_first {
            self.prompt += summary.prompt_tokens;
            self.cached += summary.reused_tokens;
        }
        self.completion += summary.tokens.len();
        self.ends += 1;
        self.tokens_per_second += summary.tokens_per_second;
        self.reroutes += summary.reroutes;
        let ms = end.first_token.map(|after| after.as_secs_f64() * 1000.0);
        self.first_token_ms = match (self.first_token_ms, ms) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        let hop = |hop: &HopInfo| {
            json!({
                "peer": hop.peer.to_string(),
                "name": end.names.get(&hop.peer),
                "blocks": hop.blocks.to_string(),
            })
        };
        self.route = summary.route.iter().map(hop).collect();
        self.edges = summary.edges.map(|peer| peer.to_string());
    }

    /// OpenAI's `usage`.
    pub(crate) fn usage(&self) -> Value {
        json!({
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.prompt + self.completion,
            "prompt_tokens_details": {"cached_tokens": self.cached},
        })
    }

    /// The object that says how the swarm did it.
    pub(crate) fn swarm(&self, request_id: &str) -> Value {
        let mut swarm = json!({
            "request_id": request_id,
            "route": self.route,
            "time_to_first_token_ms": self.first_token_ms.map(tenths),
            "tokens_per_second": tenths(self.tokens_per_second / self.ends.max(1) as f64),
            "reroutes": self.reroutes,
            "reused_tokens": self.cached,
        });
        if let Some(edges) = &self.edges {
            swarm["edges_peer"] = json!(edges);
        }
        swarm
    }
}

/// Digits beyond are noise.
fn tenths(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::HashMap;
    use std::time::Duration;

    use swarm_client::{Finish, Summary};

    use super::*;

    /// The end of an answer over no servers.
    pub(crate) fn end(tokens: usize, is_first: bool) -> End {
        let summary = Summary {
            text: String::new(),
            tokens: vec![7; tokens],
            finish: Finish::MaxTokens,
            tail: String::new(),
            prompt_tokens: 10,
            reused_tokens: 4,
            time_to_first_token: Duration::ZERO,
            tokens_per_second: 20.0,
            route: Vec::new(),
            edges: None,
            reroutes: 1,
        };
        End { summary, names: HashMap::new(), first_token: is_first.then(|| Duration::from_millis(120)), is_first }
    }

    #[test]
    fn a_prompt_counts_once_for_all_its_answers() {
        let mut taken = Taken::default();
        taken.add(&end(5, true));
        taken.add(&end(7, false));
        let usage = taken.usage();
        assert_eq!((usage["prompt_tokens"].as_u64(), usage["completion_tokens"].as_u64()), (Some(10), Some(12)));
        assert_eq!(usage["total_tokens"], 22);
        assert_eq!(usage["prompt_tokens_details"]["cached_tokens"], 4);
        let swarm = taken.swarm("req_1");
        assert_eq!((swarm["time_to_first_token_ms"].as_f64(), swarm["reroutes"].as_u64()), (Some(120.0), Some(2)));
        assert_eq!((swarm["tokens_per_second"].as_f64(), swarm["reused_tokens"].as_u64()), (Some(20.0), Some(4)));
    }
}

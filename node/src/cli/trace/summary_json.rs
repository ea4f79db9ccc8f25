//! A trace's summary for scripts.

use serde_json::{Value, json};
use swarm_client::trace::{HopTimes, Percentiles, Place, Slowest, TokenTimes, TraceSummary};

use crate::cli::text_view::millis;

/// The summary as one object; times in milliseconds.
pub(crate) fn json(summary: &TraceSummary) -> Value {
    let slowest = |(cause, tokens, usual): &(Slowest, usize, _)| {
        let mut about = cause_json(summary, *cause);
        about["tokens"] = json!(tokens);
        about["median_ms"] = json!(millis(*usual));
        about
    };
    json!({
        "event": "trace",
        "tokens": summary.tokens.len(),
        "took_ms": millis(summary.took),
        "time_to_first_token_ms": millis(summary.first()),
        "tokens_per_second": summary.tokens_per_second,
        "complete": summary.complete,
        "token": percentiles(summary.token),
        "embedding": percentiles(summary.embedding),
        "return": percentiles(summary.returned),
        "sampling": percentiles(summary.sampling),
        "hops": summary.hops.iter().map(hop_json).collect::<Value>(),
        "slowest": summary.slowest.iter().map(slowest).collect::<Value>(),
        "reroutes": summary.reroutes.iter().map(|reroute| json!({
            "lost_peer": reroute.lost, "reason": reroute.reason,
            "ms": millis(reroute.at), "took_ms": millis(reroute.took),
        })).collect::<Value>(),
        "per_token": summary.tokens.iter().map(|token| token_json(summary, token)).collect::<Value>(),
    })
}

fn percentiles(times: Percentiles) -> Value {
    json!({ "p50_ms": millis(times.p50), "p95_ms": millis(times.p95) })
}

fn hop_json(hop: &HopTimes) -> Value {
    json!({
        "peer_id": hop.peer,
        "blocks": [hop.blocks.start(), hop.blocks.end()],
        "bytes_in": hop.bytes.incoming,
        "bytes_out": hop.bytes.outgoing,
        "steps": hop.steps,
        "transfer": percentiles(hop.transfer),
        "queue": percentiles(hop.queue),
        "compute": percentiles(hop.compute),
        "wait": percentiles(hop.wait),
        "prefilled_rows": hop.prefilled_rows,
        "prefill_ms": millis(hop.prefill),
    })
}

fn token_json(summary: &TraceSummary, token: &TokenTimes) -> Value {
    let slowest = token.slowest.map(|(cause, time)| {
        let mut about = cause_json(summary, cause);
        about["ms"] = json!(millis(time));
        about
    });
    json!({ "token": token.token.number, "id": token.token.id, "ms": millis(token.took), "slowest": slowest })
}

fn cause_json(summary: &TraceSummary, cause: Slowest) -> Value {
    match cause {
        Slowest::Reroute => json!({ "stage": "re-route" }),
        Slowest::Stage(place, stage) => {
            let hop = |index: usize| summary.hops.iter().find(|hop| hop.hop == index);
            let about = match place {
                Place::Client => None,
                Place::Hop(index) => hop(index)
                    .map(|hop| json!({ "peer_id": hop.peer, "blocks": [hop.blocks.start(), hop.blocks.end()] })),
            };
            json!({ "stage": stage.name(), "hop": about })
        }
    }
}

//! The way to a swarm's servers.

use std::time::{Duration, Instant};

use anyhow::Result;
use futures::future::join_all;
use serde_json::{Value, json};
use swarm_client::finder::{Probe, probe};
use swarm_client::{ClientConfig, Swarm};
use swarm_protocol::block::BlockRange;
use swarm_protocol::p2p::{Network, StreamKind};
use swarm_protocol::session::{SessionId, TokenCount};
use swarm_protocol::wire::{Open, RowEncoding, RowsHeader, SessionReply, SessionRequest};
use tokio::time::timeout;

use super::millis;
use crate::cli::common::SwarmArgs;
use crate::cli::units::size;

/// How long a server may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// How long sending to one server may take.
const SEND_WITHIN: Duration = Duration::from_secs(8);

/// Servers that are asked; those that answer soonest are sent something.
const MOST_ASKED: usize = 16;

/// Servers that are sent something.
const MOST_SENT: usize = 3;

/// What is sent to each, in pieces as large as any server takes: 64 KiB.
const PIECES: usize = 32;
const PIECE: RowsHeader = RowsHeader { rows: 32, hidden: 1024, element: RowEncoding::Bf16 };

/// What was measured.
pub(super) struct Ways {
    asked: usize,
    /// Round trips in seconds, shortest first.
    round_trips: Vec<f64>,
    /// Bytes a second that the nearest took.
    sent: Vec<f64>,
}

impl Ways {
    pub(super) fn words(&self) -> String {
        let (Some(shortest), Some(longest)) = (self.round_trips.first(), self.round_trips.last()) else {
            return format!(
                "network   none of the {} servers that are known answers; `swarm-node doctor` says why",
                self.asked
            );
        };
        let best = self.sent.iter().copied().fold(0.0, f64::max);
        let sent = if best > 0.0 { format!("; sends {}/s to the fastest", size(best as u64)) } else { String::new() };
        let (answered, asked) = (self.round_trips.len(), self.asked);
        format!(
            "network   {answered} of {asked} servers answer, in {} to {}{sent}",
            millis(*shortest),
            millis(*longest)
        )
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "asked": self.asked,
            "round_trip_seconds": self.round_trips,
            "sent_bytes_per_second": self.sent,
        })
    }
}

/// Asks the swarm's servers, and sends something to the nearest.
pub(super) async fn measure(args: &SwarmArgs) -> Result<Ways> {
    let swarm = Swarm::join(args.network_config()?, ClientConfig::default()).await?;
    let mut servers = Vec::new();
    for (model, entry) in swarm.models().await {
        let blocks = BlockRange::new(0, entry.blocks)?;
        servers.extend(swarm.look_up(model, blocks).await.serving().cloned());
    }
    servers.truncate(MOST_ASKED);
    let network = swarm.network();
    let answers = servers.iter().map(|server| probe(network, server.peer, &server.addresses, ANSWER_WITHIN));
    let mut answers: Vec<Probe> = join_all(answers).await.into_iter().filter_map(Result::ok).collect();
    answers.sort_by_key(|probe| probe.rtt);
    let mut sent = Vec::new();
    // One after the other: they share this machine's line.
    for answer in answers.iter().take(MOST_SENT) {
        if let Ok(Some(rate)) = timeout(SEND_WITHIN, send(network, answer)).await {
            sent.push(rate);
        }
    }
    swarm.leave().await;
    let round_trips = answers.iter().map(|probe| probe.rtt.as_secs_f64()).collect();
    Ok(Ways { asked: servers.len(), round_trips, sent })
}

/// Opens a short session on a server and sends rows that mean nothing, as sessions do to warm a connection; gives how many bytes
/// a second arrive.
async fn send(network: &Network, answer: &Probe) -> Option<f64> {
    let said = &answer.info.announcement;
    let stream = network.open(said.peer, &said.addresses, StreamKind::Session).await.ok()?;
    let (mut reader, mut writer) = stream.into_frames::<SessionReply, SessionRequest>(0);
    let open = Open {
        session: SessionId(rand::random()),
        model: said.model,
        class: said.class.clone(),
        blocks: said.blocks,
        tokens: TokenCount(1),
    };
    writer.send(&SessionRequest::Open(open), &[]).await.ok()?;
    let Ok(Some((SessionReply::Opened { .. }, _))) = reader.next().await else { return None };
    let bytes = PIECE.payload_bytes().ok()?;
    let nothing = vec![0; bytes];
    let began = Instant::now();
    for _ in 0..PIECES {
        writer.send(&SessionRequest::Warm(PIECE), &nothing).await.ok()?;
    }
    writer.send(&SessionRequest::Ping { nonce: 1 }, &[]).await.ok()?;
    while !matches!(reader.next().await.ok()??.0, SessionReply::Pong { .. }) {}
    // The word that all has arrived takes half a round trip back.
    let took = began.elapsed().saturating_sub(answer.rtt / 2);
    let _ = writer.send(&SessionRequest::Close, &[]).await;
    Some((bytes * PIECES) as f64 / took.as_secs_f64().max(1e-6))
}

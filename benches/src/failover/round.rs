//! One session that loses a server.

use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;
use serde::Serialize;
use swarm_client::{Generation, GenerationConfig, GenerationEvent, HopInfo, Model, Swarm};
use swarm_protocol::PeerId;

use super::{Case, Fault, Settings};
use crate::bare::{BareChain, Shape};
use crate::local_swarm::LocalSwarm;
use crate::stats::milliseconds;
use crate::workload::{RandomModel, some_ids};

/// When the tokens came.
#[derive(Debug, Serialize)]
pub(crate) struct Round {
    /// The hop that was hit, from 0.
    hop: usize,
    /// Milliseconds from the fault to each token; below 0 before it.
    pub(super) token_ms: Vec<f64>,
    /// What computing the lost positions takes on an idle server of the same blocks.
    pub(super) replay_ms: f64,
    #[serde(skip)]
    tokens: Vec<u32>,
}

impl Round {
    fn gaps(&self) -> impl Iterator<Item = (f64, f64)> {
        self.token_ms.windows(2).map(|pair| (pair[1], pair[1] - pair[0]))
    }

    pub(super) fn gaps_before(&self) -> impl Iterator<Item = f64> {
        self.gaps().filter(|(end, _)| *end <= 0.0).map(|(_, gap)| gap)
    }

    pub(super) fn longest_gap(&self) -> f64 {
        self.gaps().filter(|(end, _)| *end > 0.0).map(|(_, gap)| gap).fold(0.0, f64::max)
    }

    pub(super) fn next_token(&self) -> f64 {
        self.token_ms.iter().copied().find(|time| *time > 0.0).unwrap_or_default()
    }

    pub(super) fn beyond_replay(&self) -> f64 {
        self.next_token() - self.replay_ms
    }
}

/// Every session must tell the same text.
///
/// # Errors
/// If one does not.
pub(super) fn same_text<'a>(rounds: impl Iterator<Item = &'a Round>) -> Result<()> {
    let texts: Vec<&[u32]> = rounds.map(|round| round.tokens.as_slice()).collect();
    ensure!(texts.windows(2).all(|pair| pair[0] == pair[1]), "a fault has changed the text");
    Ok(())
}

/// Opens a session, generates to the fault, causes it, and generates on.
///
/// # Errors
/// If the session does not survive.
pub(super) async fn run(
    swarm: &mut LocalSwarm,
    files: &RandomModel,
    settings: &Settings,
    case: &Case,
    number: usize,
) -> Result<Round> {
    let client = swarm.join_with(case.client()).await?;
    let model = client.open_model(&files.path().display().to_string().parse()?, None).await?;
    let mut session = model.text_session(settings.tokens + settings.after).await?;
    let route = session.route();
    ensure!(route.len() == settings.hops as usize, "the route has {} hops", route.len());
    let hop = number % route.len();
    let replay_ms = replay(&client, &model, swarm, &route[hop], settings).await?;
    let prompt = some_ids(settings.tokens.saturating_sub(settings.before));
    let config = GenerationConfig { max_tokens: settings.before + settings.after, ..GenerationConfig::default() };
    let mut telling = Telling::new(session.generate(&prompt, config)?);
    telling.tell(settings.before).await?;
    let fault = Instant::now();
    hit(swarm, route[hop].peer, case.fault)?;
    telling.tell(settings.after).await?;
    let Telling { tokens, times, lost, .. } = telling;
    let others: Vec<_> = lost.iter().filter(|(peer, _)| *peer != route[hop].peer).collect();
    ensure!(others.is_empty(), "{}: other servers were lost too: {others:?}", case.name);
    ensure!(case.fault == Fault::Terminate || !lost.is_empty(), "the session has not noticed the fault");
    let since = |time: &Instant| match time.checked_duration_since(fault) {
        Some(after) => milliseconds(after),
        None => -milliseconds(fault.duration_since(*time)),
    };
    let token_ms = times.iter().map(since).collect();
    client.leave().await;
    swarm.remove(route[hop].peer).await?;
    Ok(Round { hop, token_ms, replay_ms, tokens })
}

/// Milliseconds in which an idle server of the same blocks computes the positions that the session will have.
async fn replay(client: &Swarm, model: &Model, swarm: &LocalSwarm, lost: &HopInfo, settings: &Settings) -> Result<f64> {
    let idle = swarm.servers().iter().find(|server| server.blocks == lost.blocks && server.peer != lost.peer);
    let idle = HopInfo { peer: idle.context("no other server of these blocks")?.peer, ..lost.clone() };
    let mut chain = BareChain::open(client, model, &[idle], settings.tokens as u32, Shape::Ring).await?;
    let rows = model.embed(&some_ids(settings.tokens)).await?;
    let chunk = swarm_client::ClientConfig::default().prefill_chunk.as_usize();
    let mut compute = 0.0;
    for start in (0..settings.tokens).step_by(chunk) {
        let rows = rows.narrow(0, start, chunk.min(settings.tokens - start))?;
        compute += milliseconds(chain.forward(&rows).await?.1.compute);
    }
    Ok(compute)
}

fn hit(swarm: &LocalSwarm, peer: PeerId, fault: Fault) -> Result<()> {
    let signal = match fault {
        Fault::Kill => Signal::KILL,
        Fault::Freeze => Signal::STOP,
        Fault::Terminate => Signal::TERM,
    };
    let server = swarm.servers().iter().find(|server| server.peer == peer);
    server.context("the route has a server of somebody else")?.process.signal(signal)
}

/// A text as it comes.
struct Telling<'a> {
    generation: Generation<'a>,
    tokens: Vec<u32>,
    times: Vec<Instant>,
    /// Servers, and why.
    lost: Vec<(PeerId, String)>,
}

impl<'a> Telling<'a> {
    fn new(generation: Generation<'a>) -> Self {
        Self { generation, tokens: Vec::new(), times: Vec::new(), lost: Vec::new() }
    }

    /// Takes `count` tokens more.
    async fn tell(&mut self, count: usize) -> Result<()> {
        let goal = self.tokens.len() + count;
        while self.tokens.len() < goal {
            match self.generation.next().await?.context("no more tokens")? {
                GenerationEvent::Token { id, .. } => {
                    self.times.push(Instant::now());
                    self.tokens.push(id);
                }
                GenerationEvent::Reroute { lost, reason, .. } => self.lost.push((lost, reason)),
                GenerationEvent::Route { .. } | GenerationEvent::Trace(_) => {}
                GenerationEvent::Done(summary) => bail!("the text ended: {:?}", summary.finish),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_gap_is_one_that_ends_after_the_fault() {
        let token_ms = vec![-500.0, -30.0, -1.0, 20.0, 300.0, 330.0];
        let round = Round { hop: 0, token_ms, replay_ms: 15.0, tokens: Vec::new() };
        assert_eq!((round.next_token(), round.longest_gap(), round.beyond_replay()), (20.0, 280.0, 5.0));
        assert_eq!(round.gaps_before().collect::<Vec<_>>(), [470.0, 29.0]);
    }
}

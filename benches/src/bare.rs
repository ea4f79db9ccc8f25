//! A chain driven with nothing but frames on streams: tells what the network and the servers take from what the client
//! library adds.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use swarm_client::{HopInfo, Model, Swarm};
use swarm_model::{Tensor, activations};
use swarm_protocol::model_id::WeightFormat;
use swarm_protocol::p2p::{FrameReader, FrameWriter, StreamKind};
use swarm_protocol::session::{SessionId, TokenCount};
use swarm_protocol::wire::{
    Input, MAX_STEP_ROWS, Open, Output, OutputRows, RowsHeader, SessionReply, SessionRequest, Step, StepOutput,
};

/// Sessions on every server of a chain.
pub(crate) struct BareChain {
    hops: Vec<Hop>,
    format: WeightFormat,
    row: RowsHeader,
    position: u32,
}

struct Hop {
    reader: FrameReader<SessionReply>,
    writer: FrameWriter<SessionRequest>,
}

/// Where the time of one step went, all hops together.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct StepTimes {
    pub(crate) total: Duration,
    /// Waiting for the servers' compute threads.
    pub(crate) queue: Duration,
    /// In the servers' compute threads.
    pub(crate) compute: Duration,
}

impl StepTimes {
    /// Everything else: frames, streams, sockets, and waking those who wait for them.
    pub(crate) fn transport(&self) -> Duration {
        self.total.saturating_sub(self.queue + self.compute)
    }
}

impl BareChain {
    /// Opens a session with room for `tokens` positions on each server of `route`.
    pub(crate) async fn open(swarm: &Swarm, model: &Model, route: &[HopInfo], tokens: u32) -> Result<Self> {
        let row = RowsHeader { rows: 1, hidden: model.config().hidden as u32, element: model.format().into() };
        let known = model.servers().await;
        let mut hops = Vec::new();
        for hop in route {
            let announced = known.iter().map(|known| &known.announcement).find(|said| said.peer == hop.peer);
            let request = Open {
                session: SessionId::random(&mut rand::rng()),
                model: model.id(),
                class: announced.context("the server has not been probed")?.class.clone(),
                blocks: hop.blocks,
                tokens: TokenCount(tokens),
                input: Input::Owner,
                output: Output::Owner,
            };
            let stream = swarm.network().open(hop.peer, &[], StreamKind::Session).await?;
            let limit = RowsHeader { rows: MAX_STEP_ROWS, ..row }.payload_bytes()?;
            let (reader, writer) = stream.into_frames(limit);
            let mut hop = Hop { reader, writer };
            match hop.ask(&SessionRequest::Open(request), &[]).await? {
                (SessionReply::Opened { .. }, _) => hops.push(hop),
                (other, _) => bail!("no session: {other:?}"),
            }
        }
        Ok(Self { hops, format: model.format(), row, position: 0 })
    }

    /// Pushes rows through all hops.
    pub(crate) async fn forward(&mut self, input: &Tensor) -> Result<(Tensor, StepTimes)> {
        let rows = RowsHeader { rows: input.dims()[0] as u32, ..self.row };
        let step = Step { epoch: 0, position: self.position, rows, output: OutputRows::All };
        let start = Instant::now();
        let mut times = StepTimes::default();
        let mut bytes = activations::to_bytes(input)?;
        for hop in &mut self.hops {
            let answer;
            (answer, bytes) = hop.step(step, &bytes).await?;
            times.queue += Duration::from_micros(answer.queue_us.into());
            times.compute += Duration::from_micros(answer.compute_us.into());
        }
        times.total = start.elapsed();
        self.position += rows.rows;
        let output = activations::from_bytes(self.format, rows.rows as usize, rows.hidden as usize, &bytes)?;
        Ok((output, times))
    }

    /// The round-trip time of a message without work, on one hop after the other.
    pub(crate) async fn ping(&mut self) -> Result<Duration> {
        let start = Instant::now();
        for hop in &mut self.hops {
            let (reply, _) = hop.ask(&SessionRequest::Ping { nonce: 1 }, &[]).await?;
            ensure!(reply == SessionReply::Pong { nonce: 1 }, "no pong: {reply:?}");
        }
        Ok(start.elapsed() / self.hops.len() as u32)
    }
}

impl Hop {
    async fn ask(&mut self, request: &SessionRequest, payload: &[u8]) -> Result<(SessionReply, Vec<u8>)> {
        self.writer.send(request, payload).await?;
        self.reader.next().await?.context("the server ended the session")
    }

    async fn step(&mut self, step: Step, payload: &[u8]) -> Result<(StepOutput, Vec<u8>)> {
        match self.ask(&SessionRequest::Step(step), payload).await? {
            (SessionReply::Output(output), rows) => Ok((output, rows)),
            (other, _) => bail!("no output: {other:?}"),
        }
    }
}

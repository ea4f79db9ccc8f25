//! A chain driven with nothing but frames on streams: tells what the network and the servers take from what the client
//! library adds.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use swarm_client::{HopInfo, Model, Swarm};
use swarm_model::{Tensor, activations};
use swarm_protocol::announcement::Announcement;
use swarm_protocol::model_id::WeightFormat;
use swarm_protocol::p2p::{FrameReader, FrameWriter, Network, StreamKind};
use swarm_protocol::session::{SessionId, TokenCount};
use swarm_protocol::wire::{
    Connect, Input, Lane, MAX_STEP_ROWS, Next, Open, Output, RowsHeader, SessionReply, SessionRequest, Step, StepDone,
};

/// Sessions on every server of a chain; each server feeds the next one, the last one answers here.
pub(crate) struct BareChain {
    hops: Vec<Hop>,
    format: WeightFormat,
    row: RowsHeader,
    position: u32,
}

struct Hop {
    /// As the hop before it is told of it.
    as_next: Next,
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
        let limit = RowsHeader { rows: MAX_STEP_ROWS, ..row }.payload_bytes()?;
        let known = model.servers().await;
        let mut hops = Vec::new();
        for hop in route {
            let announced = known.iter().map(|known| &known.announcement).find(|said| said.peer == hop.peer);
            let announced = announced.context("the server has not been probed")?;
            let request = Open {
                session: SessionId::random(&mut rand::rng()),
                model: model.id(),
                class: announced.class.clone(),
                blocks: hop.blocks,
                tokens: TokenCount(tokens),
            };
            hops.push(Hop::open(swarm.network(), announced, request, limit).await?);
        }
        let mut chain = Self { hops, format: model.format(), row, position: 0 };
        chain.join().await?;
        Ok(chain)
    }

    /// Tells each hop by whom it is fed, and only then the one before it whom to feed.
    async fn join(&mut self) -> Result<()> {
        let mut output = Output::Owner;
        for index in (0..self.hops.len()).rev() {
            let link = index as u32;
            let before = index.checked_sub(1).map(|before| self.hops[before].as_next.peer);
            let hop = &mut self.hops[index];
            if let Some(peer) = before {
                hop.writer.send(&SessionRequest::Accept(Input::Upstream { peer, link }), &[]).await?;
            }
            let connect = Connect { lane: Lane::Main, link: link + 1, output, position: 0 };
            hop.writer.send(&SessionRequest::Connect(connect), &[]).await?;
            output = Output::Next(hop.as_next.clone());
        }
        Ok(())
    }

    /// Pushes rows through all hops.
    pub(crate) async fn forward(&mut self, input: &Tensor) -> Result<(Tensor, StepTimes)> {
        let rows = RowsHeader { rows: input.dims()[0] as u32, ..self.row };
        let step = Step { epoch: 0, position: self.position, rows, wanted_from: self.position };
        let start = Instant::now();
        let bytes = activations::to_bytes(input)?;
        self.hops.first_mut().context("no hop")?.writer.send(&SessionRequest::Step(step), &bytes).await?;
        let bytes = self.hops.last_mut().context("no hop")?.output().await?;
        let mut times = StepTimes { total: start.elapsed(), ..StepTimes::default() };
        for hop in &mut self.hops {
            let done = hop.done().await?;
            times.queue += Duration::from_micros(done.queue_us.into());
            times.compute += Duration::from_micros(done.compute_us.into());
        }
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
    async fn open(network: &Network, server: &Announcement, request: Open, payload_limit: usize) -> Result<Self> {
        let (peer, addresses) = (server.peer, server.addresses.clone());
        let as_next = Next { peer, addresses, session: request.session, max_rows: MAX_STEP_ROWS };
        let (reader, writer) = network.open(peer, &[], StreamKind::Session).await?.into_frames(payload_limit);
        let mut hop = Self { as_next, reader, writer };
        match hop.ask(&SessionRequest::Open(request), &[]).await? {
            (SessionReply::Opened { .. }, _) => Ok(hop),
            (other, _) => bail!("no session: {other:?}"),
        }
    }

    async fn ask(&mut self, request: &SessionRequest, payload: &[u8]) -> Result<(SessionReply, Vec<u8>)> {
        self.writer.send(request, payload).await?;
        self.next().await
    }

    async fn next(&mut self) -> Result<(SessionReply, Vec<u8>)> {
        self.reader.next().await?.context("the server ended the session")
    }

    async fn output(&mut self) -> Result<Vec<u8>> {
        match self.next().await? {
            (SessionReply::Output(_), rows) => Ok(rows),
            (other, _) => bail!("no output: {other:?}"),
        }
    }

    async fn done(&mut self) -> Result<StepDone> {
        match self.next().await? {
            (SessionReply::Done(done), _) => Ok(done),
            (other, _) => bail!("a step was not computed: {other:?}"),
        }
    }
}

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
    Connect, Input, Lane, MAX_STEP_ROWS, Next, Open, Output, RowsHeader, SessionReply, SessionRequest, Step, StepDone,
};

/// Which way rows take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Each server feeds the next one, the last one answers here.
    Ring,
    /// Each server answers here, and the next one is fed from here.
    Star,
}

/// Sessions on every server of a chain.
pub(crate) struct BareChain {
    shape: Shape,
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
    pub(crate) async fn open(
        swarm: &Swarm,
        model: &Model,
        route: &[HopInfo],
        tokens: u32,
        shape: Shape,
    ) -> Result<Self> {
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
            let (peer, addresses) = (hop.peer, announced.addresses.clone());
            let as_next = Next { peer, addresses, session: request.session, max_rows: MAX_STEP_ROWS };
            let stream = swarm.network().open(peer, &[], StreamKind::Session).await?;
            hops.push(Hop::open(as_next, stream.into_frames(limit), request).await?);
        }
        let mut chain = Self { shape, hops, format: model.format(), row, position: 0 };
        match shape {
            Shape::Ring => chain.join().await?,
            Shape::Star => chain.answer_here().await?,
        }
        Ok(chain)
    }

    /// Each hop is fed from here, as it is when it was opened, and sends every row back.
    async fn answer_here(&mut self) -> Result<()> {
        for hop in &mut self.hops {
            let connect = Connect { lane: Lane::Main, link: 1, output: Output::Relay, position: 0 };
            hop.writer.send(&SessionRequest::Connect(connect), &[]).await?;
        }
        Ok(())
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
        let bytes = match self.shape {
            Shape::Ring => self.round(step, bytes).await?,
            Shape::Star => self.there_and_back(step, bytes).await?,
        };
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

    async fn round(&mut self, step: Step, bytes: Vec<u8>) -> Result<Vec<u8>> {
        self.hops.first_mut().context("no hop")?.writer.send(&SessionRequest::Step(step), &bytes).await?;
        self.hops.last_mut().context("no hop")?.output().await
    }

    async fn there_and_back(&mut self, step: Step, mut bytes: Vec<u8>) -> Result<Vec<u8>> {
        for hop in &mut self.hops {
            hop.writer.send(&SessionRequest::Step(step), &bytes).await?;
            bytes = hop.output().await?;
        }
        Ok(bytes)
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
    async fn open(
        as_next: Next,
        (reader, writer): (FrameReader<SessionReply>, FrameWriter<SessionRequest>),
        request: Open,
    ) -> Result<Self> {
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
        loop {
            match self.reader.next().await?.context("the server ended the session")? {
                (SessionReply::Linked { .. }, _) => {}
                reply => return Ok(reply),
            }
        }
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

//! Embedding, head and sampling for clients that leave them to servers. Every request is complete in itself, and nothing of it is
//! kept.

use std::sync::Arc;
use std::time::{Duration, Instant};

use swarm_edges::{Chosen, EdgesError, EdgesWorker, Wish};
use swarm_model::{ComputePool, Edges, History, ModelError, Sampler, SamplingConfig};
use swarm_protocol::PeerId;
use swarm_protocol::activations::ActivationRows;
use swarm_protocol::model_id::ModelId;
use swarm_protocol::p2p::{ByteStream, FrameReader, FrameWriter, StreamError};
use swarm_protocol::wire::{
    COUNTED_ID_BYTES, ChooseToken, ChooseWith, ChosenToken, EdgesOffer, EdgesRefusal, EdgesReply, EdgesRequest,
    MAX_STEP_ROWS, MAX_TOP_TOKENS, OpenEdges, RowsHeader, SEEN_ID_BYTES,
};
use tokio::time::timeout;
use tracing::{debug, info};

use super::error::ServeError;
use super::host::Host;
use super::loading::{Served, blocking};
use super::part_budget::PartBudget;
use super::parts::EdgesPart;
use super::phase::{Phase, left};
use super::turns::Turns;

/// How long a client may take to say what it wants, and to take an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Questions answered at a time: with the largest of answers (512 rows, twice) some hundreds of MB in all.
const MOST_TURNS: usize = 32;

/// Of one peer: as many as are worth one reading of the head.
const TURNS_OF_PEER: usize = 16;

/// Choices that are timed at start: the first warms up caches.
const TIMED_CHOICES: usize = 3;

type Reader = FrameReader<EdgesRequest>;
type Writer = FrameWriter<EdgesReply>;

/// Embedding and head as they are offered to others; clones share.
#[derive(Debug, Clone)]
pub(super) struct OfferedEdges {
    worker: EdgesWorker,
    pub(super) offer: EdgesOffer,
    model: ModelId,
    /// What one row looks like.
    row: RowsHeader,
    vocab: u32,
    turns: Turns,
}

impl OfferedEdges {
    /// Loads them, on threads of their own beside those of the blocks.
    pub(super) async fn load(served: &Served) -> Result<Self, ServeError> {
        let (checkpoint, format, model, threads) =
            (served.checkpoint.clone(), served.format, served.model, served.threads);
        blocking(move || {
            let edges = checkpoint.load_edges(format)?;
            let pool = ComputePool::new(threads)?;
            let took = pool.run(|| fastest_choice(&edges))?;
            let choose_us = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
            let offer = EdgesOffer { class: edges.numeric_class()?, digest: edges.digest(), choose_us };
            let (hidden, vocab) = (edges.config().hidden as u32, edges.config().vocab as u32);
            let worker = EdgesWorker::start(edges, pool).map_err(ServeError::Thread)?;
            info!(?took, "embedding and head are loaded");
            let row = RowsHeader { rows: 1, hidden, element: format.into() };
            let turns = Turns::new(MOST_TURNS, TURNS_OF_PEER);
            Ok(Self { worker, offer, model, row, vocab, turns })
        })
        .await?
    }

    /// The largest payload of a request.
    fn most_bytes(&self) -> usize {
        self.row.payload_bytes().unwrap_or(0) + self.vocab as usize * (SEEN_ID_BYTES + COUNTED_ID_BYTES)
    }

    fn are(&self, open: &OpenEdges) -> bool {
        let EdgesOffer { class, digest, .. } = &self.offer;
        open.model == self.model && open.class == *class && open.digest == *digest
    }

    async fn answer(&self, request: EdgesRequest, payload: Vec<u8>) -> Result<(EdgesReply, Vec<u8>), EdgesRefusal> {
        match request {
            EdgesRequest::Open(_) => Err(bad("a stream is opened once")),
            EdgesRequest::Embed(ids) => self.embed(ids).await,
            EdgesRequest::Choose(choose) => self.choose(choose.into(), payload).await,
            EdgesRequest::ChooseWith(choose) => self.choose(choose.into(), payload).await,
            EdgesRequest::Trace(_) => Err(bad("a span is named between two questions")),
        }
    }

    async fn embed(&self, ids: Vec<u32>) -> Result<(EdgesReply, Vec<u8>), EdgesRefusal> {
        if ids.is_empty() || ids.len() > MAX_STEP_ROWS as usize {
            return Err(bad(&format!("1 to {MAX_STEP_ROWS} tokens are embedded at once, not {}", ids.len())));
        }
        self.check_ids(ids.iter().copied())?;
        let rows = self.worker.embed(ids).await.map_err(|error| refusal(&error))?;
        Ok((EdgesReply::Embedded(rows.header()), rows.into_bytes()))
    }

    async fn choose(
        &self,
        Question { choose, sampling }: Question,
        mut payload: Vec<u8>,
    ) -> Result<(EdgesReply, Vec<u8>), EdgesRefusal> {
        if choose.row != self.row {
            return Err(bad(&format!("expected one exact row of {} elements", self.row.hidden)));
        }
        if choose.top > MAX_TOP_TOKENS {
            return Err(bad(&format!("at most {MAX_TOP_TOKENS} of the likeliest tokens are named")));
        }
        let ids = payload.split_off(self.row.payload_bytes().unwrap_or(0).min(payload.len()));
        let (seen, generated) = ids.split_at((choose.seen as usize * SEEN_ID_BYTES).min(ids.len()));
        if choose.seen.max(generated_ids(generated)) > self.vocab {
            return Err(bad(&format!("more tokens were seen than the {} of the vocabulary", self.vocab)));
        }
        let seen = numbers(seen);
        let generated: Vec<(u32, u32)> = numbers(generated).chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
        self.check_ids(seen.iter().copied().chain(generated.iter().map(|(id, _)| *id)))?;
        let history = History::from_parts(seen, generated);
        let rows = ActivationRows::of_wire(choose.row, payload).ok_or_else(|| bad("the row is not whole"))?;
        let sampler = Sampler::after(&sampling, choose.drawn).map_err(|error| bad(&error.to_string()))?;
        let wish = Wish { rows, sampler, history, allowed: None, top: Some(choose.top as usize) };
        let chosen = self.worker.choose(wish).await.map_err(|error| refusal(&error))?;
        let Chosen { id, embedding, probabilities, .. } = chosen;
        let probabilities = probabilities.ok_or_else(|| EdgesRefusal::Compute("no probabilities".to_string()))?;
        let (log_probability, top) = (probabilities.chosen, probabilities.top);
        let chosen = ChosenToken { id, log_probability, top, embedding: embedding.header() };
        Ok((EdgesReply::Chosen(chosen), embedding.into_bytes()))
    }

    fn check_ids(&self, ids: impl IntoIterator<Item = u32>) -> Result<(), EdgesRefusal> {
        match ids.into_iter().find(|id| *id >= self.vocab) {
            Some(id) => Err(bad(&format!("token {id} is not in the vocabulary of {}", self.vocab))),
            None => Ok(()),
        }
    }
}

/// The least time of some choices; also shows that embedding and head give numbers.
fn fastest_choice(edges: &Edges) -> Result<Duration, ModelError> {
    let mut least = Duration::MAX;
    for _ in 0..TIMED_CHOICES {
        let start = Instant::now();
        let logits = edges.logits(&edges.embed(&[0])?)?;
        Sampler::new(&SamplingConfig::default())?.sample(&logits, &History::default())?;
        least = least.min(start.elapsed());
    }
    Ok(least)
}

/// A token that is wanted, and how it is chosen.
struct Question {
    choose: ChooseToken,
    sampling: SamplingConfig,
}

impl From<ChooseToken> for Question {
    fn from(choose: ChooseToken) -> Self {
        let sampling = SamplingConfig {
            temperature: choose.temperature,
            top_k: choose.top_k.map(|k| k as usize),
            top_p: choose.top_p,
            repetition_penalty: choose.repetition_penalty,
            seed: choose.seed,
            ..SamplingConfig::default()
        };
        Self { choose, sampling }
    }
}

impl From<ChooseWith> for Question {
    fn from(ChooseWith { choose, min_p, presence_penalty, frequency_penalty, .. }: ChooseWith) -> Self {
        let Self { choose, sampling } = choose.into();
        let (presence_penalty, frequency_penalty) = (Some(presence_penalty), Some(frequency_penalty));
        Self { choose, sampling: SamplingConfig { min_p, presence_penalty, frequency_penalty, ..sampling } }
    }
}

/// How many ids with counts these bytes are.
fn generated_ids(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len() / COUNTED_ID_BYTES).unwrap_or(u32::MAX)
}

/// Numbers of four bytes each.
fn numbers(bytes: &[u8]) -> Vec<u32> {
    bytes.chunks_exact(4).map(|bytes| bytes.try_into().map_or(u32::MAX, u32::from_le_bytes)).collect()
}

fn bad(reason: &str) -> EdgesRefusal {
    EdgesRefusal::BadRequest(reason.to_string())
}

fn refusal(error: &EdgesError) -> EdgesRefusal {
    match error {
        EdgesError::Model(_) | EdgesError::WrongRows { .. } | EdgesError::Panicked => {
            EdgesRefusal::Compute(error.to_string())
        }
        EdgesError::Stopped => EdgesRefusal::Leaving,
    }
}

/// Serves one stream of the edges protocol to its end. Never fails: whatever a peer does concerns its own stream only.
pub(super) async fn serve_edges(host: Arc<Host>, peer: PeerId, stream: ByteStream) {
    let Some(edges) = host.edges.clone() else { return };
    let (mut reader, mut writer) = stream.into_frames::<EdgesRequest, EdgesReply>(edges.most_bytes());
    let bytes = &host.about.metrics.wire.edges;
    reader.count_into(&bytes.into);
    writer.count_into(&bytes.out);
    let refusal = tokio::select! {
        ended = converse(&host, (&edges, peer), &mut reader, &mut writer) => ended.err(),
        // Whoever asks finds the stream reset, and asks another server.
        () = left(host.phase.clone()) => return,
    };
    if let Some(refusal) = refusal {
        match &refusal {
            EdgesRefusal::BadRequest(reason) => host.broke_the_protocol(peer, reason),
            other => info!(%peer, refusal = %other, "refused"),
        }
        // The client may be gone.
        let _ = timeout(PATIENCE, writer.send(&EdgesReply::Refused(refusal), &[])).await;
    }
    let _ = timeout(PATIENCE, writer.close()).await;
    debug!(%peer, "a stream for embedding and head ended");
}

/// Answers one request after the other until the client closes the stream, or is silent for long.
async fn converse(
    host: &Host,
    (edges, peer): (&OfferedEdges, PeerId),
    reader: &mut Reader,
    writer: &mut Writer,
) -> Result<(), EdgesRefusal> {
    match next(reader, PATIENCE).await? {
        Some((EdgesRequest::Open(_), _)) if *host.phase.borrow() != Phase::Serving => {
            return Err(EdgesRefusal::Leaving);
        }
        Some((EdgesRequest::Open(open), _)) if !edges.are(&open) => return Err(EdgesRefusal::Other),
        Some((EdgesRequest::Open(_), _)) => {}
        Some(_) => return Err(bad("a stream begins with Open")),
        None => return Ok(()),
    }
    let mut reply = (EdgesReply::Opened, Vec::new());
    let mut turn = None;
    let (about, mut part, mut parts_left) = (&host.about, None, PartBudget::new(Instant::now()));
    loop {
        match timeout(PATIENCE, writer.send(&reply.0, &reply.1)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return Ok(()),
        }
        // It lasts until the answer is written: whoever does not read takes up one of its own.
        drop(turn.take());
        let (request, payload) = loop {
            match next(reader, host.idle_timeout).await? {
                Some((EdgesRequest::Trace(context), _)) => {
                    // The part before ends.
                    drop(part.take());
                    let context = context.filter(|_| parts_left.take(Instant::now()));
                    part = EdgesPart::begin(about.spans, context, about.network.peer_id(), peer);
                }
                Some(request) => break request,
                None => return Ok(()),
            }
        };
        part.iter_mut().for_each(EdgesPart::asked);
        turn = edges.turns.take(peer).await;
        reply = edges.answer(request, payload).await?;
    }
}

/// The next request; `None` if the client is gone or silent.
async fn next(reader: &mut Reader, within: Duration) -> Result<Option<(EdgesRequest, Vec<u8>)>, EdgesRefusal> {
    match timeout(within, reader.next()).await {
        Ok(Ok(request)) => Ok(request),
        Ok(Err(StreamError::Frame(error))) => Err(bad(&error.to_string())),
        Ok(Err(_)) | Err(_) => Ok(None),
    }
}

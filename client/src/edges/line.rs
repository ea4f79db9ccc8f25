//! One stream to a server that offers embedding and head.

use std::time::Duration;

use swarm_model::ModelConfig;
use swarm_protocol::activations::ActivationRows;
use swarm_protocol::model_id::{ModelId, WeightFormat};
use swarm_protocol::p2p::{FrameReader, FrameWriter, Network, StreamError, StreamKind};
use swarm_protocol::trace_context::TraceContext;
use swarm_protocol::wire::{
    ChooseToken, ChooseWith, ChosenToken, EdgesReply, EdgesRequest, MAX_STEP_ROWS, OpenEdges, RowsHeader,
};

use crate::finder::EdgesPlan;

/// How long an answer may take beside the way of its bytes: the head of the largest models takes half a second on one core, and
/// others may wait for it too.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// What each byte of a question and its answer adds: a link of 1 Mbit/s.
const BYTE_WITHIN: Duration = Duration::from_micros(8);

/// What rows and tokens look like.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    /// One row.
    pub(super) row: RowsHeader,
    pub(super) vocab: usize,
}

impl Shape {
    pub(super) fn of(config: &ModelConfig, format: WeightFormat) -> Self {
        Self { row: RowsHeader { rows: 1, hidden: config.hidden as u32, element: format.into() }, vocab: config.vocab }
    }

    fn row_bytes(&self) -> usize {
        self.row.payload_bytes().unwrap_or(0)
    }
}

/// An answer that fits its question.
#[derive(Debug)]
pub(super) enum Answer {
    Rows(ActivationRows),
    Chosen(ChosenToken, ActivationRows),
}

/// A stream on which the server has agreed to answer.
pub(super) struct Line {
    pub(super) plan: EdgesPlan,
    shape: Shape,
    /// The span of this client that the server has been told to work for.
    context: Option<TraceContext>,
    reader: FrameReader<EdgesReply>,
    writer: FrameWriter<EdgesRequest>,
}

impl Line {
    /// Asks the server of `plan`; says why not, if it does not agree.
    pub(super) async fn open(
        network: &Network,
        model: ModelId,
        shape: Shape,
        plan: EdgesPlan,
        within: Duration,
    ) -> Result<Self, String> {
        let opening = async {
            let stream = network.open(plan.peer, &plan.addresses, StreamKind::Edges).await;
            let stream = stream.map_err(|error| error.to_string())?;
            let (reader, writer) = stream.into_frames(MAX_STEP_ROWS as usize * shape.row_bytes());
            let (class, digest) = (plan.offer.class.clone(), plan.offer.digest);
            let mut line = Self { plan, shape, context: None, reader, writer };
            match line.exchange(&EdgesRequest::Open(OpenEdges { model, class, digest }), &[]).await? {
                (EdgesReply::Opened, _) => Ok(line),
                (EdgesReply::Refused(refusal), _) => Err(refusal.to_string()),
                _ => Err("it answered something else than was asked".to_string()),
            }
        };
        tokio::time::timeout(within, opening).await.unwrap_or_else(|_| Err(format!("no answer within {within:?}")))
    }

    /// The answer to a question; says what is wrong if none comes that fits. Then the line is of no more use.
    pub(super) async fn ask(&mut self, request: &EdgesRequest, payload: &[u8]) -> Result<Answer, String> {
        let rows = match request {
            EdgesRequest::Embed(ids) => ids.len(),
            _ => 1,
        };
        let bytes = payload.len() + rows * self.shape.row_bytes();
        let within = ANSWER_WITHIN + BYTE_WITHIN * u32::try_from(bytes).unwrap_or(u32::MAX);
        let exchange = tokio::time::timeout(within, self.exchange(request, payload)).await;
        let (reply, rows) = exchange.unwrap_or_else(|_| Err(format!("no answer within {within:?}")))?;
        self.fitting(request, reply, rows)
    }

    /// Tells the server whose work it does from now on, if it does not know.
    pub(super) async fn work_for(&mut self, context: Option<TraceContext>) -> Result<(), String> {
        if self.context != context {
            self.context = context;
            let told = tokio::time::timeout(ANSWER_WITHIN, self.writer.send(&EdgesRequest::Trace(context), &[])).await;
            told.map_err(|_| format!("it took nothing within {ANSWER_WITHIN:?}"))?
                .map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    async fn exchange(&mut self, request: &EdgesRequest, payload: &[u8]) -> Result<(EdgesReply, Vec<u8>), String> {
        let reason = |error: StreamError| error.to_string();
        self.writer.send(request, payload).await.map_err(reason)?;
        self.reader.next().await.map_err(reason)?.ok_or_else(|| "it hung up".to_string())
    }

    fn rows(&self, count: usize, header: RowsHeader, bytes: Vec<u8>) -> Result<ActivationRows, String> {
        let fits = header == RowsHeader { rows: count as u32, ..self.shape.row };
        let rows = fits.then(|| ActivationRows::of_wire(header, bytes)).flatten();
        rows.ok_or_else(|| "its rows are not those of the model".to_string())
    }

    fn fitting(&self, request: &EdgesRequest, reply: EdgesReply, rows: Vec<u8>) -> Result<Answer, String> {
        match (request, reply) {
            (EdgesRequest::Embed(ids), EdgesReply::Embedded(header)) => {
                Ok(Answer::Rows(self.rows(ids.len(), header, rows)?))
            }
            (
                EdgesRequest::Choose(asked) | EdgesRequest::ChooseWith(ChooseWith { choose: asked, .. }),
                EdgesReply::Chosen(chosen),
            ) => {
                let ChooseToken { top, .. } = asked;
                let vocab = self.shape.vocab;
                let ids = chosen.top.iter().map(|(id, _)| *id).chain([chosen.id]);
                let enough = chosen.top.len() == vocab.min(*top as usize);
                if !enough || ids.into_iter().any(|id| id as usize >= vocab) {
                    return Err("its tokens are not those of the model".to_string());
                }
                let embedding = self.rows(1, chosen.embedding, rows)?;
                Ok(Answer::Chosen(chosen, embedding))
            }
            (_, EdgesReply::Refused(refusal)) => Err(refusal.to_string()),
            _ => Err("it answered something else than was asked".to_string()),
        }
    }
}

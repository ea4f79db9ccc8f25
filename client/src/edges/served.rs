//! Edges that servers offer. Each question is complete in itself, so when a server is lost the next one is asked the same
//! question, and gives the same answer. One task for each session asks.

use std::sync::Arc;
use std::time::{Duration, Instant};

use swarm_edges::{Chosen, Wish};
use swarm_model::{LogProbabilities, ModelConfig, ModelError, Sampler};
use swarm_protocol::PeerId;
use swarm_protocol::activations::{ActivationRows, Rows};
use swarm_protocol::model_id::{ModelId, WeightFormat};
use swarm_protocol::p2p::Network;
use swarm_protocol::trace_context::{SpanContexts, TraceContext};
use swarm_protocol::wire::{
    COUNTED_ID_BYTES, ChooseToken, ChooseWith, EdgesOffer, EdgesRequest, MAX_SEEN_IDS, MAX_STEP_ROWS, MAX_TOP_TOKENS,
    SEEN_ID_BYTES,
};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{Span, info, warn};

use super::line::{Answer, Line, Shape};
use crate::config::ClientConfig;
use crate::finder::{Finder, Outcome};
use crate::session::SessionError;

/// Questions that wait for the task: a session asks one at a time.
const QUEUE: usize = 4;

/// The pause before servers are looked for again; doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The longest such pause: a server that comes back is used within a second.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// What it takes to find servers and to ask them.
#[derive(Debug, Clone)]
pub(crate) struct ServedParts {
    network: Network,
    finder: Finder,
    config: ClientConfig,
    model: ModelId,
    /// What follows `serve --model`.
    name: Arc<str>,
    shape: Shape,
}

impl ServedParts {
    pub(crate) fn new(
        network: Network,
        finder: Finder,
        config: ClientConfig,
        (model, name): (ModelId, Arc<str>),
        about: &ModelConfig,
        format: WeightFormat,
    ) -> Self {
        Self { network, finder, config, model, name, shape: Shape::of(about, format) }
    }
}

/// A question, or none: only a server is to be found.
struct Job {
    question: Option<(EdgesRequest, Vec<u8>)>,
    /// The span of this client that asks.
    context: Option<TraceContext>,
    reply: oneshot::Sender<Result<Option<Answer>, SessionError>>,
}

/// What the task is told.
enum Order {
    Answer(Job),
    /// Nobody asks for now.
    Rest,
}

/// A handle on one session's task, which ends with its last handle.
#[derive(Debug, Clone)]
pub(crate) struct Served {
    orders: mpsc::Sender<Order>,
    server: watch::Receiver<Option<PeerId>>,
    shape: Shape,
    spans: Option<SpanContexts>,
}

impl Served {
    pub(super) fn start(parts: ServedParts) -> Self {
        let (orders, queue) = mpsc::channel(QUEUE);
        let (told, server) = watch::channel(None);
        let (shape, spans) = (parts.shape, parts.config.spans);
        tokio::spawn(Task { parts, told, line: None, bound: None, lost: None, context: None }.run(queue));
        Self { orders, server, shape, spans }
    }

    /// Waits until a server has agreed to answer.
    pub(super) async fn ready(&self) -> Result<(), SessionError> {
        self.ask(None).await.map(|_| ())
    }

    /// What the server does now is no part of any span.
    pub(super) fn leave_span(&self) {
        if self.spans.is_some() {
            // A queue that is full has a question in it, which says more.
            let _ = self.orders.try_send(Order::Rest);
        }
    }

    pub(super) fn server(&self) -> Option<PeerId> {
        *self.server.borrow()
    }

    pub(super) async fn embed(&self, ids: &[u32]) -> Result<ActivationRows, SessionError> {
        let vocab = self.shape.vocab;
        if let Some(&id) = ids.iter().find(|id| **id as usize >= vocab) {
            return Err(ModelError::TokenOutOfRange { id, vocab }.into());
        }
        let mut all: Option<ActivationRows> = None;
        for some in ids.chunks(MAX_STEP_ROWS as usize) {
            let Some(Answer::Rows(rows)) = self.ask(Some((EdgesRequest::Embed(some.to_vec()), Vec::new()))).await?
            else {
                return Err(SessionError::Stopped);
            };
            match &mut all {
                Some(all) => all.append(rows),
                None => all = Some(rows),
            }
        }
        all.ok_or(SessionError::WrongRows { hidden: self.shape.row.hidden as usize })
    }

    pub(super) async fn choose(&self, wish: Wish) -> Result<Chosen, SessionError> {
        if wish.allowed.is_some() {
            return Err(SessionError::ConstraintElsewhere);
        }
        let (request, payload) = self.question(&wish)?;
        let Some(Answer::Chosen(chosen, embedding)) = self.ask(Some((request, payload))).await? else {
            return Err(SessionError::Stopped);
        };
        let probabilities = LogProbabilities { chosen: chosen.log_probability, top: chosen.top };
        Ok(Chosen {
            id: chosen.id,
            embedding,
            probabilities: wish.top.map(|_| probabilities),
            sampler: Sampler::after(wish.sampler.config(), wish.sampler.drawn().wrapping_add(1))?,
            history: wish.history,
        })
    }

    fn question(&self, wish: &Wish) -> Result<(EdgesRequest, Vec<u8>), SessionError> {
        let hidden = self.shape.row.hidden as usize;
        let last = wish.rows.rows().checked_sub(1).ok_or(SessionError::WrongRows { hidden })?;
        let row = wish.rows.slice(last, 1);
        let config = wish.sampler.config();
        let seen = config.repetition().map(|_| distinct(wish.history.seen())).unwrap_or_default();
        let clamped = |count: usize, most: u32| u32::try_from(count).unwrap_or(u32::MAX).min(most);
        let choose = ChooseToken {
            row: row.header(),
            temperature: config.temperature,
            top_k: config.top_k.map(|k| clamped(k, u32::MAX)),
            top_p: config.top_p,
            repetition_penalty: config.repetition_penalty,
            seed: config.seed,
            drawn: wish.sampler.drawn(),
            seen: seen.len() as u32,
            top: wish.top.map_or(0, |top| clamped(top, MAX_TOP_TOKENS)),
        };
        let mut payload = row.into_bytes();
        payload.reserve(seen.len() * SEEN_ID_BYTES);
        seen.iter().for_each(|id| payload.extend_from_slice(&id.to_le_bytes()));
        if config.occurrence().is_none() && config.least_share().is_none() {
            return Ok((EdgesRequest::Choose(choose), payload));
        }
        let (presence_penalty, frequency_penalty) = config.occurrence().unwrap_or_default();
        let counted: Vec<(u32, u32)> = match config.occurrence() {
            Some(_) => wish.history.generated().take(MAX_SEEN_IDS as usize).collect(),
            None => Vec::new(),
        };
        let generated = counted.len() as u32;
        payload.reserve(counted.len() * COUNTED_ID_BYTES);
        let numbers = counted.iter().flat_map(|(id, count)| [id, count]);
        numbers.for_each(|number| payload.extend_from_slice(&number.to_le_bytes()));
        let min_p = config.least_share();
        let with = ChooseWith { choose, min_p, presence_penalty, frequency_penalty, generated };
        Ok((EdgesRequest::ChooseWith(with), payload))
    }

    async fn ask(&self, question: Option<(EdgesRequest, Vec<u8>)>) -> Result<Option<Answer>, SessionError> {
        let (reply, answer) = oneshot::channel();
        let context = self.spans.and_then(|spans| (spans.name)(&Span::current()));
        let job = Job { question, context, reply };
        self.orders.send(Order::Answer(job)).await.map_err(|_| SessionError::Stopped)?;
        answer.await.map_err(|_| SessionError::Stopped)?
    }
}

/// Each id once.
fn distinct(history: &[u32]) -> Vec<u32> {
    let mut seen = history.to_vec();
    seen.sort_unstable();
    seen.dedup();
    // No model has as many tokens.
    seen.truncate(MAX_SEEN_IDS as usize);
    seen
}

struct Task {
    parts: ServedParts,
    told: watch::Sender<Option<PeerId>>,
    line: Option<Line>,
    /// What the first server offered: the others must offer the same.
    bound: Option<EdgesOffer>,
    /// The server that failed last, and why.
    lost: Option<(PeerId, String)>,
    /// The span of this client that asks.
    context: Option<TraceContext>,
}

impl Task {
    async fn run(mut self, mut queue: mpsc::Receiver<Order>) {
        while let Some(order) = queue.recv().await {
            let Order::Answer(Job { question, context, mut reply }) = order else {
                self.rest().await;
                continue;
            };
            self.context = context;
            let answer = tokio::select! {
                answer = self.answer(question.as_ref()) => Some(answer),
                () = reply.closed() => None,
            };
            match answer {
                Some(answer) => drop(reply.send(answer)),
                // Nobody waits for the answer that is still to come.
                None => self.line = None,
            }
        }
    }

    async fn rest(&mut self) {
        if let Some(line) = &mut self.line
            && line.work_for(None).await.is_err()
        {
            self.line = None;
        }
    }

    /// The answer of whichever server gives one.
    async fn answer(&mut self, question: Option<&(EdgesRequest, Vec<u8>)>) -> Result<Option<Answer>, SessionError> {
        let (start, config) = (Instant::now(), &self.parts.config);
        let patience = if self.bound.is_some() { config.repair_patience } else { config.start_patience };
        let most_setbacks = config.most_repairs;
        let (mut pause, mut setbacks) = (FIRST_PAUSE, 0);
        loop {
            match self.attempt(question).await {
                Ok(answer) => return Ok(answer),
                Err(Setback::Failed { again }) => {
                    setbacks += 1;
                    // However long one of them took: the others have not been asked.
                    if setbacks > most_setbacks {
                        return Err(self.gave_up());
                    }
                    if !again {
                        continue;
                    }
                }
                Err(Setback::Nobody) if start.elapsed() >= patience => return Err(self.gave_up()),
                Err(Setback::Nobody) => {}
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn gave_up(&self) -> SessionError {
        let last = self.lost.as_ref().map(|(peer, reason)| format!("{peer}: {reason}"));
        SessionError::NoEdges { model: self.parts.name.clone(), last }
    }

    async fn attempt(&mut self, question: Option<&(EdgesRequest, Vec<u8>)>) -> Result<Option<Answer>, Setback> {
        let (mut line, used) = match self.line.take() {
            Some(line) => (line, true),
            None => (self.connect().await?, false),
        };
        let answer = match question {
            Some((request, payload)) => {
                let asked = Instant::now();
                let answer = match line.work_for(self.context).await {
                    Ok(()) => line.ask(request, payload).await,
                    Err(reason) => Err(reason),
                };
                match answer {
                    Ok(answer) => {
                        if matches!(request, EdgesRequest::Choose(_) | EdgesRequest::ChooseWith(_)) {
                            self.parts.finder.report(line.plan.peer, Outcome::Chose { took: asked.elapsed() });
                        }
                        Some(answer)
                    }
                    // Servers close streams that have rested; if it is gone, dialling it tells.
                    Err(_) if used => return Err(Setback::Failed { again: false }),
                    Err(reason) => return Err(self.failed(line.plan.peer, reason)),
                }
            }
            None => None,
        };
        self.line = Some(line);
        Ok(answer)
    }

    /// A line to the best server that offers what this session has begun with.
    async fn connect(&mut self) -> Result<Line, Setback> {
        let plan = self.parts.finder.edges(self.bound.clone()).await.ok_or(Setback::Nobody)?;
        let (peer, offer) = (plan.peer, plan.offer.clone());
        let ServedParts { network, config, model, shape, .. } = &self.parts;
        match Line::open(network, *model, *shape, plan, config.open_timeout).await {
            Ok(line) => {
                info!(%peer, "embedding, head and sampling are this server's");
                self.bound.get_or_insert(offer);
                self.told.send_replace(Some(peer));
                Ok(line)
            }
            Err(reason) => Err(self.failed(peer, reason)),
        }
    }

    fn failed(&mut self, peer: PeerId, reason: String) -> Setback {
        warn!(%peer, reason, "embedding and head are lost; another server is asked");
        self.parts.finder.report(peer, Outcome::Failed { reason: reason.clone() });
        let again = self.lost.as_ref().is_some_and(|(before, _)| *before == peer);
        self.lost = Some((peer, reason));
        Setback::Failed { again }
    }
}

/// Why there is no answer yet.
enum Setback {
    /// A server failed; `again` if it is the one that failed before.
    Failed { again: bool },
    /// No server can be asked now.
    Nobody,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_token_that_was_seen_counts_once() {
        assert_eq!(distinct(&[5, 3, 5, 9, 3]), [3, 5, 9]);
    }
}

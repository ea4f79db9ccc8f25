//! Generating the answers of one request: a task that holds its place, its session and its deadline, and tells what happens.
//!
//! The task ends when nobody listens any more, and by itself at the deadline, also if whoever listens has stopped to read:
//! the servers' room is free then.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt, stream};
use swarm_client::finder::NoPlan;
use swarm_client::{
    GenerationConfig, GenerationEvent, HopInfo, Model, PrefixReuse, SessionError, Summary, TextSession,
};
use swarm_model::LogProbabilities;
use swarm_protocol::PeerId;
use swarm_protocol::trace_context::SPANS;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tracing::{Instrument, info, info_span};

use super::error::ApiError;
use crate::Host;
use crate::gate::{Owner, Permit};
use crate::queue::Priority;

/// Events that wait for the connection: enough that a token is not held up by the one before, little enough that a reader who
/// has stopped soon stops the generation.
const EVENTS: usize = 32;

/// Prompts of one request that are continued at the same time, each in a session of its own.
const PROMPTS_AT_ONCE: usize = 8;

/// How long a request that has its turn waits for room on the servers, which end sessions all the time.
const ROOM_PATIENCE: Duration = Duration::from_secs(30);

/// How long the servers' names may take: what is known is answered at once.
const NAMES_WITHIN: Duration = Duration::from_millis(200);

/// How long the last word may wait for a reader.
const LAST_WORD: Duration = Duration::from_secs(1);

/// A request as far as all endpoints treat it alike.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) request_id: String,
    pub(crate) owner: Owner,
    pub(crate) priority: Priority,
    /// When its body had come.
    pub(crate) received: Instant,
}

/// One prompt, and how each of its answers is generated.
#[derive(Debug, Clone)]
pub(crate) struct Text {
    pub(crate) prompt: Vec<u32>,
    /// The number of the first of its answers.
    pub(crate) first: usize,
    pub(crate) answers: Vec<GenerationConfig>,
}

impl Text {
    /// Room for prompt and answer; what is generated last is not fed.
    pub(crate) fn room(&self) -> usize {
        let most = self.answers.iter().map(|config| config.max_tokens).max().unwrap_or(0);
        self.prompt.len() + most
    }
}

/// What happens to the answer with the number `choice`.
#[derive(Debug)]
pub(crate) enum Event {
    /// Its session is open: from now on there is an answer.
    Opened,
    /// The next token.
    Token { choice: usize, id: u32, text: String, probabilities: Option<LogProbabilities> },
    /// Its end.
    Done { choice: usize, end: Box<End> },
}

/// The end of one answer.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) summary: Summary,
    /// Its servers' names, as far as they are known.
    pub(crate) names: HashMap<PeerId, String>,
    /// From the request to its first token, for the first answer to a prompt.
    pub(crate) first_token: Option<Duration>,
    /// Whether it is the first answer to its prompt.
    pub(crate) is_first: bool,
}

/// Answers that are being generated; dropping it ends that.
pub(crate) struct Running {
    events: mpsc::Receiver<Result<Event, ApiError>>,
    task: JoinHandle<()>,
    host: Arc<Host>,
    left: usize,
}

impl Running {
    /// The next event; `None` after the last answer's end.
    ///
    /// # Errors
    /// [`ApiError`] if the answers cannot be completed; nothing comes after it.
    pub(crate) async fn next(&mut self) -> Result<Option<Event>, ApiError> {
        if self.left == 0 {
            return Ok(None);
        }
        let Some(event) = self.events.recv().await else {
            return Err(ApiError::internal("The generation has ended before its text."));
        };
        if matches!(event, Ok(Event::Done { .. })) {
            self.left -= 1;
        }
        event.map(Some)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.task.is_finished() && self.left > 0 {
            self.host.usage().cancelled();
            self.task.abort();
        }
    }
}

/// Waits for a turn, within the request's time.
///
/// # Errors
/// [`ApiError`] at once if nobody serves the model or too many wait, later if the time is over.
pub(crate) async fn admit(host: &Arc<Host>, asked: &Asked, model: &Model, room: usize) -> Result<Permit, ApiError> {
    let timeout = host.config().request_timeout;
    let admitted = async {
        let blocks = model.config().all_blocks()?;
        // Whoever waited in the queue would hear the same later. What else is wrong a session finds out with more patience.
        if !model.computes_here()
            && let Err(error @ NoPlan::NoRoute { .. }) = model.plan(blocks, room).await
        {
            return Err(error.into());
        }
        let waiting = info_span!(target: SPANS, "queue");
        Ok(host.gate().enter(asked.owner, asked.priority).instrument(waiting).await?)
    };
    match tokio::time::timeout_at((asked.received + timeout).into(), admitted).await {
        Ok(admitted) => admitted,
        Err(_) => Err(ApiError::deadline(timeout.as_secs_f64())),
    }
}

/// Begins to generate, and returns when the first session is open.
///
/// # Errors
/// [`ApiError`] if it cannot be opened.
pub(crate) async fn begin(
    host: &Arc<Host>,
    asked: &Asked,
    model: &Arc<Model>,
    texts: Vec<Text>,
) -> Result<Running, ApiError> {
    let room = texts.iter().map(Text::room).max().unwrap_or(1);
    let permit = admit(host, asked, model, room).await?;
    let left = texts.iter().map(|text| text.answers.len()).sum();
    let (sender, events) = mpsc::channel(EVENTS);
    let work = Work {
        host: host.clone(),
        model: model.clone(),
        prefixes: host.prefixes(asked.owner),
        asked: asked.clone(),
        events: sender,
    };
    // The request's span lasts until its last answer is generated.
    let task = tokio::spawn(work.run(texts, permit).in_current_span());
    let mut running = Running { events, task, host: host.clone(), left };
    match running.next().await? {
        Some(Event::Opened) => Ok(running),
        _ => Err(ApiError::internal("The generation has ended before its text.")),
    }
}

struct Work {
    host: Arc<Host>,
    model: Arc<Model>,
    prefixes: PrefixReuse,
    asked: Asked,
    events: mpsc::Sender<Result<Event, ApiError>>,
}

/// Nobody listens any more, or it failed.
enum Stopped {
    Unheard,
    Failed(ApiError),
}

impl From<ApiError> for Stopped {
    fn from(error: ApiError) -> Self {
        Self::Failed(error)
    }
}

impl From<SessionError> for Stopped {
    fn from(error: SessionError) -> Self {
        Self::Failed(error.into())
    }
}

impl Work {
    async fn run(self, texts: Vec<Text>, permit: Permit) {
        let timeout = self.host.config().request_timeout;
        let told = tokio::time::timeout_at((self.asked.received + timeout).into(), self.tell_all(texts)).await;
        drop(permit);
        let error = match told {
            // Who dropped it has counted it.
            Ok(Ok(()) | Err(Stopped::Unheard)) => return,
            Ok(Err(Stopped::Failed(error))) => error,
            Err(_) => ApiError::deadline(timeout.as_secs_f64()),
        };
        self.host.usage().failed();
        info!(request = self.asked.request_id, status = error.status().as_u16(), "a request failed");
        // Whoever has stopped to read misses it, and the end as well.
        let _ = tokio::time::timeout(LAST_WORD, self.events.send(Err(error))).await;
    }

    async fn tell_all(&self, texts: Vec<Text>) -> Result<(), Stopped> {
        let telling: Vec<_> = texts.into_iter().map(|text| self.tell(text)).collect();
        let told = stream::iter(telling).buffer_unordered(PROMPTS_AT_ONCE);
        tokio::select! {
            told = told.try_collect::<Vec<()>>() => told.map(drop),
            // Nobody waits for what the servers still compute.
            () = self.events.closed() => Err(Stopped::Unheard),
        }
    }

    async fn say(&self, event: Event) -> Result<(), Stopped> {
        self.events.send(Ok(event)).await.map_err(|_| Stopped::Unheard)
    }

    /// Generates the answers to one prompt, one after the other in one session: the prompt is computed once.
    async fn tell(&self, text: Text) -> Result<(), Stopped> {
        let mut session = self.open(&text).await?;
        self.say(Event::Opened).await?;
        let mut names = self.names().await;
        for (place, config) in text.answers.into_iter().enumerate() {
            let choice = text.first + place;
            let is_first = place == 0;
            let mut first_token = None;
            let mut generation = session.generate(&text.prompt, config)?;
            while let Some(event) = generation.next().await? {
                match event {
                    GenerationEvent::Token { id, text, probabilities, .. } => {
                        let usage = self.host.usage();
                        usage.gave_out();
                        if is_first && first_token.is_none() {
                            let after = self.asked.received.elapsed();
                            first_token = Some(after);
                            usage.first_token(after);
                        }
                        self.say(Event::Token { choice, id, text, probabilities }).await?;
                    }
                    GenerationEvent::Done(summary) => {
                        if unknown(&summary.route, &names) {
                            names.extend(self.names().await);
                        }
                        if is_first {
                            self.host.usage().took_in(summary.prompt_tokens, summary.reused_tokens);
                        }
                        let end = End { summary, names: names.clone(), first_token, is_first };
                        self.say(Event::Done { choice, end: Box::new(end) }).await?;
                    }
                    GenerationEvent::Reroute { .. } => self.host.usage().rerouted(),
                    GenerationEvent::Route { .. } | GenerationEvent::Trace(_) => {}
                }
            }
        }
        Ok(())
    }

    async fn open(&self, text: &Text) -> Result<TextSession, ApiError> {
        let start = Instant::now();
        loop {
            let prefixes = self.prefixes.clone();
            match self.model.text_session_in(&text.prompt, text.room(), prefixes).await {
                Ok(session) => return Ok(session),
                // It has looked for seconds already.
                Err(SessionError::NoPlan(NoPlan::NoRoom { .. })) if start.elapsed() < ROOM_PATIENCE => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The names of the servers that are known.
    async fn names(&self) -> HashMap<PeerId, String> {
        if self.model.computes_here() {
            return HashMap::new();
        }
        let known = tokio::time::timeout(NAMES_WITHIN, self.model.servers()).await.unwrap_or_default();
        known.into_iter().filter_map(|known| Some((known.announcement.peer, known.announcement.name?))).collect()
    }
}

fn unknown(route: &[HopInfo], names: &HashMap<PeerId, String>) -> bool {
    route.iter().any(|hop| !names.contains_key(&hop.peer))
}

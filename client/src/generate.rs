//! Text as a stream of tokens.

mod guide;
mod phases;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use swarm_edges::{Chosen, Wish};
use swarm_model::{
    Constraint, Grammars, History, LogProbabilities, Passed, Sampler, SamplingConfig, StopFilter, TextDecoder,
    TextTokenizer,
};
use swarm_protocol::PeerId;
use swarm_protocol::activations::ActivationRows;
use swarm_protocol::session::TokenCount;
use swarm_protocol::wire::MAX_TOP_TOKENS;
use tracing::Instrument;

use self::guide::Guide;
use self::phases::Phases;
use crate::edges::ClientEdges;
use crate::route::Route;
use crate::session::{HopInfo, RouteEvent, SessionError};
use crate::steps::Steps;
use crate::trace::TraceRecord;

/// Tokens of an answer when nobody says how many: a page of text.
const DEFAULT_MAX_TOKENS: usize = 256;

/// How a text is generated.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerationConfig {
    /// The most tokens to generate; the answer may end earlier by itself.
    pub max_tokens: usize,
    /// How each token is chosen; greedy by default.
    pub sampling: SamplingConfig,
    /// Texts before which the answer ends: nothing of them is shown. At most [`MAX_STOPS`](swarm_model::MAX_STOPS).
    pub stop: Vec<String>,
    /// The form that the whole answer has. An answer that is cut off by [`Self::max_tokens`] or [`Self::stop`] is the beginning
    /// of one of that form.
    pub constraint: Option<Constraint>,
    /// Special tokens that are shown in the text, as they are written in the vocabulary; the others never are.
    pub shown_tokens: Vec<u32>,
    /// Whether [`GenerationEvent::Trace`] tells where the time goes.
    pub trace: bool,
    /// Whether each token comes with its log-probability, and with those of how many of the likeliest tokens: at most
    /// [`MAX_TOP_TOKENS`](swarm_protocol::wire::MAX_TOP_TOKENS).
    pub probabilities: Option<usize>,
}

impl Default for GenerationConfig {
    fn default() -> Self {
        Self {
            max_tokens: DEFAULT_MAX_TOKENS,
            sampling: SamplingConfig::default(),
            stop: Vec::new(),
            constraint: None,
            shown_tokens: Vec::new(),
            trace: false,
            probabilities: None,
        }
    }
}

/// Why a text ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finish {
    /// The model said that it is complete, or its constraint lets nothing follow.
    EndOfText,
    /// This stop string came next.
    Stop(String),
    /// As many tokens as were asked for.
    MaxTokens,
}

impl Finish {
    /// The word used in reports; OpenAI's API has one for both kinds of stops.
    pub fn name(&self) -> &'static str {
        match self {
            Self::EndOfText | Self::Stop(_) => "stop",
            Self::MaxTokens => "length",
        }
    }

    /// The stop string that has ended the text, if one has.
    pub fn stop(&self) -> Option<&str> {
        match self {
            Self::Stop(stop) => Some(stop),
            Self::EndOfText | Self::MaxTokens => None,
        }
    }
}

/// What happens while a text is generated. `at` is the time since the call.
#[derive(Debug, Clone, PartialEq)]
pub enum GenerationEvent {
    /// The route is this now.
    Route {
        /// The hops in order.
        hops: Vec<HopInfo>,
        /// When.
        at: Duration,
    },
    /// A server was lost and replaced; the text goes on as if nothing had happened.
    Reroute {
        /// The server that was lost.
        lost: PeerId,
        /// Why.
        reason: String,
        /// From noticing the loss to having opened its replacement.
        took: Duration,
        /// When.
        at: Duration,
    },
    /// The next token.
    Token {
        /// Its id.
        id: u32,
        /// The text that is known now; empty while a character is not whole, or may be the beginning of a stop string.
        text: String,
        /// How likely it was, if that was asked.
        probabilities: Option<LogProbabilities>,
        /// When.
        at: Duration,
    },
    /// Something that a trace keeps, if one was asked for; for what it adds up to, see [`crate::trace`].
    Trace(TraceRecord),
    /// The end, and its reason.
    Done(Summary),
}

/// A finished text.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// The whole answer, without the prompt.
    pub text: String,
    /// Its token ids, without the one that ends it, and with those of a stop string.
    pub tokens: Vec<u32>,
    /// Why it ended.
    pub finish: Finish,
    /// What was held back until the end: an incomplete character, shown as a replacement mark, or what might have become a stop
    /// string. Part of `text`.
    pub tail: String,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens of the prompt that the session held already.
    pub reused_tokens: usize,
    /// From the call to the first token.
    pub time_to_first_token: Duration,
    /// Tokens after the first, per second.
    pub tokens_per_second: f64,
    /// The route at the end.
    pub route: Vec<HopInfo>,
    /// The server that chose the last token, if this client leaves that to one.
    pub edges: Option<PeerId>,
    /// How often a server was replaced.
    pub reroutes: usize,
}

/// A session that generates text. Several answers can follow one another: what the next prompt shares with what the
/// session holds is not computed again.
pub struct TextSession {
    session: Steps,
    edges: ClientEdges,
    tokenizer: TextTokenizer,
    grammars: Grammars,
    eos: Vec<u32>,
}

impl TextSession {
    pub(crate) fn new(
        session: Steps,
        edges: ClientEdges,
        tokenizer: TextTokenizer,
        grammars: Grammars,
        eos: Vec<u32>,
    ) -> Self {
        Self { session, edges, tokenizer, grammars, eos }
    }

    /// What the first route was expected to cost, hop by hop: why it was taken. `None` of a session that no server works for.
    pub fn planned(&self) -> Option<&Route> {
        self.session.planned()
    }

    /// The hops in order.
    pub fn route(&self) -> Vec<HopInfo> {
        self.session.route()
    }

    /// The server that embeds and chooses tokens, if this client leaves that to one.
    pub fn edges_server(&self) -> Option<PeerId> {
        self.edges.server()
    }

    /// Room for prompt and answer together, in tokens.
    pub fn capacity(&self) -> usize {
        self.session.reserved().as_usize()
    }

    /// Waits until every connection of the route is up to speed, for a few seconds at most: see
    /// [`Session::warm_up`](crate::Session::warm_up).
    ///
    /// # Errors
    /// [`SessionError`] if servers were lost and no others are to be had.
    pub async fn warm_up(&mut self) -> Result<(), SessionError> {
        self.session.warm_up().await
    }

    /// Begins to continue `prompt`, the whole sequence from its first token on.
    ///
    /// # Errors
    /// [`SessionError`] if the prompt is empty or leaves no room in the session, or an option is out of bounds. Whether a
    /// constraint can be used at all is known with the first event; [`Model::check`](crate::Model::check) says so before.
    pub fn generate(&mut self, prompt: &[u32], config: GenerationConfig) -> Result<Generation<'_>, SessionError> {
        if prompt.is_empty() {
            return Err(SessionError::EmptyPrompt);
        }
        let asked = prompt.len() + 1;
        if asked > self.capacity() {
            let reserved = self.session.reserved();
            return Err(SessionError::PastReservation { asked: TokenCount(asked as u32), reserved });
        }
        let sampler = Sampler::new(&config.sampling)?;
        let filter = StopFilter::new(&config.stop)?;
        let guide = match config.constraint {
            Some(_) if !self.edges.are_own() => return Err(SessionError::ConstraintElsewhere),
            constraint => constraint.map(|constraint| Guide::new(self.grammars.clone(), constraint)),
        };
        let reused = self.rewind_to_shared(prompt);
        let most = config.max_tokens.min(self.capacity() - prompt.len() + 1);
        let start = Instant::now();
        self.session.trace(config.trace.then_some(start));
        Ok(Generation {
            input: prompt[reused..].to_vec(),
            history: History::of_prompt(prompt),
            prompt_tokens: prompt.len(),
            reused,
            most,
            sampler: Some(sampler),
            guide,
            decoder: self.tokenizer.decoder_showing(config.shown_tokens),
            filter,
            start,
            trace: config.trace,
            probabilities: config.probabilities.map(|top| top.min(MAX_TOP_TOKENS as usize)),
            first: None,
            last: start,
            tokens: Vec::new(),
            text: String::new(),
            reroutes: 0,
            events: VecDeque::new(),
            ended: false,
            phases: Phases::prefill(prompt.len(), reused),
            session: self,
        })
    }

    fn leave_span(&mut self) {
        self.session.leave_span();
        self.edges.leave_span();
    }

    /// Rewinds the session to what it shares with `prompt`; at least the last token of the prompt is fed again, since its
    /// output is needed.
    fn rewind_to_shared(&mut self, prompt: &[u32]) -> usize {
        let shared = self.session.fed_ids().iter().zip(prompt).take_while(|(one, other)| one == other).count();
        let shared = shared.min(prompt.len() - 1);
        if shared < self.session.position().as_usize() {
            self.session.truncate(TokenCount(shared as u32));
        }
        shared
    }
}

/// A text being generated.
pub struct Generation<'a> {
    session: &'a mut TextSession,
    /// Ids that have not been fed yet.
    input: Vec<u32>,
    /// Prompt and answer so far.
    history: History,
    prompt_tokens: usize,
    reused: usize,
    most: usize,
    /// Away while it samples; missing for good only after an error.
    sampler: Option<Sampler>,
    guide: Option<Guide>,
    decoder: TextDecoder,
    filter: StopFilter,
    start: Instant,
    trace: bool,
    probabilities: Option<usize>,
    first: Option<Instant>,
    last: Instant,
    tokens: Vec<u32>,
    text: String,
    reroutes: usize,
    events: VecDeque<GenerationEvent>,
    ended: bool,
    phases: Phases,
}

impl Generation<'_> {
    /// The next event; `None` after [`GenerationEvent::Done`]. If a call is dropped before it ends, or gives an error, the
    /// generation is over: begin another one on the same session, which still holds what it was fed.
    ///
    /// # Errors
    /// [`SessionError`] if a lost server cannot be replaced. What was generated before stands.
    pub async fn next(&mut self) -> Result<Option<GenerationEvent>, SessionError> {
        self.take_news();
        while self.events.is_empty() {
            if self.ended {
                return Ok(None);
            }
            let span = self.phases.span();
            let stepped = self.step().instrument(span).await;
            self.follow_phase(stepped.as_ref().err());
            stepped?;
        }
        Ok(self.events.pop_front())
    }

    /// Hops are told of the next phase with its first step, and of the end at once: their spans end with those here.
    fn follow_phase(&mut self, failure: Option<&SessionError>) {
        if let Some(failure) = failure {
            self.phases.failed(failure);
        }
        if self.ended || failure.is_some() {
            self.phases.end();
            self.session.leave_span();
        } else if self.first.is_some() {
            self.phases.decode();
        }
    }

    /// Whether there will be no further step, though events may be left.
    pub(crate) fn is_over(&self) -> bool {
        self.ended || self.tokens.len() >= self.most
    }

    /// The hops in order.
    pub fn route(&self) -> Vec<HopInfo> {
        self.session.route()
    }

    /// The server that embeds and chooses tokens, if this client leaves that to one.
    pub fn edges_server(&self) -> Option<PeerId> {
        self.session.edges_server()
    }

    async fn step(&mut self) -> Result<(), SessionError> {
        if self.is_over() {
            return self.finish(Finish::MaxTokens);
        }
        if let Some(guide) = &mut self.guide {
            guide.begin();
        }
        let input = std::mem::take(&mut self.input);
        let fed = self.session.session.feed_tokens(&input).await;
        self.take_news();
        let rows = fed?.ok_or(SessionError::Stopped)?;
        let arrived = Instant::now();
        let (id, probabilities) = self.choose(rows).await?;
        self.last = Instant::now();
        self.first.get_or_insert(self.last);
        if self.trace {
            let (at, sampling) = (self.last - self.start, self.last - arrived);
            self.events.push_back(GenerationEvent::Trace(TraceRecord::Token { id, at, sampling }));
        }
        if self.session.eos.contains(&id) {
            return self.finish(Finish::EndOfText);
        }
        self.history.push(id);
        self.tokens.push(id);
        self.input = vec![id];
        let piece = self.decoder.push(id)?.unwrap_or_default();
        let Passed { text, stop } = self.filter.push(&piece);
        self.text.push_str(&text);
        self.events.push_back(GenerationEvent::Token { id, text, probabilities, at: self.start.elapsed() });
        let complete = self.guide.as_mut().map(|guide| guide.accept(id)).transpose()?.unwrap_or(false);
        match stop {
            Some(stop) => self.finish(Finish::Stop(stop)),
            None if complete => self.finish(Finish::EndOfText),
            None => Ok(()),
        }
    }

    async fn choose(&mut self, rows: ActivationRows) -> Result<(u32, Option<LogProbabilities>), SessionError> {
        let allowed = match &mut self.guide {
            Some(guide) => Some(guide.mask().await?),
            None => None,
        };
        let sampler = self.sampler.take().ok_or(SessionError::Stopped)?;
        let history = std::mem::take(&mut self.history);
        let wish = Wish { rows, sampler, history, allowed, top: self.probabilities };
        let Chosen { id, embedding, probabilities, sampler, history } = self.session.edges.choose(wish).await?;
        self.session.session.is_embedded(id, embedding);
        self.sampler = Some(sampler);
        self.history = history;
        Ok((id, probabilities))
    }

    /// What was held back, and why the text ends: what is left in the decoder may still complete a stop string.
    fn tail(&mut self, finish: Finish) -> Result<(String, Finish), SessionError> {
        if let Finish::Stop(_) = finish {
            return Ok((String::new(), finish));
        }
        let left = self.decoder.flush()?.unwrap_or_default();
        let Passed { text, stop } = self.filter.push(&left);
        Ok(match stop {
            Some(stop) => (text, Finish::Stop(stop)),
            None => (text + &self.filter.flush(), finish),
        })
    }

    fn take_news(&mut self) {
        while let Some(record) = self.session.session.next_record() {
            self.events.push_back(GenerationEvent::Trace(record));
        }
        while let Some(event) = self.session.session.next_route_event() {
            let at = self.start.elapsed();
            self.events.push_back(match event {
                RouteEvent::Route(hops) => GenerationEvent::Route { hops, at },
                RouteEvent::Rerouted { lost, reason, took } => {
                    self.reroutes += 1;
                    GenerationEvent::Reroute { lost, reason, took, at }
                }
            });
        }
    }

    fn finish(&mut self, finish: Finish) -> Result<(), SessionError> {
        self.ended = true;
        let (tail, finish) = self.tail(finish)?;
        self.text.push_str(&tail);
        self.phases.finished(self.tokens.len(), finish.name(), self.reroutes);
        let first = self.first.unwrap_or(self.start);
        let decoding = self.last.saturating_duration_since(first).as_secs_f64();
        let decoded = self.tokens.len().saturating_sub(1) as f64;
        self.events.push_back(GenerationEvent::Done(Summary {
            text: self.text.clone(),
            tokens: self.tokens.clone(),
            finish,
            tail,
            prompt_tokens: self.prompt_tokens,
            reused_tokens: self.reused,
            time_to_first_token: first.saturating_duration_since(self.start),
            tokens_per_second: if decoding > 0.0 { decoded / decoding } else { 0.0 },
            route: self.session.route(),
            edges: self.edges_server(),
            reroutes: self.reroutes,
        }));
        Ok(())
    }
}

//! A model of the swarm as a client sees it.

use swarm_model::{
    ChatMessage, ChatOptions, ChatTemplate, GenerationDefaults, Grammars, ModelConfig, ModelError, Sampler, StopFilter,
    Tensor, TextDecoder, TextTokenizer, ToolFormat, activations,
};
use swarm_protocol::activations::{ActivationRows, Rows};
use swarm_protocol::block::BlockRange;
use swarm_protocol::model_id::{ModelId, WeightFormat};
use swarm_protocol::p2p::Network;
use swarm_protocol::session::{SessionId, TokenCount};
use swarm_protocol::trace_context::SPANS;
use tracing::{Instrument, Span, info_span};

use crate::chain::Outputs;
use crate::config::{ClientConfig, PrefixReuse};
use crate::edges::{ClientEdges, EdgesSource};
use crate::finder::{EdgesPlan, Finder, Known, Need, NoPlan, Plan};
use crate::generate::{GenerationConfig, TextSession};
use crate::here::{BlocksHere, SessionHere};
use crate::session::{HopInfo, RouteEvent, Session, SessionError, SessionParts};
use crate::steps::Steps;

/// What a client reads of a checkpoint.
pub(crate) struct ModelParts {
    pub(crate) name: String,
    pub(crate) config: ModelConfig,
    pub(crate) format: WeightFormat,
    pub(crate) tokenizer: TextTokenizer,
    pub(crate) template: Option<ChatTemplate>,
    pub(crate) defaults: GenerationDefaults,
}

/// A model whose blocks are served by others, with the parts that stay with the client: tokenizer, embedding, head.
pub struct Model {
    network: Network,
    config: ClientConfig,
    finder: Finder,
    edges: EdgesSource,
    parts: ModelParts,
    grammars: Grammars,
    id: ModelId,
    /// Its blocks, if this process computes them itself.
    here: Option<BlocksHere>,
}

impl Model {
    pub(crate) fn new(
        network: Network,
        config: ClientConfig,
        finder: Finder,
        edges: EdgesSource,
        parts: ModelParts,
        id: ModelId,
    ) -> Self {
        let grammars = Grammars::new(parts.tokenizer.clone(), parts.config.vocab, &parts.defaults.eos);
        Self { network, config, finder, edges, parts, grammars, id, here: None }
    }

    /// The same, with its blocks computed by this process.
    pub(crate) fn with_blocks(self, blocks: BlocksHere) -> Self {
        Self { here: Some(blocks), ..self }
    }

    /// Whether this process computes its texts: then they take no route, and other sessions than of texts are still the swarm's.
    pub fn computes_here(&self) -> bool {
        self.here.is_some()
    }

    /// What servers must share to serve it.
    pub fn id(&self) -> ModelId {
        self.id
    }

    /// What servers that hold it in `format` share.
    pub fn id_in(&self, format: WeightFormat) -> ModelId {
        self.parts.config.id(format)
    }

    /// Its name for people.
    pub fn name(&self) -> &str {
        &self.parts.name
    }

    /// Its architecture.
    pub fn config(&self) -> &ModelConfig {
        &self.parts.config
    }

    /// The weight format its servers hold.
    pub fn format(&self) -> WeightFormat {
        self.parts.format
    }

    /// What its makers suggest for generating text.
    pub fn defaults(&self) -> &GenerationDefaults {
        &self.parts.defaults
    }

    /// The longest sequence it takes, in positions.
    pub fn max_positions(&self) -> usize {
        self.parts.config.max_positions
    }

    /// The token ids of a text, with the special tokens that begin one.
    ///
    /// # Errors
    /// [`ModelError`] if the tokenizer fails on it.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, ModelError> {
        self.parts.tokenizer.encode(text, true)
    }

    /// The token ids that ask the model to answer `messages`.
    ///
    /// # Errors
    /// [`ModelError`] if the model has no chat template, or it refuses these messages.
    pub fn encode_chat(&self, messages: &[ChatMessage]) -> Result<Vec<u32>, ModelError> {
        self.encode_chat_with(messages, &ChatOptions::default())
    }

    /// The same with tools that the model may call, and whatever else its chat template asks for.
    ///
    /// # Errors
    /// [`ModelError`] if the model has no chat template, or it refuses these messages.
    pub fn encode_chat_with(&self, messages: &[ChatMessage], options: &ChatOptions) -> Result<Vec<u32>, ModelError> {
        let template = self.parts.template.as_ref().ok_or_else(|| {
            ModelError::ChatTemplate("the model has none; use `generate` with a plain prompt".to_string())
        })?;
        // The template writes the special tokens itself.
        self.parts.tokenizer.encode(&template.render_with(messages, options)?, false)
    }

    /// How it writes calls of tools.
    pub fn tool_format(&self) -> ToolFormat {
        ToolFormat::of(self.parts.template.as_ref(), &self.parts.tokenizer)
    }

    /// Whether texts can be generated like this, before any server is asked. What a constraint is made of takes up to a second:
    /// call it on a thread that nobody waits for.
    ///
    /// # Errors
    /// [`SessionError`] says what is wrong with which option.
    pub fn check(&self, config: &GenerationConfig) -> Result<(), SessionError> {
        Sampler::new(&config.sampling)?;
        StopFilter::new(&config.stop)?;
        let Some(constraint) = &config.constraint else { return Ok(()) };
        if let EdgesSource::Served(_) = self.edges {
            return Err(SessionError::ConstraintElsewhere);
        }
        self.grammars.matcher(constraint)?;
        Ok(())
    }

    /// What token `id` adds to a text after token `before`; special tokens as they are written in the vocabulary.
    ///
    /// # Errors
    /// [`ModelError`] if the tokenizer fails.
    pub fn token_text(&self, before: u32, id: u32) -> Result<String, ModelError> {
        self.parts.tokenizer.piece(before, id)
    }

    /// A decoder that gives text as soon as it is whole.
    pub fn decoder(&self) -> TextDecoder {
        self.parts.tokenizer.decoder()
    }

    /// The route that a session for `tokens` tokens over `blocks` would take now, with its costs.
    ///
    /// # Errors
    /// [`NoPlan`] names the blocks that are not to be had.
    pub async fn plan(&self, blocks: BlockRange, tokens: usize) -> Result<Plan, NoPlan> {
        let (class, digests, avoid) = (None, Default::default(), Default::default());
        let need = Need {
            range: blocks,
            tokens: count(tokens),
            class,
            mixed: self.config.mixed_classes,
            digests,
            avoid,
            expected: None,
        };
        self.finder.plan(need, true).await
    }

    /// The server that a new session would leave embedding, head and sampling to, with its costs; `None` if they are this client's
    /// own, or nobody offers them.
    pub async fn edges_plan(&self) -> Option<EdgesPlan> {
        match &self.edges {
            EdgesSource::Own(_) => None,
            EdgesSource::Served(_) => self.finder.edges(None).await,
        }
    }

    /// The servers that answered, as last probed.
    pub async fn servers(&self) -> Vec<Known> {
        self.finder.known().await
    }

    /// A session that generates text, with room for `tokens` tokens of prompt and answer together on every hop.
    ///
    /// # Errors
    /// [`SessionError`] if that is past the model's context, or no servers are to be had.
    pub async fn text_session(&self, tokens: usize) -> Result<TextSession, SessionError> {
        self.text_session_for(&[], tokens).await
    }

    /// The same, for a prompt that is known: what the servers have computed of it before, in sessions that this client (or
    /// those it shares with: [`PrefixReuse`](crate::PrefixReuse)) had with them, they need not compute again.
    ///
    /// # Errors
    /// [`SessionError`] if `tokens` is past the model's context, or no servers are to be had.
    pub async fn text_session_for(&self, prompt: &[u32], tokens: usize) -> Result<TextSession, SessionError> {
        self.text_session_in(prompt, tokens, self.config.prefixes.clone()).await
    }

    /// The same, sharing what servers keep with others than this client's configuration says: for a program that generates
    /// for several people.
    ///
    /// # Errors
    /// Those of [`Model::text_session_for`].
    pub async fn text_session_in(
        &self,
        prompt: &[u32],
        tokens: usize,
        prefixes: PrefixReuse,
    ) -> Result<TextSession, SessionError> {
        let blocks = self.parts.config.all_blocks()?;
        let edges = self.edges.begin();
        let mut parts = self.session_parts(tokens, edges.clone())?;
        parts.config.prefixes = prefixes;
        // Without edges there is nothing to reserve room on servers for.
        edges.ready().await?;
        let session = match &self.here {
            Some(here) => Steps::Here(Box::new(SessionHere::new(here.clone(), edges.clone(), parts.tokens))),
            None => {
                let opening = Session::of_tokens(parts, blocks, prompt);
                Steps::Swarm(Box::new(opening.instrument(opening_span(blocks, tokens)).await?))
            }
        };
        let (tokenizer, grammars) = (self.parts.tokenizer.clone(), self.grammars.clone());
        Ok(TextSession::new(session, edges, tokenizer, grammars, self.parts.defaults.eos.clone()))
    }

    /// A session over any consecutive blocks, fed with hidden states, with room for `tokens` positions.
    ///
    /// # Errors
    /// [`SessionError`] if that is past the model's context, or no servers are to be had.
    pub async fn session(&self, blocks: BlockRange, tokens: usize) -> Result<HiddenSession, SessionError> {
        let opening = Session::of_rows(self.session_parts(tokens, self.edges.begin())?, blocks);
        let session = opening.instrument(opening_span(blocks, tokens)).await?;
        Ok(HiddenSession { session, format: self.parts.format, hidden: self.parts.config.hidden })
    }

    /// The embeddings `(tokens, hidden)` of `ids`: the input of block 0.
    ///
    /// # Errors
    /// [`SessionError::Model`] if an id is not in the vocabulary.
    pub async fn embed(&self, ids: &[u32]) -> Result<Tensor, SessionError> {
        let rows = self.edges.begin().embed(ids.to_vec()).await?;
        tensor(self.parts.format, self.parts.config.hidden, &rows)
    }

    /// The logits of each row of the last block's output `(rows, hidden)`, over the vocabulary.
    ///
    /// # Errors
    /// [`SessionError`] if the rows are not of the model's width and type.
    pub async fn logits(&self, hidden: &Tensor) -> Result<Vec<Vec<f32>>, SessionError> {
        let rows = rows(self.parts.format, self.parts.config.hidden, hidden)?;
        self.edges.begin().logits(rows).await
    }

    /// The last block's output `(rows, hidden)` after the final norm, row after row: what the head reads, and what stands for
    /// a text's meaning.
    ///
    /// # Errors
    /// [`SessionError`] if the rows are not of the model's width and type, or this client has no norm.
    pub async fn final_norm(&self, hidden: &Tensor) -> Result<Vec<Vec<f32>>, SessionError> {
        let rows = rows(self.parts.format, self.parts.config.hidden, hidden)?;
        self.edges.begin().final_norm(rows).await
    }

    fn session_parts(&self, tokens: usize, edges: ClientEdges) -> Result<SessionParts, SessionError> {
        if tokens > self.max_positions() {
            return Err(SessionError::PastContext { asked: count(tokens), most: count(self.max_positions()) });
        }
        Ok(SessionParts {
            network: self.network.clone(),
            finder: self.finder.clone(),
            config: self.config.clone(),
            model: self.id,
            format: self.parts.format,
            hidden: self.parts.config.hidden as u32,
            edges,
            id: SessionId::random(&mut rand::rng()),
            tokens: count(tokens.max(1)),
        })
    }
}

/// A route is looked for, and its hops are opened.
fn opening_span(blocks: BlockRange, tokens: usize) -> Span {
    info_span!(target: SPANS, "open", %blocks, reserved_tokens = tokens as i64)
}

fn count(tokens: usize) -> TokenCount {
    TokenCount(u32::try_from(tokens).unwrap_or(u32::MAX))
}

fn rows(format: WeightFormat, width: usize, hidden: &Tensor) -> Result<ActivationRows, SessionError> {
    let fits = hidden.dims().len() == 2 && hidden.dims()[1] == width && hidden.dtype() == activations::dtype(format);
    let bytes = if fits { activations::to_bytes(hidden)? } else { Vec::new() };
    let rows = ActivationRows::new(format, width as u32, bytes);
    rows.filter(|rows| rows.rows() > 0).ok_or(SessionError::WrongRows { hidden: width })
}

fn tensor(format: WeightFormat, width: usize, rows: &ActivationRows) -> Result<Tensor, SessionError> {
    Ok(activations::from_bytes(format, rows.rows(), width, rows.bytes())?)
}

/// A session over consecutive blocks that takes and gives hidden states.
pub struct HiddenSession {
    session: Session,
    format: WeightFormat,
    hidden: usize,
}

impl HiddenSession {
    /// Waits until every connection of the route is up to speed, for a few seconds at most: see [`Session::warm_up`].
    ///
    /// # Errors
    /// [`SessionError`] if servers were lost and no others are to be had.
    pub async fn warm_up(&mut self) -> Result<(), SessionError> {
        self.session.warm_up().await
    }

    /// Pushes `hidden`, `(rows, hidden)` in the model's activation type, through the session's blocks at the positions that
    /// follow those before; gives their output, of the same shape and type.
    ///
    /// # Errors
    /// [`SessionError`] if the rows do not fit, or a lost server cannot be replaced.
    pub async fn forward(&mut self, hidden: &Tensor) -> Result<Tensor, SessionError> {
        let input = rows(self.format, self.hidden, hidden)?;
        let output = self.session.feed_rows(input, Outputs::All).await?;
        let output = output.ok_or(SessionError::WrongRows { hidden: self.hidden })?;
        tensor(self.format, self.hidden, &output)
    }

    /// How many positions the session holds.
    pub fn position(&self) -> usize {
        self.session.position().as_usize()
    }

    /// Forgets every position from `position` on.
    pub fn truncate(&mut self, position: usize) {
        self.session.truncate(count(position));
    }

    /// The hops in order.
    pub fn route(&self) -> Vec<HopInfo> {
        self.session.route()
    }

    /// The next thing that happened to the route since it was last asked.
    pub fn next_route_event(&mut self) -> Option<RouteEvent> {
        self.session.next_route_event()
    }
}

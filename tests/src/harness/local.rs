//! A whole model in this process, without any network: what a swarm's text must be.

use std::sync::LazyLock;

use swarm_model::{
    Blocks, Checkpoint, Edges, History, KvCache, KvFormat, ModelSpec, Sampler, SamplingConfig, Sequence, Tensor,
    TextTokenizer, activations,
};
use swarm_protocol::activations::ActivationRows;
use swarm_protocol::block::BlockRange;
use swarm_protocol::model_id::WeightFormat;
use swarm_protocol::wire::{ElementType, LinkFormat};

/// The likeliest token, always.
pub fn greedy() -> SamplingConfig {
    SamplingConfig::default()
}

/// Tokens drawn with that seed.
pub fn sampled(seed: u64) -> SamplingConfig {
    SamplingConfig { temperature: Some(0.9), top_k: Some(50), top_p: Some(0.95), seed, ..SamplingConfig::default() }
}

/// A text computed here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    /// The answer's ids, without the one that ends it.
    pub tokens: Vec<u32>,
    /// The answer.
    pub text: String,
}

/// A whole model in this process.
pub struct Local {
    blocks: Blocks,
    edges: Edges,
    tokenizer: TextTokenizer,
    eos: Vec<u32>,
}

impl Local {
    /// The demo model in its own format, loaded once.
    pub fn demo() -> &'static Self {
        static DEMO: LazyLock<Local> = LazyLock::new(|| Local::open(&ModelSpec::Demo, WeightFormat::Bf16));
        &DEMO
    }

    /// The model `spec` held in `format`.
    pub fn open(spec: &ModelSpec, format: WeightFormat) -> Self {
        let checkpoint = Checkpoint::open(spec).expect("the checkpoint");
        let all = checkpoint.config().all_blocks().expect("its blocks");
        Self {
            blocks: checkpoint.load_blocks(all, format, &mut |_| ()).expect("its blocks"),
            edges: checkpoint.load_edges(format).expect("its edges"),
            tokenizer: checkpoint.tokenizer().expect("its tokenizer"),
            eos: checkpoint.generation_defaults().expect("its defaults").eos,
        }
    }

    /// The same with keys and values held in `kv`.
    pub fn with_kv(self, kv: KvFormat) -> Self {
        Self { blocks: self.blocks.with_kv_format(kv).expect("a numeric class"), ..self }
    }

    /// The ids of `text`.
    pub fn encode(&self, text: &str) -> Vec<u32> {
        self.tokenizer.encode(text, true).expect("ids")
    }

    /// The embeddings `(ids, hidden)`.
    pub fn embed(&self, ids: &[u32]) -> Tensor {
        self.edges.embed(ids).expect("embeddings")
    }

    /// The output of blocks `range` for a sequence that begins with `hidden`.
    pub fn forward(&self, range: BlockRange, hidden: &Tensor) -> Tensor {
        let mut cache = self.blocks.new_cache(range, self.edges.config().max_positions).expect("a cache");
        self.step(range, &mut cache, hidden)
    }

    /// The logits of each row of the last block's output.
    pub fn logits(&self, hidden: &Tensor) -> Vec<Vec<f32>> {
        self.edges.logits(hidden).and_then(|logits| Ok(logits.to_vec2()?)).expect("logits")
    }

    /// Each row of the last block's output after the final norm.
    pub fn final_norm(&self, hidden: &Tensor) -> Vec<Vec<f32>> {
        self.edges.final_norm(hidden).and_then(|rows| Ok(rows.to_vec2()?)).expect("normed rows")
    }

    /// The answer to `prompt`, of at most `most` tokens.
    pub fn text(&self, prompt: &str, sampling: &SamplingConfig, most: usize) -> Text {
        self.answer(&self.encode(prompt), sampling, most)
    }

    /// The same for a prompt of token ids.
    pub fn answer(&self, prompt: &[u32], sampling: &SamplingConfig, most: usize) -> Text {
        self.answer_over(&[self.blocks.range()], LinkFormat::Exact, prompt, sampling, most)
    }

    /// The same with the blocks in `parts`, and what goes into each, and out of the last one, as a link of `format` gives it.
    pub fn answer_over(
        &self,
        parts: &[BlockRange],
        format: LinkFormat,
        prompt: &[u32],
        sampling: &SamplingConfig,
        most: usize,
    ) -> Text {
        let mut history = History::of_prompt(prompt);
        let mut sampler = Sampler::new(sampling).expect("sampling options");
        let cache = |part: &BlockRange| (*part, self.blocks.new_cache(*part, prompt.len() + most).expect("a cache"));
        let mut caches: Vec<(BlockRange, KvCache)> = parts.iter().map(cache).collect();
        let mut forward = |ids: &[u32]| {
            let enter = |rows: &Tensor| self.over_a_link(format, rows);
            let rows =
                caches.iter_mut().fold(self.embed(ids), |rows, (part, cache)| self.step(*part, cache, &enter(&rows)));
            enter(&rows)
        };
        let mut rows = forward(prompt);
        let mut tokens = Vec::new();
        while tokens.len() < most {
            let last = rows.narrow(0, rows.dims()[0] - 1, 1).expect("the last row");
            let logits = self.edges.logits(&last).and_then(|logits| Ok(logits.squeeze(0)?)).expect("logits");
            let id = sampler.sample(&logits, &history).expect("a token");
            if self.eos.contains(&id) {
                break;
            }
            tokens.push(id);
            history.push(id);
            rows = forward(&[id]);
        }
        let text = self.tokenizer.decode(&tokens).expect("text");
        Text { tokens, text }
    }

    fn over_a_link(&self, format: LinkFormat, rows: &Tensor) -> Tensor {
        let (weights, hidden) = (self.edges.format(), self.edges.config().hidden);
        let bytes = activations::to_bytes(rows).expect("bytes");
        let sent = ActivationRows::new(weights, hidden as u32, bytes).expect("rows").on_link(format);
        let came = sent.off_link(ElementType::from(weights));
        activations::from_bytes(weights, rows.dims()[0], hidden, came.bytes()).expect("rows")
    }

    fn step(&self, range: BlockRange, cache: &mut KvCache, hidden: &Tensor) -> Tensor {
        let rows = hidden.dims()[0];
        self.blocks.forward(range, hidden, &mut [Sequence { cache, rows }]).expect("a step")
    }
}

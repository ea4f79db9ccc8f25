//! `swarm-node generate`: text from a prompt, through the swarm.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use clap::builder::FalseyValueParser;
use swarm_client::{ClientConfig, GenerationConfig, GenerationEvent, Model, NetworkConfig, Swarm};
use swarm_model::{ModelSpec, SamplingConfig};
use swarm_protocol::model_id::WeightFormat;

use super::batch::{self, Batch};
use super::common::SwarmArgs;
use super::formats::or_other_formats;
use super::output::BadUsage;
use super::peers::PeerArgs;
use super::stop::or_interrupted;
use super::text_view::TextView;
use super::trace::TraceFile;

/// The largest prompt file that is read: far beyond any context, far below any machine's memory.
const MAX_PROMPT_BYTES: u64 = 16 * 1024 * 1024;

/// Generate text from a prompt, through the servers of a swarm.
///
/// The text goes to stdout, everything else to stderr. Without --temperature the likeliest token is always taken, so that
/// the same prompt gives the same text, whichever servers compute it and whichever of them die meanwhile.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  swarm-node generate --model demo --bootstrap /ip4/127.0.0.1/tcp/4001/p2p/12D3KooW... --prompt \"Once upon a time\"
  swarm-node generate --model ./llama --bootstrap ... --prompt-file question.txt --temperature 0.7 --seed 1
  echo \"Once upon a time\" | swarm-node generate --model demo --bootstrap ... -
  swarm-node generate --model demo --bootstrap ... --batch prompts.jsonl --output texts.jsonl")]
pub(crate) struct GenerateArgs {
    /// The model: `demo`, or a directory with config.json, *.safetensors and tokenizer.json
    #[arg(long, env = "SWARM_MODEL", value_name = "MODEL")]
    model: ModelSpec,
    #[command(flatten)]
    swarm: SwarmArgs,
    #[command(flatten)]
    prompt: PromptArgs,
    #[command(flatten)]
    sampling: SamplingArgs,
    #[command(flatten)]
    peers: PeerArgs,
    /// The weight format the servers hold [default: the checkpoint's own]
    #[arg(long, env = "SWARM_FORMAT")]
    format: Option<WeightFormat>,
    /// Print one JSON object a line
    #[arg(long, env = "SWARM_JSON", value_parser = FalseyValueParser::new())]
    json: bool,
    /// Say on stderr which route was taken and why
    #[arg(long, env = "SWARM_SHOW_ROUTE", value_parser = FalseyValueParser::new())]
    show_route: bool,
    /// Write where the time went to FILE, for `swarm-node trace` and ui.perfetto.dev
    #[arg(long, env = "SWARM_TRACE", value_name = "FILE", conflicts_with = "batch")]
    trace: Option<PathBuf>,
    /// With --batch: write the texts to FILE instead of stdout. What it has already is not asked again
    #[arg(long, env = "SWARM_OUTPUT", value_name = "FILE", requires = "batch")]
    output: Option<PathBuf>,
    /// With --batch: how many prompts at a time [default: 8 for each hop of the route, at most 64]
    #[arg(long, env = "SWARM_PARALLEL", requires = "batch", value_parser = clap::value_parser!(u16).range(1..))]
    parallel: Option<u16>,
}

/// Where the prompt comes from.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct PromptArgs {
    /// The prompt; `-` reads it from stdin
    #[arg(long, env = "SWARM_PROMPT")]
    prompt: Option<String>,
    /// A file with the prompt
    #[arg(long, env = "SWARM_PROMPT_FILE")]
    prompt_file: Option<PathBuf>,
    /// Many prompts, one JSON object a line: `prompt`, and if wanted `id`, `max_tokens`, `temperature`, `top_p`, `top_k`,
    /// `repetition_penalty`, `seed`. One JSON object a line comes out for each, as soon as its text is complete
    #[arg(long, env = "SWARM_BATCH", value_name = "FILE")]
    batch: Option<PathBuf>,
    /// `-`: read the prompt from stdin
    #[arg(value_name = "-", value_parser = ["-"])]
    stdin: Option<String>,
}

/// How tokens are chosen.
#[derive(Debug, Args)]
pub(crate) struct SamplingArgs {
    /// The most tokens to generate
    #[arg(long, env = "SWARM_MAX_TOKENS", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..))]
    max_tokens: u32,
    /// Sample with this temperature [default: none, the likeliest token always]
    #[arg(long, env = "SWARM_TEMPERATURE", allow_negative_numbers = true)]
    temperature: Option<f64>,
    /// Sample among the likeliest tokens that together reach this probability
    #[arg(long, env = "SWARM_TOP_P", allow_negative_numbers = true)]
    top_p: Option<f64>,
    /// Sample among this many of the likeliest tokens
    #[arg(long, env = "SWARM_TOP_K")]
    top_k: Option<usize>,
    /// Make tokens that were used already less likely; above 1
    #[arg(long, env = "SWARM_REPETITION_PENALTY", allow_negative_numbers = true)]
    repetition_penalty: Option<f32>,
    /// Seed of the sampling: the same seed gives the same text
    #[arg(long, env = "SWARM_SEED", default_value_t = 0)]
    seed: u64,
}

impl SamplingArgs {
    /// The options, checked.
    pub(crate) fn config(&self) -> Result<GenerationConfig> {
        let sampling = SamplingConfig {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            repetition_penalty: self.repetition_penalty,
            seed: self.seed,
        };
        sampling.validate().map_err(|error| BadUsage(error.into()))?;
        Ok(GenerationConfig { max_tokens: self.max_tokens as usize, sampling, trace: false })
    }
}

impl GenerateArgs {
    pub(super) fn network_config(&self) -> Result<NetworkConfig> {
        self.swarm.network_config()
    }

    pub(super) fn client_config(&self) -> Result<ClientConfig> {
        self.peers.config()
    }

    pub(super) async fn open_model(&self, swarm: &Swarm) -> Result<Model> {
        Ok(swarm.open_model(&self.model, self.format).await?)
    }
}

/// Runs the command.
pub(crate) async fn run(args: GenerateArgs) -> Result<()> {
    let config = args.sampling.config()?;
    if let Some(input) = &args.prompt.batch {
        let (output, parallel) = (args.output.clone(), args.parallel.map(usize::from));
        return batch::run(&args, Batch { input, output, parallel, config }).await;
    }
    let prompt = args.prompt.read()?;
    let trace = args.trace.as_deref().map(TraceFile::create).transpose()?;
    or_interrupted(async {
        let swarm = Swarm::join(args.network_config()?, args.client_config()?).await?;
        let model = args.open_model(&swarm).await?;
        let generated = generate(&model, &prompt, config, &args, trace).await;
        let generated = or_other_formats(&swarm, &model, generated).await;
        swarm.leave().await;
        generated
    })
    .await
}

async fn generate(
    model: &Model,
    prompt: &str,
    config: GenerationConfig,
    args: &GenerateArgs,
    mut trace: Option<TraceFile>,
) -> Result<()> {
    let ids = model.encode(prompt)?;
    let tokens = session_tokens(model, ids.len(), config.max_tokens)?;
    let mut view = TextView::new(args.json, args.show_route);
    let mut session = model.text_session_for(&ids, tokens).await?;
    if args.show_route {
        // The session has looked for servers with more patience than a plan has.
        let plan = model.plan(model.config().all_blocks()?, tokens).await?;
        view.explain(&plan.route);
    }
    let mut generation = session.generate(&ids, GenerationConfig { trace: trace.is_some(), ..config })?;
    let told = loop {
        match generation.next().await.inspect_err(|_| view.end_line()) {
            Ok(Some(GenerationEvent::Trace(record))) => {
                if let Some(trace) = &mut trace {
                    trace.write(record)?;
                }
            }
            Ok(Some(event)) => view.show(&event)?,
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    // What a text that failed was waiting for is worth knowing most.
    trace.map_or(Ok(()), TraceFile::finish)?;
    Ok(told?)
}

/// Room for prompt and answer: what was asked for, as far as the model's context goes.
pub(crate) fn session_tokens(model: &Model, prompt: usize, answer: usize) -> Result<usize> {
    let context = model.max_positions();
    if prompt >= context {
        bail!(
            "the prompt has {prompt} tokens, the context of {} has room for {context}; shorten the prompt",
            model.name()
        );
    }
    Ok(context.min(prompt + answer))
}

impl PromptArgs {
    fn read(&self) -> Result<String> {
        let text = match (self.prompt.as_deref(), self.prompt_file.as_deref()) {
            (Some("-"), _) | (None, None) => {
                read_limited(std::io::stdin()).context("cannot read the prompt from stdin")?
            }
            (Some(text), _) => text.to_string(),
            (None, Some(path)) => read_file(path)?,
        };
        // A file's or a shell's last line break is no part of the prompt.
        let text = text.strip_suffix('\n').unwrap_or(&text);
        if text.trim().is_empty() {
            bail!("the prompt is empty; give some text to continue");
        }
        Ok(text.to_string())
    }
}

fn read_file(path: &Path) -> Result<String> {
    let file = std::fs::File::open(path).with_context(|| format!("cannot read the prompt file {}", path.display()))?;
    read_limited(file).with_context(|| format!("cannot read the prompt file {}", path.display()))
}

fn read_limited(input: impl Read) -> Result<String> {
    let mut text = String::new();
    input.take(MAX_PROMPT_BYTES).read_to_string(&mut text)?;
    Ok(text)
}

//! `swarm-node generate`: text from a prompt, through the swarm.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use clap::builder::FalseyValueParser;
use swarm_client::{ClientConfig, GenerationConfig, GenerationEvent, Model, NetworkConfig, Swarm};
use swarm_model::ModelSpec;
use swarm_protocol::model_id::WeightFormat;
use swarm_protocol::trace_context::SPANS;
use swarm_protocol::wire::MAX_TOP_TOKENS;
use tracing::{Instrument, info_span};

use super::batch::{self, Batch};
use super::common::{SwarmArgs, join};
use super::formats::or_other_formats;
use super::hub::{Bar, HubArgs, MODEL_HELP};
use super::output::{BadUsage, Printer};
use super::peers::PeerArgs;
use super::sampling::SamplingArgs;
use super::stop::or_interrupted;
use super::text_view::TextView;
use super::trace::TraceFile;

/// The largest prompt file that is read: far beyond any context, far below any machine's memory.
const MAX_PROMPT_BYTES: u64 = 16 * 1024 * 1024;

/// What is done until a session is open, and until its first token comes.
pub(crate) const LOOKING: &str = "looking for servers";
pub(crate) const COMPUTING: &str = "computing the prompt";

/// Generate text from a prompt, through the servers of a swarm.
///
/// The text goes to stdout, everything else to stderr. Without --temperature the likeliest token is always taken, so that
/// the same prompt gives the same text, whichever servers compute it and whichever of them die meanwhile.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  swarm-node generate --model demo \\
    --bootstrap /ip4/127.0.0.1/tcp/4001/p2p/12D3KooW... \\
    --prompt \"Once upon a time\"
  swarm-node generate --model ./llama --bootstrap ... \\
    --prompt-file question.txt --temperature 0.7 --seed 1
  echo \"Once upon a time\" | swarm-node generate --model demo --bootstrap ... -
  swarm-node generate --model demo --bootstrap ... \\
    --prompt \"The fox said:\" --regex '\"[a-z ,]{1,60}[.!?]\"' --stop \"?\"
  swarm-node generate --model ./llama --bootstrap ... \\
    --prompt-file question.txt --json-schema answer.schema.json
  swarm-node generate --model demo --bootstrap ... \\
    --batch prompts.jsonl --output texts.jsonl")]
pub(crate) struct GenerateArgs {
    #[arg(long, env = "SWARM_MODEL", value_name = "MODEL", help = MODEL_HELP)]
    model: ModelSpec,
    #[command(flatten)]
    swarm: SwarmArgs,
    #[command(flatten)]
    prompt: PromptArgs,
    #[command(flatten)]
    sampling: SamplingArgs,
    #[command(flatten)]
    peers: PeerArgs,
    #[command(flatten)]
    hub: HubArgs,
    /// The weight format the servers hold [default: the checkpoint's own]
    #[arg(long, env = "SWARM_FORMAT")]
    format: Option<WeightFormat>,
    /// Print one JSON object a line
    #[arg(long, env = "SWARM_JSON", value_parser = FalseyValueParser::new())]
    json: bool,
    /// With --json: say how likely each token was, and this many of the likeliest ones (natural logarithms, before penalties and
    /// temperature)
    #[arg(long, env = "SWARM_LOGPROBS", value_name = "N", requires = "json", conflicts_with = "batch",
          value_parser = clap::value_parser!(u32).range(..=i64::from(MAX_TOP_TOKENS)))]
    logprobs: Option<u32>,
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
    #[arg(long, env = "SWARM_PARALLEL", requires = "batch", allow_negative_numbers = true, value_parser = super::values::at_least_one::<u16>)]
    parallel: Option<u16>,
}

/// Where the prompt comes from.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct PromptArgs {
    /// The prompt; `-` reads it from stdin
    #[arg(long, env = "SWARM_PROMPT", value_parser = super::values::prompt)]
    prompt: Option<String>,
    /// A file with the prompt
    #[arg(long, env = "SWARM_PROMPT_FILE", value_parser = super::values::input_file)]
    prompt_file: Option<PathBuf>,
    /// Many prompts, one JSON object a line: `prompt`, and if wanted `id`, `max_tokens`, `temperature`, `top_p`, `top_k`, `min_p`,
    /// `repetition_penalty`, `presence_penalty`, `frequency_penalty`, `seed`, `stop` (a text or a list of them), and one of
    /// `json_object`, `json_schema`, `grammar` and `regex`. One JSON object a line comes out for each, as soon as its text is
    /// complete
    #[arg(long, env = "SWARM_BATCH", value_name = "FILE")]
    batch: Option<PathBuf>,
    /// `-`: read the prompt from stdin
    #[arg(value_name = "-", value_parser = ["-"])]
    stdin: Option<String>,
}

impl GenerateArgs {
    pub(super) fn network_config(&self) -> Result<NetworkConfig> {
        self.swarm.network_config()
    }

    pub(super) fn client_config(&self) -> Result<ClientConfig> {
        Ok(ClientConfig { hub: self.hub.config(), ..self.peers.config()? })
    }

    pub(super) async fn open_model(&self, swarm: &Swarm) -> Result<Model> {
        open_model(swarm, &self.model, self.format).await
    }
}

/// Opens a model; what has to be fetched for it is shown.
pub(crate) async fn open_model(swarm: &Swarm, model: &ModelSpec, format: Option<WeightFormat>) -> Result<Model> {
    let bar = Bar::default();
    let shown = bar.clone();
    let opened = swarm.open_model_watched(model, format, move |done, all| shown.show("fetching", done, all)).await;
    bar.done();
    Ok(opened?)
}

/// Runs the command.
pub(crate) async fn run(args: GenerateArgs) -> Result<()> {
    let config = args.sampling.config()?;
    if let Some(input) = &args.prompt.batch {
        let (output, parallel) = (args.output.clone(), args.parallel.map(usize::from));
        return batch::run(&args, Batch { input, output, parallel, config }).await;
    }
    // clap asks for --batch only where nothing else stands that excludes it.
    for (flag, given) in [("--output", args.output.is_some()), ("--parallel", args.parallel.is_some())] {
        if given {
            return Err(BadUsage(anyhow!("{flag} goes with --batch FILE only; a single text goes to stdout")).into());
        }
    }
    let prompt = args.prompt.read().map_err(BadUsage)?;
    let trace = args.trace.as_deref().map(TraceFile::create).transpose()?;
    or_interrupted(async {
        let swarm = join(args.network_config()?, args.client_config()?).await?;
        let model = args.open_model(&swarm).await?;
        let span = info_span!(target: SPANS, "generate", model = model.name());
        let generated = generate(&model, &prompt, config, &args, trace).instrument(span).await;
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
    model.check(&config)?;
    let tokens = session_tokens(model, ids.len(), config.max_tokens)?;
    let room = tokens - ids.len();
    if room < config.max_tokens {
        Printer::new(args.json).note(format_args!("note: the context has room for {room} tokens after this prompt"));
    }
    let mut view = TextView::new(args.json, args.show_route);
    let waiting = Bar::default();
    waiting.spin(LOOKING);
    let mut session = model.text_session_for(&ids, tokens).await?;
    waiting.done();
    if args.show_route {
        let edges = model.edges_plan().await;
        session.planned().into_iter().for_each(|route| view.explain(route, edges.as_ref()));
    }
    let probabilities = args.logprobs.map(|top| top as usize);
    let config = GenerationConfig { trace: trace.is_some(), probabilities, ..config };
    let mut generation = session.generate(&ids, config)?;
    waiting.spin(COMPUTING);
    let told = loop {
        let next = generation.next().await;
        waiting.done();
        match next.inspect_err(|_| view.end_line()) {
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
    let file = std::fs::File::open(path).with_context(|| {
        format!("cannot read the prompt file {}; check its path, or give the text with --prompt", path.display())
    })?;
    read_limited(file).with_context(|| {
        format!("cannot read the prompt file {}; check its path, or give the text with --prompt", path.display())
    })
}

fn read_limited(input: impl Read) -> Result<String> {
    let mut text = String::new();
    input.take(MAX_PROMPT_BYTES).read_to_string(&mut text)?;
    Ok(text)
}

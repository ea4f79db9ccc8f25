//! `swarm-node serve`: the flags and what is printed; everything else is the library's.

use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::Args;
use clap::builder::FalseyValueParser;
use serde_json::json;
use swarm_model::{DeviceChoice, KvFormat, ModelSpec};
use swarm_node::serve::{
    DEFAULT_ANNOUNCE_INTERVAL, DEFAULT_CACHE_TOKENS, DEFAULT_DRAIN_TIMEOUT, DEFAULT_IDLE_TIMEOUT, LoadProgress,
    LoadStage, Report, ServeConfig, ServeEvent, ServerMetrics, Wanted,
};
use swarm_protocol::block::BlockRange;
use swarm_protocol::model_id::WeightFormat;
use swarm_protocol::p2p::StreamKind;
use swarm_protocol::session::TokenCount;

use super::common::{ListenArgs, SwarmArgs, print_how_to_join, print_listening, warn_of_readers, warn_unreachable};
use super::control::Control;
use super::hub::{Bar, HubArgs, MODEL_HELP};
use super::otlp;
use super::output::Printer;
use super::server_page::ServerPage;
use super::stop::{Stop, with_stdin};
use super::units::duration;

/// Serve blocks of a model to a swarm, until told to stop (Ctrl-C, SIGTERM, or `swarm-node drain`).
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  swarm-node serve --model demo
  swarm-node serve --model org/name --blocks 8 \\
    --bootstrap /ip4/192.168.1.5/tcp/4001/p2p/12D3KooW...
  swarm-node serve --model ./llama --block-range 0..16 --bootstrap ... \\
    --swarm-key swarm.key --swarm our-lab
  swarm-node serve --model org/name --bootstrap ... --name attic \\
    --identity attic.key --announce /dns4/attic.example.org/tcp/4001")]
pub(crate) struct ServeArgs {
    #[arg(long, env = "SWARM_MODEL", value_name = "MODEL", help = MODEL_HELP)]
    model: ModelSpec,
    /// How many blocks to host, where the swarm needs them most [default: as many as fit in free memory]
    #[arg(long, env = "SWARM_BLOCKS", value_name = "N", conflicts_with = "block_range", allow_negative_numbers = true, value_parser = super::values::blocks)]
    blocks: Option<NonZeroU32>,
    /// Which blocks to host, whatever the swarm needs
    #[arg(long, env = "SWARM_BLOCK_RANGE", value_name = "A..B")]
    block_range: Option<BlockRange>,
    #[command(flatten)]
    swarm: SwarmArgs,
    #[command(flatten)]
    listen: ListenArgs,
    #[command(flatten)]
    hub: HubArgs,
    /// A name that others see
    #[arg(long, env = "SWARM_NAME", value_name = "TEXT")]
    name: Option<String>,
    /// Room for tokens in the KV caches of all sessions together, in whole pages of 64
    #[arg(long, env = "SWARM_CACHE_TOKENS", value_name = "N", default_value_t = DEFAULT_CACHE_TOKENS.0,
          allow_negative_numbers = true, value_parser = super::values::at_least_one::<u32>)]
    cache_tokens: u32,
    /// Offer embedding, head and sampling too, to clients that hold no weights (`generate --edges served`). This server then sees
    /// the tokens of their texts
    #[arg(long, env = "SWARM_EDGES", value_parser = offers_edges)]
    edges: bool,
    /// Keep nothing of a session when it ends. Otherwise its keys and values stay, as long as there is room, for the next
    /// session of the same client that begins alike
    #[arg(long, env = "SWARM_NO_PREFIX_CACHE", value_parser = FalseyValueParser::new())]
    no_prefix_cache: bool,
    /// The format the weights are held in: bf16, f16, f32, quantised at load (q8_0, q4_0, q4_k), or gguf for a
    /// .gguf file's own types [default: the checkpoint's]
    #[arg(long, env = "SWARM_FORMAT", value_name = "FORMAT")]
    format: Option<WeightFormat>,
    /// Bits of an element of the KV caches: 16 is the activations' own type (32 bits with f32 weights), 8 takes about half the
    /// memory and rounds a little. Only servers with the same bits stand in for one another
    #[arg(long, env = "SWARM_KV_BITS", value_name = "BITS", default_value = "16", value_parser = kv_format)]
    kv_bits: KvFormat,
    /// What computes the blocks: cpu, cuda:0 (another number for another GPU), metal, or auto: the first of CUDA, Metal and the
    /// CPU that this program was built for and finds. On a GPU texts are mended after a loss up to rounding, not bit for bit
    #[arg(long, env = "SWARM_DEVICE", value_name = "DEVICE", default_value_t)]
    device: DeviceChoice,
    /// Threads to compute on; they sleep while nobody asks for anything [default: one for each core, less one for the network
    /// where there is more than one]
    #[arg(long, env = "SWARM_THREADS", value_name = "N", allow_negative_numbers = true, value_parser = super::values::threads)]
    threads: Option<NonZeroUsize>,
    /// How long running sessions may go on when told to stop [default: 30s]
    #[arg(long, env = "SWARM_DRAIN_TIMEOUT", value_name = "DURATION", value_parser = duration)]
    drain_timeout: Option<Duration>,
    /// How long a session may be silent
    #[arg(long, env = "SWARM_IDLE_TIMEOUT", value_name = "DURATION", value_parser = duration, hide = true)]
    idle_timeout: Option<Duration>,
    /// The time between two announcements
    #[arg(long, env = "SWARM_ANNOUNCE_INTERVAL", value_name = "DURATION", value_parser = duration, hide = true)]
    announce_interval: Option<Duration>,
    /// End when stdin closes: whoever started this process is gone
    #[arg(long, env = "SWARM_UNTIL_STDIN_CLOSES", value_parser = FalseyValueParser::new(), hide = true)]
    until_stdin_closes: bool,
    /// Show this server and its swarm over HTTP there: /health, /ready, /metrics for Prometheus, /api/v1/swarm and a page. Whoever
    /// can reach it can read it, so a loopback address is the safe one [default: no HTTP]
    #[arg(long, env = "SWARM_HTTP", value_name = "ADDRESS:PORT", value_parser = swarm_telemetry::http::parse_address)]
    http: Option<SocketAddr>,
    /// Print one JSON object a line
    #[arg(long, env = "SWARM_JSON", value_parser = FalseyValueParser::new())]
    json: bool,
}

/// Serves until told to stop.
pub(crate) async fn serve(args: ServeArgs) -> anyhow::Result<()> {
    let printer = Printer::new(args.json);
    let stop = Stop::on_signals()?;
    if args.until_stdin_closes {
        with_stdin();
    }
    warn_of_readers(printer, &args.swarm);
    let config = config(&args)?;
    let (control, unvisited) = Control::start(args.name.clone(), args.model.to_string());
    if let Some(error) = unvisited {
        printer.note(format_args!("warning: `swarm-node drain` will not find this server: {error}"));
    }
    let page = match args.http {
        Some(address) => Some(ServerPage::start(address, printer, &config.metrics).await?),
        None => None,
    };
    let told = page.as_ref().map(ServerPage::teller);
    let (tell, shown, wanted) = (control.teller(), report(printer, args), control.wanted());
    let report: Report = Arc::new(move |event| {
        tell(&event);
        if let Some(told) = &told {
            told(&event);
        }
        shown(event);
    });
    let stop = async {
        tokio::select! {
            () = stop.wait() => {}
            () = wanted => {}
        }
    };
    let served = swarm_node::serve::serve(config, report, stop).await;
    control.finish(served.as_ref().err().map(ToString::to_string)).await;
    if let Some(page) = page {
        page.finish().await;
    }
    Ok(served?)
}

fn config(args: &ServeArgs) -> anyhow::Result<ServeConfig> {
    let network = args.swarm.network_config()?;
    let wanted = match (args.block_range, args.blocks) {
        (Some(range), _) => Wanted::Pinned(range),
        (None, Some(count)) => Wanted::Count(count.get()),
        (None, None) => Wanted::Fitting,
    };
    let kinds: &[StreamKind] = match args.edges {
        true => &[StreamKind::Info, StreamKind::Session, StreamKind::Edges],
        false => &[StreamKind::Info, StreamKind::Session],
    };
    Ok(ServeConfig {
        model: args.model.clone(),
        hub: args.hub.config(),
        wanted,
        // Any port: several servers may run on one machine.
        network: args.listen.listening(network, 0, kinds)?,
        name: args.name.clone(),
        cache_tokens: TokenCount(args.cache_tokens),
        prefix_cache: !args.no_prefix_cache,
        edges: args.edges,
        format: args.format,
        kv_format: args.kv_bits,
        device: args.device,
        threads: args.threads.map(NonZeroUsize::get),
        drain_timeout: args.drain_timeout.unwrap_or(DEFAULT_DRAIN_TIMEOUT),
        idle_timeout: args.idle_timeout.unwrap_or(DEFAULT_IDLE_TIMEOUT),
        announce_interval: args.announce_interval.unwrap_or(DEFAULT_ANNOUNCE_INTERVAL),
        metrics: ServerMetrics::default(),
        spans: otlp::spans(),
    })
}

/// Clients have a variable of the same name, whose words are none of a server's business.
#[allow(clippy::unnecessary_wraps)]
fn offers_edges(value: &str) -> Result<bool, std::convert::Infallible> {
    Ok(!["", "0", "n", "no", "f", "false", "off", "own", "served"].contains(&value.to_lowercase().as_str()))
}

fn kv_format(bits: &str) -> Result<KvFormat, &'static str> {
    match bits {
        "16" => Ok(KvFormat::Activations),
        "8" => Ok(KvFormat::Int8),
        _ => Err("use 16 or 8"),
    }
}

fn report(printer: Printer, args: ServeArgs) -> Report {
    let loading = Loading::new(printer);
    Arc::new(move |event| match event {
        ServeEvent::Listening { peer, addresses, reachable, .. } => {
            print_listening(printer, peer, &addresses);
            // Others look first for what the swarm needs.
            loading.wait("joining the swarm");
            if !reachable {
                warn_unreachable(printer);
            }
        }
        ServeEvent::Chosen { blocks } => {
            loading.done();
            printer.words(format_args!("hosting   blocks {blocks} of {}", args.model));
        }
        ServeEvent::Loading(progress) => loading.show(progress),
        ServeEvent::Ready { .. } => {
            loading.done();
            print_ready(printer, &args, event);
        }
        ServeEvent::Moving { from, to, sessions, within } => {
            let event = json!({
                "event": "moving",
                "from": [from.start(), from.end()],
                "to": [to.start(), to.end()],
                "sessions": sessions,
                "within_s": within.as_secs_f64(),
            });
            printer.result(&event, format_args!("moving    from blocks {from} to {to}, which need this server more"));
        }
        ServeEvent::Leaving { sessions, within } => {
            let within_s = within.as_secs_f64();
            let event = json!({ "event": "leaving", "sessions": sessions, "within_s": within_s });
            printer.result(&event, format_args!("leaving   {} {within_s} s to end or to move", counted(sessions)));
        }
    })
}

fn counted(sessions: u32) -> String {
    if sessions == 1 { "1 session has".to_string() } else { format!("{sessions} sessions have") }
}

fn print_ready(printer: Printer, args: &ServeArgs, event: ServeEvent) {
    let ServeEvent::Ready { peer, model, name, blocks, class, rates, addresses, .. } = event else {
        return;
    };
    let json = json!({
        "event": "ready",
        "model_id": model.to_string(),
        "blocks": [blocks.start(), blocks.end()],
        "model": name,
        "class": class.as_str(),
        "reachable": !addresses.is_empty(),
        "decode_us_per_block": rates.decode_us_per_block,
        "prefill_ns_per_token_block": rates.prefill_ns_per_token_block,
    });
    printer.result(&json, format_args!("ready     {name} ({}), blocks {blocks}, {class}", model.short()));
    match addresses.first() {
        Some(address) => {
            // Who says nothing of a format means the checkpoint's own, which is another model.
            let format = args.format.map_or_else(String::new, |format| format!(" --format {format}"));
            let model = format!("{}{format}", args.model);
            print_how_to_join(printer, &args.swarm, &format!("{address}/p2p/{peer}"), &model);
        }
        None => warn_unreachable(printer),
    }
}

/// What is shown while weights come.
struct Loading {
    printer: Printer,
    bar: Bar,
    /// When scripts were last told.
    told: Mutex<Option<Instant>>,
}

/// The time between two words to scripts about what is being fetched.
const TELL_EVERY: Duration = Duration::from_secs(1);

impl Loading {
    fn new(printer: Printer) -> Self {
        Self { printer, bar: Bar::default(), told: Mutex::default() }
    }

    fn show(&self, progress: LoadProgress) {
        let (done, all) = (progress.bytes_done, progress.bytes_total);
        match progress.stage {
            LoadStage::Read if done == all => self.wait("checking, and telling the swarm"),
            LoadStage::Read => self.bar.show("loading", done, all),
            LoadStage::Fetch => {
                self.bar.show("fetching", done, all);
                let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
                if done == all || told.is_none_or(|at| at.elapsed() >= TELL_EVERY) {
                    *told = Some(Instant::now());
                    self.printer.event(&json!({ "event": "fetching", "bytes": done, "total_bytes": all }));
                }
            }
        }
    }

    /// Shows what is being waited for, of which nobody knows how long it takes.
    fn wait(&self, what: &'static str) {
        self.bar.spin(what);
    }

    fn done(&self) {
        self.bar.done();
    }
}

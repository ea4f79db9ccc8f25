//! `swarm-node api`: HTTP in front of a swarm.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use clap::Args;
use clap::builder::FalseyValueParser;
use serde_json::json;
use swarm_api::{ApiConfig, ApiKeys, Host, HostNames, Views};
use swarm_client::overview::{Lookout, ModelShape, Watcher};
use swarm_client::{ClientConfig, Model, PrefixReuse, Swarm};
use swarm_model::ModelSpec;
use swarm_protocol::model_id::WeightFormat;
use swarm_telemetry::http;

use super::common::{SwarmArgs, join};
use super::generate::open_model;
use super::hub::{HubArgs, MODEL_HELP};
use super::otlp;
use super::output::{BadUsage, Printer};
use super::peers::PeerArgs;
use super::stop::Stop;
use super::units::{bytes, duration};
use super::values::{at_least_one, host_name, origin, threads, whole};

/// Serve OpenAI's HTTP API, and pages, from the models of a swarm.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  swarm-node api --model demo \\
    --bootstrap /ip4/127.0.0.1/tcp/4001/p2p/12D3KooW...
  curl http://127.0.0.1:8000/v1/chat/completions \\
    -H 'Content-Type: application/json' \\
    -d '{\"messages\": [{\"role\": \"user\", \"content\": \"Tell me a story.\"}]}'")]
pub(crate) struct ApiArgs {
    #[arg(long, env = "SWARM_MODEL", value_name = "MODEL", value_delimiter = ',', required = true, help = MODEL_HELP)]
    model: Vec<ModelSpec>,
    #[command(flatten)]
    swarm: SwarmArgs,
    #[command(flatten)]
    peers: PeerArgs,
    #[command(flatten)]
    hub: HubArgs,
    /// The weight format the servers hold [default: the checkpoint's own]
    #[arg(long, env = "SWARM_FORMAT")]
    format: Option<WeightFormat>,
    /// Where to listen
    #[arg(long, env = "SWARM_HTTP", value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8000", value_parser = http::parse_address)]
    http: SocketAddr,
    /// Answer only who sends this key as `Authorization: Bearer KEY` (repeatable). Others on this machine may see a command line: a
    /// file or the environment is safer
    #[arg(long, env = "SWARM_API_KEY", value_name = "KEY", value_delimiter = ',', hide_env_values = true)]
    api_key: Vec<String>,
    /// The same with the keys in this file, one a line; lines that begin with # are none
    #[arg(long, env = "SWARM_API_KEY_FILE", value_name = "FILE")]
    api_key_file: Option<PathBuf>,
    /// Let pages of this origin ask from a browser, for example https://example.org; `*` is any (repeatable) [default: none]
    #[arg(long, env = "SWARM_CORS", value_name = "ORIGIN", value_delimiter = ',', value_parser = origin)]
    cors: Vec<String>,
    /// Answer requests under this name too, for example that of a proxy on this machine (repeatable) [default: addresses and
    /// localhost where it listens on loopback, else all names]
    #[arg(long, env = "SWARM_ALLOW_HOST", value_name = "NAME", value_delimiter = ',', value_parser = host_name)]
    allow_host: Vec<String>,
    /// The most requests that run at once
    #[arg(long, env = "SWARM_MAX_REQUESTS", value_name = "N", default_value_t = 64, allow_negative_numbers = true,
          value_parser = at_least_one::<u32>)]
    max_requests: u32,
    /// The most requests that wait for their turn; beyond, they are refused at once with status 429
    #[arg(long, env = "SWARM_MAX_QUEUE", value_name = "N", default_value_t = 256, allow_negative_numbers = true, value_parser = whole::<u32>)]
    max_queue: u32,
    /// The longest the head of a request may take, and its body; and a connection may rest between two requests
    #[arg(long, env = "SWARM_READ_TIMEOUT", value_name = "DURATION", default_value = "30s", value_parser = duration)]
    read_timeout: Duration,
    /// The longest a request may take, waiting included, for example 90s or 10m
    #[arg(long, env = "SWARM_REQUEST_TIMEOUT", value_name = "DURATION", default_value = "10m", value_parser = duration)]
    request_timeout: Duration,
    /// How long requests that run may go on when this process is told to stop
    #[arg(long, env = "SWARM_STOP_TIMEOUT", value_name = "DURATION", default_value = "30s", value_parser = duration)]
    stop_timeout: Duration,
    /// The largest body of a request
    #[arg(long, env = "SWARM_MAX_BODY", value_name = "SIZE", default_value = "4MiB", value_parser = bytes)]
    max_body: u64,
    /// A small model that this process computes itself when nobody serves the one that is asked for; its answers say so
    /// [default: none]
    #[arg(long, env = "SWARM_FALLBACK_MODEL", value_name = "MODEL")]
    fallback_model: Option<ModelSpec>,
    /// Threads that compute the fallback model [default: one for each core, less one where there is more than one]
    #[arg(long, env = "SWARM_THREADS", value_name = "N", allow_negative_numbers = true, value_parser = threads)]
    threads: Option<NonZeroUsize>,
    /// Print one JSON object a line
    #[arg(long, env = "SWARM_JSON", value_parser = FalseyValueParser::new())]
    json: bool,
}

impl ApiArgs {
    fn config(&self, prefixes: PrefixReuse) -> Result<ApiConfig> {
        Ok(ApiConfig {
            names: self.names(),
            keys: self.keys()?,
            cors: self.cors.clone(),
            max_requests: self.max_requests as usize,
            max_queue: self.max_queue as usize,
            read_timeout: self.read_timeout,
            request_timeout: self.request_timeout,
            stop_timeout: self.stop_timeout,
            max_body: usize::try_from(self.max_body).unwrap_or(usize::MAX),
            prefixes,
            spans: otlp::spans(),
        })
    }

    async fn open_fallback(&self, swarm: &Swarm) -> Result<Option<Arc<Model>>> {
        let Some(spec) = &self.fallback_model else { return Ok(None) };
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let threads = self.threads.map_or((cores - 1).max(1), NonZeroUsize::get);
        Ok(Some(Arc::new(swarm.open_model_here(spec, None, threads).await?)))
    }

    /// Pages in a browser on this machine reach what is closed to others.
    fn names(&self) -> HostNames {
        match self.http.ip().is_loopback() || !self.allow_host.is_empty() {
            true => HostNames::local_and(self.allow_host.iter().cloned()),
            false => HostNames::default(),
        }
    }

    fn keys(&self) -> Result<ApiKeys> {
        let file = match &self.api_key_file {
            Some(path) => {
                let keys = std::fs::read_to_string(path);
                let keys = keys.with_context(|| format!("cannot read the keys in {}; check its path", path.display()));
                keys.map_err(BadUsage)?
            }
            None => String::new(),
        };
        let lines = file.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let keys: Vec<&str> = self.api_key.iter().map(|key| key.trim()).chain(lines.clone()).collect();
        let asked_for = !self.api_key.is_empty() || self.api_key_file.is_some();
        if let Some(path) = self.api_key_file.as_ref().filter(|_| lines.clone().next().is_none()) {
            let path = path.display();
            let reason = anyhow!("there is no key in {path}; write one a line (lines that begin with # are none)");
            return Err(BadUsage(reason).into());
        }
        // An empty variable must not open the door to everybody.
        if asked_for && (keys.is_empty() || keys.iter().any(|key| key.is_empty())) {
            return Err(BadUsage(anyhow!("an API key is empty; give one with at least one character")).into());
        }
        Ok(ApiKeys::new(keys))
    }
}

/// Runs the command.
pub(crate) async fn run(args: ApiArgs) -> Result<()> {
    let stop = Stop::on_signals()?;
    let client = ClientConfig { hub: args.hub.config(), ..args.peers.config()? };
    let config = args.config(client.prefixes.clone())?;
    let listener = http::listen(args.http).await.map_err(|error| anyhow!(error))?;
    let swarm = join(args.swarm.network_config()?, client).await?;
    let mut models = Vec::new();
    for spec in &args.model {
        models.push(Arc::new(open_model(&swarm, spec, args.format).await?));
    }
    let printer = Printer::new(args.json);
    let open = config.keys.is_open();
    let fallback = args.open_fallback(&swarm).await?;
    let watcher = Watcher::start(lookout(&swarm, &models));
    let host = Arc::new(Host::with(swarm.clone(), models, config).with_fallback(fallback));
    greet(printer, &host, listener.local_addr()?, open);
    let router = swarm_api::router(host.clone(), swarm_api::view(watcher.clone(), Views::ChatAndMap));
    let stop = async move {
        stop.wait().await;
        // Streams of events end with it.
        watcher.stop();
    };
    swarm_api::serve(listener, router, host, stop).await;
    swarm.leave().await;
    Ok(())
}

fn greet(printer: Printer, host: &Host, address: SocketAddr, open: bool) {
    let models: Vec<&str> = host.named_models().map(|(name, _)| name).collect();
    printer.event(&json!({"event": "listening", "address": format!("http://{address}"), "models": models}));
    printer.note(format_args!("listening on http://{address}"));
    printer.note(format_args!("a chat and a map of the swarm are at http://{address}/"));
    printer.note(format_args!("OpenAI's API is at http://{address}/v1, with {}", models.join(", ")));
    if open && !address.ip().is_loopback() {
        printer.note("warning: whoever reaches this address may use it; pass --api-key-file FILE to ask for a key.");
    }
}

/// Sees the whole swarm, and knows how wide the opened models are.
fn lookout(swarm: &Swarm, models: &[Arc<Model>]) -> Lookout {
    models.iter().fold(Lookout::new(swarm.network().clone()), |lookout, model| {
        let shape = ModelShape { hidden: model.config().hidden as u32, element: model.format().into() };
        lookout.knowing(model.id(), shape)
    })
}

//! `swarm-node status`: the swarm as its DHT and its servers show it.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use clap::builder::FalseyValueParser;
use futures::future::join_all;
use serde_json::{Value, json};
use swarm_client::finder::{Probe, probe};
use swarm_client::{ClientConfig, Swarm};
use swarm_model::{Checkpoint, ModelSpec};
use swarm_protocol::announcement::{Announcement, DirectoryEntry, ServerState};
use swarm_protocol::block::BlockRange;
use swarm_protocol::model_id::{ModelId, WeightFormat};

use super::common::SwarmArgs;
use super::status_view;
use super::stop::or_interrupted_unless;

/// How long a server may take to answer before it is shown as silent.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// Servers asked directly; the rest is shown as announced.
const MOST_PROBES: usize = 128;

/// Pause between two looks with `--watch`.
const WATCH_INTERVAL: Duration = Duration::from_secs(2);

/// Show which models live in a swarm, who serves which blocks, and what is missing.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  swarm-node status --bootstrap /ip4/127.0.0.1/tcp/4001/p2p/12D3KooW...
  swarm-node status --bootstrap ... --model ./llama --json")]
pub(crate) struct StatusArgs {
    /// Only this model [default: all that live in the swarm]
    #[arg(long, env = "SWARM_MODEL", value_name = "MODEL")]
    model: Option<ModelSpec>,
    /// The weight format of that model [default: the checkpoint's own]
    #[arg(long, env = "SWARM_FORMAT")]
    format: Option<WeightFormat>,
    #[command(flatten)]
    swarm: SwarmArgs,
    /// Print one JSON object a look
    #[arg(long, env = "SWARM_JSON", value_parser = FalseyValueParser::new())]
    json: bool,
    /// Look again every two seconds
    #[arg(long, env = "SWARM_WATCH", value_parser = FalseyValueParser::new())]
    watch: bool,
}

/// One model of the swarm.
pub(crate) struct ModelStatus {
    /// What its servers share.
    pub(crate) id: ModelId,
    /// Its name for people.
    pub(crate) name: String,
    /// All its blocks.
    pub(crate) blocks: BlockRange,
    /// The blocks that nobody serves.
    pub(crate) missing: Vec<BlockRange>,
    /// Its servers, by their first block.
    pub(crate) servers: Vec<ServerStatus>,
}

/// One server: its newest word, and what came of asking it.
pub(crate) struct ServerStatus {
    /// What it says of itself.
    pub(crate) announcement: Announcement,
    /// What came of asking it.
    pub(crate) answer: Answer,
}

/// What came of asking a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It was not asked, since there are so many: its announcement is believed.
    NotAsked,
    /// It did not answer.
    Silent,
    /// It answered.
    Given {
        /// Round-trip time.
        rtt: Duration,
        /// Seconds since it became ready.
        uptime_seconds: u64,
    },
}

impl ServerStatus {
    /// Whether sessions can be opened on it now, as far as is known.
    pub(crate) fn serves(&self) -> bool {
        self.answer != Answer::Silent && self.announcement.state == ServerState::Serving
    }

    /// Round-trip time, if it answered.
    pub(crate) fn rtt(&self) -> Option<Duration> {
        match self.answer {
            Answer::Given { rtt, .. } => Some(rtt),
            Answer::NotAsked | Answer::Silent => None,
        }
    }

    fn uptime_seconds(&self) -> Option<u64> {
        match self.answer {
            Answer::Given { uptime_seconds, .. } => Some(uptime_seconds),
            Answer::NotAsked | Answer::Silent => None,
        }
    }
}

/// Runs the command.
pub(crate) async fn run(args: StatusArgs) -> Result<()> {
    let only = args.model.as_ref().map(|model| local_model(model, args.format)).transpose()?;
    // Who watches stops by interrupting.
    or_interrupted_unless(&Cell::new(args.watch), async {
        let swarm = Swarm::join(args.swarm.network_config()?, ClientConfig::default()).await?;
        loop {
            let models = look(&swarm, only.as_ref()).await?;
            show(&swarm, &models, &args)?;
            if !args.watch {
                break;
            }
            tokio::time::sleep(WATCH_INTERVAL).await;
        }
        swarm.leave().await;
        Ok(())
    })
    .await
}

/// What is known here of a model named on the command line.
struct LocalModel {
    id: ModelId,
    name: String,
    blocks: u32,
}

fn local_model(model: &ModelSpec, format: Option<WeightFormat>) -> Result<LocalModel> {
    let checkpoint = Checkpoint::open(model)?;
    let format = format.unwrap_or_else(|| checkpoint.native_format());
    let blocks = checkpoint.config().all_blocks()?.end();
    Ok(LocalModel { id: checkpoint.id(format), name: checkpoint.name().to_string(), blocks })
}

async fn look(swarm: &Swarm, only: Option<&LocalModel>) -> Result<Vec<ModelStatus>> {
    let models: BTreeMap<ModelId, (String, u32)> = match only {
        Some(model) => [(model.id, (model.name.clone(), model.blocks))].into(),
        None => {
            let named = |entry: DirectoryEntry| (entry.model, (entry.name, entry.blocks));
            swarm.models().await.into_values().map(named).collect()
        }
    };
    let mut statuses = Vec::new();
    for (id, (name, blocks)) in models {
        let blocks = BlockRange::new(0, blocks).context("a model's directory entry is not readable")?;
        statuses.push(model_status(swarm, id, name, blocks).await);
    }
    Ok(statuses)
}

async fn model_status(swarm: &Swarm, id: ModelId, name: String, blocks: BlockRange) -> ModelStatus {
    let view = swarm.look_up(id, blocks).await;
    let known: Vec<Announcement> = view.all().cloned().collect();
    let asked = known.into_iter().enumerate().map(|(number, announcement)| async move {
        if number >= MOST_PROBES {
            return ServerStatus { announcement, answer: Answer::NotAsked };
        }
        match probe(swarm.network(), announcement.peer, &announcement.addresses, PROBE_TIMEOUT).await {
            Ok(Probe { info, rtt }) => {
                let uptime_seconds = info.uptime_seconds;
                ServerStatus { announcement: info.announcement, answer: Answer::Given { rtt, uptime_seconds } }
            }
            Err(_) => ServerStatus { announcement, answer: Answer::Silent },
        }
    });
    let mut servers: Vec<ServerStatus> = join_all(asked).await;
    // Its last word was that it leaves, and it is no longer there.
    let gone = |server: &ServerStatus| {
        matches!(server.answer, Answer::Silent) && server.announcement.state == ServerState::Leaving
    };
    servers.retain(|server| !gone(server));
    servers.sort_by_key(|server| (server.announcement.blocks, server.announcement.peer));
    let serving = servers.iter().filter(|server| server.serves()).map(|server| server.announcement.blocks);
    let missing = swarm_protocol::swarm_view::uncovered(blocks, serving);
    ModelStatus { id, name, blocks, missing, servers }
}

fn show(swarm: &Swarm, models: &[ModelStatus], args: &StatusArgs) -> Result<()> {
    let mut out = io::stdout().lock();
    if args.json {
        let models: Vec<Value> = models.iter().map(model_json).collect();
        writeln!(out, "{}", json!({"swarm": swarm.network().swarm().as_str(), "models": models}))?;
        return Ok(out.flush()?);
    }
    if args.watch && out.is_terminal() {
        // Clear the screen and go home, so that looks replace one another.
        write!(out, "\x1b[2J\x1b[H")?;
    }
    write!(out, "{}", status_view::text(swarm.network().swarm(), models))?;
    Ok(out.flush()?)
}

fn model_json(model: &ModelStatus) -> Value {
    let servers: Vec<Value> = model.servers.iter().map(server_json).collect();
    let missing: Vec<[u32; 2]> = model.missing.iter().map(|range| [range.start(), range.end()]).collect();
    json!({
        "model_id": model.id.to_string(),
        "name": model.name,
        "blocks": model.blocks.len(),
        "missing": missing,
        "servers": servers,
    })
}

fn server_json(server: &ServerStatus) -> Value {
    let said = &server.announcement;
    json!({
        "peer_id": said.peer.to_string(),
        "name": said.name,
        "blocks": [said.blocks.start(), said.blocks.end()],
        "state": status_view::state(server),
        "addresses": said.addresses.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "rtt_ms": server.rtt().map(|rtt| rtt.as_secs_f64() * 1000.0),
        "uptime_seconds": server.uptime_seconds(),
        "numeric_class": said.class.as_str(),
        "decode_us_per_block": said.rates.decode_us_per_block,
        "prefill_ns_per_token_block": said.rates.prefill_ns_per_token_block,
        "queue_us": said.load.queue_us,
        "sessions": said.load.sessions,
        "free_tokens": said.load.free_tokens.0,
        "total_tokens": said.load.total_tokens.0,
        "version": said.version,
    })
}

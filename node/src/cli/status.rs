//! `swarm-node status`: the swarm as its DHT and its servers show it.

use std::cell::Cell;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use clap::Args;
use clap::builder::FalseyValueParser;
use swarm_client::overview::{Lookout, ModelShape, OnlyModel, ServerObservation, SwarmOverview, Watcher};
use swarm_client::{ClientConfig, Swarm};
use swarm_hub::HubConfig;
use swarm_model::ModelSpec;
use swarm_protocol::model_id::{ModelId, WeightFormat};
use swarm_protocol::p2p::Network;

use super::common::{SwarmArgs, join};
use super::hub::{Bar, HubArgs};
use super::output::Printer;
use super::status_screen;
use super::status_view;
use super::stop::{Stop, or_interrupted_unless};

/// Pause between two looks with `--watch` where there is no screen to draw on.
const WATCH_INTERVAL: Duration = Duration::from_secs(2);

/// Show which models live in a swarm, who serves which blocks, and what is missing.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  swarm-node status --bootstrap /ip4/127.0.0.1/tcp/4001/p2p/12D3KooW...
  swarm-node status --bootstrap ... --watch
  swarm-node status --bootstrap ... --model ./llama --json

The JSON is that of GET /api/v1/swarm; docs/overview.md describes it.")]
pub(crate) struct StatusArgs {
    /// Only this model [default: all that live in the swarm]
    #[arg(long, env = "SWARM_MODEL", value_name = "MODEL")]
    model: Option<ModelSpec>,
    /// The weight format of that model [default: the checkpoint's own]
    #[arg(long, env = "SWARM_FORMAT")]
    format: Option<WeightFormat>,
    #[command(flatten)]
    swarm: SwarmArgs,
    #[command(flatten)]
    hub: HubArgs,
    /// Print one JSON object a look
    #[arg(long, env = "SWARM_JSON", value_parser = FalseyValueParser::new())]
    json: bool,
    /// Look again every few seconds: on a terminal as a screen that stays (q ends it), otherwise one look after the other
    #[arg(long, env = "SWARM_WATCH", value_parser = FalseyValueParser::new())]
    watch: bool,
}

/// Runs the command.
pub(crate) async fn run(args: StatusArgs) -> Result<()> {
    let looking = Bar::default();
    let wanted = match args.model.clone() {
        Some(model) => {
            looking.spin("opening the model");
            Some(Wanted::open(model, args.hub.config(), args.format).await?)
        }
        None => None,
    };
    looking.done();
    let on_screen = args.watch && !args.json && io::stdout().is_terminal() && io::stdin().is_terminal();
    if on_screen {
        let stop = Stop::on_signals()?;
        let swarm = tokio::select! {
            swarm = join(args.swarm.network_config()?, ClientConfig::default()) => swarm?,
            () = stop.clone().wait() => return Ok(()),
        };
        let hint = tokio::select! {
            hint = other_formats(&swarm, wanted.as_ref()) => hint,
            () = stop.clone().wait() => None,
        };
        let watcher = Watcher::start(lookout(swarm.network(), wanted.as_ref()));
        let shown = status_screen::run(&watcher, hint, stop).await;
        watcher.stop();
        swarm.leave().await;
        return shown;
    }
    // Who watches stops by interrupting.
    or_interrupted_unless(&Cell::new(args.watch), async {
        looking.spin("looking at the swarm");
        let swarm = Swarm::join(args.swarm.network_config()?, ClientConfig::default()).await?;
        let lookout = lookout(swarm.network(), wanted.as_ref());
        let mut before = None;
        loop {
            let seen = lookout.look(before.as_ref()).await;
            looking.done();
            show(&SwarmOverview::of(&seen, unix_ms()), &args)?;
            let served = seen.models.iter().flat_map(|model| &model.servers).any(ServerObservation::serves);
            if !served
                && before.is_none()
                && let Some(hint) = other_formats(&swarm, wanted.as_ref()).await
            {
                Printer::new(args.json).note(format_args!("hint: {hint}"));
            }
            if !args.watch {
                break;
            }
            before = Some(seen);
            tokio::time::sleep(WATCH_INTERVAL).await;
        }
        swarm.leave().await;
        Ok(())
    })
    .await
}

/// What is known here of a model named on the command line.
struct Wanted {
    model: OnlyModel,
    shape: ModelShape,
    /// What servers share that hold it in another format.
    others: Vec<(WeightFormat, ModelId)>,
}

impl Wanted {
    async fn open(model: ModelSpec, hub: HubConfig, format: Option<WeightFormat>) -> Result<Self> {
        let checkpoint = tokio::task::spawn_blocking(move || swarm_hub::open(&model, &hub)).await??;
        let format = format.unwrap_or_else(|| checkpoint.native_format());
        let (config, name) = (checkpoint.config(), checkpoint.name().to_string());
        let others = WeightFormat::ALL.into_iter().filter(|other| *other != format);
        Ok(Self {
            model: OnlyModel { id: checkpoint.id(format), name, blocks: config.all_blocks()? },
            shape: ModelShape { hidden: config.hidden as u32, element: format.into() },
            others: others.map(|other| (other, checkpoint.id(other))).collect(),
        })
    }
}

/// What to try if nobody serves the model in the format that was asked for.
async fn other_formats(swarm: &Swarm, wanted: Option<&Wanted>) -> Option<String> {
    let wanted = wanted?;
    let served = swarm.models().await;
    let others = wanted.others.iter().filter(|(_, id)| served.contains_key(id));
    let others: Vec<String> = others.map(|(format, _)| format!("`--format {format}`")).collect();
    let found = !others.is_empty();
    found.then(|| format!("the swarm serves this model in another format: add {}", others.join(" or ")))
}

fn lookout(network: &Network, wanted: Option<&Wanted>) -> Lookout {
    let lookout = Lookout::new(network.clone());
    match wanted {
        Some(Wanted { model, shape, .. }) => lookout.knowing(model.id, *shape).only(model.clone()),
        None => lookout,
    }
}

fn show(overview: &SwarmOverview, args: &StatusArgs) -> Result<()> {
    let mut out = io::stdout().lock();
    if args.json {
        writeln!(out, "{}", serde_json::to_string(overview)?)?;
        return Ok(out.flush()?);
    }
    write!(out, "{}", status_view::text(overview))?;
    Ok(out.flush()?)
}

fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_millis() as u64)
}

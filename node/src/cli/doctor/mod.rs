//! `swarm-node doctor`: looks at everything that keeps a member from taking part, and says what to do about it.

mod check;
mod files;
mod machine;
mod members;
mod ports;

use std::num::NonZeroU32;
use std::path::Path;

use anyhow::{Result, bail};
use clap::Args;
use clap::builder::FalseyValueParser;
use serde_json::json;
use swarm_model::{Checkpoint, KvFormat, ModelSpec};
use swarm_node::serve::DEFAULT_CACHE_TOKENS;
use swarm_protocol::model_id::WeightFormat;
use swarm_protocol::session::TokenCount;

use self::check::{Check, Verdict};
use super::common::{ListenArgs, SwarmArgs};
use super::hub::{Bar, HubArgs, MODEL_HELP};
use super::output::Printer;
use super::stop::or_interrupted;
use super::values;

/// Look at everything that keeps this machine from taking part in a swarm, and say what to do about it.
///
/// Give it the flags that you give to `serve` or `generate`. It changes nothing, and announces nothing. It ends with code 1 if
/// something must be mended (✗); what only could be better (!) is no failure.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  swarm-node doctor
  swarm-node doctor --swarm-key swarm.key --swarm our-lab \\
    --bootstrap /ip4/192.168.1.5/tcp/4001/p2p/12D3KooW...
  swarm-node doctor --model org/name --blocks 8 --port 4002 --json")]
pub(crate) struct DoctorArgs {
    #[arg(long, env = "SWARM_MODEL", value_name = "MODEL", help = MODEL_HELP)]
    model: Option<ModelSpec>,
    /// How many blocks are to be hosted [default: as many as fit]
    #[arg(long, env = "SWARM_BLOCKS", value_name = "N", allow_negative_numbers = true, value_parser = values::blocks)]
    blocks: Option<NonZeroU32>,
    /// The format the weights will be held in [default: the checkpoint's]
    #[arg(long, env = "SWARM_FORMAT", value_name = "FORMAT")]
    format: Option<WeightFormat>,
    /// Room for tokens in the KV caches of all sessions together
    #[arg(long, env = "SWARM_CACHE_TOKENS", value_name = "N", default_value_t = DEFAULT_CACHE_TOKENS.0,
          allow_negative_numbers = true, value_parser = values::at_least_one::<u32>)]
    cache_tokens: u32,
    /// The TCP and UDP port that a server or bootstrap peer will listen on [default: those of --listen, or any]
    #[arg(long, env = "SWARM_PORT", value_name = "N", allow_negative_numbers = true, value_parser = values::port)]
    port: Option<u16>,
    #[command(flatten)]
    swarm: SwarmArgs,
    #[command(flatten)]
    listen: ListenArgs,
    #[command(flatten)]
    hub: HubArgs,
    /// Print one JSON object
    #[arg(long, env = "SWARM_JSON", value_parser = FalseyValueParser::new())]
    json: bool,
}

/// What is known of the model that is to be served.
pub(super) struct Planned {
    pub(super) checkpoint: Checkpoint,
    pub(super) format: WeightFormat,
    pub(super) blocks: Option<u32>,
    pub(super) cache_tokens: TokenCount,
    pub(super) kv: KvFormat,
}

/// Runs the command.
pub(crate) async fn run(args: DoctorArgs) -> Result<()> {
    or_interrupted(async {
        let printer = Printer::new(args.json);
        let mut checks = Shown { printer, all: Vec::new() };
        checks.add([machine::version()]);
        checks.add([machine::processor(), machine::open_files()]);
        let waiting = Bar::default();
        waiting.spin("opening the model");
        let planned = plan(&args).await;
        waiting.done();
        let config = args.hub.config();
        match planned {
            Ok(planned) => {
                checks.add([machine::memory(planned.as_ref())]);
                checks.add(files::cache(&config, planned.as_ref()));
            }
            Err(check) => {
                checks.add([check, machine::memory(None)]);
                checks.add(files::cache(&config, None));
            }
        }
        checks.add(key_files(&args.swarm));
        checks.add(ports::ports(&args.listen, args.port));
        checks.add([ports::vpn(), ports::packet_size()]);
        waiting.spin("asking the swarm");
        let members = members::members(&args.swarm, &args.listen).await;
        waiting.done();
        checks.add(members);
        checks.end()
    })
    .await
}

fn key_files(swarm: &SwarmArgs) -> Vec<Check> {
    let key = swarm.swarm_key.as_deref().map(files::swarm_key);
    let identity = swarm.identity.as_deref().map(|path: &Path| files::private_file("identity", path));
    key.into_iter().chain(identity).collect()
}

async fn plan(args: &DoctorArgs) -> Result<Option<Planned>, Check> {
    let Some(spec) = args.model.clone() else { return Ok(None) };
    let hub = args.hub.config();
    let opened = tokio::task::spawn_blocking(move || swarm_hub::open(&spec, &hub)).await;
    let failed =
        |error: String| Check::bad("model", error, "check --model; `swarm-node serve --help` says what it may be");
    let checkpoint = opened.map_err(|error| failed(error.to_string()))?.map_err(|error| failed(error.to_string()))?;
    let format = args.format.unwrap_or_else(|| checkpoint.native_format());
    let (blocks, cache_tokens) = (args.blocks.map(NonZeroU32::get), TokenCount(args.cache_tokens));
    Ok(Some(Planned { checkpoint, format, blocks, cache_tokens, kv: KvFormat::Activations }))
}

/// Checks as they are shown: to people one by one, to scripts all together.
struct Shown {
    printer: Printer,
    all: Vec<Check>,
}

impl Shown {
    fn add(&mut self, checks: impl IntoIterator<Item = Check>) {
        for check in checks {
            self.printer.words(&check);
            self.all.push(check);
        }
    }

    fn end(self) -> Result<()> {
        let bad = self.all.iter().filter(|check| check.verdict == Verdict::Bad).count();
        let checks: Vec<_> = self.all.iter().map(Check::json).collect();
        self.printer.event(&json!({ "event": "doctor", "ok": bad == 0, "checks": checks }));
        match bad {
            0 => Ok(()),
            1 => bail!("1 of {} checks failed; its line says what to do", self.all.len()),
            bad => bail!("{bad} of {} checks failed; their lines say what to do", self.all.len()),
        }
    }
}

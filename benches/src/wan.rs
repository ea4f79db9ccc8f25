//! What a token costs over far links: three servers, each on a host of its own, and rows as wide as those of the largest
//! models. What counts is travelling, so the blocks compute next to nothing.
//!
//! A step that crosses each link once takes the sum of the delays around the ring (client, servers in their order, client)
//! and the servers' computing. Going back to the client after each server takes a delay more for all but one of them.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::Args;
use serde::Serialize;
use swarm_client::{HiddenSession, Model};
use swarm_model::Tensor;
use swarm_tests::wan::Link;

use crate::bare::{BareChain, Shape, StepTimes};
use crate::far_hosts::{FarHosts, SERVERS};
use crate::goal::Goal;
use crate::machine::Machine;
use crate::report::{Report, Tables};
use crate::stats::{Summary, median, milliseconds};
use crate::table::Table;
use crate::workload::{RandomModel, same, wide_and_thin};

/// What a hop may add to travelling and computing.
const GOAL_PER_HOP_MS: f64 = 1.0;

/// Widths of the activations: 16 and 32 KiB of bf16 a row.
const WIDTHS: [usize; 2] = [8192, 16_384];

/// Blocks, one for each server.
const BLOCKS: usize = SERVERS.len();

/// Rows of the prompt that a run begins with, as a text does. TCP forgets what a link can take while it is idle (Linux: after
/// a quarter of a second here), which it is during everybody else's run; a prompt makes it find out again. Without, a row of
/// more than ten packets (14 KB) waits a round trip on every link, and tokens that take that long never end the waiting.
const PROMPT_ROWS: usize = 32;

/// Steps after the prompt that do not count.
const SETTLING: usize = 2;

/// How far, and how often.
#[derive(Debug, Clone, Args, Serialize)]
pub(crate) struct Settings {
    /// Milliseconds from any host to any other.
    #[arg(long, default_value_t = 25)]
    delay_ms: u64,
    /// Rounds of runs; in each, everything that is compared runs once.
    #[arg(long, default_value_t = 12)]
    rounds: usize,
    /// Tokens of a run.
    #[arg(long, default_value_t = 8)]
    tokens: usize,
    /// Compute threads of each server.
    #[arg(long, default_value_t = 1)]
    threads: usize,
}

impl Settings {
    /// The links that these settings ask for.
    pub(crate) fn link(&self) -> Link {
        Link::of_delay(Duration::from_millis(self.delay_ms))
    }

    fn positions(&self) -> usize {
        self.rounds * (PROMPT_ROWS + SETTLING + self.tokens)
    }
}

/// Milliseconds a token, for each width.
#[derive(Debug, Serialize)]
pub(crate) struct Results {
    widths: Vec<Width>,
}

/// Milliseconds a token.
#[derive(Debug, Serialize)]
struct Width {
    hidden: usize,
    row_kib: usize,
    /// Through the client library.
    client: Summary,
    /// Through bare streams, back to this process after each server.
    bare_star: Summary,
    /// In the servers' compute threads, all of them together.
    compute: Summary,
    /// The sum of the delays on the ring.
    ring_delays: Summary,
    /// Delays on the ring, computing, and what a hop may add.
    ring_goal: f64,
    /// Delays there and back for each server, and computing: the least that a star can take.
    star_least: f64,
}

/// What one round measured, in milliseconds.
struct Round {
    client: Vec<f64>,
    bare: Vec<StepTimes>,
    ring: f64,
    star: f64,
}

/// Measures all widths on `hosts`.
///
/// # Errors
/// If a server does not start, or outputs differ.
pub(crate) async fn run(settings: Settings, hosts: &FarHosts) -> Result<Report<Settings, Results>> {
    let machine = Machine::here();
    let mut widths = Vec::new();
    for hidden in WIDTHS {
        widths.push(measure(&settings, hosts, hidden).await?);
    }
    let goals = widths.iter().map(Width::goal).collect();
    Ok(Report { benchmark: "wan", machine, settings, results: Results { widths }, goals })
}

async fn measure(settings: &Settings, hosts: &FarHosts, hidden: usize) -> Result<Width> {
    let files = RandomModel::write(wide_and_thin(hidden, BLOCKS))?;
    let swarm = hosts.swarm(&files, settings.threads).await?;
    let client = swarm.join().await?;
    let model = client.open_model(&files.path().display().to_string().parse()?, None).await?;
    let session = model.session(model.config().all_blocks()?, settings.positions()).await?;
    let route = session.route();
    ensure!(route.len() == SERVERS.len(), "the route has {} hops instead of {}", route.len(), SERVERS.len());
    let bare = BareChain::open(&client, &model, &route, settings.positions() as u32, Shape::Star).await?;
    let rounds = Contenders { client: session, bare }.run(&model, settings, hosts).await?;
    client.leave().await;
    swarm.kill().await?;
    Ok(Width::of(&rounds, hidden))
}

/// What is compared, all at the same position of the same sequence.
struct Contenders {
    client: HiddenSession,
    bare: BareChain,
}

impl Contenders {
    async fn run(mut self, model: &Model, settings: &Settings, hosts: &FarHosts) -> Result<Vec<Round>> {
        let mut rounds = Vec::new();
        for number in 0..settings.rounds {
            let delays = hosts.delays()?;
            let ids: Vec<u32> = (0..PROMPT_ROWS).map(|row| ((number + row) % model.config().vocab) as u32).collect();
            let prompt = model.embed(&ids).await?;
            let (client, there) = self.run_client(&prompt, settings.tokens).await?;
            let (bare, here) = self.run_bare(&prompt, settings.tokens).await?;
            same(&here, &there)?;
            rounds.push(Round { client, bare, ring: delays.ring_ms, star: delays.star_ms });
        }
        Ok(rounds)
    }

    async fn run_client(&mut self, prompt: &Tensor, tokens: usize) -> Result<(Vec<f64>, Tensor)> {
        let (mut times, row) = (Vec::new(), prompt.narrow(0, 0, 1)?);
        let mut output = self.client.forward(prompt).await?;
        for _ in 0..SETTLING + tokens {
            let start = Instant::now();
            output = self.client.forward(&row).await?;
            times.push(milliseconds(start.elapsed()));
        }
        Ok((times.split_off(SETTLING), output))
    }

    async fn run_bare(&mut self, prompt: &Tensor, tokens: usize) -> Result<(Vec<StepTimes>, Tensor)> {
        let (mut times, row) = (Vec::new(), prompt.narrow(0, 0, 1)?);
        let (mut output, _) = self.bare.forward(prompt).await?;
        for _ in 0..SETTLING + tokens {
            let step;
            (output, step) = self.bare.forward(&row).await?;
            times.push(step);
        }
        Ok((times.split_off(SETTLING), output))
    }
}

impl Width {
    fn of(rounds: &[Round], hidden: usize) -> Self {
        let bare = |part: fn(&StepTimes) -> Duration| {
            Summary::of(rounds.iter().flat_map(|round| &round.bare).map(|times| milliseconds(part(times))))
        };
        let compute = bare(|times| times.compute);
        let ring_delays = Summary::of(rounds.iter().map(|round| round.ring));
        let star_delays = median(&rounds.iter().map(|round| round.star).collect::<Vec<_>>());
        Self {
            hidden,
            // Two bytes an element.
            row_kib: hidden * 2 / 1024,
            client: Summary::of(rounds.iter().flat_map(|round| &round.client).copied()),
            bare_star: bare(|times| times.total),
            compute,
            ring_delays,
            ring_goal: ring_delays.median + compute.median + SERVERS.len() as f64 * GOAL_PER_HOP_MS,
            star_least: star_delays + compute.median,
        }
    }

    fn goal(&self) -> Goal {
        let what = format!("a token of {} KiB a row over {} hops takes", self.row_kib, SERVERS.len());
        Goal::new(what, "ms", self.ring_goal, self.client.median)
    }
}

impl Tables for Results {
    fn tables(&self) -> Vec<Table> {
        let cells = |width: &Width| {
            let Width { client, compute, ring_delays, ring_goal, star_least, bare_star, .. } = width;
            vec![
                format!("{}", width.row_kib),
                client.to_string(),
                compute.to_string(),
                ring_delays.to_string(),
                format!("{ring_goal:.2}"),
                format!("{star_least:.2}"),
                bare_star.to_string(),
            ]
        };
        let measured = Table {
            title: format!(
                "Milliseconds a token, median (quartiles): random blocks, one on each of {BLOCKS} far hosts"
            ),
            header: vec![
                "KiB a row",
                "client library",
                "computing",
                "delays on the ring",
                "with computing and 1 a hop",
                "a star's delays and computing",
                "a star of bare streams",
            ],
            rows: self.widths.iter().map(cells).collect(),
        };
        vec![measured]
    }
}

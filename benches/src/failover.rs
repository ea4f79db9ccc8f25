//! What the loss of a server costs a session: the time of every token around a fault, with replicas that stand by and have
//! seen nothing of the session.
//!
//! A replacement has to compute what the lost server had computed. That is inevitable without a standby, so it is measured
//! beside it (the same rows through the same blocks of an idle server) and told apart from what recovery adds.

mod plot;
mod round;

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use serde::Serialize;
use swarm_client::ClientConfig;

use self::round::Round;
use crate::goal::Goal;
use crate::local_swarm::LocalSwarm;
use crate::machine::Machine;
use crate::report::{Report, Tables};
use crate::stats::Summary;
use crate::table::Table;
use crate::workload::{RandomModel, even_ranges, small_llama};

/// Servers of each range: one computes, the other is there to replace it.
const REPLICAS: usize = 2;

/// What a killed server may cost beyond the replay's computing.
const GOAL_KILLED_MS: f64 = 300.0;

/// From the fault to the next token if a standby takes the server's place: nothing is replayed.
const GOAL_STANDBY_MS: f64 = 50.0;

/// The same for one that falls silent: it has to be told from one that is slow.
const GOAL_SILENT_MS: f64 = 2000.0;

/// The longest gap between two tokens while a server leaves.
const GOAL_LEAVING_MS: f64 = 200.0;

/// How long, and how often.
#[derive(Debug, Clone, Args, Serialize)]
pub(crate) struct Settings {
    /// Positions of the session when the fault happens.
    #[arg(long, default_value_t = 512)]
    tokens: usize,
    /// Tokens generated before the fault; part of the positions.
    #[arg(long, default_value_t = 16)]
    before: usize,
    /// Tokens generated after the fault.
    #[arg(long, default_value_t = 64)]
    after: usize,
    /// Hops of the route. The fault meets them by turns.
    #[arg(long, default_value_t = 2)]
    hops: u32,
    /// Sessions for each fault.
    #[arg(long, default_value_t = 6)]
    rounds: usize,
    /// Compute threads of each server.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Write the times of the tokens around the faults to this SVG file.
    #[arg(long)]
    #[serde(skip)]
    plot: Option<PathBuf>,
}

/// What happens to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Fault {
    /// It ends at once.
    Kill,
    /// It falls silent; its connections stay.
    Freeze,
    /// It is asked to leave.
    Terminate,
}

/// What a session goes through, and what it may cost.
#[derive(Debug, Clone, Copy)]
struct Case {
    name: &'static str,
    fault: Fault,
    /// Whether a second server is kept like each hop.
    standby: bool,
    cost: Cost,
    at_most_ms: f64,
}

/// What counts.
#[derive(Debug, Clone, Copy)]
enum Cost {
    /// From the fault to the next token, without what the replay computes.
    BeyondReplay,
    /// From the fault to the next token.
    NextToken,
    /// The longest gap between two tokens from the fault on.
    LongestGap,
}

impl Case {
    /// How the client of this case behaves.
    fn client(&self) -> ClientConfig {
        ClientConfig { standby: self.standby, ..ClientConfig::default() }
    }
}

const CASES: [Case; 4] = [
    Case { name: "killed", fault: Fault::Kill, standby: false, cost: Cost::BeyondReplay, at_most_ms: GOAL_KILLED_MS },
    Case {
        name: "killed, with a standby",
        fault: Fault::Kill,
        standby: true,
        cost: Cost::NextToken,
        at_most_ms: GOAL_STANDBY_MS,
    },
    Case { name: "frozen", fault: Fault::Freeze, standby: false, cost: Cost::BeyondReplay, at_most_ms: GOAL_SILENT_MS },
    Case {
        name: "asked to leave",
        fault: Fault::Terminate,
        standby: false,
        cost: Cost::LongestGap,
        at_most_ms: GOAL_LEAVING_MS,
    },
];

/// Milliseconds, for each fault.
#[derive(Debug, Serialize)]
pub(crate) struct Results {
    model: String,
    /// Rows that the replacement computes, and through how many blocks.
    replayed_tokens: usize,
    replayed_blocks: u32,
    faults: Vec<Outcome>,
}

/// Milliseconds of one fault.
#[derive(Debug, Serialize)]
struct Outcome {
    name: &'static str,
    /// Between tokens before the fault.
    usual_gap: Summary,
    /// From the fault to the next token.
    next_token: Summary,
    /// Between tokens, from the fault on.
    longest_gap: Summary,
    /// The replay's computing, as measured on an idle server.
    replay: Summary,
    /// From the fault to the next token, without that.
    beyond_replay: Summary,
    rounds: Vec<Round>,
}

impl Outcome {
    fn of(case: &Case, rounds: Vec<Round>) -> Self {
        let all = |part: fn(&Round) -> f64| Summary::of(rounds.iter().map(part));
        Self {
            name: case.name,
            usual_gap: Summary::of(rounds.iter().flat_map(Round::gaps_before)),
            next_token: all(Round::next_token),
            longest_gap: all(Round::longest_gap),
            replay: all(|round| round.replay_ms),
            beyond_replay: all(Round::beyond_replay),
            rounds,
        }
    }

    fn goal(&self, case: &Case) -> Goal {
        let (what, measured) = match case.cost {
            Cost::BeyondReplay => ("the next token, beyond the replay's computing, after", self.beyond_replay),
            Cost::NextToken => ("the next token after", self.next_token),
            Cost::LongestGap => ("the longest gap between tokens is", self.longest_gap),
        };
        Goal::new(format!("a server is {}: {what}", self.name), "ms", case.at_most_ms, measured.median)
    }

    /// The round whose next token came when it usually does.
    fn typical(&self) -> Option<&Round> {
        let distance = |round: &Round| (round.longest_gap() - self.longest_gap.median).abs();
        self.rounds.iter().min_by(|one, other| distance(one).total_cmp(&distance(other)))
    }
}

/// Goes through all faults, by turns.
///
/// # Errors
/// If something does not start, a session is not mended, or a text is not the one that it is without a fault.
pub(crate) async fn run(settings: Settings) -> Result<Report<Settings, Results>> {
    let machine = Machine::here();
    let model = RandomModel::write(small_llama())?;
    let mut swarm = LocalSwarm::start().await?;
    let mut rounds = CASES.map(|_| Vec::new());
    for number in 0..settings.rounds {
        for (case, rounds) in CASES.iter().zip(&mut rounds) {
            complete(&mut swarm, &model, &settings).await?;
            rounds.push(round::run(&mut swarm, &model, &settings, case, number).await?);
        }
    }
    swarm.kill().await?;
    round::same_text(rounds.iter().flatten())?;
    let outcomes = CASES.iter().zip(rounds).map(|(case, rounds)| Outcome::of(case, rounds));
    let results = Results {
        model: format!("{} random weights in {} blocks, bf16", model.spec.parameters(), model.spec.blocks),
        replayed_tokens: settings.tokens,
        replayed_blocks: model.spec.blocks as u32 / settings.hops,
        faults: outcomes.collect(),
    };
    if let Some(path) = &settings.plot {
        plot::write(path, &results)?;
    }
    let goals = CASES.iter().zip(&results.faults).map(|(case, outcome)| outcome.goal(case)).collect();
    Ok(Report { benchmark: "failover", machine, settings, results, goals })
}

/// Starts the servers that are missing.
async fn complete(swarm: &mut LocalSwarm, model: &RandomModel, settings: &Settings) -> Result<()> {
    for blocks in even_ranges(model.spec.blocks as u32, settings.hops)? {
        while swarm.servers().iter().filter(|server| server.blocks == blocks).count() < REPLICAS {
            swarm.serve(model.path(), blocks, settings.threads).await?;
        }
    }
    Ok(())
}

impl Tables for Results {
    fn tables(&self) -> Vec<Table> {
        let title = format!(
            "Milliseconds, median (quartiles): {}; a replacement computes {} tokens through {} blocks",
            self.model, self.replayed_tokens, self.replayed_blocks
        );
        let header =
            vec!["a server is", "usual gap", "next token", "longest gap", "replay's computing", "next token beyond it"];
        let cells = |outcome: &Outcome| {
            let Outcome { usual_gap, next_token, longest_gap, replay, beyond_replay, .. } = outcome;
            let numbers = [usual_gap, next_token, longest_gap, replay, beyond_replay];
            [outcome.name.to_string()].into_iter().chain(numbers.map(|number| format!("{number:.0}"))).collect()
        };
        vec![Table { title, header, rows: self.faults.iter().map(cells).collect() }]
    }
}

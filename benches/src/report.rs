//! What a benchmark says, for people and for programs.

use std::io::Write;

use anyhow::Result;
use serde::Serialize;
use serde_json::Value;

use crate::goal::Goal;
use crate::machine::Machine;
use crate::table::Table;

/// The outcome of one benchmark.
#[derive(Debug, Serialize)]
pub(crate) struct Report<S, R> {
    pub(crate) benchmark: &'static str,
    pub(crate) machine: Machine,
    pub(crate) settings: S,
    pub(crate) results: R,
    pub(crate) goals: Vec<Goal>,
}

/// Results that people read as tables.
pub(crate) trait Tables {
    fn tables(&self) -> Vec<Table>;
}

impl<S: Serialize, R: Serialize + Tables> Report<S, R> {
    /// Prints the report to stdout: one JSON object, or tables.
    pub(crate) fn print(&self, json: bool) -> Result<()> {
        let mut out = std::io::stdout().lock();
        if json {
            writeln!(out, "{}", serde_json::to_string(self)?)?;
            return Ok(());
        }
        writeln!(out, "swarm-bench {}: {}", self.benchmark, self.machine)?;
        writeln!(out, "settings: {}", in_words(&serde_json::to_value(&self.settings)?))?;
        self.results.tables().iter().try_for_each(|table| write!(out, "\n{table}"))?;
        writeln!(out)?;
        self.goals.iter().try_for_each(|goal| writeln!(out, "{goal}"))?;
        Ok(())
    }
}

fn in_words(settings: &Value) -> String {
    let Some(settings) = settings.as_object() else {
        return settings.to_string();
    };
    let words = settings.iter().map(|(name, value)| format!("{} {value}", name.replace('_', " ")));
    words.collect::<Vec<_>>().join(", ")
}

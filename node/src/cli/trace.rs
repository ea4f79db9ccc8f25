//! `swarm-node trace`: where the time of a generated text went. Also the file that `generate --trace` writes.

mod plot;
mod summary_json;
mod svg;
mod table;
#[cfg(test)]
mod testing;

use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use clap::builder::FalseyValueParser;
use swarm_client::trace::{ChromeWriter, TraceLog, TraceRecord, TraceSummary};

use super::output::{BadUsage, Printer};

/// Show where the time of a generated text went: per hop and per token.
///
/// The file itself opens in https://ui.perfetto.dev and in chrome://tracing.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  swarm-node generate --model demo --bootstrap ... \\
    --prompt \"Once upon a time\" --trace trace.json
  swarm-node trace trace.json --plot trace.svg")]
pub(crate) struct TraceArgs {
    /// What `swarm-node generate --trace FILE` has written
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Draw it into this SVG file as well
    #[arg(long, env = "SWARM_PLOT", value_name = "FILE.svg")]
    plot: Option<PathBuf>,
    /// How many of the slowest tokens are listed
    #[arg(long, env = "SWARM_TOKENS", value_name = "N", default_value_t = 8)]
    tokens: usize,
    /// Print one JSON object, with every token
    #[arg(long, env = "SWARM_JSON", value_parser = FalseyValueParser::new())]
    json: bool,
}

/// Runs the command.
pub(crate) fn run(args: &TraceArgs) -> Result<()> {
    let printer = Printer::new(args.json);
    let name = args.file.display();
    let file = File::open(&args.file)
        .with_context(|| format!("cannot open {name}; `swarm-node generate --trace FILE` writes one"))
        .map_err(BadUsage)?;
    let log = TraceLog::read(file).with_context(|| name.to_string())?;
    let summary = TraceSummary::of(&log);
    if !log.complete {
        printer
            .note(format_args!("note: {name} has no end: its text was interrupted after {} tokens", log.tokens.len()));
    }
    printer.result(&summary_json::json(&summary), table::text(&summary, args.tokens).trim_end());
    if let Some(path) = &args.plot {
        std::fs::write(path, plot::svg(&log, &summary)).with_context(|| format!("cannot write {}", path.display()))?;
        printer.note(format_args!("plot written to {}", path.display()));
    }
    Ok(())
}

/// A trace on its way into a file.
pub(crate) struct TraceFile {
    path: PathBuf,
    writer: ChromeWriter<BufWriter<File>>,
}

impl TraceFile {
    /// Begins a trace; what the file held is gone.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub(crate) fn create(path: &Path) -> Result<Self> {
        let begin = || ChromeWriter::new(BufWriter::new(File::create(path)?));
        let writer = begin().with_context(|| format!("cannot write the trace {}", path.display()))?;
        Ok(Self { path: path.to_path_buf(), writer })
    }

    /// Adds a record.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub(crate) fn write(&mut self, record: TraceRecord) -> Result<()> {
        self.writer.write(record).with_context(|| format!("cannot write the trace {}", self.path.display()))
    }

    /// Ends the trace.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub(crate) fn finish(self) -> Result<()> {
        self.writer.finish().with_context(|| format!("cannot write the trace {}", self.path.display()))?;
        Ok(())
    }
}

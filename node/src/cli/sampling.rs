//! The flags that say how tokens are chosen, and what form a text has.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use clap::builder::FalseyValueParser;
use serde_json::Value;
use swarm_client::GenerationConfig;
use swarm_model::{Constraint, SamplingConfig, StopFilter};

use super::output::{BadUsage, Printer};
use super::values::{at_least_one, number, whole};

/// The largest schema or grammar file that is read: as much as a constraint may have.
const MAX_CONSTRAINT_BYTES: u64 = 1 << 20;

/// How tokens are chosen.
#[derive(Debug, Args)]
pub(crate) struct SamplingArgs {
    /// The most tokens to generate
    #[arg(long, env = "SWARM_MAX_TOKENS", default_value_t = 256, allow_negative_numbers = true,
          value_parser = at_least_one::<u32>)]
    max_tokens: u32,
    /// Sample with this temperature [default: none, the likeliest token always]
    #[arg(long, env = "SWARM_TEMPERATURE", allow_negative_numbers = true, value_parser = number::<f64>)]
    temperature: Option<f64>,
    /// Sample among the likeliest tokens that together reach this probability
    #[arg(long, env = "SWARM_TOP_P", allow_negative_numbers = true, value_parser = number::<f64>)]
    top_p: Option<f64>,
    /// Sample among this many of the likeliest tokens
    #[arg(long, env = "SWARM_TOP_K", allow_negative_numbers = true, value_parser = whole::<usize>)]
    top_k: Option<usize>,
    /// Sample among tokens that are at least this many times as likely as the likeliest one, 0 to 1
    #[arg(long, env = "SWARM_MIN_P", allow_negative_numbers = true, value_parser = number::<f64>)]
    min_p: Option<f64>,
    /// Make tokens that were used already, in the prompt too, less likely; above 1
    #[arg(long, env = "SWARM_REPETITION_PENALTY", allow_negative_numbers = true, value_parser = number::<f32>)]
    repetition_penalty: Option<f32>,
    /// Take this from the logit of each token that was generated already, -2 to 2
    #[arg(long, env = "SWARM_PRESENCE_PENALTY", allow_negative_numbers = true, value_parser = number::<f32>)]
    presence_penalty: Option<f32>,
    /// Take this from the logit of each token as often as it was generated already, -2 to 2
    #[arg(long, env = "SWARM_FREQUENCY_PENALTY", allow_negative_numbers = true, value_parser = number::<f32>)]
    frequency_penalty: Option<f32>,
    /// Seed of the sampling: the same seed gives the same text
    #[arg(long, env = "SWARM_SEED", default_value_t = 0, allow_negative_numbers = true, value_parser = whole::<u64>)]
    seed: u64,
    /// End the text before this one, which is not shown (repeatable)
    #[arg(long, env = "SWARM_STOP", value_name = "TEXT", allow_hyphen_values = true)]
    stop: Vec<String>,
    #[command(flatten)]
    constraint: ConstraintArgs,
}

/// The form of the text; only one at a time.
#[derive(Debug, Args)]
#[group(multiple = false)]
struct ConstraintArgs {
    /// Generate a JSON object
    #[arg(long, env = "SWARM_JSON_OBJECT", value_parser = FalseyValueParser::new())]
    json_object: bool,
    /// Generate JSON of this schema: the schema itself, or a file with it
    #[arg(long, env = "SWARM_JSON_SCHEMA", value_name = "FILE|JSON")]
    json_schema: Option<String>,
    /// Generate what the grammar in this file allows (llguidance's kind of Lark; its first rule is `start`)
    #[arg(long, env = "SWARM_GRAMMAR", value_name = "FILE")]
    grammar: Option<PathBuf>,
    /// Generate what this regular expression matches as a whole
    #[arg(long, env = "SWARM_REGEX", value_name = "REGEX", allow_hyphen_values = true)]
    regex: Option<String>,
}

impl SamplingArgs {
    /// The options, checked.
    pub(crate) fn config(&self) -> Result<GenerationConfig> {
        let sampling = SamplingConfig {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repetition_penalty: self.repetition_penalty,
            presence_penalty: self.presence_penalty,
            frequency_penalty: self.frequency_penalty,
            seed: self.seed,
        };
        sampling.validate().map_err(|error| BadUsage(error.into()))?;
        if let Some(idle) = self.idle() {
            Printer::new(false).note(format_args!(
                "note: {idle} counts only where there is a temperature, and --temperature is not given: the likeliest token is \
                 always taken"
            ));
        }
        StopFilter::new(&self.stop).map_err(|error| BadUsage(error.into()))?;
        let constraint = self.constraint.read().map_err(BadUsage)?;
        let (max_tokens, stop) = (self.max_tokens as usize, self.stop.clone());
        Ok(GenerationConfig { max_tokens, sampling, stop, constraint, ..Default::default() })
    }
}

impl SamplingArgs {
    /// The flag that changes nothing, since there is no chance for it to bound.
    fn idle(&self) -> Option<&'static str> {
        let given =
            [("--top-p", self.top_p.is_some()), ("--top-k", self.top_k.is_some()), ("--min-p", self.min_p.is_some())];
        given.into_iter().find(|(_, given)| *given && self.temperature.is_none()).map(|(flag, _)| flag)
    }
}

impl ConstraintArgs {
    fn read(&self) -> Result<Option<Constraint>> {
        Ok(if self.json_object {
            Some(Constraint::JsonObject)
        } else if let Some(schema) = &self.json_schema {
            Some(Constraint::JsonSchema(read_schema(schema)?))
        } else if let Some(path) = &self.grammar {
            Some(Constraint::Lark(read_file(path)?))
        } else {
            self.regex.clone().map(Constraint::Regex)
        })
    }
}

/// A schema, or the file that has it.
fn read_schema(given: &str) -> Result<Value> {
    if given.trim_start().starts_with('{') {
        return serde_json::from_str(given).context("--json-schema is no JSON");
    }
    let text = read_file(Path::new(given))?;
    serde_json::from_str(&text).with_context(|| format!("{given} is no JSON"))
}

fn read_file(path: &Path) -> Result<String> {
    let mut text = String::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(MAX_CONSTRAINT_BYTES + 1).read_to_string(&mut text));
    read.with_context(|| format!("cannot read {}", path.display()))?;
    if text.len() as u64 > MAX_CONSTRAINT_BYTES {
        bail!("{} is longer than {MAX_CONSTRAINT_BYTES} bytes", path.display());
    }
    Ok(text)
}

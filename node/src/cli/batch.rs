//! `swarm-node generate --batch`: many prompts, many at a time.
//!
//! A line of the input is a JSON object with a prompt; a line of the output tells its text, or why there is none. Lines come
//! in the order in which texts are complete. With an output file, prompts that it has texts for are not asked again: a batch
//! that was interrupted goes on where it was.

mod lines;
mod resume;

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures::StreamExt;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use swarm_client::{ClientConfig, GenerationConfig, Model, Prompt};

use self::lines::{Line, Problem};
use self::resume::Done;
use super::generate::GenerateArgs;
use super::output::{BadUsage, Hint, Printer};
use super::stop::or_interrupted;

/// How long one of many sessions waits for room on the servers: others are in it, and end.
const PATIENCE: Duration = Duration::from_secs(600);

/// Sessions for each hop of the route, if nobody says how many: so many steps that wait at the same time cost a server
/// little more than one.
const SESSIONS_PER_HOP: usize = 8;

/// The most sessions at a time, if nobody says how many.
const MOST_SESSIONS: usize = 64;

/// What a batch is made of.
pub(super) struct Batch<'a> {
    pub(super) input: &'a Path,
    pub(super) output: Option<PathBuf>,
    pub(super) parallel: Option<usize>,
    pub(super) config: GenerationConfig,
}

/// Runs a whole batch.
///
/// # Errors
/// If the input cannot be read, the output cannot be written, no servers are found, or some prompts have no text.
pub(super) async fn run(args: &GenerateArgs, batch: Batch<'_>) -> Result<()> {
    let wanted = read(batch.input, &batch.config).map_err(BadUsage)?;
    let (done, mut output) = match &batch.output {
        Some(path) => resume::open(path)?,
        None => (Done::default(), Box::new(io::stdout()) as Box<dyn Write + Send>),
    };
    let all = wanted.len();
    let lines: Vec<Line> = wanted.into_iter().filter(|line| !done.has(&line.key)).collect();
    let left = lines.len();
    if left < all {
        note(format_args!("{} of {all} prompts have their texts already", all - left));
    }
    if lines.is_empty() {
        return Ok(());
    }
    let client = ClientConfig { start_patience: PATIENCE, ..args.client_config()? };
    let told = or_interrupted(async {
        let swarm = super::common::join(args.network_config()?, client).await?;
        let model = args.open_model(&swarm).await?;
        let told = tell_all(&model, lines, batch.parallel, &mut *output).await;
        swarm.leave().await;
        told
    })
    .await;
    told.map_err(|error| match &batch.output {
        Some(path) => error.context(Hint(format!(
            "texts that are complete are in {}; the same command goes on from there",
            path.display()
        ))),
        None => error,
    })
}

async fn tell_all(model: &Model, lines: Vec<Line>, parallel: Option<usize>, output: &mut dyn Write) -> Result<()> {
    let all = lines.len();
    let (mut prompts, mut keys, mut failed) = (Vec::new(), Vec::new(), 0);
    for Line { key, wanted } in lines {
        match wanted.and_then(|wanted| wanted.prompt(model)) {
            Ok(prompt) => {
                prompts.push(prompt);
                keys.push(key);
            }
            Err(Problem(why)) => {
                failed += 1;
                write(output, &lines::failed(&key, &why))?;
            }
        }
    }
    let parallel = match parallel {
        Some(parallel) => parallel,
        None => parallel_for(model, &prompts).await?,
    };
    let (bar, began, mut tokens) = (new_bar(all), Instant::now(), 0);
    bar.inc(failed);
    let mut texts = std::pin::pin!(model.generate_many(prompts, parallel));
    while let Some((place, told)) = texts.next().await {
        match told {
            Ok(summary) => {
                tokens += summary.tokens.len();
                write(output, &lines::told(&keys[place], &summary))?;
            }
            Err(error) => {
                failed += 1;
                write(output, &lines::failed(&keys[place], &error.to_string()))?;
            }
        }
        bar.inc(1);
        bar.set_message(format!("{:.0} tokens/s", tokens as f64 / began.elapsed().as_secs_f64()));
    }
    bar.finish_and_clear();
    let rate = tokens as f64 / began.elapsed().as_secs_f64().max(f64::EPSILON);
    note(format_args!("{} texts, {tokens} tokens, {rate:.1} tokens/s, {parallel} at a time", all as u64 - failed));
    if failed > 0 {
        bail!("{failed} of {all} prompts have no text; their lines say why");
    }
    Ok(())
}

fn note(words: std::fmt::Arguments<'_>) {
    Printer::new(false).note(words);
}

/// As many sessions as keep every hop of the route busy.
async fn parallel_for(model: &Model, prompts: &[Prompt]) -> Result<usize> {
    let longest = prompts.iter().map(|prompt| prompt.ids.len() + prompt.config.max_tokens).max().unwrap_or(1);
    let tokens = longest.min(model.max_positions());
    let hops = model.plan(model.config().all_blocks()?, tokens).await.map_or(1, |plan| plan.route.hops.len());
    Ok((hops * SESSIONS_PER_HOP).min(MOST_SESSIONS))
}

/// Every line counts: what was written is there, whatever happens next.
fn write(output: &mut dyn Write, line: &serde_json::Value) -> Result<()> {
    writeln!(output, "{line}").and_then(|()| output.flush()).context("cannot write the output")
}

fn read(path: &Path, config: &GenerationConfig) -> Result<Vec<Line>> {
    let lines: Box<dyn BufRead> = if path == Path::new("-") {
        Box::new(io::stdin().lock())
    } else {
        let file =
            File::open(path).with_context(|| format!("cannot read the batch {}; check its path", path.display()))?;
        Box::new(BufReader::new(file))
    };
    let lines = lines::read(lines, config).with_context(|| format!("cannot read the batch {}", path.display()))?;
    if lines.is_empty() {
        bail!("the batch is empty; each of its lines is a JSON object such as {{\"prompt\": \"Once upon a time\"}}");
    }
    Ok(lines)
}

/// A progress bar; it draws nothing where stderr is no terminal.
fn new_bar(prompts: usize) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(prompts as u64), ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template("{pos}/{len} texts {wide_bar} {msg} {eta}");
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

//! llama.cpp on the same shape, in a process of its own: a Python with `llama-cpp-python` runs `scripts/llama_cpp_compare.py`.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;
use swarm_protocol::model_id::WeightFormat;

use super::workloads::Workload;

const SCRIPT: &str = include_str!("../../../scripts/llama_cpp_compare.py");

/// Its threads wait for more work by spinning for some milliseconds: what is measured next begins when they sleep.
const UNTIL_ASLEEP: Duration = Duration::from_millis(30);

/// The process. It ends when this is dropped, and by itself when its stdin closes.
pub(crate) struct LlamaCpp {
    child: Child,
    asked: ChildStdin,
    answers: BufReader<ChildStdout>,
    /// What it says of its version and of the processor.
    pub(crate) about: String,
}

impl LlamaCpp {
    /// Starts it; returns when its models in those of `formats` that it is measured in are loaded. Their files lie in
    /// `directory` until then.
    ///
    /// # Errors
    /// If `python` does not run the script, which says why on stderr.
    pub(crate) fn start(python: &Path, directory: &Path, formats: &[WeightFormat], threads: usize) -> Result<Self> {
        let names: Vec<&str> = formats.iter().filter(|format| has(**format)).map(|format| format.name()).collect();
        let mut command = Command::new(python);
        command.args(["-c", SCRIPT, "--serve", "--threads", &threads.to_string(), "--formats", &names.join(",")]);
        command.env("TMPDIR", directory);
        let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = spawned.with_context(|| format!("starting {}", python.display()))?;
        let asked = child.stdin.take().context("no stdin")?;
        let answers = BufReader::new(child.stdout.take().context("no stdout")?);
        let mut this = Self { child, asked, answers, about: String::new() };
        this.about = this.answer()?["about"].as_str().unwrap_or_default().to_string();
        Ok(this)
    }

    /// Milliseconds per block of one call; `None` for a format that it is not measured in.
    ///
    /// # Errors
    /// If it has failed.
    pub(crate) fn measure(&mut self, format: WeightFormat, workload: &Workload) -> Result<Option<f64>> {
        if !has(format) {
            return Ok(None);
        }
        writeln!(self.asked, "{} {} {} {}", format.name(), workload.sequences, workload.rows, workload.past)?;
        self.asked.flush()?;
        let answer = self.answer()?;
        std::thread::sleep(UNTIL_ASLEEP);
        Ok(Some(answer["ms_per_block"].as_f64().context("llama.cpp gave no time")?))
    }

    fn answer(&mut self) -> Result<Value> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        serde_json::from_str(&line).context("llama.cpp's process has ended; its last words are above")
    }
}

impl Drop for LlamaCpp {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// f32 is nothing that anybody runs there.
fn has(format: WeightFormat) -> bool {
    format != WeightFormat::F32
}

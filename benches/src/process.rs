//! Other processes, which say what happens by printing one JSON object a line.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

/// How long a process may take to say what it is expected to say: far above every goal, and short enough to wait for.
const EVENT_DEADLINE: Duration = Duration::from_secs(60);

/// Lines of a process's log shown when it fails.
const LOG_LINES: usize = 8;

/// A running process; killed when dropped.
pub(crate) struct Process {
    name: String,
    child: Child,
    events: Lines<BufReader<ChildStdout>>,
    log: File,
}

impl Process {
    /// Starts `program`. Its stdin stays open until it is killed.
    ///
    /// # Errors
    /// If the system cannot start it.
    pub(crate) fn spawn<A: AsRef<OsStr>>(name: &str, program: &Path, arguments: &[A]) -> Result<Self> {
        let mut command = std::process::Command::new(program);
        command.args(arguments);
        Self::start(name, command)
    }

    /// The same of a command.
    ///
    /// # Errors
    /// If the system cannot start it.
    pub(crate) fn start(name: &str, command: std::process::Command) -> Result<Self> {
        let log = tempfile::tempfile()?;
        let failed = format!("starting {}", command.get_program().display());
        let mut child = Command::from(command)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log.try_clone()?)
            .kill_on_drop(true)
            .spawn()
            .context(failed)?;
        let events = BufReader::new(child.stdout.take().context("no stdout")?).lines();
        Ok(Self { name: name.to_string(), child, events, log })
    }

    /// Waits for an event of one of those names, passing over others.
    ///
    /// # Errors
    /// If the process ends or the deadline passes before; the end of its log is part of the error.
    pub(crate) async fn event_of(&mut self, wanted: &[&str]) -> Result<Value> {
        match timeout(EVENT_DEADLINE, self.find_event(wanted)).await {
            Ok(Ok(Some(event))) => Ok(event),
            Ok(Err(error)) => Err(error),
            Ok(Ok(None)) => bail!("{} ended before it said {wanted:?}:\n{}", self.name, self.log_end()),
            Err(_) => bail!("{} did not say {wanted:?} in {EVENT_DEADLINE:?}:\n{}", self.name, self.log_end()),
        }
    }

    async fn find_event(&mut self, wanted: &[&str]) -> Result<Option<Value>> {
        while let Some(line) = self.events.next_line().await? {
            let event: Value = serde_json::from_str(&line).with_context(|| format!("{} printed {line}", self.name))?;
            if event["event"].as_str().is_some_and(|name| wanted.contains(&name)) {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    fn log_end(&self) -> String {
        let (mut file, mut log) = (&self.log, String::new());
        // What cannot be read is not shown.
        let _ = file.rewind().and_then(|()| file.read_to_string(&mut log));
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
    }

    /// # Errors
    /// If the process has ended.
    pub(crate) fn id(&self) -> Result<u32> {
        self.child.id().with_context(|| format!("{} has ended", self.name))
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// If the process has ended.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(self.id()? as i32).context("no process id")?;
        Ok(kill_process(pid, signal)?)
    }

    /// Kills the process and waits until it is gone.
    ///
    /// # Errors
    /// The system's.
    pub(crate) async fn kill(mut self) -> Result<()> {
        Ok(self.child.kill().await?)
    }
}

/// The `swarm-node` binary beside this one, built if it is missing.
///
/// # Errors
/// If it is missing and cannot be built.
pub(crate) async fn swarm_node() -> Result<PathBuf> {
    let this = std::env::current_exe()?;
    let binary = this.with_file_name(format!("swarm-node{}", std::env::consts::EXE_SUFFIX));
    if !binary.exists() {
        let profile: &[&str] = if cfg!(debug_assertions) { &[] } else { &["--release"] };
        let mut cargo = Command::new("cargo");
        cargo.args(["build", "-p", "swarm-node"]).args(profile).kill_on_drop(true);
        let status = cargo.stdout(Stdio::null()).status().await.context("starting cargo to build swarm-node")?;
        ensure!(status.success() && binary.exists(), "{} could not be built", binary.display());
    }
    Ok(binary)
}

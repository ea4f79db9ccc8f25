//! One child process of the demo: started from this very binary, heard through its JSON events, killed when dropped.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

/// How long a process may take to say what it was started for; it takes a second on a slow machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// How much of a failed process's last words is shown.
const LAST_WORDS: u64 = 4096;

/// A running child. It ends with this program, however that ends: its stdin closes then, which it watches.
pub(crate) struct Process {
    name: String,
    child: Child,
    events: Lines<BufReader<ChildStdout>>,
}

impl Process {
    /// Starts `swarm-node` with `arguments`.
    ///
    /// # Errors
    /// If the system does not start it.
    pub(crate) fn start(name: &str, arguments: &[String]) -> Result<Self> {
        let program = std::env::current_exe().context("cannot find this program's own file")?;
        let mut command = Command::new(program);
        command
            .args(arguments)
            .args(["--json", "--until-stdin-closes"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        // Ctrl-C is for the demo, which then ends its processes itself. The user's own swarm settings are not for them.
        #[cfg(unix)]
        command.process_group(0);
        for (variable, _) in std::env::vars_os() {
            if variable.to_string_lossy().starts_with("SWARM_") {
                command.env_remove(&variable);
            }
        }
        let mut child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        let stdout = child.stdout.take().with_context(|| format!("{name} has no output"))?;
        Ok(Self { name: name.to_string(), child, events: BufReader::new(stdout).lines() })
    }

    /// Waits for the event of that name.
    ///
    /// # Errors
    /// If the process ends before, with its last words, or is silent for too long.
    pub(crate) async fn event(&mut self, name: &str) -> Result<Value> {
        let found = tokio::time::timeout(PATIENCE, self.next_event(name)).await;
        found.with_context(|| format!("{} did not say \"{name}\" within {PATIENCE:?}", self.name))?
    }

    async fn next_event(&mut self, name: &str) -> Result<Value> {
        while let Some(line) = self.events.next_line().await? {
            let event: Value = serde_json::from_str(&line).with_context(|| format!("{} said {line:?}", self.name))?;
            if event["event"] == name {
                return Ok(event);
            }
        }
        let mut words = String::new();
        if let Some(stderr) = self.child.stderr.take() {
            stderr.take(LAST_WORDS).read_to_string(&mut words).await?;
        }
        bail!("{} ended: {}", self.name, words.trim());
    }

    /// Kills the process as a power cut would, and waits until it is gone.
    ///
    /// # Errors
    /// If the system does not let it be killed.
    pub(crate) async fn kill(&mut self) -> Result<()> {
        self.child.kill().await.with_context(|| format!("cannot kill {}", self.name))
    }

    /// The process id, while it runs.
    pub(crate) fn id(&self) -> Option<u32> {
        self.child.id()
    }
}

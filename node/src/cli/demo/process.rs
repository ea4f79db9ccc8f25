//! One child process of the demo: started from this very binary, heard through its JSON events, killed when dropped.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::task::JoinHandle;

/// How long a process may take to say what it was started for; it takes a second on a slow machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// How many bytes of a failed process's last words are shown.
const LAST_WORDS: usize = 4096;

/// A running child. It ends with this program, however that ends: its stdin closes then, which it watches.
pub(crate) struct Process {
    name: String,
    child: Child,
    events: Lines<BufReader<ChildStdout>>,
    /// Ends when the process does.
    last_words: Option<JoinHandle<String>>,
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
        command.env("SWARM_CONFIG", "");
        // Its log is read only if it fails: its errors are wanted then, not a flood before them.
        command.env_remove("RUST_LOG");
        let mut child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        let stdout = child.stdout.take().with_context(|| format!("{name} has no output"))?;
        let last_words = child.stderr.take().map(|stderr| tokio::spawn(tail(stderr)));
        Ok(Self { name: name.to_string(), child, events: BufReader::new(stdout).lines(), last_words })
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
        let words = match self.last_words.take() {
            Some(words) => words.await.unwrap_or_default(),
            None => String::new(),
        };
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

/// Reads `stream` to its end, so that its writer never waits for a full pipe, and keeps the last [`LAST_WORDS`] bytes.
async fn tail(mut stream: impl AsyncRead + Unpin) -> String {
    let mut kept = Vec::new();
    let mut part = [0; LAST_WORDS];
    // A stream that cannot be read has ended.
    while let Ok(count @ 1..) = stream.read(&mut part).await {
        kept.extend_from_slice(&part[..count]);
        kept.drain(..kept.len().saturating_sub(LAST_WORDS));
    }
    String::from_utf8_lossy(&kept).into_owned()
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    #[tokio::test]
    async fn a_flood_is_drained_and_its_end_kept() {
        // A pipe far smaller than what is written: without a reader the writer would wait for ever.
        let (mut writer, reader) = tokio::io::duplex(64);
        let write = async {
            writer.write_all(&[b'.'; 3 * LAST_WORDS]).await.unwrap();
            writer.write_all(b"error: the end").await.unwrap();
            drop(writer);
        };
        let ((), words) = tokio::join!(write, tail(reader));
        assert_eq!(words.len(), LAST_WORDS);
        assert!(words.ends_with("...error: the end"));
    }
}

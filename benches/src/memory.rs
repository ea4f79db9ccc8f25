//! How much memory a process takes.

use anyhow::{Context, Result};

/// Resident memory of a process, in bytes, as `/proc/PID/status` tells it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Resident {
    /// Everything, mapped files included.
    pub(crate) total: u64,
    /// What is its own: heap and stacks.
    pub(crate) anonymous: u64,
}

impl Resident {
    /// # Errors
    /// If there is no such process, or the system does not tell.
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let path = format!("/proc/{pid}/status");
        let status = std::fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
            kib.map(|kib| kib * 1024).with_context(|| format!("{path} has no {name}"))
        };
        Ok(Self { total: field("VmRSS:")?, anonymous: field("RssAnon:")? })
    }
}

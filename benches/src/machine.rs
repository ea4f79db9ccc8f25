//! Where the numbers were measured.

use std::fmt;
use std::fs;

use serde::Serialize;

/// A number without its machine says nothing.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) system: String,
    /// Load average of the last minute before the benchmark: others' work on the same cores.
    pub(crate) load_before: f64,
}

impl Machine {
    pub(crate) fn here() -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model =
            |line: &str| Some(line.strip_prefix("model name")?.trim_start_matches([' ', '\t', ':']).to_string());
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        Self {
            cpu: cpuinfo.lines().find_map(model).unwrap_or_else(|| "unknown CPU".to_string()),
            cores: cores(),
            system: format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS),
            load_before: load.split(' ').next().and_then(|load| load.parse().ok()).unwrap_or_default(),
        }
    }
}

pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cpu, cores, system, load_before } = self;
        write!(f, "{cpu}, {cores} cores, {system}; load average before: {load_before}")
    }
}

//! What the system knows of this process. Linux only: elsewhere nothing is told.

use std::fmt;
use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

/// Clock ticks a second in /proc: a constant of Linux towards programs, whatever the kernel's own is.
const TICKS_A_SECOND: f64 = 100.0;

/// Asks the system anew for each scrape.
#[derive(Debug)]
pub(super) struct Process {
    begun: f64,
}

impl Process {
    pub(super) fn begun_now() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Self { begun: now.map_or(0.0, |now| now.as_secs_f64()) }
    }
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        gauge(
            &mut encoder,
            "process_start_time",
            "When this process began, in Unix time",
            Some(&Unit::Seconds),
            self.begun,
        )?;
        if let Some(bytes) = status_kib("VmRSS:").map(|kib| kib * 1024.0) {
            gauge(
                &mut encoder,
                "process_resident_memory",
                "Memory in use, mapped weights included",
                Some(&Unit::Bytes),
                bytes,
            )?;
        }
        if let Some(bytes) = status_kib("RssAnon:").map(|kib| kib * 1024.0) {
            let help = "Memory in use that belongs to no file: heap, stacks, KV caches";
            gauge(&mut encoder, "process_anonymous_memory", help, Some(&Unit::Bytes), bytes)?;
        }
        if let Some(files) = fs::read_dir("/proc/self/fd").ok().map(Iterator::count) {
            // The folder itself is one of them.
            let files = files.saturating_sub(1) as f64;
            gauge(&mut encoder, "process_open_fds", "Open files and connections", None, files)?;
        }
        if let Some(most) = most_files() {
            gauge(&mut encoder, "process_max_fds", "The most that may be open", None, most)?;
        }
        if let Some(seconds) = cpu_seconds() {
            let counter = ConstCounter::new(seconds);
            let help = "Time computed, user and system, of all threads";
            let descriptor =
                encoder.encode_descriptor("process_cpu", help, Some(&Unit::Seconds), counter.metric_type())?;
            counter.encode(descriptor)?;
        }
        Ok(())
    }
}

fn gauge(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    unit: Option<&Unit>,
    value: f64,
) -> Result<(), fmt::Error> {
    let gauge = ConstGauge::new(value);
    gauge.encode(encoder.encode_descriptor(name, help, unit, gauge.metric_type())?)
}

fn status_kib(field: &str) -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    line.trim().trim_end_matches("kB").trim().parse().ok()
}

fn most_files() -> Option<f64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

fn cpu_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The name, in parentheses, may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS_A_SECOND)
}

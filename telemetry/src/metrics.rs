//! Metrics for Prometheus: a registry with what every process tells of itself, and its text.

pub mod check;
mod network;
mod process;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
pub use prometheus_client::registry::{Registry, Unit};

pub use self::network::NetworkGauges;
use self::process::Process;

/// What all names begin with.
pub const PREFIX: &str = "swarm";

/// The media type of [`text`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What was built.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Build {
    program: &'static str,
    version: &'static str,
    os: &'static str,
    arch: &'static str,
}

/// A registry with the metrics of this process, of `program`.
pub fn registry(program: &'static str) -> Registry {
    let mut registry = Registry::with_prefix(PREFIX);
    let build = Family::<Build, Gauge>::default();
    let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
    build.get_or_create(&Build { program, version: env!("CARGO_PKG_VERSION"), os, arch }).set(1);
    registry.register("build_info", "Which program this is; always 1", build);
    registry.register_collector(Box::new(Process::begun_now()));
    registry
}

/// All metrics as text, in OpenMetrics' format.
///
/// # Errors
/// If a metric cannot be written.
pub fn text(registry: &Registry) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, registry)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_tells_what_it_is_and_takes() {
        let text = text(&registry("test")).unwrap();
        assert_eq!(check::problems(&text), Vec::<String>::new(), "{text}");
        assert!(text.contains("swarm_build_info{program=\"test\""), "{text}");
        if cfg!(target_os = "linux") {
            for name in ["resident_memory_bytes", "cpu_seconds_total", "open_fds", "start_time_seconds"] {
                assert!(text.contains(&format!("\nswarm_process_{name} ")), "{name}: {text}");
            }
        }
    }
}

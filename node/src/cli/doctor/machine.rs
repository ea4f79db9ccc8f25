//! The machine: processor, memory, limits.

use swarm_node::serve::{available_memory, blocks_that_fit, default_threads};

use super::Planned;
use super::check::{Check, counted};
use crate::cli::units::size;

/// Open files that a server needs at the worst: a connection for each of as many streams as it serves.
const FILES: u64 = 1024;

pub(super) fn version() -> Check {
    let (version, os, arch) = (env!("CARGO_PKG_VERSION"), std::env::consts::OS, std::env::consts::ARCH);
    Check::good("version", format!("swarm-node {version}, {os} {arch}"))
}

pub(super) fn processor() -> Check {
    let threads = default_threads();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let cores = counted(cores, "core", "cores");
    let compute = if threads == 1 { "computes" } else { "compute" };
    let found = format!("{cores}, of which {threads} {compute}; {}", features());
    let slow =
        "blocks are computed without vectors of 256 bits, several times as slowly; this machine is better as a client";
    if has_fast_kernels() { Check::good("processor", found) } else { Check::could("processor", found, slow) }
}

#[cfg(target_arch = "x86_64")]
fn has_fast_kernels() -> bool {
    std::is_x86_feature_detected!("avx2")
        && std::is_x86_feature_detected!("fma")
        && std::is_x86_feature_detected!("f16c")
}

#[cfg(not(target_arch = "x86_64"))]
fn has_fast_kernels() -> bool {
    cfg!(target_arch = "aarch64")
}

#[cfg(target_arch = "x86_64")]
fn features() -> String {
    let known = [
        ("AVX2", std::is_x86_feature_detected!("avx2")),
        ("FMA", std::is_x86_feature_detected!("fma")),
        ("F16C", std::is_x86_feature_detected!("f16c")),
        ("AVX-512", std::is_x86_feature_detected!("avx512f")),
    ];
    let has = |wanted: bool| {
        let names: Vec<&str> = known.iter().filter(|(_, has)| *has == wanted).map(|(name, _)| *name).collect();
        if names.is_empty() { "none".to_string() } else { names.join(", ") }
    };
    format!("has {}, lacks {}", has(true), has(false))
}

#[cfg(not(target_arch = "x86_64"))]
fn features() -> String {
    "vectors of this platform".to_string()
}

pub(super) fn open_files() -> Check {
    match limits("Max open files") {
        Some(soft) if soft >= FILES => Check::good("open files", format!("up to {soft}")),
        Some(soft) => Check::could(
            "open files",
            format!("up to {soft}, and a busy server needs {FILES}"),
            format!("raise the limit: `ulimit -n {FILES}`, or LimitNOFILE={FILES} in a systemd unit"),
        ),
        None => Check::could(
            "open files",
            "this system does not tell its limit",
            format!("see that it is at least {FILES}"),
        ),
    }
}

fn limits(name: &str) -> Option<u64> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix(name))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

pub(super) fn memory(planned: Option<&Planned>) -> Check {
    let name = "memory";
    let Some(available) = available_memory() else {
        return Check::could(name, "this system does not tell how much is free", "say how many blocks with --blocks N");
    };
    let free = format!("{} free", size(available));
    let Some(planned) = planned else {
        return Check::good(name, format!("{free}; with --model it is told how many blocks fit"));
    };
    let Planned { checkpoint, format, blocks, cache_tokens, kv } = planned;
    let config = checkpoint.config();
    let fitting = blocks_that_fit(config, *format, *kv, *cache_tokens, available);
    let fit = |blocks: u32| if blocks == 1 { "fits" } else { "fit" };
    let of = format!(
        "of the {} blocks of {} ({} each)",
        config.blocks,
        checkpoint.name(),
        size(config.block_bytes(*format))
    );
    match (fitting, blocks) {
        (Err(error), _) => Check::bad(
            name,
            format!("{free}: {error}"),
            "take a smaller format (--format q4_k) or fewer --cache-tokens",
        ),
        (Ok(fitting), Some(wanted)) if *wanted > fitting => Check::bad(
            name,
            format!("{free}: {fitting} {of} {} with {} tokens of KV cache, not {wanted}", fit(fitting), cache_tokens.0),
            format!("pass --blocks {fitting}, a smaller format (--format q4_k) or fewer --cache-tokens"),
        ),
        (Ok(fitting), _) => {
            let found = format!("{free}: {fitting} {of} {} with {} tokens of KV cache", fit(fitting), cache_tokens.0);
            Check::good(name, found)
        }
    }
}

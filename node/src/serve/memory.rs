//! How many blocks fit in free memory.

use swarm_model::ModelConfig;
use swarm_protocol::model_id::WeightFormat;
use swarm_protocol::session::TokenCount;

use super::error::ServeError;

/// Of the free memory, what a server takes: the rest is for activations, the network and the machine's other programs.
const USABLE_PERCENT: u64 = 70;

const MIB: u64 = 1 << 20;

/// The blocks of a model that fit in `available` bytes, with KV caches of `cache_tokens` tokens; at most all of them.
///
/// # Errors
/// [`ServeError::TooLittleMemory`] if not even one does.
pub(super) fn blocks_that_fit(
    config: &ModelConfig,
    format: WeightFormat,
    cache_tokens: TokenCount,
    available: u64,
) -> Result<u32, ServeError> {
    let kv_bytes = config.kv_bytes_per_token_block(format) * u64::from(cache_tokens.0);
    let needed = config.block_bytes(format) + kv_bytes;
    let usable = available / 100 * USABLE_PERCENT;
    match usable / needed {
        0 => Err(ServeError::TooLittleMemory { needed_mib: needed.div_ceil(MIB), available_mib: usable / MIB }),
        fitting => Ok(u32::try_from(fitting).unwrap_or(u32::MAX).min(config.blocks)),
    }
}

/// Bytes of memory that are free, or can be made so without swapping.
pub(super) fn available() -> Option<u64> {
    available_in(&std::fs::read_to_string("/proc/meminfo").ok()?)
}

fn available_in(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use swarm_model::{Checkpoint, ModelSpec};

    use super::*;

    #[test]
    fn as_many_blocks_as_fit_and_never_more_than_there_are() {
        let config = Checkpoint::open(&ModelSpec::Demo).unwrap().config().clone();
        let tokens = TokenCount(1000);
        let fit = |available| blocks_that_fit(&config, WeightFormat::F32, tokens, available);
        let one = config.block_bytes(WeightFormat::F32) + 1000 * config.kv_bytes_per_token_block(WeightFormat::F32);
        assert!(matches!(fit(one), Err(ServeError::TooLittleMemory { .. })), "30 % stay free");
        assert_eq!(fit(one * 3).unwrap(), 2);
        assert_eq!(fit(u64::MAX).unwrap(), config.blocks);
    }

    #[test]
    fn the_systems_word_is_read() {
        let meminfo = "MemTotal:       16303428 kB\nMemFree: 1 kB\nMemAvailable:   12345 kB\n";
        assert_eq!(available_in(meminfo), Some(12345 * 1024));
        assert_eq!(available_in("MemTotal: 3 kB\n"), None);
    }
}

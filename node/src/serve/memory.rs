//! How many blocks fit in free memory.

use std::path::Path;

use swarm_model::{KvFormat, ModelConfig, activations};
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
pub fn blocks_that_fit(
    config: &ModelConfig,
    format: WeightFormat,
    kv: KvFormat,
    cache_tokens: TokenCount,
    available: u64,
) -> Result<u32, ServeError> {
    let kv_bytes = config.kv_bytes_per_token_block(format, kv) * u64::from(cache_tokens.0);
    let needed = config.block_bytes(format) + kv_bytes;
    // Sessions keep one row of output for each of their tokens, however many blocks there are, and so do pages that are kept
    // for later ones.
    let row = 2 * activations::byte_count(format, 1, config.hidden) as u64;
    let usable = (available / 100 * USABLE_PERCENT).saturating_sub(row * u64::from(cache_tokens.0));
    match usable / needed {
        0 => Err(ServeError::TooLittleMemory { needed_mib: needed.div_ceil(MIB), available_mib: usable / MIB }),
        fitting => Ok(u32::try_from(fitting).unwrap_or(u32::MAX).min(config.blocks)),
    }
}

/// What embedding and head take, at most: they are not quantised but in GGUF files.
pub(super) fn edges_bytes(config: &ModelConfig, format: WeightFormat) -> u64 {
    let tables = if config.tied { 1 } else { 2 };
    tables * activations::byte_count(format, config.vocab, config.hidden) as u64
}

/// Where Linux shows control groups (version 2).
const CONTROL_GROUPS: &str = "/sys/fs/cgroup";

/// Bytes of memory that are free, or can be made so without swapping: on the machine, and in each control group that this
/// process is in (a container's limit is one).
pub fn available() -> Option<u64> {
    let machine = available_in(&std::fs::read_to_string("/proc/meminfo").ok()?)?;
    let group = std::fs::read_to_string("/proc/self/cgroup").ok();
    let in_groups = group.and_then(|group| left_in_groups(Path::new(CONTROL_GROUPS), &group));
    Some(in_groups.map_or(machine, |left| left.min(machine)))
}

/// What the tightest limit leaves of the groups above the process that `membership` (`/proc/self/cgroup`) describes;
/// `None` if none of them has a limit.
fn left_in_groups(root: &Path, membership: &str) -> Option<u64> {
    let path = membership.lines().find_map(|line| line.strip_prefix("0::"))?;
    let groups = Path::new(path).ancestors().map(|group| root.join(group.strip_prefix("/").unwrap_or(group)));
    groups.filter_map(|group| left_in_group(&group)).min()
}

/// What a group's limit leaves; `None` if it has none.
fn left_in_group(group: &Path) -> Option<u64> {
    let read = |file: &str| std::fs::read_to_string(group.join(file)).ok();
    let limit: u64 = read("memory.max")?.trim().parse().ok()?;
    let used: u64 = read("memory.current")?.trim().parse().ok()?;
    // Cached files count as used, and give way to whoever needs the memory.
    let stat = read("memory.stat").unwrap_or_default();
    let cached = stat.lines().find_map(|line| line.strip_prefix("inactive_file ")?.trim().parse().ok());
    Some(limit.saturating_sub(used.saturating_sub(cached.unwrap_or(0))))
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
        let kv = KvFormat::Activations;
        let fit = |available| blocks_that_fit(&config, WeightFormat::F32, kv, tokens, available);
        let one = config.block_bytes(WeightFormat::F32) + 1000 * config.kv_bytes_per_token_block(WeightFormat::F32, kv);
        let kept = 2 * 1000 * activations::byte_count(WeightFormat::F32, 1, config.hidden) as u64;
        assert!(matches!(fit(one + kept), Err(ServeError::TooLittleMemory { .. })), "30 % stay free");
        assert_eq!(fit((one * 2 + kept) / 70 * 100 + 100).unwrap(), 2);
        assert_eq!(fit((one * 2 + kept) / 70 * 100 - 100).unwrap(), 1, "outputs are kept as well");
        assert_eq!(fit(u64::MAX).unwrap(), config.blocks);
        // KV caches that outweigh the weights: in 8 bits more blocks have room.
        let many = |kv| blocks_that_fit(&config, WeightFormat::F32, kv, TokenCount(20_000), 100 << 20).unwrap();
        assert!(many(KvFormat::Int8) > many(KvFormat::Activations));
    }

    #[test]
    fn the_systems_word_is_read() {
        let meminfo = "MemTotal:       16303428 kB\nMemFree: 1 kB\nMemAvailable:   12345 kB\n";
        assert_eq!(available_in(meminfo), Some(12345 * 1024));
        assert_eq!(available_in("MemTotal: 3 kB\n"), None);
    }

    #[test]
    fn the_tightest_control_group_counts() {
        let root = tempfile::tempdir().unwrap();
        let inner = root.path().join("outer/inner");
        std::fs::create_dir_all(&inner).unwrap();
        let write = |group: &Path, file: &str, text: &str| std::fs::write(group.join(file), text).unwrap();
        let left = |membership: &str| left_in_groups(root.path(), membership);
        write(&inner, "memory.max", "max\n");
        write(&inner, "memory.current", "5\n");
        assert_eq!(left("0::/outer/inner\n"), None, "nobody has a limit");
        let outer = root.path().join("outer");
        write(&outer, "memory.max", "1000\n");
        write(&outer, "memory.current", "700\n");
        assert_eq!(left("4:memory:/x\n0::/outer/inner\n"), Some(300));
        write(&outer, "memory.stat", "anon 100\ninactive_file 200\n");
        assert_eq!(left("0::/outer/inner\n"), Some(500), "cached files give way");
        write(&inner, "memory.max", "40\n");
        assert_eq!(left("0::/outer/inner\n"), Some(35));
        write(&inner, "memory.current", "50\n");
        assert_eq!(left("0::/outer/inner\n"), Some(0));
        // In a container, its own group is all there is to see.
        assert_eq!(left("0::/\n"), None);
        assert_eq!(left("4:memory:/x\n"), None);
    }
}

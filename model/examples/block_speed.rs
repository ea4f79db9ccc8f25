//! Milliseconds per block of a 1B-shape Llama in every weight format, beside what the machine's memory and arithmetic
//! allow, all measured in the same rounds: `block_speed [rounds] [threads] [filter]
//! [bits of KV caches: 16 or 8]`.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::hint::black_box;
use std::time::Instant;

use memmap2::MmapMut;
use swarm_model::synthetic::SyntheticSpec;
use swarm_model::{
    Blocks, Checkpoint, ComputePool, KvCache, KvFormat, ModelSpec, Sequence, Tensor, multiply_adds, read,
};
use swarm_protocol::model_id::WeightFormat;

/// Blocks that a call goes through: more weights than any cache holds.
const BLOCKS: usize = 3;
/// Bytes read to measure the bandwidth: larger than any cache.
const READ_BYTES: usize = 512 << 20;
/// Rounds of multiply-adds of each thread: some 30 ms.
const PEAK_ROUNDS: usize = 4_000_000;

/// Positions before a decoding step: with its own, whole pages of keys and values. One more would be the first of a page, which
/// few steps are.
const BEFORE: usize = 127;

/// Name, sequences, rows of each, positions before.
const WORKLOADS: [(&str, usize, usize, usize); 9] = [
    ("decode 1", 1, 1, BEFORE),
    ("decode 2", 2, 1, BEFORE),
    ("decode 4", 4, 1, BEFORE),
    ("decode 8", 8, 1, BEFORE),
    ("decode 6", 6, 1, BEFORE),
    ("decode 12", 12, 1, BEFORE),
    ("decode 16", 16, 1, BEFORE),
    ("prefill 512", 1, 512, 0),
    ("decode 1 at 8192", 1, 1, 8191),
];

struct Contest {
    name: String,
    format: WeightFormat,
    kv: KvFormat,
    caches: Vec<KvCache>,
    past: usize,
    input: Tensor,
    times: Vec<f64>,
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let rounds: usize = arguments.next().map_or(9, |text| text.parse().unwrap());
    let threads: usize = arguments.next().map_or(0, |text| text.parse().unwrap());
    let filter = arguments.next().unwrap_or_default();
    let kv = if arguments.next().is_some_and(|bits| bits == "8") { KvFormat::Int8 } else { KvFormat::Activations };
    let directory = tempfile::tempdir().unwrap();
    let spec = SyntheticSpec {
        hidden: 2048,
        intermediate: 8192,
        blocks: BLOCKS,
        heads: 32,
        kv_heads: 8,
        head_dim: 64,
        max_positions: 16384,
        ..SyntheticSpec::default()
    };
    spec.write(directory.path()).unwrap();
    let checkpoint = Checkpoint::open(&ModelSpec::Directory(directory.path().into())).unwrap();
    let pool = ComputePool::new(threads).unwrap();
    let mut loaded = Vec::new();
    let mut contests = Vec::new();
    for format in WeightFormat::CONVERTED {
        let prepared: Vec<_> =
            WORKLOADS.into_iter().filter(|w| format!("{format} {}", w.0).contains(&filter)).collect();
        if prepared.is_empty() {
            continue;
        }
        let start = Instant::now();
        let all = checkpoint.config().all_blocks().unwrap();
        let blocks = pool.run(|| checkpoint.load_blocks(all, format, &mut |_| ()).unwrap());
        let blocks = blocks.with_kv_format(kv).unwrap();
        println!("{format}: loaded {BLOCKS} blocks in {:.2} s, {}", start.elapsed().as_secs_f64(), anonymous_memory());
        let edges = checkpoint.load_edges(format).unwrap();
        for (name, sequences, rows, past) in prepared {
            let embed =
                |count: usize| edges.embed(&(0..count as u32).map(|i| i * 37 % 1000).collect::<Vec<_>>()).unwrap();
            // A clone would share its pages.
            let filled = || fill(blocks.new_cache(all, past + rows).unwrap(), past);
            let (caches, input) = ((0..sequences).map(|_| filled()).collect(), embed(sequences * rows));
            contests.push(Contest { name: name.into(), format, kv, caches, past, input, times: Vec::new() });
        }
        loaded.push(blocks);
    }
    let mut memory = MmapMut::map_anon(READ_BYTES).unwrap();
    // Large pages, as weights have.
    #[cfg(target_os = "linux")]
    memory.advise(memmap2::Advice::HugePage).unwrap();
    memory.fill(1);
    let words = bytemuck::cast_slice(&memory);
    let (mut reads, mut peaks) = (Vec::new(), Vec::new());
    for _ in 0..=rounds {
        reads.push(read_rate(words, pool.threads()));
        peaks.push(multiply_add_rate(pool.threads()));
        for contest in &mut contests {
            let blocks = loaded.iter().find(|blocks| blocks.format() == contest.format).unwrap();
            contest.caches.iter_mut().for_each(|cache| cache.truncate(contest.past));
            let start = Instant::now();
            pool.run(|| step(blocks, contest));
            contest.times.push(start.elapsed().as_secs_f64() * 1e3 / BLOCKS as f64);
        }
    }
    let (read, peak) = (median(&reads), median(&peaks));
    let before = cpu_ticks();
    std::thread::sleep(std::time::Duration::from_secs(1));
    println!("{} ticks of CPU time in a second without work, {}", cpu_ticks() - before, anonymous_memory());
    println!("{} threads, reads {read:.1} GB/s, multiply-adds {peak:.0} GF/s", pool.threads());
    report(&checkpoint, &contests, read, peak);
}

/// Keys and values that some positions might have; every element is the same small number.
fn fill(mut cache: KvCache, positions: usize) -> KvCache {
    if positions > 0 {
        let bytes = vec![0x3D; positions * cache.bytes_per_position()];
        cache.import(0, &bytes).unwrap();
    }
    cache
}

fn step(blocks: &Blocks, contest: &mut Contest) {
    let rows = contest.input.dims()[0] / contest.caches.len();
    let mut sequences: Vec<_> = contest.caches.iter_mut().map(|cache| Sequence { cache, rows }).collect();
    black_box(blocks.forward(blocks.range(), &contest.input, &mut sequences).unwrap());
}

fn report(checkpoint: &Checkpoint, contests: &[Contest], read: f64, peak: f64) {
    let config = checkpoint.config();
    for contest in contests {
        let kv =
            config.kv_bytes_per_token_block(contest.format, contest.kv) * (contest.past * contest.caches.len()) as u64;
        let read_ms = (config.block_bytes(contest.format) + kv) as f64 / 1e6 / read;
        let rows = contest.input.dims()[0] as f64;
        let weights = config.block_bytes(WeightFormat::F32) as f64 / 4.0;
        let peak_ms = 2.0 * weights * rows / 1e6 / peak;
        let (ours, best) = (median(&contest.times), contest.times.iter().copied().fold(f64::MAX, f64::min));
        println!(
            "{:5} {:17} {ours:8.2} ms (best {best:.2})  {:3.0}% of reading ({read_ms:.2})  {:3.0}% of multiply-adds ({peak_ms:.2})",
            contest.format.name(),
            contest.name,
            100.0 * read_ms / ours,
            100.0 * peak_ms / ours,
        );
    }
}

/// What Linux says of this process; empty elsewhere.
fn anonymous_memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let lines = status.lines().filter(|line| line.starts_with("RssAnon") || line.starts_with("VmHWM"));
    lines.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>().join(", ")
}

/// User and system time of all threads so far.
fn cpu_ticks() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum()
}

fn median(times: &[f64]) -> f64 {
    // The first found cold caches.
    let mut sorted = times[1..].to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// 10⁹ bytes per second.
fn read_rate(words: &[u64], threads: usize) -> f64 {
    let start = Instant::now();
    std::thread::scope(|scope| {
        for part in words.chunks(words.len().div_ceil(threads)) {
            scope.spawn(move || black_box(read(part)));
        }
    });
    READ_BYTES as f64 / 1e9 / start.elapsed().as_secs_f64()
}

/// 10⁹ floating point operations per second.
fn multiply_add_rate(threads: usize) -> f64 {
    let start = Instant::now();
    let operations: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(|| multiply_adds(black_box(PEAK_ROUNDS)))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    operations as f64 / 1e9 / start.elapsed().as_secs_f64()
}

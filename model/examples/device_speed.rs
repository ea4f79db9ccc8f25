//! Milliseconds per block on a device, with the activations' way there and back:
//! `device_speed DEVICE [rounds] [hidden] [filter]`. The block is a Llama's, its intermediate width four times `hidden`.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::time::Instant;

use swarm_model::synthetic::SyntheticSpec;
use swarm_model::{Checkpoint, DeviceChoice, ModelSpec, Sequence};
use swarm_protocol::model_id::WeightFormat;

/// Blocks that a call goes through.
const BLOCKS: usize = 4;
const HEAD_DIM: usize = 64;

/// Name, sequences, rows of each, positions before: never the last of a page, so that no step grows a cache.
const WORKLOADS: [(&str, usize, usize, usize); 4] =
    [("decode 1", 1, 1, 130), ("decode 8", 8, 1, 130), ("prefill 512", 1, 512, 0), ("decode 1 at 8000", 1, 1, 8001)];

fn main() {
    let mut arguments = std::env::args().skip(1);
    let device: DeviceChoice = arguments.next().unwrap_or_else(|| "auto".into()).parse().unwrap();
    let rounds: usize = arguments.next().map_or(20, |text| text.parse().unwrap());
    let hidden: usize = arguments.next().map_or(2048, |text| text.parse().unwrap());
    let filter = arguments.next().unwrap_or_default();
    let device = device.open().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let spec = SyntheticSpec {
        hidden,
        intermediate: 4 * hidden,
        blocks: BLOCKS,
        heads: hidden / HEAD_DIM,
        kv_heads: (hidden / HEAD_DIM / 4).max(1),
        head_dim: HEAD_DIM,
        max_positions: 16384,
        ..SyntheticSpec::default()
    };
    spec.write(directory.path()).unwrap();
    let checkpoint = Checkpoint::open(&ModelSpec::Directory(directory.path().into())).unwrap();
    let all = checkpoint.config().all_blocks().unwrap();
    for format in WeightFormat::CONVERTED {
        let wanted: Vec<_> =
            WORKLOADS.into_iter().filter(|workload| format!("{format} {}", workload.0).contains(&filter)).collect();
        if wanted.is_empty() {
            continue;
        }
        let start = Instant::now();
        let blocks = checkpoint.load_blocks_on(&device, all, format, &mut |_| ()).unwrap();
        println!("{}: loaded {BLOCKS} blocks in {:.2} s", blocks.numeric_class(), start.elapsed().as_secs_f64());
        let edges = checkpoint.load_edges(format).unwrap();
        for (name, sequences, rows, past) in wanted {
            let ids: Vec<u32> = (0..(sequences * rows) as u32).map(|i| i * 37 % 1000).collect();
            let input = edges.embed(&ids).unwrap();
            let mut cache = blocks.new_cache(all, past + rows).unwrap();
            if past > 0 {
                cache.import(0, &vec![0x3D; past * cache.bytes_per_position()]).unwrap();
            }
            let mut caches = vec![cache; sequences];
            let mut times = Vec::new();
            // The first round finds nothing compiled and no clone with memory of its own.
            for _ in 0..=rounds {
                caches.iter_mut().for_each(|cache| cache.truncate(past));
                let mut parts: Vec<_> = caches.iter_mut().map(|cache| Sequence { cache, rows }).collect();
                let start = Instant::now();
                blocks.forward(all, &input, &mut parts).unwrap();
                times.push(start.elapsed().as_secs_f64() * 1e3 / BLOCKS as f64);
            }
            times.remove(0);
            times.sort_by(f64::total_cmp);
            let bytes = checkpoint.config().block_bytes(format) as f64;
            let median = times[times.len() / 2];
            println!("  {name:17} {median:8.3} ms (best {:.3}), {:.0} GB/s of weights", times[0], bytes / 1e6 / median);
        }
    }
}

//! Keys and values in eight bits: near those in the activations' type, and as independent of company and cuts.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::slice::from_mut;

use common::{Whole, bits, synthetic};
use proptest::prelude::*;
use swarm_model::synthetic::SyntheticSpec;
use swarm_model::{DType, KvCache, KvFormat, ModelError, PAGE_POSITIONS, Sequence, Tensor};
use swarm_protocol::model_id::WeightFormat;

/// How far a block's output may be from that with keys and values in f32, relative to what the block adds to its input,
/// both as root mean squares over all elements (`docs/architecture.md` states it).
const BOUND: f64 = 0.02;

fn tokens(count: usize, seed: usize) -> Vec<u32> {
    (0..count).map(|i| ((i * 131 + seed * 977 + i * i * 7) % 1000) as u32).collect()
}

fn eight_bits(whole: Whole) -> Whole {
    Whole { blocks: whole.blocks.with_kv_format(KvFormat::Int8).unwrap(), ..whole }
}

fn cache(whole: &Whole) -> KvCache {
    whole.blocks.new_cache(whole.blocks.range(), 512).unwrap()
}

fn step(whole: &Whole, cache: &mut KvCache, ids: &[u32]) -> Vec<u8> {
    bits(&whole.step(&[whole.blocks.range()], from_mut(cache), ids))
}

fn root_mean_square(values: impl Iterator<Item = f32>) -> f64 {
    let (sum, count) = values.fold((0.0, 0), |(sum, count), value| (sum + f64::from(value).powi(2), count + 1));
    (sum / f64::from(count)).sqrt()
}

/// For each block alone, fed what the blocks before gave with exact keys and values: the error of its output.
fn errors(load: impl Fn() -> Whole, rows: usize) -> Vec<f64> {
    let (exact, rounded) = (load(), eight_bits(load()));
    let values = |tensor: &Tensor| -> Vec<f32> {
        tensor.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap()
    };
    let mut hidden = exact.edges.embed(&tokens(rows, 1)).unwrap();
    let mut errors = Vec::new();
    for block in exact.blocks.range().blocks() {
        let alone = common::range(block.0, block.0 + 1);
        let forward = |whole: &Whole| {
            let mut cache = whole.blocks.new_cache(alone, rows).unwrap();
            whole.blocks.forward(alone, &hidden, &mut [Sequence { cache: &mut cache, rows }]).unwrap()
        };
        let (output, near) = (forward(&exact), forward(&rounded));
        let (input, wanted, found) = (values(&hidden), values(&output), values(&near));
        let added = root_mean_square(wanted.iter().zip(&input).map(|(a, b)| a - b));
        let error = root_mean_square(wanted.iter().zip(&found).map(|(a, b)| a - b)) / added;
        assert!(error > 0.0, "nothing was rounded");
        errors.push(error);
        hidden = output;
    }
    errors
}

#[test]
fn a_blocks_output_is_near_that_with_exact_keys_and_values() {
    let demo = errors(|| Whole::demo(WeightFormat::F32), 300);
    let spec = SyntheticSpec { hidden: 256, blocks: 3, heads: 8, head_dim: 32, ..SyntheticSpec::default() };
    let (_directory, checkpoint) = synthetic(&spec);
    let random = errors(|| Whole::load(&checkpoint, WeightFormat::F32), 300);
    assert!(demo.iter().chain(&random).all(|error| *error < BOUND), "demo {demo:?}, random {random:?}");
}

#[test]
fn the_class_and_the_size_are_others() {
    let (sixteen, eight) = (Whole::demo(WeightFormat::Bf16), eight_bits(Whole::demo(WeightFormat::Bf16)));
    assert_eq!((sixteen.blocks.kv_format(), eight.blocks.kv_format()), (KvFormat::Activations, KvFormat::Int8));
    let class = sixteen.blocks.numeric_class().as_str().replacen("bf16/", "bf16+kv8/", 1);
    assert_eq!(eight.blocks.numeric_class().as_str(), class);
    let (all, config) = (sixteen.blocks.range(), sixteen.edges.config());
    let run = config.kv_bytes_per_token_block(WeightFormat::Bf16, KvFormat::Activations) / 2;
    let scales = 2 * 4 * config.kv_heads as u64;
    assert_eq!(config.kv_bytes_per_token_block(WeightFormat::Bf16, KvFormat::Int8), run + scales);
    assert_eq!(eight.blocks.page_bytes(all), 12 * PAGE_POSITIONS as u64 * (run + scales));
    let mut cache = cache(&eight);
    let hidden = sixteen.edges.embed(&[1]).unwrap();
    let error = sixteen.blocks.forward(all, &hidden, &mut [Sequence { cache: &mut cache, rows: 1 }]).unwrap_err();
    assert!(matches!(error, ModelError::WrongCache { .. }), "{error}");
}

#[test]
fn handing_over_sharing_and_truncating_change_no_bit() {
    for format in [WeightFormat::F32, WeightFormat::Bf16, WeightFormat::Q4K] {
        let whole = eight_bits(Whole::demo(format));
        let ids = tokens(170, 4);
        let mut original = cache(&whole);
        let expected = step(&whole, &mut original, &ids);
        let mut handed = cache(&whole);
        for start in (0..150).step_by(50) {
            handed.import(start, &original.export(start..start + 50).unwrap()).unwrap();
        }
        assert!(expected.ends_with(&step(&whole, &mut handed, &ids[150..])), "{format}");
        let mut shared = cache(&whole);
        shared.attach(&[original.page(0).unwrap(), original.page(1).unwrap()]).unwrap();
        shared.truncate(100);
        assert!(expected.ends_with(&step(&whole, &mut shared, &ids[100..])), "{format}");
        assert!(shared.export(0..170).unwrap() == original.export(0..170).unwrap());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn a_sequence_alone_and_in_company_has_the_same_bits(
        calls in prop::collection::vec((1usize..50, 0usize..3), 1..6),
    ) {
        for format in [WeightFormat::F16, WeightFormat::Bf16, WeightFormat::Q8_0] {
            let whole = eight_bits(Whole::demo(format));
            let ids: [Vec<u32>; 2] = [tokens(300, 1), tokens(300, 2)];
            let (mut first, mut second) = (cache(&whole), cache(&whole));
            let mut together = Vec::new();
            for (rows, company) in &calls {
                let (mine, others) = (&ids[0][first.len()..][..*rows], &ids[1][second.len()..][..*company]);
                let hidden = whole.edges.embed(&[others, mine].concat()).unwrap();
                let mut sequences = vec![Sequence { cache: &mut first, rows: *rows }];
                if *company > 0 {
                    sequences.insert(0, Sequence { cache: &mut second, rows: *company });
                }
                let out = whole.blocks.forward(whole.blocks.range(), &hidden, &mut sequences).unwrap();
                together.extend(bits(&out.narrow(0, *company, *rows).unwrap()));
            }
            prop_assert!(bits(&whole.prefill(&ids[0][..first.len()])) == together);
        }
    }
}

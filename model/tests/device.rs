//! Blocks on a device against our kernels. The device is `SWARM_TEST_DEVICE`, or candle's operations on the CPU: what is
//! tested then is everything but the driver (`scripts/check-device` runs it on a GPU).
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::slice::from_mut;

use common::{Whole, bits, largest_difference, range, synthetic};
use swarm_model::synthetic::SyntheticSpec;
use swarm_model::{
    Checkpoint, ComputeDevice, DType, DeviceChoice, KvCache, KvFormat, ModelError, ModelSpec, Sequence, Tensor,
};
use swarm_protocol::model_id::WeightFormat;

const FORMATS: [WeightFormat; 6] = WeightFormat::CONVERTED;
/// One of each kind: where all of them would take long on a CPU.
const KINDS: [WeightFormat; 3] = [WeightFormat::F32, WeightFormat::Bf16, WeightFormat::Q8_0];

/// The most that an element may differ, as a part of the largest element of what is compared: additions in another order in
/// f32; in the other types also roundings to 11 or 8 bits that fall the other way, in each of twelve blocks, and with
/// quantised weights activations that are rounded to 8 bits in other groups, or not at all.
fn bound(format: WeightFormat) -> f32 {
    match format {
        WeightFormat::F32 => 1e-4,
        WeightFormat::F16 => 0.01,
        WeightFormat::Bf16 => 0.05,
        WeightFormat::Q8_0 | WeightFormat::Q4_0 | WeightFormat::Q4K | WeightFormat::Gguf => 0.1,
    }
}

fn device() -> ComputeDevice {
    let name = std::env::var("SWARM_TEST_DEVICE").unwrap_or_else(|_| "cpu-candle".into());
    name.parse::<DeviceChoice>().unwrap().open().unwrap()
}

fn demo() -> Checkpoint {
    Checkpoint::open(&ModelSpec::Demo).unwrap()
}

fn on_device(checkpoint: &Checkpoint, format: WeightFormat) -> Whole {
    Whole::load_on(&device(), checkpoint, format)
}

fn tokens(count: usize, seed: usize) -> Vec<u32> {
    (0..count).map(|i| ((i * 131 + seed * 977 + i * i * 7) % 1000) as u32).collect()
}

fn cache(whole: &Whole) -> KvCache {
    whole.blocks.new_cache(whole.blocks.range(), 512).unwrap()
}

fn floats(tensor: &Tensor) -> Vec<f32> {
    tensor.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// The rows of `ids` in pieces of the sizes in `chunks`, over and over.
fn chunked(whole: &Whole, cache: &mut KvCache, ids: &[u32], chunks: &[usize]) -> Vec<f32> {
    let cut = [whole.blocks.range()];
    let mut rest = ids;
    let mut out = Vec::new();
    for chunk in chunks.iter().cycle() {
        let (now, later) = rest.split_at(rest.len().min(*chunk));
        if now.is_empty() {
            break;
        }
        out.extend(floats(&whole.step(&cut, from_mut(cache), now)));
        rest = later;
    }
    out
}

fn is_near(found: &[f32], expected: &[f32], format: WeightFormat, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    assert!(found.iter().all(|value| value.is_finite()), "{format}, {what}");
    let largest = expected.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
    let difference = largest_difference(found, expected) / largest;
    assert!(difference < bound(format), "{format}, {what}: {difference} of {largest}");
}

#[test]
fn hidden_states_are_those_of_our_kernels() {
    for format in FORMATS {
        let (ours, theirs) = (Whole::demo(format), on_device(&demo(), format));
        let ids = tokens(140, 1);
        let expected = chunked(&ours, &mut cache(&ours), &ids, &[133, 1, 1, 5]);
        is_near(&chunked(&theirs, &mut cache(&theirs), &ids, &[133, 1, 1, 5]), &expected, format, "hidden states");
    }
}

#[test]
fn shapes_that_fill_nothing_and_biases_are_no_obstacle() {
    let odd = SyntheticSpec {
        hidden: 60,
        intermediate: 100,
        blocks: 3,
        heads: 6,
        kv_heads: 3,
        head_dim: 10,
        biases: true,
        ..SyntheticSpec::default()
    };
    let one_head = SyntheticSpec { heads: 4, kv_heads: 1, ..SyntheticSpec::default() };
    for spec in [odd, one_head] {
        let (_directory, checkpoint) = synthetic(&spec);
        for format in FORMATS {
            let (ours, theirs) = (Whole::load(&checkpoint, format), on_device(&checkpoint, format));
            let ids = tokens(70, 2);
            let expected = chunked(&ours, &mut cache(&ours), &ids, &[65, 1]);
            is_near(&chunked(&theirs, &mut cache(&theirs), &ids, &[65, 1]), &expected, format, "odd shapes");
        }
    }
}

#[test]
fn greedy_text_in_f32_is_the_same() {
    let (ours, theirs) = (Whole::demo(WeightFormat::F32), on_device(&demo(), WeightFormat::F32));
    for seed in 0..3 {
        let prompt = tokens(9, seed);
        assert_eq!(theirs.greedy(&prompt, 64), ours.greedy(&prompt, 64), "prompt {seed}");
    }
}

#[test]
fn how_a_prompt_is_cut_matters_only_for_rounding() {
    for format in KINDS {
        let whole = on_device(&demo(), format);
        let ids = tokens(140, 3);
        let expected = floats(&whole.prefill(&ids));
        for chunks in [&[64][..], &[63, 1, 70], &[33, 8, 2]] {
            let found = chunked(&whole, &mut cache(&whole), &ids, chunks);
            is_near(&found, &expected, format, &format!("chunks of {chunks:?}"));
        }
    }
}

#[test]
fn how_the_model_is_cut_does_not_matter() {
    for format in KINDS {
        let whole = on_device(&demo(), format);
        let ids = tokens(40, 4);
        let expected = bits(&whole.prefill(&ids));
        for cut in [[range(0, 1), range(1, 12)], [range(0, 7), range(7, 12)]] {
            assert!(bits(&whole.step(&cut, &mut whole.caches(&cut), &ids)) == expected, "{format} {cut:?}");
        }
    }
}

#[test]
fn company_matters_only_for_rounding() {
    for format in KINDS {
        let whole = on_device(&demo(), format);
        let ids: Vec<Vec<u32>> = (0..3).map(|seed| tokens(200, seed)).collect();
        let mut caches: Vec<KvCache> = ids.iter().map(|_| cache(&whole)).collect();
        let mut together = vec![Vec::new(); ids.len()];
        for rows in [[70, 1, 5], [1, 1, 1], [1, 90, 1], [2, 1, 64]] {
            let next = |index: usize| &ids[index][caches[index].len()..][..rows[index]];
            let input: Vec<u32> = (0..ids.len()).flat_map(next).copied().collect();
            let hidden = whole.edges.embed(&input).unwrap();
            let sequences = caches.iter_mut().zip(rows).map(|(cache, rows)| Sequence { cache, rows });
            let mut sequences: Vec<Sequence<'_>> = sequences.collect();
            let result = whole.blocks.forward(whole.blocks.range(), &hidden, &mut sequences).unwrap();
            let mut first = 0;
            for (rows, together) in rows.into_iter().zip(&mut together) {
                together.extend(floats(&result.narrow(0, first, rows).unwrap()));
                first += rows;
            }
        }
        for ((ids, together), cache) in ids.iter().zip(together).zip(caches) {
            let alone = floats(&whole.prefill(&ids[..cache.len()]));
            is_near(&together, &alone, format, "in company");
        }
    }
}

#[test]
fn what_was_truncated_leaves_no_trace() {
    for format in KINDS {
        let whole = on_device(&demo(), format);
        let (ids, wrong) = (tokens(150, 4), tokens(60, 5));
        let expected = floats(&whole.prefill(&ids));
        for keep in [0, 1, 64, 100] {
            let mut cache = cache(&whole);
            chunked(&whole, &mut cache, &ids[..100], &[100]);
            chunked(&whole, &mut cache, &wrong, &[7]);
            let full = cache.bytes();
            cache.truncate(keep);
            assert_eq!(cache.len(), keep);
            assert!(cache.bytes() < full);
            let rest = chunked(&whole, &mut cache, &ids[keep..], &[200]);
            is_near(&rest, &expected[expected.len() - rest.len()..], format, &format!("after {keep}"));
        }
    }
}

#[test]
fn memory_is_taken_by_the_page_and_given_back() {
    let whole = on_device(&demo(), WeightFormat::Bf16);
    let mut cache = whole.blocks.new_cache(whole.blocks.range(), 200).unwrap();
    let page = 12 * 64 * whole.edges.config().kv_bytes_per_token_block(WeightFormat::Bf16, KvFormat::Activations);
    assert_eq!(cache.bytes(), 0);
    for (rows, pages) in [(1, 1), (63, 1), (1, 2), (100, 3)] {
        chunked(&whole, &mut cache, &tokens(rows, 1), &[rows]);
        assert_eq!(cache.bytes(), pages * page);
    }
    cache.truncate(64);
    assert_eq!(cache.bytes(), page);
    cache.truncate(0);
    assert_eq!(cache.bytes(), 0);
}

#[test]
fn a_clone_goes_its_own_way() {
    let whole = on_device(&demo(), WeightFormat::F32);
    let mut original = cache(&whole);
    chunked(&whole, &mut original, &tokens(30, 1), &[30]);
    let held = original.export(0..30).unwrap();
    let mut copy = original.clone();
    copy.truncate(10);
    chunked(&whole, &mut copy, &tokens(20, 2), &[20]);
    assert!(original.export(0..30).unwrap() == held);
    assert!(copy.export(0..10).unwrap() == original.export(0..10).unwrap());
    assert!(copy.export(10..30).unwrap() != original.export(10..30).unwrap());
}

/// Appends to `to` what `from` holds, in pieces.
fn hand_over(from: &KvCache, to: &mut KvCache, pieces: &[usize]) {
    for piece in pieces.iter().cycle() {
        let end = from.len().min(to.len() + piece);
        if to.len() == end {
            return;
        }
        let bytes = from.export(to.len()..end).unwrap();
        assert_eq!(to.import(to.len(), &bytes).unwrap() * from.bytes_per_position(), bytes.len());
    }
}

#[test]
fn keys_and_values_survive_a_hand_over() {
    for format in [WeightFormat::F32, WeightFormat::F16, WeightFormat::Bf16] {
        let (ours, theirs) = (Whole::demo(format), on_device(&demo(), format));
        let ids = tokens(160, 6);
        let mut original = cache(&theirs);
        chunked(&theirs, &mut original, &ids[..150], &[150]);
        let held = original.export(0..150).unwrap();
        let mut copy = cache(&theirs);
        hand_over(&original, &mut copy, &[1, 7, 70, 3]);
        assert!(copy.export(0..150).unwrap() == held, "{format}");
        assert_eq!((copy.len(), copy.bytes()), (150, original.bytes()));
        // The bytes are the same language everywhere.
        let mut at_home = cache(&ours);
        hand_over(&original, &mut at_home, &[33, 64, 2]);
        assert!(at_home.export(0..150).unwrap() == held, "{format}");
        let mut and_back = cache(&theirs);
        hand_over(&at_home, &mut and_back, &[64]);
        assert!(and_back.export(0..150).unwrap() == held, "{format}");
        let expected = chunked(&theirs, &mut original, &ids[150..], &[1]);
        assert!(chunked(&theirs, &mut copy, &ids[150..], &[1]) == expected, "{format}");
        is_near(&chunked(&ours, &mut at_home, &ids[150..], &[1]), &expected, format, "at home");
    }
}

#[test]
fn a_device_has_a_class_of_its_own_and_the_digests_of_all() {
    for format in FORMATS {
        let (ours, theirs) = (Whole::demo(format), on_device(&demo(), format));
        assert_eq!(theirs.blocks.digests(), ours.blocks.digests(), "{format}");
        assert_ne!(theirs.blocks.numeric_class(), ours.blocks.numeric_class());
        assert!(theirs.blocks.numeric_class().as_str().starts_with(&format!("{format}/")));
    }
}

#[test]
fn what_does_not_fit_is_a_typed_error_and_changes_nothing() {
    let (ours, theirs) = (Whole::demo(WeightFormat::Bf16), on_device(&demo(), WeightFormat::Bf16));
    let all = theirs.blocks.range();
    let forward = |cache: &mut KvCache, rows: usize| -> Result<Tensor, ModelError> {
        let hidden = theirs.edges.embed(&tokens(rows, 1)).unwrap();
        theirs.blocks.forward(all, &hidden, &mut [Sequence { cache, rows }])
    };
    let error = forward(&mut cache(&ours), 1).unwrap_err();
    assert!(matches!(error, ModelError::WrongCache { .. }), "{error}");
    let mut small = theirs.blocks.new_cache(all, 5).unwrap();
    forward(&mut small, 4).unwrap();
    let error = forward(&mut small, 2).unwrap_err();
    assert!(matches!(error, ModelError::CacheFull { needed: 6, max_tokens: 5 }), "{error}");
    let held = small.export(0..4).unwrap();
    let one = held.len() / 4;
    for (position, count) in [(3, one), (5, one), (4, 0), (4, one - 1), (4, 2 * one)] {
        small.import(position, &vec![1; count]).unwrap_err();
        assert!(small.len() == 4 && small.export(0..4).unwrap() == held);
    }
    let error = small.export(3..5).unwrap_err();
    assert!(matches!(error, ModelError::PositionsNotHeld { len: 4, .. }), "{error}");
    assert!(small.export(4..4).unwrap().is_empty());
    small.import(4, &held[..one]).unwrap();
    assert_eq!(small.len(), 5);
}

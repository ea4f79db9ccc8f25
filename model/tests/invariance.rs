//! A row's bits do not depend on how the model is cut, how a prompt is cut, or what shares a call.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{Whole, bits, range, synthetic};
use proptest::prelude::*;
use swarm_model::synthetic::SyntheticSpec;
use swarm_model::{ComputePool, KvCache, KvFormat, ModelError, Sequence, Tensor};
use swarm_protocol::block::BlockRange;
use swarm_protocol::model_id::WeightFormat;

const FORMATS: [WeightFormat; 6] = WeightFormat::CONVERTED;

fn tokens(count: usize, seed: usize) -> Vec<u32> {
    (0..count).map(|i| ((i * 131 + seed * 977 + i * i * 7) % 1000) as u32).collect()
}

/// Every way to cut blocks `start..end` into at most `parts` ranges.
fn cuts(start: u32, end: u32, parts: usize) -> Vec<Vec<BlockRange>> {
    if parts == 0 {
        return Vec::new();
    }
    let mut all = vec![vec![range(start, end)]];
    for middle in start + 1..end {
        for rest in cuts(middle, end, parts - 1) {
            let mut cut = vec![range(start, middle)];
            cut.extend(rest);
            all.push(cut);
        }
    }
    all
}

#[test]
fn every_cut_of_the_model_gives_the_same_bits() {
    for format in [WeightFormat::F32, WeightFormat::Bf16, WeightFormat::Q4_0] {
        let whole = Whole::demo(format);
        let ids = tokens(6, 1);
        let expected = bits(&whole.prefill(&ids));
        let all = cuts(0, 12, 4);
        assert_eq!(all.len(), 1 + 11 + 55 + 165);
        for cut in all {
            let mut caches = whole.caches(&cut);
            assert_eq!(bits(&whole.step(&cut, &mut caches, &ids)), expected, "{cut:?}");
        }
    }
}

/// The rows of all chunks, one after the other.
fn chunked(whole: &Whole, cache: &mut KvCache, ids: &[u32], chunks: &[usize]) -> Vec<u8> {
    let cut = [whole.blocks.range()];
    let mut rest = ids;
    let mut out = Vec::new();
    for chunk in chunks.iter().cycle() {
        let (now, later) = rest.split_at(rest.len().min(*chunk));
        if now.is_empty() {
            return out;
        }
        out.extend(bits(&whole.step(&cut, std::slice::from_mut(cache), now)));
        rest = later;
    }
    out
}

fn cache(whole: &Whole) -> KvCache {
    whole.blocks.new_cache(whole.blocks.range(), 512).unwrap()
}

#[test]
fn every_chunking_of_a_prompt_gives_the_same_bits() {
    for format in FORMATS {
        let whole = Whole::demo(format);
        let ids = tokens(140, 2);
        let expected = bits(&whole.prefill(&ids));
        for chunks in [&[1][..], &[2, 3], &[64], &[63, 1, 70], &[5], &[33, 8, 2]] {
            let found = chunked(&whole, &mut cache(&whole), &ids, chunks);
            assert!(found == expected, "{format} {chunks:?}");
        }
    }
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let spec = SyntheticSpec {
        hidden: 512,
        intermediate: 1536,
        blocks: 2,
        heads: 8,
        head_dim: 64,
        ..SyntheticSpec::default()
    };
    let (_directory, checkpoint) = synthetic(&spec);
    for format in FORMATS {
        let whole = Whole::load(&checkpoint, format);
        let ids = tokens(100, 3);
        let with = |threads| {
            let pool = ComputePool::new(threads).unwrap();
            pool.run(|| (bits(&whole.prefill(&ids)), chunked(&whole, &mut cache(&whole), &ids, &[1])))
        };
        let (prefilled, decoded) = with(1);
        assert!(prefilled == decoded, "{format}");
        assert!(with(3) == (prefilled, decoded), "{format}");
    }
}

/// What happens to one of several sequences in a call.
#[derive(Debug, Clone)]
struct Part {
    sequence: usize,
    rows: usize,
}

fn schedule() -> impl Strategy<Value = Vec<Vec<Part>>> {
    let part = (0usize..4, prop_oneof![Just(1usize), 1usize..40]);
    let call = prop::collection::vec(part, 1..5).prop_map(|mut parts| {
        parts.sort_by_key(|part| part.0);
        parts.dedup_by_key(|part| part.0);
        parts.reverse();
        parts.into_iter().map(|(sequence, rows)| Part { sequence, rows }).collect()
    });
    prop::collection::vec(call, 1..6)
}

/// Runs all calls; the rows of each sequence in order.
fn run_together(whole: &Whole, calls: &[Vec<Part>], ids: &[Vec<u32>]) -> Vec<Vec<u8>> {
    let mut caches: Vec<KvCache> = ids.iter().map(|_| cache(whole)).collect();
    let mut out = vec![Vec::new(); ids.len()];
    for call in calls {
        let next = |part: &Part| &ids[part.sequence][caches[part.sequence].len()..][..part.rows];
        let input: Vec<u32> = call.iter().flat_map(next).copied().collect();
        let hidden = whole.edges.embed(&input).unwrap();
        let mut free: Vec<Option<&mut KvCache>> = caches.iter_mut().map(Some).collect();
        let mut sequences: Vec<Sequence<'_>> =
            call.iter().map(|part| Sequence { cache: free[part.sequence].take().unwrap(), rows: part.rows }).collect();
        let result = whole.blocks.forward(whole.blocks.range(), &hidden, &mut sequences).unwrap();
        let mut first = 0;
        for part in call {
            out[part.sequence].extend(bits(&result.narrow(0, first, part.rows).unwrap()));
            first += part.rows;
        }
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_sequence_alone_and_in_company_has_the_same_bits(calls in schedule()) {
        for format in [WeightFormat::F32, WeightFormat::Bf16, WeightFormat::Q8_0, WeightFormat::Q4K] {
            let whole = Whole::demo(format);
            let ids: Vec<Vec<u32>> = (0..4).map(|seed| tokens(200, seed)).collect();
            let together = run_together(&whole, &calls, &ids);
            for (ids, together) in ids.iter().zip(together).filter(|(_, rows)| !rows.is_empty()) {
                let width = whole.edges.config().hidden * swarm_model::activations::element_bytes(format);
                let alone = bits(&whole.prefill(&ids[..together.len() / width]));
                prop_assert!(alone == together);
            }
        }
    }
}

#[test]
fn a_truncated_sequence_goes_on_with_the_same_bits() {
    for format in FORMATS {
        let whole = Whole::demo(format);
        let (ids, wrong) = (tokens(150, 4), tokens(60, 5));
        let cut = [whole.blocks.range()];
        let expected = bits(&whole.prefill(&ids));
        for keep in [0, 1, 63, 64, 65, 100] {
            let mut cache = cache(&whole);
            chunked(&whole, &mut cache, &ids[..100], &[100]);
            chunked(&whole, &mut cache, &wrong, &[7]);
            let full = cache.bytes();
            cache.truncate(keep);
            assert_eq!(cache.len(), keep);
            assert!(cache.bytes() < full);
            let rest = bits(&whole.step(&cut, std::slice::from_mut(&mut cache), &ids[keep..]));
            assert!(expected.ends_with(&rest), "{format} {keep}");
        }
    }
}

#[test]
fn a_cache_refuses_to_outgrow_its_reservation() {
    let whole = Whole::demo(WeightFormat::Bf16);
    let all = whole.blocks.range();
    let mut cache = whole.blocks.new_cache(all, 5).unwrap();
    assert_eq!(cache.bytes(), 0);
    let forward = |cache: &mut KvCache, rows: usize| -> Result<Tensor, ModelError> {
        let hidden = whole.edges.embed(&tokens(rows, 1)).unwrap();
        whole.blocks.forward(all, &hidden, &mut [Sequence { cache, rows }])
    };
    forward(&mut cache, 4).unwrap();
    let full = forward(&mut cache, 2).unwrap_err();
    assert!(matches!(full, ModelError::CacheFull { needed: 6, max_tokens: 5 }), "{full}");
    assert_eq!(cache.len(), 4);
    forward(&mut cache, 1).unwrap();
    let per_token = whole.edges.config().kv_bytes_per_token_block(WeightFormat::Bf16, KvFormat::Activations);
    assert_eq!(cache.bytes(), 12 * 64 * per_token);
}

#[test]
fn what_does_not_fit_is_a_typed_error() {
    let whole = Whole::demo(WeightFormat::Bf16);
    let mut part = whole.blocks.new_cache(range(0, 4), 16).unwrap();
    let hidden = whole.edges.embed(&[1, 2, 3]).unwrap();
    let mut forward = |part_range, hidden: &Tensor, rows| {
        let sequence = Sequence { cache: &mut part, rows };
        whole.blocks.forward(part_range, hidden, &mut [sequence]).unwrap_err()
    };
    assert!(matches!(forward(range(0, 5), &hidden, 3), ModelError::WrongCache { .. }));
    assert!(matches!(forward(range(0, 13), &hidden, 3), ModelError::RangeNotLoaded { .. }));
    assert!(matches!(forward(range(0, 4), &hidden, 2), ModelError::BadInput { .. }));
    assert!(matches!(forward(range(0, 4), &hidden, usize::MAX), ModelError::BadInput { .. }));
    let wide = hidden.to_dtype(swarm_model::DType::F32).unwrap();
    assert!(matches!(forward(range(0, 4), &wide, 3), ModelError::BadInput { .. }));
    let empty = whole.blocks.forward(range(0, 4), &hidden, &mut []).unwrap_err();
    assert!(matches!(empty, ModelError::BadInput { .. }));
    let unknown = whole.edges.embed(&[1024]).unwrap_err();
    assert!(matches!(unknown, ModelError::TokenOutOfRange { id: 1024, vocab: 1024 }));
    assert!(whole.edges.logits(&hidden.narrow(1, 0, 5).unwrap()).is_err());
}

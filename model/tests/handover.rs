//! A sequence whose keys and values were handed to another cache goes on with the same bits.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::slice::from_mut;

use common::{Whole, bits, synthetic};
use swarm_model::synthetic::SyntheticSpec;
use swarm_model::{KvCache, ModelError};
use swarm_protocol::model_id::WeightFormat;

const FORMATS: [WeightFormat; 6] = WeightFormat::CONVERTED;

/// Positions handed over: two pages and a part of a third.
const HELD: usize = 150;

fn tokens(count: usize) -> Vec<u32> {
    (0..count).map(|i| ((i * 131 + i * i * 7) % 1000) as u32).collect()
}

/// An empty cache for all blocks.
fn cache(whole: &Whole) -> KvCache {
    whole.caches(&[whole.blocks.range()]).remove(0)
}

/// Appends to `to` what `from` holds beyond it, in pieces of the sizes in `pieces`, over and over.
fn hand_over(from: &KvCache, to: &mut KvCache, pieces: &[usize]) {
    for piece in pieces.iter().cycle() {
        let end = from.len().min(to.len() + piece);
        if to.len() == end {
            return;
        }
        let bytes = from.export(to.len()..end).unwrap();
        to.import(to.len(), &bytes).unwrap();
    }
}

/// The outputs of decode steps and of a chunk at the end.
fn go_on(whole: &Whole, cache: &mut KvCache, ids: &[u32]) -> Vec<u8> {
    let cut = [whole.blocks.range()];
    let (singly, chunk) = ids.split_at(ids.len() / 2);
    let mut out: Vec<u8> = Vec::new();
    for ids in singly.chunks(1).chain([chunk]) {
        out.extend(bits(&whole.step(&cut, from_mut(cache), ids)));
    }
    out
}

fn check(whole: &Whole, held: usize) {
    let (cut, ids) = ([whole.blocks.range()], tokens(held + 12));
    let mut original = cache(whole);
    whole.step(&cut, from_mut(&mut original), &ids[..held]);
    // Handed over twice, cut in different places.
    let mut second = cache(whole);
    hand_over(&original, &mut second, &[1, 7, 70, 3]);
    let mut third = cache(whole);
    hand_over(&second, &mut third, &[33, 64, 2]);
    // What it computed itself, what it took over, and the rest of a longer sequence that it forgot.
    let mut mixed = cache(whole);
    whole.step(&cut, from_mut(&mut mixed), &ids[..held - 30]);
    whole.step(&cut, from_mut(&mut mixed), &ids[3..40]);
    mixed.truncate(held - 30);
    hand_over(&original, &mut mixed, &[11]);
    let expected = go_on(whole, &mut original, &ids[held..]);
    for mut copy in [second, third, mixed] {
        assert_eq!(copy.len(), held);
        assert!(go_on(whole, &mut copy, &ids[held..]) == expected);
        assert!(copy.export(0..copy.len()).unwrap() == original.export(0..original.len()).unwrap());
    }
}

#[test]
fn a_sequence_goes_on_elsewhere_with_the_same_bits() {
    for format in FORMATS {
        check(&Whole::demo(format), HELD);
    }
}

#[test]
fn heads_of_odd_sizes_go_on_with_the_same_bits() {
    let spec = SyntheticSpec {
        hidden: 60,
        intermediate: 100,
        blocks: 3,
        heads: 6,
        kv_heads: 3,
        head_dim: 10,
        ..SyntheticSpec::default()
    };
    let (_directory, checkpoint) = synthetic(&spec);
    for format in FORMATS {
        check(&Whole::load(&checkpoint, format), HELD);
    }
}

#[test]
fn a_full_cache_takes_no_more_and_still_decodes() {
    let whole = Whole::demo(WeightFormat::Bf16);
    let (cut, ids) = ([whole.blocks.range()], tokens(10));
    let mut original = cache(&whole);
    whole.step(&cut, from_mut(&mut original), &ids[..9]);
    let mut small = whole.blocks.new_cache(whole.blocks.range(), 9).unwrap();
    hand_over(&original, &mut small, &[8]);
    whole.step(&cut, from_mut(&mut original), &ids[9..]);
    let error = small.import(9, &original.export(9..10).unwrap()).unwrap_err();
    assert!(matches!(error, ModelError::CacheFull { needed: 10, max_tokens: 9 }), "{error}");
    small.truncate(8);
    let last = |cache: &mut KvCache| bits(&whole.step(&cut, from_mut(cache), &ids[8..9]));
    original.truncate(8);
    assert!(last(&mut small) == last(&mut original));
}

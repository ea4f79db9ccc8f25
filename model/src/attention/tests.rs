//! Attention over pages against the same sums over one contiguous buffer.

use proptest::prelude::*;
use swarm_protocol::block::BlockRange;

use super::*;
use crate::kernels::scalar::Scalar;
use crate::kv::KvArena;

/// Some positions of one block, and queries at the last of them.
#[derive(Debug, Clone)]
struct Case {
    shape: KvShape,
    group: usize,
    before: usize,
    rows: usize,
    scoring: Scoring,
    seed: u64,
}

fn case() -> impl Strategy<Value = Case> {
    let floats = [ElementType::F32, ElementType::F16, ElementType::Bf16].map(KvElement::Float);
    let elements = [&floats[..], &[KvElement::Int8]].concat();
    let shape = (1usize..4, 1usize..40, prop::sample::select(elements));
    let shape = shape.prop_map(|(kv_heads, head_dim, element)| KvShape { kv_heads, head_dim, element });
    let before = prop_oneof![0usize..70, 60usize..68, 120usize..135, 0usize..400];
    let window = prop_oneof![Just(None), (1usize..10).prop_map(Some), (50usize..140).prop_map(Some)];
    let rule = (window, any::<bool>(), any::<bool>());
    (shape, 1usize..6, before, 1usize..40, rule, any::<u64>()).prop_map(
        |(shape, group, before, rows, (window, capped, sinks), seed)| {
            let sinks = sinks.then(|| noise(shape.kv_heads * group, seed ^ 0x99));
            let cap = capped.then_some(0.5);
            let scoring = Scoring { scale: 1.0 / (shape.head_dim as f32).sqrt(), cap, window, sinks };
            Case { shape, group, before, rows, scoring, seed }
        },
    )
}

fn noise(count: usize, seed: u64) -> Vec<f32> {
    let mix = |i: u64| ((i ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as f32 / (1u64 << 23) as f32 - 1.0;
    (0..count as u64).map(mix).collect()
}

/// Keys (or values) as they are kept, without their scales, and one scale for each head and position.
type Kept = (Vec<f32>, Vec<f32>);

fn kept(shape: &KvShape, values: &[f32]) -> Kept {
    let one = |run: &[f32]| {
        let each = |round: fn(f32) -> f32| (run.iter().copied().map(round).collect::<Vec<f32>>(), 1.0);
        match shape.element {
            KvElement::Float(ElementType::F32) => each(|value| value),
            KvElement::Float(ElementType::F16) => each(|value| f16::from_f32(value).to_f32()),
            KvElement::Float(ElementType::Bf16) => each(|value| bf16::from_f32(value).to_f32()),
            KvElement::Int8 => {
                let mut rounded = vec![0i8; run.len()];
                let scale = quantise(run, &mut rounded);
                (rounded.into_iter().map(f32::from).collect(), scale)
            }
        }
    };
    let (runs, scales): (Vec<_>, Vec<_>) = values.chunks_exact(shape.head_dim).map(one).unzip();
    (runs.concat(), scales)
}

impl Case {
    fn positions(&self) -> usize {
        self.before + self.rows
    }

    /// Keys and values of all positions.
    fn rows(&self) -> [Vec<f32>; 2] {
        let count = self.positions() * self.shape.kv_heads * self.shape.head_dim;
        [noise(count, self.seed), noise(count, !self.seed)]
    }

    fn queries(&self) -> Vec<f32> {
        noise(self.rows * self.shape.kv_heads * self.group * self.shape.head_dim, self.seed ^ 0x55)
    }

    /// In block 1 of two, stored in pieces.
    fn paged(&self) -> Vec<f32> {
        let (width, heads) = (self.shape.kv_heads * self.shape.head_dim, self.shape.kv_heads * self.group);
        let range = BlockRange::new(0, 2).unwrap();
        let mut cache = KvCache::new(KvArena::unlimited(), range, self.shape, self.positions());
        let [keys, values] = self.rows();
        for piece in [0..self.before, self.before..self.positions()] {
            let growth = cache.plan(piece.len()).unwrap();
            cache.grow(growth);
            let part = piece.start * width..piece.end * width;
            store(&mut cache, 1, (&keys[part.clone()], &values[part])).unwrap();
            cache.advance(piece.len());
        }
        let queries =
            Tensor::from_vec(self.queries(), (self.rows, heads * self.shape.head_dim), &candle_core::Device::Cpu);
        let span = Span { pages: cache.pages(), block: 1, first_row: 0, rows: self.rows, position: self.before };
        let out = attend(&queries.unwrap(), heads, self.shape, &self.scoring, &[span]).unwrap();
        out.flatten_all().unwrap().to_vec1().unwrap()
    }

    /// By the definition, over buffers `(positions, kv_heads, head_dim)`.
    fn contiguous(&self) -> Vec<f32> {
        let [keys, values] = self.rows().map(|side| kept(&self.shape, &side));
        let heads = self.shape.kv_heads * self.group;
        let one = |(index, query): (usize, &[f32])| {
            let (row, kv_head) = (index / heads, index % heads / self.group);
            let position = self.before + row;
            let first = self.scoring.window.map_or(0, |window| (position + 1).saturating_sub(window));
            let sink = self.scoring.sinks.as_ref().map(|sinks| sinks[index % heads]);
            self.attend_one(query, kv_head, (&keys, &values), first..position + 1, sink)
        };
        self.queries().chunks_exact(self.shape.head_dim).enumerate().flat_map(one).collect()
    }

    /// One query of one head over positions `seen`.
    fn attend_one(
        &self,
        query: &[f32],
        kv_head: usize,
        (keys, values): (&Kept, &Kept),
        seen: Range<usize>,
        sink: Option<f32>,
    ) -> Vec<f32> {
        let Case { shape, scoring, .. } = self;
        let of = |side: &Kept, position: usize| {
            let run = position * shape.kv_heads + kv_head;
            (side.0[run * shape.head_dim..][..shape.head_dim].to_vec(), side.1[run])
        };
        let score = |position| {
            let mut lanes = [Lanes::default()];
            let (key, scale) = of(keys, position);
            Scalar.dot_tile([query], [&key[..]], false, &mut lanes, (0, 1));
            sum_lanes(&lanes[0]) * scale
        };
        let mut scores: Vec<f32> = seen.clone().map(score).collect();
        let mut scale = scoring.scale;
        if let Some(cap) = scoring.cap {
            Scalar.cap(&mut scores, scale, cap);
            scale = 1.0;
        }
        let (mut max, mut sums) = (Scalar.largest(&scores), Lanes::default());
        if let Some(sink) = sink {
            max = max.max(sink / scale);
            Scalar.soften(&mut [sink / scale], max, scale, &mut sums);
        }
        // The first of a page's scores begins with the first partial sum.
        let mut rest = &mut scores[..];
        let mut room = PAGE_POSITIONS - seen.start % PAGE_POSITIONS;
        while !rest.is_empty() {
            let (page, later) = rest.split_at_mut(room.min(rest.len()));
            Scalar.soften(page, max, scale, &mut sums);
            (rest, room) = (later, PAGE_POSITIONS);
        }
        let sum = sum_lanes(&sums);
        let mut out = vec![0.0f32; shape.head_dim];
        for (position, weight) in seen.zip(scores) {
            let (value, scale) = of(values, position);
            out.iter_mut().zip(value).for_each(|(out, value)| *out = (weight * scale).mul_add(value, *out));
        }
        out.into_iter().map(|value| value / sum).collect()
    }
}

proptest! {
    #[test]
    fn pages_change_no_bit(case in case()) {
        let bits = |values: Vec<f32>| -> Vec<u32> { values.into_iter().map(f32::to_bits).collect() };
        prop_assert_eq!(bits(case.paged()), bits(case.contiguous()));
    }
}

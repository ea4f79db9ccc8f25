//! Milliseconds that a constraint takes for each token: `mask_speed [MODEL] [SCHEMA.json]`. The tokens are drawn at random among those
//! allowed; the demo model and a schema of an object with a few fields unless others are given.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use swarm_model::{
    Checkpoint, Constraint, DType, Device, Grammars, History, ModelSpec, Sampler, SamplingConfig, Tensor,
};

/// Texts that are drawn, of at most so many tokens.
const TEXTS: u64 = 50;
const MOST: usize = 400;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let model: ModelSpec = arguments.next().map_or(ModelSpec::Demo, |model| model.parse().unwrap());
    let schema: Value = match arguments.next() {
        Some(path) => serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap(),
        None => json!({"type": "object", "properties": {
            "name": {"type": "string"},
            "age": {"type": "integer"},
            "tags": {"type": "array", "items": {"enum": ["fox", "owl", "bear"]}},
            "more": {"type": "object"},
        }, "required": ["name", "age", "tags", "more"], "additionalProperties": false}),
    };
    let checkpoint = Checkpoint::open(&model).unwrap();
    let (vocab, eos) = (checkpoint.config().vocab, checkpoint.generation_defaults().unwrap().eos);
    let grammars = Grammars::new(checkpoint.tokenizer().unwrap(), vocab, &eos);
    let constraint = Constraint::JsonSchema(schema);
    let began = Instant::now();
    drop(grammars.matcher(&constraint).unwrap());
    let first = began.elapsed();
    let logits = Tensor::zeros(vocab, DType::F32, &Device::Cpu).unwrap();
    let (mut compiling, mut masks, mut accepting) = (Vec::new(), Vec::new(), Duration::ZERO);
    for seed in 0..TEXTS {
        let began = Instant::now();
        let mut matcher = grammars.matcher(&constraint).unwrap();
        compiling.push(began.elapsed());
        let config = SamplingConfig { temperature: Some(1.0), seed, ..SamplingConfig::default() };
        let mut sampler = Sampler::new(&config).unwrap();
        for _ in 0..MOST {
            let began = Instant::now();
            let mask = matcher.mask().unwrap();
            masks.push(began.elapsed());
            let id = sampler.sample_among(&logits, &History::default(), Some(&mask)).unwrap();
            if eos.contains(&id) {
                break;
            }
            let began = Instant::now();
            matcher.accept(id).unwrap();
            accepting += began.elapsed();
            if matcher.is_complete() {
                break;
            }
        }
    }
    println!("vocabulary of {vocab}: made with the first grammar in {}", millis(first));
    println!("grammar: {}", spread(&mut compiling));
    println!("mask:    {}", spread(&mut masks));
    println!("token:   mean {}", millis(accepting / masks.len() as u32));
}

fn spread(times: &mut [Duration]) -> String {
    times.sort_unstable();
    let at = |share: f64| millis(times[((times.len() - 1) as f64 * share) as usize]);
    let mean = millis(times.iter().sum::<Duration>() / times.len() as u32);
    format!("mean {mean}, median {}, 99 % {}, longest {}, of {}", at(0.5), at(0.99), at(1.0), times.len())
}

fn millis(time: Duration) -> String {
    format!("{:.3} ms", time.as_secs_f64() * 1000.0)
}

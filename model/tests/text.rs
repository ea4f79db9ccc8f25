//! Tokenizer, streaming decoder, chat template and sampling of the demo model.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use proptest::prelude::*;
use swarm_model::{ChatMessage, Checkpoint, Device, History, ModelSpec, Sampler, SamplingConfig, Tensor};

fn demo() -> Checkpoint {
    Checkpoint::open(&ModelSpec::Demo).unwrap()
}

/// What a decoder gives for `ids`, piece by piece.
fn pieces(ids: &[u32]) -> Vec<String> {
    let mut decoder = demo().tokenizer().unwrap().decoder();
    let mut pieces: Vec<String> = ids.iter().filter_map(|id| decoder.push(*id).unwrap()).collect();
    pieces.extend(decoder.flush().unwrap());
    pieces
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn pieces_are_the_whole_text(text in "\\PC{0,40}") {
        let tokenizer = demo().tokenizer().unwrap();
        let ids = tokenizer.encode(&text, true).unwrap();
        let pieces = pieces(&ids);
        prop_assert_eq!(pieces.concat(), tokenizer.decode(&ids).unwrap());
        prop_assert_eq!(pieces.concat(), text);
    }

    #[test]
    fn pieces_of_any_ids_are_the_whole_text(ids in prop::collection::vec(0u32..1024, 0..30)) {
        prop_assert_eq!(pieces(&ids).concat(), demo().tokenizer().unwrap().decode(&ids).unwrap());
    }
}

#[test]
fn a_character_of_many_tokens_comes_as_one_piece() {
    let tokenizer = demo().tokenizer().unwrap();
    let ids = tokenizer.encode("🦊é", false).unwrap();
    assert!(ids.len() > 2);
    assert_eq!(pieces(&ids), ["🦊", "é"]);
    assert_eq!(pieces(&ids[..1]), ["\u{FFFD}"]);
}

fn render(messages: &[(&str, &str)], add_generation_prompt: bool) -> String {
    let template = demo().chat_template().unwrap().unwrap();
    let messages: Vec<_> = messages.iter().map(|(role, text)| ChatMessage::new(*role, *text)).collect();
    template.render(&messages, add_generation_prompt).unwrap()
}

#[test]
fn a_chat_reads_as_the_model_learned_it() {
    let chat = [("user", " Hello! "), ("assistant", "Hi."), ("user", "A story?")];
    let expected = "<|bos|><|user|>\nHello!<|end|>\n<|assistant|>\nHi.<|end|>\n\
        <|user|>\nA story?<|end|>\n<|assistant|>\n";
    assert_eq!(render(&chat, true), expected);
    let tokenizer = demo().tokenizer().unwrap();
    let ids = tokenizer.encode(&render(&chat, true), false).unwrap();
    let special = [0, 2, 4, 3].map(|id| ids.iter().filter(|found| **found == id).count());
    assert_eq!(special, [1, 2, 3, 2]);
}

#[test]
fn no_system_text_is_lost() {
    let first = [("system", " Be brief. "), ("user", "Hello!")];
    assert_eq!(render(&first, false), "<|bos|><|user|>\nBe brief.\nHello!<|end|>\n");
    let later = [("user", "Hi"), ("assistant", "Yes?"), ("system", "Rhyme."), ("user", "Go")];
    assert!(render(&later, true).ends_with("<|user|>\nRhyme.\nGo<|end|>\n<|assistant|>\n"));
    let alone = [("system", "Be brief.")];
    assert_eq!(render(&alone, true), "<|bos|><|user|>\nBe brief.<|end|>\n<|assistant|>\n");
}

#[test]
fn the_makers_suggestions_are_read() {
    let defaults = demo().generation_defaults().unwrap();
    assert_eq!((defaults.bos, defaults.eos), (Some(0), vec![1, 4]));
    assert_eq!((defaults.do_sample, defaults.temperature, defaults.top_p), (true, Some(0.7), Some(0.95)));
    assert_eq!(demo().tokenizer().unwrap().id_of("<|end|>"), Some(4));
}

fn sampled(config: &SamplingConfig, logits: &[f32], count: usize) -> Vec<u32> {
    let logits = Tensor::new(logits, &Device::Cpu).unwrap();
    let mut sampler = Sampler::new(config).unwrap();
    let mut history = History::default();
    for _ in 0..count {
        history.push(sampler.sample(&logits, &history).unwrap());
    }
    history.seen().to_vec()
}

#[test]
fn a_seed_is_a_text() {
    let logits: Vec<f32> = (0..100).map(|i| (i % 7) as f32 / 3.0).collect();
    let options = [(None, None), (Some(20), None), (None, Some(0.8)), (Some(20), Some(0.8))];
    for (top_k, top_p) in options {
        let with = |seed| SamplingConfig { temperature: Some(0.9), top_k, top_p, seed, ..SamplingConfig::default() };
        let first = sampled(&with(7), &logits, 50);
        assert_eq!(first, sampled(&with(7), &logits, 50));
        assert_ne!(first, sampled(&with(8), &logits, 50));
    }
}

#[test]
fn a_text_goes_on_wherever_it_was_left() {
    let logits: Vec<f32> = (0..100).map(|i| (i % 7) as f32 / 3.0).collect();
    let config = SamplingConfig { temperature: Some(0.9), top_k: Some(50), seed: 7, ..SamplingConfig::default() };
    let whole = sampled(&config, &logits, 50);
    let logits = Tensor::new(logits.as_slice(), &Device::Cpu).unwrap();
    for drawn in 0..50 {
        let mut sampler = Sampler::after(&config, drawn).unwrap();
        assert_eq!(sampler.sample(&logits, &History::default()).unwrap(), whole[drawn as usize]);
        assert_eq!(sampler.drawn(), drawn + 1);
    }
}

/// Each token has a generator of its own: together they must be as random as one.
#[test]
fn tokens_are_drawn_as_often_as_they_are_likely() {
    let weights = [1.0f32, 2.0, 3.0, 4.0];
    let logits: Vec<f32> = weights.iter().map(|weight| weight.ln()).collect();
    const DRAWS: usize = 20_000;
    for seed in 0..3 {
        let config = SamplingConfig { temperature: Some(1.0), seed, ..SamplingConfig::default() };
        let drawn = sampled(&config, &logits, DRAWS);
        let mut pairs = [[0usize; 4]; 4];
        drawn.windows(2).for_each(|pair| pairs[pair[0] as usize][pair[1] as usize] += 1);
        for (one, next) in (0..4).flat_map(|one| (0..4).map(move |next| (one, next))) {
            let expected = DRAWS as f32 * weights[one] * weights[next] / 100.0;
            let off = (pairs[one][next] as f32 - expected).abs();
            assert!(
                off < 5.0 * expected.sqrt(),
                "seed {seed}: {one} then {next} came {} times, not {expected}",
                pairs[one][next]
            );
        }
    }
}

#[test]
fn options_do_what_they_say() {
    let logits: Vec<f32> = (0..10).map(|i| i as f32).collect();
    let greedy = SamplingConfig::default();
    assert_eq!(sampled(&greedy, &logits, 3), [9, 9, 9]);
    let penalised = SamplingConfig { repetition_penalty: Some(2.0), ..greedy.clone() };
    assert_eq!(sampled(&penalised, &logits, 3), [9, 8, 7]);
    let narrow = SamplingConfig { temperature: Some(5.0), top_k: Some(2), ..greedy.clone() };
    assert!(sampled(&narrow, &logits, 50).iter().all(|id| *id >= 8));
    // At temperature 2 the second is exp(-1/2) = 0.61 times as likely as the first, the third 0.37 times.
    let likely = SamplingConfig { temperature: Some(2.0), min_p: Some(0.5), ..greedy };
    let drawn = sampled(&likely, &logits, 100);
    assert!([8, 9].into_iter().all(|id| drawn.contains(&id)) && drawn.iter().all(|id| *id >= 8));
}

#[test]
fn penalties_are_for_what_was_generated_once_or_as_often_as_it_came() {
    let logits = [1.0f32, 0.8, 0.5, 0.3];
    let greedy = SamplingConfig::default();
    let presence = SamplingConfig { presence_penalty: Some(0.6), ..greedy.clone() };
    // Once each came 0 has 0.4, 1 has 0.2 and 2 has -0.1: 0 comes again, and costs no more than before.
    assert_eq!(sampled(&presence, &logits, 5), [0, 1, 2, 0, 0]);
    let frequency = SamplingConfig { frequency_penalty: Some(0.15), ..greedy.clone() };
    assert_eq!(sampled(&frequency, &logits, 6), [0, 0, 1, 0, 1, 0]);
    let rewarded = SamplingConfig { presence_penalty: Some(-1.0), ..greedy };
    assert_eq!(sampled(&rewarded, &logits, 3), [0, 0, 0]);
    // What stands in the prompt is not penalised, however often.
    let logits = Tensor::new(&logits, &Device::Cpu).unwrap();
    let mut history = History::of_prompt(&[0; 9]);
    let mut sampler = Sampler::new(&presence).unwrap();
    assert_eq!(sampler.sample(&logits, &history).unwrap(), 0);
    history.push(0);
    assert_eq!(sampler.sample(&logits, &history).unwrap(), 1);
}

#[test]
fn options_out_of_bounds_are_named() {
    let base = SamplingConfig::default();
    let wrong = [
        (SamplingConfig { temperature: Some(-1.0), ..base.clone() }, "temperature"),
        (SamplingConfig { temperature: Some(f64::NAN), ..base.clone() }, "temperature"),
        (SamplingConfig { top_p: Some(0.0), ..base.clone() }, "top_p"),
        (SamplingConfig { top_p: Some(1.5), ..base.clone() }, "top_p"),
        (SamplingConfig { top_k: Some(0), ..base.clone() }, "top_k"),
        (SamplingConfig { min_p: Some(1.5), ..base.clone() }, "min_p"),
        (SamplingConfig { repetition_penalty: Some(0.0), ..base.clone() }, "repetition_penalty"),
        (SamplingConfig { presence_penalty: Some(2.5), ..base.clone() }, "presence_penalty"),
        (SamplingConfig { frequency_penalty: Some(f32::NAN), ..base.clone() }, "frequency_penalty"),
    ];
    for (config, option) in wrong {
        let error = Sampler::new(&config).unwrap_err().to_string();
        assert!(error.starts_with(option), "{error}");
    }
    let broken = Tensor::new(&[0.0f32, f32::NAN], &Device::Cpu).unwrap();
    assert!(Sampler::new(&base).unwrap().sample(&broken, &History::default()).is_err());
}

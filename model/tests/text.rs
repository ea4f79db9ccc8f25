//! Tokenizer, streaming decoder, chat template and sampling of the demo model.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use proptest::prelude::*;
use swarm_model::{ChatMessage, Checkpoint, Device, ModelSpec, Sampler, SamplingConfig, Tensor};

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
    let mut history = Vec::new();
    for _ in 0..count {
        history.push(sampler.sample(&logits, &history).unwrap());
    }
    history
}

#[test]
fn a_seed_is_a_text() {
    let logits: Vec<f32> = (0..100).map(|i| (i % 7) as f32 / 3.0).collect();
    let options = [(None, None), (Some(20), None), (None, Some(0.8)), (Some(20), Some(0.8))];
    for (top_k, top_p) in options {
        let with = |seed| SamplingConfig { temperature: Some(0.9), top_k, top_p, seed, repetition_penalty: None };
        let first = sampled(&with(7), &logits, 50);
        assert_eq!(first, sampled(&with(7), &logits, 50));
        assert_ne!(first, sampled(&with(8), &logits, 50));
    }
}

#[test]
fn options_do_what_they_say() {
    let logits: Vec<f32> = (0..10).map(|i| i as f32).collect();
    let greedy = SamplingConfig::default();
    assert_eq!(sampled(&greedy, &logits, 3), [9, 9, 9]);
    let penalised = SamplingConfig { repetition_penalty: Some(2.0), ..greedy.clone() };
    assert_eq!(sampled(&penalised, &logits, 3), [9, 8, 7]);
    let narrow = SamplingConfig { temperature: Some(5.0), top_k: Some(2), ..greedy };
    assert!(sampled(&narrow, &logits, 50).iter().all(|id| *id >= 8));
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
        (SamplingConfig { repetition_penalty: Some(0.0), ..base.clone() }, "repetition_penalty"),
    ];
    for (config, option) in wrong {
        let error = Sampler::new(&config).unwrap_err().to_string();
        assert!(error.starts_with(option), "{error}");
    }
    let broken = Tensor::new(&[0.0f32, f32::NAN], &Device::Cpu).unwrap();
    assert!(Sampler::new(&base).unwrap().sample(&broken, &[]).is_err());
}

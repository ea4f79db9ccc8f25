//! Many prompts at once, as a researcher has them: every text is the one it would be alone, also if a server dies, and a
//! batch that was killed goes on where it was.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use swarm_tests::harness::{Local, PROMPT, TestSwarm, eventually, greedy, sampled};

/// Tokens of each text.
const TOKENS: usize = 24;

/// Prompts that have texts.
const PROMPTS: usize = 24;

fn prompt(number: usize) -> String {
    let words: Vec<&str> = PROMPT.split(' ').collect();
    words[..1 + number % words.len()].join(" ")
}

/// Half of them sampled, each with a seed of its own.
fn lines() -> Vec<Value> {
    let line = |number: usize| {
        let mut line = json!({ "prompt": prompt(number), "id": format!("text {number}") });
        if number % 2 == 1 {
            line["temperature"] = json!(0.8);
            line["seed"] = json!(number);
        }
        line
    };
    (0..PROMPTS).map(line).collect()
}

fn expected() -> BTreeMap<String, String> {
    let text = |number: usize| {
        let sampling = if number % 2 == 1 { sampled_with(number as u64) } else { greedy() };
        (format!("text {number}"), Local::demo().text(&prompt(number), &sampling, TOKENS).text)
    };
    (0..PROMPTS).map(text).collect()
}

fn sampled_with(seed: u64) -> swarm_model::SamplingConfig {
    swarm_model::SamplingConfig { temperature: Some(0.8), top_p: None, top_k: None, ..sampled(seed) }
}

fn command(swarm: &TestSwarm, input: &Path, output: &Path) -> Command {
    let mut command = swarm.node("generate");
    command.args(["--model", "demo"]);
    command.arg("--batch").arg(input).arg("--output").arg(output);
    command.args(["--max-tokens", &TOKENS.to_string(), "--parallel", "6"]);
    command
}

fn told(output: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(output).unwrap_or_default();
    text.split_inclusive('\n')
        .filter(|line| line.ends_with('\n'))
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn texts(lines: &[Value]) -> BTreeMap<String, String> {
    let with_text = lines.iter().filter(|line| line["text"].is_string());
    let string = |value: &Value| value.as_str().unwrap().to_string();
    with_text.map(|line| (string(&line["id"]), string(&line["text"]))).collect()
}

#[test]
fn every_text_of_a_batch_is_the_one_it_would_be_alone_whoever_dies() {
    let mut swarm = TestSwarm::demo(&[(0, 6), (0, 6), (6, 12), (6, 12)]);
    let (input, output) = (swarm.folder().join("in.jsonl"), swarm.folder().join("out.jsonl"));
    let mut written: Vec<String> = lines().iter().map(Value::to_string).collect();
    written.insert(3, "{\"promt\": \"a typing error\"}".to_string());
    std::fs::write(&input, written.join("\n")).unwrap();

    let first = command(&swarm, &input, &output);
    let mut first = swarm.start("first", first);
    eventually("the first texts", || (told(&output).len() > 3).then_some(()));
    swarm.servers[0].process.kill();
    swarm.servers[2].process.kill();
    eventually("more texts", || (told(&output).len() > 6).then_some(()));
    first.kill();
    drop(first);
    let before = texts(&told(&output));

    let second = command(&swarm, &input, &output);
    let exit = swarm.run("second", second);
    assert_eq!(exit.code, Some(1), "one prompt has no text: {}", exit.stderr);
    assert!(exit.stderr.contains("1 of") && exit.stderr.contains("already"), "{}", exit.stderr);
    let lines = told(&output);
    assert_eq!(texts(&lines), expected());
    let used = |peer: &str| lines.iter().any(|line| line["route"].to_string().contains(peer));
    let used = swarm.servers.iter().filter(|server| used(&server.peer.to_string())).count();
    // One whose self-check ran on a busy core is rightly passed over; that sessions spread is tested where rates are given.
    assert!(used >= 3, "sessions spread over replicas: {lines:?}");
    let again = lines.iter().filter(|line| before.contains_key(line["id"].as_str().unwrap_or_default())).count();
    assert_eq!(again, before.len(), "no text was asked for twice");
    assert!(lines.iter().any(|line| line["error"].as_str().is_some_and(|why| why.contains("promt"))));

    // Without the line that is wrong nothing is left to do.
    std::fs::write(&input, written.into_iter().filter(|line| !line.contains("promt")).collect::<Vec<_>>().join("\n"))
        .unwrap();
    let third = command(&swarm, &input, &output);
    assert_eq!(swarm.run("third", third).code, Some(0));
}

//! The client library's examples do what they say.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::process::Command;

use swarm_model::SamplingConfig;
use swarm_tests::harness::{Local, PROMPT, TestSwarm, example, greedy, range};

#[test]
fn the_example_that_generates_text_tells_the_known_one() {
    let swarm = TestSwarm::demo(&[(0, 6), (6, 12)]);
    let mut command = Command::new(example("generate"));
    command.args([&swarm.bootstrap.address, "demo", PROMPT]);
    let exit = swarm.run("example", command);
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    let expected = Local::demo().text(PROMPT, &greedy(), 256).text;
    assert!(exit.stdout.contains(&format!("{PROMPT}{expected}\n")), "{}", exit.stdout);
    assert!(exit.stdout.starts_with("Why this route:\n"), "{}", exit.stdout);
    assert!(exit.stdout.trim_end().ends_with("0 reroutes"), "{}", exit.stdout);
}

#[test]
fn the_example_with_hidden_states_finds_the_likeliest_tokens() {
    let swarm = TestSwarm::demo(&[(0, 6), (6, 12)]);
    let mut command = Command::new(example("hidden_states"));
    command.arg(&swarm.bootstrap.address);
    let exit = swarm.run("example", command);
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    let local = Local::demo();
    let ids = local.encode("Once upon a time, there was a");
    let logits = local.logits(&local.forward(range(0, 12), &local.embed(&ids)));
    let best = logits.last().unwrap().iter().copied().fold(f32::MIN, f32::max);
    let first = exit.stdout.lines().find(|line| line.contains('"')).expect("a ranked token");
    assert!(first.trim_start().starts_with(&format!("{best:.3}")), "{first:?} should begin with {best:.3}");
    assert!(exit.stdout.contains(&format!("of {}", ids.len())), "{}", exit.stdout);
    for server in &swarm.servers {
        assert!(exit.stdout.contains(&format!("blocks {} on {}", server.blocks, server.peer)), "{}", exit.stdout);
    }
}

#[test]
fn the_example_with_many_prompts_tells_each_the_text_it_would_get_alone() {
    let swarm = TestSwarm::demo(&[(0, 6), (6, 12)]);
    let prompts = ["Once upon a time", "One night, the fox", "The old garden"];
    let mut command = Command::new(example("batch"));
    command.args([&swarm.bootstrap.address, "demo"]).args(prompts);
    let exit = swarm.run("example", command);
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    let local = Local::demo();
    for (prompt, seed) in prompts.iter().zip(0..) {
        let sampling = SamplingConfig { temperature: Some(0.7), seed, ..SamplingConfig::default() };
        let line = format!("{seed}: {prompt}{}\n", local.text(prompt, &sampling, 48).text);
        assert!(exit.stdout.contains(&line), "{line:?} is not in {}", exit.stdout);
    }
}

#[test]
fn the_example_with_probabilities_gives_every_token_its_own() {
    let swarm = TestSwarm::demo(&[(0, 12)]);
    let mut command = Command::new(example("logprobs"));
    command.args([&swarm.bootstrap.address, "demo", PROMPT]);
    let exit = swarm.run("example", command);
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    // The prompt, a line for each token, what they add up to.
    assert_eq!(exit.stdout.lines().count(), 14, "{}", exit.stdout);
    for line in exit.stdout.lines().skip(1).take(12) {
        let chosen: f64 = line.split_whitespace().next().unwrap().parse().unwrap();
        assert!(chosen <= 0.0, "{line}");
    }
    assert!(exit.stdout.contains("perplexity"), "{}", exit.stdout);
}

#[test]
fn the_example_that_scores_finds_the_ending_that_the_model_would_write() {
    let swarm = TestSwarm::demo(&[(0, 6), (6, 12)]);
    let local = Local::demo();
    let own = local.text(PROMPT, &greedy(), 8).text;
    let mut command = Command::new(example("score"));
    command.args([&swarm.bootstrap.address, "demo", PROMPT, " xylophone quantum zebra", &own]);
    let exit = swarm.run("example", command);
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    let best = exit.stdout.lines().next().unwrap();
    assert!(best.contains(&format!("{own:?}")), "{}", exit.stdout);
}

#[test]
fn an_example_without_arguments_says_how_it_is_used() {
    let output = Command::new(example("generate")).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("usage: generate"));
    for name in ["batch", "score"] {
        let output = Command::new(example(name)).args(["/ip4/127.0.0.1/tcp/1", "demo"]).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{name}");
    }
}

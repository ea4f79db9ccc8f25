//! Traces of real texts: what `generate --trace` writes and `trace` reads.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use swarm_tests::harness::{Exit, Local, PROMPT, TestSwarm, greedy, program};

const TOKENS: usize = 20;

fn trace(swarm: &TestSwarm, file: &Path, options: &[&str]) -> Exit {
    let mut command = Command::new(program("swarm-node"));
    command.arg("trace").arg(file).args(options);
    swarm.run("trace", command)
}

/// Generates a text whose trace goes to the file that is given back.
fn traced(swarm: &TestSwarm, name: &str) -> (PathBuf, String) {
    let file = swarm.folder().join(name);
    let options = ["--prompt", PROMPT, "--max-tokens", "20", "--trace", file.to_str().unwrap()];
    let told = swarm.generate(&options).finish();
    assert_eq!(told.exit.code, Some(0), "{}", told.exit.stderr);
    (file, told.text)
}

/// The processes in which each token has a span of that name.
fn places(events: &[Value], name: &str, token: usize) -> BTreeSet<u64> {
    let of = |event: &&Value| event["ph"] == "X" && event["name"] == name && event["args"]["token"] == token;
    events.iter().filter(of).map(|event| event["pid"].as_u64().unwrap()).collect()
}

#[test]
fn a_trace_tells_of_every_token_and_hop() {
    let swarm = TestSwarm::demo(&[(0, 4), (4, 8), (8, 12)]);
    let (file, text) = traced(&swarm, "trace.json");
    assert_eq!(text, Local::demo().text(PROMPT, &greedy(), TOKENS).text, "a trace changes no text");
    let events: Vec<Value> = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    for token in 1..=TOKENS {
        assert_eq!(places(&events, "compute", token).len(), 3, "token {token}");
        assert_eq!(places(&events, "sampling", token).len(), 1, "token {token}");
    }

    let exit = trace(&swarm, &file, &["--json"]);
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    let summary: Value = serde_json::from_str(&exit.stdout).unwrap();
    let ms = |value: &Value| value.as_f64().unwrap_or_else(|| panic!("{value} is no number"));
    assert_eq!((&summary["tokens"], &summary["complete"]), (&Value::from(TOKENS), &Value::from(true)));
    let per_token = summary["per_token"].as_array().unwrap();
    let total: f64 = per_token.iter().map(|token| ms(&token["ms"])).sum();
    assert!(
        (total - ms(&summary["took_ms"])).abs() < 0.1,
        "the tokens are the whole: {total} of {}",
        summary["took_ms"]
    );
    let counted: u64 =
        summary["slowest"].as_array().unwrap().iter().map(|cause| cause["tokens"].as_u64().unwrap()).sum();
    assert_eq!(counted, TOKENS as u64, "each token has one slowest stage");
    let token = ms(&summary["token"]["p50_ms"]);
    for (hop, server) in summary["hops"].as_array().unwrap().iter().zip(&swarm.servers) {
        assert_eq!(hop["peer_id"], server.peer.to_string());
        // The first token's step is the prompt.
        assert_eq!(hop["steps"], TOKENS - 1);
        assert_eq!(hop["prefilled_rows"], Local::demo().encode(PROMPT).len());
        let compute = ms(&hop["compute"]["p50_ms"]);
        assert!(compute > 0.0 && compute < token, "{hop} of {token} ms");
        let stages = ["transfer", "queue", "compute", "wait"].iter();
        let p95 = stages.map(|stage| (ms(&hop[*stage]["p50_ms"]), ms(&hop[*stage]["p95_ms"])));
        assert!(p95.clone().all(|(p50, p95)| p50 <= p95), "{hop}");
    }

    let plot = swarm.folder().join("trace.svg");
    let exit = trace(&swarm, &file, &["--plot", plot.to_str().unwrap(), "--tokens", "3"]);
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    assert!(exit.stdout.lines().all(|line| line.chars().count() <= 80), "{}", exit.stdout);
    for server in &swarm.servers {
        let peer = server.peer.to_string();
        let row = exit.stdout.lines().find(|line| line.contains(&peer[peer.len() - 8..]) && line.contains('('));
        assert!(row.unwrap().contains(&server.blocks.to_string()), "{}", exit.stdout);
    }
    assert!(fs::read_to_string(&plot).unwrap().contains("</svg>"));
}

#[test]
fn a_loss_is_named_and_its_replay_told() {
    let mut swarm = TestSwarm::demo(&[(0, 6), (6, 12), (6, 12)]);
    let file = swarm.folder().join("trace.json");
    let options = ["--prompt", PROMPT, "--max-tokens", "400", "--trace", file.to_str().unwrap()];
    let mut generating = swarm.generate(&options);
    let route = generating.tokens(5);
    let lost = route[1].0;
    swarm.server(lost).process.kill();
    let told = generating.finish();
    assert_eq!((told.exit.code, told.reroutes.len()), (Some(0), 1), "{}", told.exit.stderr);
    let exit = trace(&swarm, &file, &["--json"]);
    let summary: Value = serde_json::from_str(&exit.stdout).unwrap();
    assert_eq!(summary["reroutes"][0]["lost_peer"], lost.to_string());
    assert_eq!(summary["hops"].as_array().unwrap().len(), 3, "{summary}");
    let replayed = summary["hops"].as_array().unwrap().iter().find(|hop| {
        let peer = hop["peer_id"].as_str().unwrap();
        peer != lost.to_string() && hop["blocks"][0] == 6
    });
    let rows = replayed.unwrap()["prefilled_rows"].as_u64().unwrap() as usize;
    assert!(rows > Local::demo().encode(PROMPT).len(), "prompt and answer so far were replayed: {rows}");
    let table = trace(&swarm, &file, &[]);
    let lost = lost.to_string();
    assert!(
        table.stdout.contains("lost and replaced") && table.stdout.contains(&lost[lost.len() - 8..]),
        "{}",
        table.stdout
    );
}

#[test]
fn a_text_that_was_cut_short_leaves_a_trace() {
    let swarm = TestSwarm::demo(&[(0, 12)]);
    let file = swarm.folder().join("trace.json");
    let options = ["--prompt", PROMPT, "--max-tokens", "1900", "--trace", file.to_str().unwrap()];
    let mut generating = swarm.generate(&options);
    generating.tokens(5);
    // It stands still, so that it is killed in the middle of its text.
    swarm.servers[0].process.freeze();
    generating.process.kill();
    let exit = trace(&swarm, &file, &["--json"]);
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    assert!(exit.stderr.contains("has no end"), "{}", exit.stderr);
    let summary: Value = serde_json::from_str(&exit.stdout).unwrap();
    assert!(summary["tokens"].as_u64().unwrap() >= 5 && summary["complete"] == false, "{summary}");
    swarm.servers[0].process.thaw();
}

#[test]
fn what_is_no_trace_is_refused_in_one_line() {
    let swarm = TestSwarm::empty("demo", &[]);
    let file = swarm.folder().join("wrong.json");
    for (bytes, says) in
        [(&b"{\"a\":1}"[..], "array"), (b"[]", "no tokens"), (b"\x00\xff", "no trace"), (b"", "no trace")]
    {
        fs::write(&file, bytes).unwrap();
        let exit = trace(&swarm, &file, &[]);
        assert_eq!((exit.code, exit.stdout.as_str(), exit.stderr.lines().count()), (Some(1), "", 1), "{}", exit.stderr);
        assert!(exit.stderr.contains(says), "{}", exit.stderr);
    }
    let missing = trace(&swarm, &swarm.folder().join("none"), &[]);
    assert!(missing.code == Some(2) && missing.stderr.contains("cannot open"), "{}", missing.stderr);
}

//! Spans of real processes, as a collector gets them: one trace a request, across its client and every hop.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use swarm_tests::collector::{Collector, Span};
use swarm_tests::harness::{Api, PROMPT, TestSwarm, eventually};

/// The caller's span.
const CALLER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const CALLERS_TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLERS_SPAN: &str = "b7ad6b7169203331";

/// Tokens of most texts here.
const TOKENS: u64 = 24;

/// A swarm whose servers send their spans to `collector`.
fn swarm(collector: &Collector, blocks: &[(u32, u32)], options: &[&str]) -> TestSwarm {
    let mut swarm = TestSwarm::empty("demo", &[]);
    swarm.serve(blocks, &[&["--otlp-endpoint", &collector.endpoint()], options].concat());
    swarm
}

fn named<'a>(spans: &'a [Span], name: &str) -> Vec<&'a Span> {
    spans.iter().filter(|span| span.name == name).collect()
}

/// The only span of that name.
fn only<'a>(spans: &'a [Span], name: &str) -> &'a Span {
    let found = named(spans, name);
    assert_eq!(found.len(), 1, "{name} in {spans:#?}");
    found[0]
}

/// The servers with a hop below the span `parent`.
fn servers_below(spans: &[Span], parent: &Span) -> BTreeSet<String> {
    let below = named(spans, "hop").into_iter().filter(|hop| hop.parent == parent.id);
    below.map(|hop| hop.attribute("server").to_string()).collect()
}

/// The collector's spans, as soon as `whole` says that they are all there.
fn collected(collector: &Collector, what: &str, whole: impl Fn(&[Span]) -> bool) -> Vec<Span> {
    eventually(what, || Some(collector.spans()).filter(|spans| whole(spans)))
}

/// Whether the spans of `parent` have come, and those of `count` servers below it.
fn has_hops(spans: &[Span], parent: &str, count: usize) -> bool {
    named(spans, parent).first().is_some_and(|parent| servers_below(spans, parent).len() >= count)
}

/// Nobody learns from spans what a text says.
fn check_silence(spans: &[Span], texts: &[&str]) {
    for span in spans {
        for word in span.words() {
            let told = texts.iter().flat_map(|text| text.split_whitespace().filter(|part| part.len() > 4));
            let told: Vec<&str> = told.filter(|part| word.contains(part)).collect();
            assert!(told.is_empty(), "{:?} of {} tells {told:?}", word, span.name);
        }
    }
}

#[test]
fn a_request_is_one_trace_across_the_api_and_every_hop() {
    let collector = Collector::start();
    let swarm = swarm(&collector, &[(0, 6), (6, 12)], &[]);
    let options = ["--otlp-endpoint", &collector.endpoint(), "--log", "info", "--log-format", "json"];
    let api = Api::start(&swarm, &options);
    let request = json!({"model": "demo", "prompt": PROMPT, "max_tokens": TOKENS, "temperature": 0});
    let answer = api.http.with("traceparent", CALLER).post("/v1/completions", &request).expect(200);
    let spans = collected(&collector, "a whole trace", |spans| {
        has_hops(spans, "prefill", 2)
            && has_hops(spans, "decode", 2)
            && !named(spans, "POST /v1/completions").is_empty()
    });

    let processes: BTreeSet<&str> = spans.iter().map(Span::command).collect();
    assert_eq!(processes, BTreeSet::from(["api", "serve"]));
    assert!(spans.iter().all(|span| span.resource["service.name"] == "swarm-node"));
    assert!(spans.iter().all(|span| span.trace == CALLERS_TRACE), "{spans:#?}");
    let root = only(&spans, "POST /v1/completions");
    assert_eq!((root.parent.as_str(), root.command()), (CALLERS_SPAN, "api"));
    assert_eq!((root.attribute("http.response.status_code"), root.kind), ("200", "SPAN_KIND_SERVER"));
    for phase in ["queue", "open", "prefill", "decode"] {
        let phase = only(&spans, phase);
        assert_eq!((&phase.parent, phase.command()), (&root.id, "api"), "{phase:?}");
        assert!(phase.nanos <= root.nanos, "{phase:?} is longer than {root:?}");
    }
    let (prefill, decode) = (only(&spans, "prefill"), only(&spans, "decode"));
    let both: BTreeSet<String> = swarm.servers.iter().map(|server| server.peer.to_string()).collect();
    assert_eq!((&servers_below(&spans, prefill), &servers_below(&spans, decode)), (&both, &both));
    let prompt_tokens = answer["usage"]["prompt_tokens"].as_u64().unwrap();
    assert_eq!(prefill.number("prompt_tokens"), prompt_tokens as f64);
    assert_eq!(decode.number("tokens"), TOKENS as f64);
    for hop in named(&spans, "hop") {
        let rows = match &hop.parent {
            parent if *parent == prefill.id => prompt_tokens,
            // The first token is the prefill's, and the last one is fed to nobody.
            parent if *parent == decode.id => TOKENS - 1,
            _ => 0,
        };
        assert_eq!((hop.number("rows"), hop.kind), (rows as f64, "SPAN_KIND_SERVER"), "{hop:?}");
        let worked = hop.number("compute_ms") > 0.0 && hop.number("bytes_in") > 0.0 && hop.number("bytes_out") > 0.0;
        assert_eq!(worked, rows > 0, "{hop:?}");
    }
    let text = answer["choices"][0]["text"].as_str().unwrap();
    check_silence(&spans, &[PROMPT, text]);
    // What is logged meanwhile says for which trace.
    let logged = api.process.stderr();
    let lines = logged.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let opened: Vec<Value> = lines.filter(|line| line["message"] == "route opened").collect();
    assert_eq!(opened.iter().map(|line| &line["trace_id"]).collect::<Vec<_>>(), [CALLERS_TRACE]);
}

#[test]
fn each_turn_of_a_chat_is_a_trace_of_its_own() {
    let collector = Collector::start();
    let swarm = swarm(&collector, &[(0, 12)], &["--edges"]);
    let mut command = swarm.node("chat");
    command.args(["--model", "demo", "--max-tokens", "8", "--edges", "served"]);
    command.args(["--otlp-endpoint", &format!("{}/v1/traces", collector.endpoint())]);
    let mut chat = swarm.start("chat", command);
    chat.input("hello\nonce more\n");
    assert_eq!(chat.exit().code, Some(0));
    let spans = collected(&collector, "both turns", |spans| {
        named(spans, "edges").len() >= 4
            && named(spans, "decode").len() == 2
            && named(spans, "decode").iter().all(|decode| !servers_below(spans, decode).is_empty())
    });
    let turns = named(&spans, "chat turn");
    assert_eq!(turns.len(), 2);
    assert_ne!(turns[0].trace, turns[1].trace);
    for turn in turns {
        assert_eq!((turn.parent.as_str(), turn.command()), ("", "chat"));
        let of_turn: Vec<Span> = spans.iter().filter(|span| span.trace == turn.trace).cloned().collect();
        for phase in ["prefill", "decode"] {
            let phase = only(&of_turn, phase);
            assert_eq!(phase.parent, turn.id);
            let below = of_turn.iter().filter(|span| span.parent == phase.id && span.command() == "serve");
            let below: BTreeSet<&str> = below.map(|span| span.name.as_str()).collect();
            assert_eq!(below, BTreeSet::from(["hop", "edges"]), "{of_turn:#?}");
        }
        let chosen = named(&of_turn, "edges").iter().map(|edges| edges.number("questions")).sum::<f64>();
        assert!(chosen >= only(&of_turn, "decode").number("tokens"), "{of_turn:#?}");
    }
}

#[test]
fn a_server_that_dies_shows_in_the_trace() {
    let collector = Collector::start();
    let mut swarm = swarm(&collector, &[(0, 6), (6, 12), (6, 12)], &[]);
    let mut generating =
        swarm.generate(&["--prompt", PROMPT, "--max-tokens", "120", "--otlp-endpoint", &collector.endpoint()]);
    let victim = generating.tokens(10)[1].0;
    swarm.server(victim).process.kill();
    let told = generating.finish();
    assert_eq!((told.exit.code, told.reroutes.len()), (Some(0), 1), "{}", told.exit.stderr);
    let stood_in = told.routes.last().unwrap()[1].0.to_string();
    let below_decode = |spans: &[Span]| {
        let decode = named(spans, "decode");
        decode.first().is_some_and(|decode| servers_below(spans, decode).contains(&stood_in))
    };
    let spans = collected(&collector, "the repair", below_decode);
    let root = only(&spans, "generate");
    assert!(spans.iter().all(|span| span.trace == root.trace), "{spans:#?}");
    let decode = only(&spans, "decode");
    let lost = decode.event("hop lost").expect("the loss");
    assert_eq!(lost["peer"], victim.to_string());
    let rerouted = decode.event("re-routed").expect("the repair");
    assert_eq!(rerouted["lost"], victim.to_string());
    assert_eq!(decode.number("reroutes"), 1.0);
    // The one that stands in has computed what was lost anew, as a part of the same text.
    let hops = named(&spans, "hop").into_iter().filter(|hop| hop.parent == decode.id);
    let rows: f64 = hops.filter(|hop| hop.attribute("server") == stood_in).map(|hop| hop.number("rows")).sum();
    assert!(rows > decode.number("tokens"), "{rows} rows");
    check_silence(&spans, &[PROMPT, &told.text]);
}

#[test]
fn a_session_that_is_handed_over_shows_in_the_trace() {
    let collector = Collector::start();
    let mut swarm = swarm(&collector, &[(0, 6), (6, 12), (6, 12)], &[]);
    let mut generating =
        swarm.generate(&["--prompt", PROMPT, "--max-tokens", "1900", "--otlp-endpoint", &collector.endpoint()]);
    let leaver = generating.tokens(10)[1].0;
    swarm.server(leaver).process.terminate();
    let told = generating.finish();
    assert_eq!(told.exit.code, Some(0), "{}", told.exit.stderr);
    assert_eq!(told.reroutes.first().map(|(peer, _)| *peer), Some(leaver), "the text was too short");
    // What they are parts of ends after them.
    let hop = |spans: &[Span], part: &str| {
        let part = named(spans, part).first().copied().cloned();
        part.and_then(|part| spans.iter().find(|hop| hop.id == part.parent).cloned())
    };
    let both = |spans: &[Span]| hop(spans, "hand_over").is_some() && hop(spans, "take_over").is_some();
    let spans = collected(&collector, "a KV cache that was handed over", both);
    let (given, taken) = (only(&spans, "hand_over"), only(&spans, "take_over"));
    let trace = &only(&spans, "generate").trace;
    assert_eq!((&given.trace, &taken.trace), (trace, trace));
    assert!(taken.number("positions") > 10.0 && taken.number("bytes") > 0.0, "{taken:?}");
    let of = |part: &str| hop(&spans, part).unwrap().attribute("server").to_string();
    assert_eq!(of("hand_over"), leaver.to_string());
    assert_eq!(given.attribute("to"), of("take_over"));
}

#[test]
fn a_batch_has_a_trace_for_each_line_and_those_not_sampled_none() {
    let collector = Collector::start();
    let swarm = swarm(&collector, &[(0, 12)], &[]);
    let batch = swarm.folder().join("batch.jsonl");
    let lines = ["{\"prompt\": \"Once upon a time\"}", "{\"prompt\": \"The fox\"}"];
    std::fs::write(&batch, lines.join("\n")).unwrap();
    let run = |sample: &str| {
        let mut command = swarm.node("generate");
        command.args(["--model", "demo", "--max-tokens", "6", "--trace-sample", sample]).arg("--batch").arg(&batch);
        command.env("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint()).env("OTEL_SERVICE_NAME", "a batch");
        let exit = swarm.run("batch", command);
        assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    };
    run("0");
    run("1");
    let whole = |spans: &[Span]| {
        named(spans, "decode").iter().filter(|decode| !servers_below(spans, decode).is_empty()).count() == 2
    };
    let spans = collected(&collector, "both lines", whole);
    let texts = named(&spans, "text");
    assert_eq!(texts.len(), 2, "nothing is recorded of what is not sampled");
    let traces: BTreeSet<&str> = texts.iter().map(|text| text.trace.as_str()).collect();
    assert_eq!(traces.len(), 2);
    assert!(texts.iter().all(|text| text.resource["service.name"] == "a batch"));
    assert!(spans.iter().all(|span| traces.contains(span.trace.as_str())), "{spans:#?}");
}

#[test]
fn a_collector_that_is_gone_holds_nobody_up() {
    let swarm = TestSwarm::demo(&[(0, 12)]);
    // One port on which nobody listens, and one on which nobody answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent_port = silent.local_addr().unwrap().port();
    let closed_port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    for port in [closed_port, silent_port] {
        let endpoint = format!("http://127.0.0.1:{port}");
        let generating = swarm.generate(&["--prompt", PROMPT, "--max-tokens", "8", "--otlp-endpoint", &endpoint]);
        let begun = Instant::now();
        let told = generating.finish();
        assert_eq!(told.exit.code, Some(0), "{}", told.exit.stderr);
        assert_eq!(told.tokens.len(), 8);
        assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
        if port == closed_port {
            assert_eq!(told.exit.stderr.matches("could not be sent").count(), 1, "{}", told.exit.stderr);
        }
    }
}

#[test]
fn what_is_no_collector_is_told_at_once() {
    let swarm = TestSwarm::empty("demo", &[]);
    let mut flag = swarm.node("generate");
    flag.args(["--model", "demo", "--prompt", "x", "--otlp-endpoint", "127.0.0.1:4318"]);
    let mut variable = swarm.node("generate");
    variable.args(["--model", "demo", "--prompt", "x"]).env("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "collector");
    let mut part = swarm.node("generate");
    part.args(["--model", "demo", "--prompt", "x", "--trace-sample", "10%"]);
    for (command, hint) in [
        (flag, "for example http://127.0.0.1:4318"),
        (variable, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: \"collector\" is no address"),
        (part, "a number from 0 to 1"),
    ] {
        let exit = swarm.run("wrong", command);
        assert_eq!(exit.code, Some(2), "{}", exit.stderr);
        assert!(exit.stderr.contains(hint), "{}", exit.stderr);
    }
}

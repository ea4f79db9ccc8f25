//! How many, how urgent and how long: what the door lets in, and what it ends.

use std::sync::mpsc::channel;

use serde_json::json;
use swarm_tests::harness::{Api, Events, TestSwarm};

use super::*;

/// A text of some length.
fn long() -> Value {
    with(with(completion(), "max_tokens", json!(1900)), "stream", json!(true))
}

/// A stream whose first token has come.
fn begun(api: &Api) -> Events {
    let mut stream = api.http.stream("/v1/completions", &long());
    assert_eq!(stream.status, 200);
    stream.chunk().expect("a token");
    stream
}

/// Asks on a thread of its own.
fn ask(api: &Api, priority: &'static str, request: Value) -> std::thread::JoinHandle<u16> {
    let client = api.http.with("x-swarm-priority", priority);
    std::thread::spawn(move || client.post("/v1/completions", &request).status)
}

#[test]
fn beyond_those_that_run_and_wait_requests_are_refused_at_once() {
    let swarm = swarm();
    let api = Api::start(&swarm, &["--max-requests", "1", "--max-queue", "1"]);
    let short = with(completion(), "max_tokens", json!(5));
    let running = begun(&api);
    // So that it does not end before the others have come.
    swarm.servers[0].process.freeze();
    // Two come, there is room for one: the other is refused while both of those before it go on.
    let (sender, refused) = channel();
    for _ in 0..2 {
        let (client, request, sender) = (api.http.with("x-swarm-priority", "low"), short.clone(), sender.clone());
        std::thread::spawn(move || sender.send(client.post("/v1/completions", &request)));
    }
    let full = refused.recv().unwrap();
    assert_eq!(full.expect(429)["error"]["code"], "rate_limit_exceeded");
    assert!(full.header("retry-after").unwrap().parse::<u32>().unwrap() > 0);
    // A more urgent one takes the place of the one that waits.
    let high = ask(&api, "high", short.clone());
    assert_eq!(refused.recv().unwrap().status, 429);
    // Listing models is not work.
    api.http.get("/v1/models").expect(200);
    // The one that runs is hung up on, so the next has its turn.
    drop(running);
    swarm.servers[0].process.thaw();
    assert_eq!(high.join().unwrap(), 200);
    assert_eq!(api.http.with("x-swarm-priority", "urgent").post("/v1/completions", &short).status, 400);
}

#[test]
fn a_request_ends_when_its_time_is_over() {
    let mut swarm = TestSwarm::empty("demo", &[]);
    swarm.serve(&[(0, 12)], &[]);
    let api = Api::start(&swarm, &["--request-timeout", "2s"]);
    let mut stream = begun(&api);
    // Connected, and silent: the session waits for it to come back.
    swarm.servers[0].process.freeze();
    let last = std::iter::from_fn(|| stream.data()).last().expect("the error");
    let error: Value = serde_json::from_str(&last).unwrap();
    assert_eq!(error["error"]["code"], "deadline_exceeded", "and no [DONE]");
    swarm.servers[0].process.thaw();
    // So with one that waits for its turn.
    let api = Api::start(&swarm, &["--request-timeout", "2s", "--max-requests", "1"]);
    let first = begun(&api);
    swarm.servers[0].process.freeze();
    let answer = api.http.post("/v1/completions", &completion());
    swarm.servers[0].process.thaw();
    drop(first);
    assert_eq!(answer.status, 504);
    assert_eq!(answer.json()["error"]["code"], "deadline_exceeded");
}

#[test]
fn when_told_to_stop_it_finishes_what_it_has_begun() {
    let swarm = swarm();
    let mut api = Api::start(&swarm, &[]);
    let request = with(with(completion(), "max_tokens", json!(200)), "stream", json!(true));
    let mut stream = api.http.stream("/v1/completions", &request);
    let first = stream.chunk().expect("a token");
    api.process.terminate();
    // Connections are still taken while the text goes on; afterwards none is.
    let refused = api.http.post("/v1/completions", &completion());
    assert!(refused.status == 503 || refused.status == 200, "{}", refused.status);
    let mut chunks = vec![first];
    chunks.extend(stream.rest());
    assert_eq!(completion_text(&chunks), expected(200));
    let exit = api.process.exit();
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
}

#[test]
fn what_does_not_finish_in_time_is_ended() {
    let swarm = swarm();
    let mut api = Api::start(&swarm, &["--stop-timeout", "100ms"]);
    let stream = begun(&api);
    // So that it cannot finish.
    swarm.servers[0].process.freeze();
    api.process.terminate();
    assert_eq!(api.process.exit().code, Some(0));
    drop(stream);
    swarm.servers[0].process.thaw();
}

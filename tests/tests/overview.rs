//! What a swarm looks like: the same object on the command line and over HTTP, what happens as it happens, and a screen.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use swarm_protocol::PeerId;
use swarm_tests::harness::{
    Fetched, Process, TestSwarm, eventually, fetch, fetch_with, http_address, program, ready, violations,
};

/// `swarm-node api` for the demo model, and where it listens.
fn api(swarm: &TestSwarm) -> (Process, String) {
    let mut command = swarm.node("api");
    command.args(["--model", "demo", "--http", "127.0.0.1:0"]);
    let process = swarm.start("api", command);
    let url = http_address(&process);
    (process, url)
}

fn schema() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/swarm.schema.json");
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// `value` is as the published schema says: as a whole, or as one of its parts.
fn as_described(value: &Value, part: Option<&str>) {
    let schema = schema();
    let described = part.map_or(&schema, |part| &schema["$defs"][part]);
    assert_eq!(violations(&schema, described, value), [""; 0], "{value}");
}

/// What depends on neither the moment nor on who looks.
fn lasting(overview: &Value) -> Value {
    let mut overview = overview.clone();
    for field in ["at_unix_ms", "seen_by"] {
        overview[field] = Value::Null;
    }
    for model in overview["models"].as_array_mut().unwrap() {
        model["round_trips"] = Value::Null;
        for server in model["servers"].as_array_mut().unwrap() {
            for field in ["rtt_ms", "uptime_seconds", "queue_us"] {
                server[field] = Value::Null;
            }
        }
    }
    overview
}

/// Listens until there is an event that is looked for; gives it, and the overview that came last.
fn listen_for(events: &mut Fetched, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    loop {
        let (kind, data) = events.event().unwrap_or_else(|| panic!("the stream ended before: {what}"));
        let data: Value = serde_json::from_str(&data).unwrap();
        as_described(&data, if kind == "event" { Some("event") } else { None });
        if kind == "event" && wanted(&data) {
            return data;
        }
    }
}

fn overview_with(events: &mut Fetched, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    loop {
        let (kind, data) = events.event().unwrap_or_else(|| panic!("the stream ended before: {what}"));
        let data: Value = serde_json::from_str(&data).unwrap();
        if kind == "overview" && wanted(&data) {
            return data;
        }
    }
}

fn of_server(peer: PeerId, kinds: &'static [&'static str]) -> impl Fn(&Value) -> bool {
    move |event| event["peer_id"] == peer.to_string() && kinds.iter().any(|kind| event["kind"] == **kind)
}

#[test]
fn http_and_the_command_line_show_the_same_swarm() {
    let mut swarm = TestSwarm::demo(&[]);
    swarm.serve(&[(0, 6)], &["--name", "attic", "--edges"]);
    swarm.serve(&[(4, 10)], &["--name", "cellar"]);
    let (mut api, url) = api(&swarm);
    let mut status = swarm.node("status");
    status.args(["--json", "--model", "demo"]);
    let told: Value = serde_json::from_str(&swarm.run("status", status).stdout).unwrap();
    let answer = fetch(&url, "/api/v1/swarm");
    assert_eq!((answer.status, answer.header("cache-control")), (200, Some("no-store")));
    let shown = answer.json();
    as_described(&told, None);
    as_described(&shown, None);
    // Where the way to the edges counts, who looks makes a difference.
    let same = |overview: &Value| {
        let mut overview = lasting(overview);
        assert!(overview["models"][0]["servers"][0]["edges"]["cost_ms"].as_f64().unwrap() > 0.0);
        overview["models"][0]["servers"][0]["edges"]["cost_ms"] = Value::Null;
        overview
    };
    assert_eq!(same(&told), same(&shown));
    let model = &shown["models"][0];
    assert_eq!(model["replicas"], serde_json::json!([1, 1, 1, 1, 2, 2, 1, 1, 1, 1, 0, 0]));
    assert_eq!(
        (&model["missing"], &model["bottleneck"]["replicas"]),
        (&serde_json::json!([[10, 12]]), &Value::from(0))
    );
    let hidden = model["wire"]["hidden"].as_u64().unwrap();
    assert_eq!(model["wire"]["exact_bytes"], 2 * hidden);
    assert_eq!(shown["alarms"][0]["kind"], "missing_blocks");
    // Stopping waits for nobody who only listens.
    let mut events = fetch(&url, "/api/v1/events");
    overview_with(&mut events, "an overview at once", |_| true);
    api.terminate();
    assert_eq!(api.exit().code, Some(0));
    while events.event().is_some() {}
}

#[test]
fn a_model_that_is_served_in_another_format_is_hinted_at() {
    let swarm = TestSwarm::demo(&[(0, 12)]);
    let mut status = swarm.node("status");
    status.args(["--model", "demo", "--format", "q8_0"]);
    let told = swarm.run("status-q8_0", status);
    assert!(told.stdout.contains("0 servers") && told.stdout.contains("nobody serves blocks 0..12"), "{}", told.stdout);
    assert!(told.stderr.contains("hint: ") && told.stderr.contains("`--format bf16`"), "{}", told.stderr);
    let mut status = swarm.node("status");
    status.args(["--model", "demo"]);
    let told = swarm.run("status", status);
    assert!(told.stdout.contains("12 blocks, 1 server  ") && !told.stderr.contains("hint: "), "{told:?}");
}

#[test]
fn a_swarm_out_of_reach_is_not_an_empty_one() {
    let mut swarm = TestSwarm::demo(&[(0, 12)]);
    let mut command = swarm.node("status");
    command.args(["--watch", "--json"]);
    let mut watching = swarm.start("cut-off", command);
    let mut look_until = |state: &str| {
        loop {
            let seen: Value = serde_json::from_str(&watching.line().unwrap()).unwrap();
            as_described(&seen, None);
            if seen["models"][0]["servers"][0]["state"] == state {
                return seen;
            }
        }
    };
    look_until("serving");
    swarm.bootstrap.process.kill();
    swarm.servers[0].process.kill();
    for _ in 0..3 {
        let seen = look_until("silent");
        assert_eq!(seen["models"][0]["missing"], serde_json::json!([[0, 12]]));
        assert_eq!(seen["alarms"][0]["kind"], "missing_blocks");
    }
}

#[test]
fn losses_and_departures_are_told_as_they_happen() {
    let mut swarm = TestSwarm::demo(&[(0, 12), (0, 12), (0, 12)]);
    let (_api, url) = api(&swarm);
    let mut events = fetch(&url, "/api/v1/events");
    assert_eq!(events.header("content-type"), Some("text/event-stream"));
    let whole = |overview: &Value| overview["models"][0]["replicas"][0] == 3;
    as_described(&overview_with(&mut events, "three servers", whole), None);

    let (killed, left) = (swarm.servers[0].peer, swarm.servers[1].peer);
    swarm.servers[0].process.kill();
    let lost = listen_for(&mut events, "the killed server is lost", of_server(killed, &["lost"]));
    let silent = overview_with(&mut events, "it is shown as silent", |overview| {
        let servers = overview["models"][0]["servers"].as_array().unwrap();
        servers.iter().any(|server| server["peer_id"] == killed.to_string() && server["state"] == "silent")
    });
    assert_eq!(silent["models"][0]["replicas"][0], 2);

    swarm.servers[1].process.terminate();
    listen_for(&mut events, "the other one leaves", of_server(left, &["leaving", "left"]));
    assert_eq!(swarm.servers[1].process.exit().code, Some(0));

    // Whoever comes back hears what it has missed, and the time-line has all of it.
    let before = (lost["sequence"].as_u64().unwrap() - 1).to_string();
    let mut again = fetch_with(&url, "/api/v1/events", &[("Last-Event-ID", &before)]);
    assert_eq!(listen_for(&mut again, "the loss once more", |_| true), lost);
    let timeline = eventually("the time-line has the departure", || {
        let timeline = fetch(&url, "/api/v1/timeline").json();
        let events = timeline["events"].as_array().unwrap();
        events.iter().any(of_server(left, &["left"])).then_some(timeline)
    });
    as_described(&timeline, Some("timeline"));
    let of_left = timeline["events"].as_array().unwrap().iter().filter(|event| event["peer_id"] == left.to_string());
    assert!(of_left.clone().all(|event| event["kind"] != "lost"), "who says good-bye is not lost: {timeline}");
    swarm.servers[2].process.kill();
    listen_for(&mut events, "nobody serves the model", |event| event["kind"] == "broken");
}

#[test]
fn a_server_shows_itself_and_its_swarm() {
    let mut swarm = TestSwarm::demo(&[(6, 12)]);
    let mut command = swarm.serve_command("0..6");
    command.args(["--http", "127.0.0.1:0", "--name", "attic"]);
    let mut process = swarm.start("serve-http", command);
    let url = process.event("http")["url"].as_str().unwrap().to_string();
    let server = ready(process);
    assert_eq!(fetch(&url, "/health").json()["status"], "ok");
    let ready = fetch(&url, "/ready");
    assert_eq!((ready.status, ready.json()["status"].clone()), (200, Value::from("ready")));
    let overview = eventually("both servers are seen", || {
        let overview = fetch(&url, "/api/v1/swarm").json();
        (overview["models"][0]["missing"] == serde_json::json!([])).then_some(overview)
    });
    as_described(&overview, None);
    let itself = &overview["models"][0]["servers"][0];
    assert_eq!(
        (&itself["name"], &itself["state"], &itself["rtt_ms"]),
        (&"attic".into(), &"serving".into(), &0.0.into())
    );
    assert_eq!(overview["seen_by"]["peer_id"], server.peer.to_string());
    assert!(overview["models"][0]["wire"]["hidden"].is_u64(), "it knows the model it serves");
    // There is nobody to chat with.
    let page = fetch(&url, "/");
    assert!(page.header("content-security-policy").unwrap().contains("default-src 'none'"));
    assert!(page.text().contains("data-views=\"map\""));
    assert_eq!(fetch(&url, "/v1/models").status, 404);
    assert_eq!(fetch(&url, "/assets/map.js").status, 200);
    assert_eq!(fetch(&url, "/assets/../Cargo.toml").status, 404);
    let mut server = server;
    server.process.terminate();
    assert_eq!(server.process.exit().code, Some(0));
}

/// Starts `swarm-node status --watch` on a terminal of its own, which `script` makes.
fn on_a_terminal(swarm: &TestSwarm, name: &str, size: &str) -> (Process, impl Fn() -> String + use<>) {
    let screen = swarm.folder().join(format!("{name}.screen"));
    let pid = swarm.folder().join(format!("{name}.pid"));
    let (node, entry) = (program("swarm-node"), &swarm.bootstrap.address);
    let line =
        format!("stty {size}; echo $$ > {}; exec {} status --watch --bootstrap {entry}", pid.display(), node.display());
    let mut command = Command::new("script");
    command.args(["--quiet", "--return", "--flush", "--command", &line]).arg(&screen).env("TERM", "xterm-256color");
    let process = swarm.start(name, command);
    (process, move || String::from_utf8_lossy(&fs::read(&screen).unwrap_or_default()).into_owned())
}

/// Leaves the alternate screen, and shows the cursor.
const RESTORED: [&str; 2] = ["\u{1b}[?1049l", "\u{1b}[?25h"];

#[test]
fn a_watched_swarm_stays_on_the_screen_until_q() {
    let mut swarm = TestSwarm::demo(&[]);
    swarm.serve(&[(0, 6)], &["--name", "attic"]);
    swarm.serve(&[(6, 12)], &["--name", "cellar"]);
    let (mut watching, screen) = on_a_terminal(&swarm, "watch", "rows 40 cols 120");
    eventually("both servers are on the screen", || {
        let screen = screen();
        ["attic", "cellar", "Servers", "Time-line"].iter().all(|part| screen.contains(part)).then_some(())
    });
    swarm.servers[1].process.kill();
    // The sign of what is lost: that a server may be lost is told before.
    eventually("the loss is on the screen", || screen().contains('✕').then_some(()));
    watching.input("q");
    assert_eq!(watching.exit().code, Some(0));
    let end = screen();
    assert!(RESTORED.iter().all(|part| end.contains(part)), "the terminal is as it was: {end:?}");
}

#[test]
fn a_signal_ends_the_screen_and_leaves_the_terminal_as_it_was() {
    let swarm = TestSwarm::demo(&[(0, 12)]);
    let (mut watching, screen) = on_a_terminal(&swarm, "signal", "rows 24 cols 80");
    eventually("the swarm is on the screen", || screen().contains("Servers").then_some(()));
    let pid = fs::read_to_string(swarm.folder().join("signal.pid")).unwrap();
    let sent = Command::new("kill").args(["-TERM", pid.trim()]).status().unwrap();
    assert!(sent.success());
    assert_eq!(watching.exit().code, Some(0));
    let end = screen();
    assert!(RESTORED.iter().all(|part| end.contains(part)), "{end:?}");
}

#[test]
fn without_a_terminal_looks_follow_one_another() {
    let swarm = TestSwarm::demo(&[(0, 12)]);
    let mut command = swarm.node("status");
    command.args(["--watch", "--json"]);
    let mut watching = swarm.start("watch-json", command);
    for _ in 0..2 {
        as_described(&serde_json::from_str(&watching.line().unwrap()).unwrap(), None);
    }
    watching.interrupt();
    assert_eq!(watching.exit().code, Some(0));
}

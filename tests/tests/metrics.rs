//! What programs tell Prometheus: it is well-formed, it is what the document says, and it follows what happens.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use swarm_telemetry::metrics::check::{Family, families, problems};
use swarm_tests::harness::{PROMPT, Process, Server, TestSwarm, eventually, get, program, ready};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// A server of all blocks that answers HTTP, and its address.
fn watched(swarm: &mut TestSwarm, options: &[&str]) -> (Server, String) {
    let mut command = swarm.serve_command("0..12");
    command.args(["--http", "127.0.0.1:0"]).args(options);
    let mut process = swarm.start("watched", command);
    let address = process.event("http")["url"].as_str().unwrap().to_string();
    (ready(process), address)
}

fn metrics(address: &str) -> BTreeMap<String, Family> {
    let (status, text) = get(&format!("{address}/metrics"));
    assert_eq!(status, 200, "{text}");
    assert_eq!(problems(&text), Vec::<String>::new(), "{text}");
    families(&text)
}

/// The value of a sample as it stands in the text.
fn value(address: &str, sample: &str) -> f64 {
    let (_, text) = get(&format!("{address}/metrics"));
    let line = text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{sample} is not in\n{text}")).parse().unwrap()
}

fn bootstrap(swarm: &TestSwarm) -> (Process, String) {
    let mut command = Command::new(program("swarm-bootstrap"));
    command.args(["--listen", "/ip4/127.0.0.1/tcp/0", "--http", "127.0.0.1:0", "--json"]);
    command.args(["--bootstrap", &swarm.bootstrap.address]);
    let mut process = swarm.start("entry", command);
    let address = process.event("http")["url"].as_str().unwrap().to_string();
    (process, address)
}

fn api(swarm: &TestSwarm) -> (Process, String) {
    let mut command = swarm.node("api");
    command.args(["--model", "demo", "--http", "127.0.0.1:0"]);
    let process = swarm.start("api", command);
    let listening = || {
        let said = process.stderr();
        said.lines()
            .find_map(|line| line.split_once("http://").map(|(_, address)| format!("http://{}", address.trim())))
    };
    let address = eventually("the API listens", listening);
    (process, address)
}

/// Kind and labels of each metric that the document lists.
fn documented() -> BTreeMap<String, (String, BTreeSet<String>)> {
    let text = fs::read_to_string(repository().join("docs/metrics.md")).unwrap();
    let rows = text.lines().filter(|line| line.starts_with("| `swarm_"));
    let row = |line: &str| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let labels = cells[3].split(',').map(|label| label.trim().trim_matches('`').to_string());
        let labels = labels.filter(|label| !label.is_empty()).collect();
        (cells[1].trim_matches('`').to_string(), (cells[2].to_string(), labels))
    };
    rows.map(row).collect()
}

#[test]
fn the_document_lists_what_the_programs_tell_and_nothing_else() {
    let mut swarm = TestSwarm::empty("demo", &[]);
    let (_server, server) = watched(&mut swarm, &[]);
    let (_entry, entry) = bootstrap(&swarm);
    let (_api, api) = api(&swarm);
    // What has labels by request is there after the first one.
    get(&format!("{api}/health"));
    let mut told = metrics(&server);
    told.extend(metrics(&entry));
    told.extend(metrics(&api));
    let told: BTreeMap<String, (String, BTreeSet<String>)> =
        told.into_iter().map(|(name, family)| (name, (family.kind, family.labels))).collect();
    let documented = documented();
    for (name, of_document) in &documented {
        let of_program = told.get(name).unwrap_or_else(|| panic!("no program tells {name}"));
        assert_eq!(of_program, of_document, "{name}: the program's, and the document's");
    }
    let missing: Vec<&String> = told.keys().filter(|name| !documented.contains_key(*name)).collect();
    assert!(missing.is_empty(), "docs/metrics.md lacks {missing:?}");
    check_who_watches(&told);
}

/// The dashboard and the alerts name no metric that nobody tells.
fn check_who_watches(told: &BTreeMap<String, (String, BTreeSet<String>)>) {
    let dashboard = fs::read_to_string(repository().join("deploy/grafana/swarm-node.json")).unwrap();
    let parsed: Value = serde_json::from_str(&dashboard).unwrap();
    assert!(parsed["panels"].as_array().is_some_and(|panels| panels.len() > 10));
    let alerts = fs::read_to_string(repository().join("deploy/prometheus/alerts.yml")).unwrap();
    let mut named = 0;
    for text in [dashboard, alerts] {
        let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        for word in words.filter(|word| word.starts_with("swarm_")) {
            let parts = ["_bucket", "_sum", "_count"].iter().filter_map(|part| word.strip_suffix(part));
            let known = told.contains_key(word)
                || parts.into_iter().any(|name| told.get(name).is_some_and(|(kind, _)| kind == "histogram"));
            assert!(known, "no program tells {word}");
            named += 1;
        }
    }
    assert!(named > 30, "{named}");
}

#[test]
fn numbers_follow_what_a_server_does() {
    let mut swarm = TestSwarm::empty("demo", &[]);
    let (mut server, address) = watched(&mut swarm, &["--name", "watched", "--cache-tokens", "4096"]);
    let of = |sample: &str| value(&address, sample);
    assert_eq!(get(&format!("{address}/health")).0, 200);
    assert_eq!(get(&format!("{address}/ready")).0, 200);
    assert_eq!(of("swarm_server_state{state=\"serving\"}"), 1.0);
    assert_eq!((of("swarm_server_hosted_blocks"), of("swarm_server_model_blocks")), (12.0, 12.0));
    assert_eq!(of("swarm_server_kv_capacity_tokens"), 4096.0);
    assert_eq!(of("swarm_server_sessions_opened_total"), 0.0);
    assert!(of("swarm_network_connected_peers") >= 1.0, "the entry point");
    let told = swarm.generate(&["--prompt", PROMPT, "--max-tokens", "100"]).finish();
    assert_eq!(told.exit.code, Some(0), "{}", told.exit.stderr);
    let ended = || of("swarm_server_sessions_ended_total{reason=\"client\"}");
    eventually("the session is closed", || (ended() == 1.0).then_some(()));
    eventually("its room is free", || (of("swarm_server_sessions_open") == 0.0).then_some(()));
    assert_eq!(of("swarm_server_sessions_opened_total"), 1.0);
    // The last token is chosen, and computed no more; the prompt's tokens may go in steps of any length.
    let tokens = told.tokens.len() as f64;
    let decoded = of("swarm_server_computed_tokens_total{kind=\"decode\"}");
    let prefilled = of("swarm_server_computed_tokens_total{kind=\"prefill\"}");
    assert!(decoded >= tokens - 1.0 && decoded + prefilled > tokens, "{decoded} and {prefilled} of {tokens}");
    assert_eq!(of("swarm_server_computed_tokens_total{kind=\"replay\"}"), 0.0);
    assert!(of("swarm_server_pass_duration_seconds_count") >= tokens - 1.0);
    assert_eq!(of("swarm_server_pass_rows_sum"), decoded + prefilled, "each row in one pass");
    assert!(of("swarm_server_wire_bytes_total{kind=\"session\",direction=\"in\"}") > 100.0 * 128.0);
    assert!(of("swarm_server_prefix_cache_bytes") > 0.0, "a page of the text is kept");
    let used = of("swarm_server_kv_used_bytes");
    assert!(used > 0.0 && used <= of("swarm_server_kv_budget_bytes"));
    // The same client asks for a beginning again, long enough to be kept in whole pages.
    let (identity, long) = (swarm.new_identity(), PROMPT.repeat(7));
    for (hits, misses) in [(0.0, 1.0), (1.0, 1.0)] {
        let options = ["--prompt", &long, "--max-tokens", "3", "--identity", identity.to_str().unwrap()];
        assert_eq!(swarm.generate(&options).finish().exit.code, Some(0));
        assert_eq!(of("swarm_server_prefix_cache_hits_total"), hits);
        assert_eq!(of("swarm_server_prefix_cache_misses_total"), misses);
    }
    assert!(of("swarm_server_prefix_cache_recalled_tokens_total") >= 64.0);
    assert!(of("swarm_server_computed_tokens_total{kind=\"prefill\"}") >= prefilled + 64.0);
    server.process.terminate();
    assert_eq!(server.process.exit().code, Some(0));
}

#[test]
fn a_server_that_waits_for_its_entry_point_lives_and_is_not_ready() {
    let mut swarm = TestSwarm::empty("demo", &[]);
    swarm.bootstrap.process.freeze();
    let mut command = swarm.serve_command("0..12");
    command.args(["--http", "127.0.0.1:0"]);
    let mut process = swarm.start("waits", command);
    let address = process.event("http")["url"].as_str().unwrap().to_string();
    assert_eq!(get(&format!("{address}/health")).0, 200);
    let (status, body) = get(&format!("{address}/ready"));
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &body["status"]), (503, &"not ready".into()), "{body}");
    assert!(body["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{body}");
    swarm.bootstrap.process.thaw();
}

#[test]
fn a_program_can_be_asked_without_other_tools() {
    let mut swarm = TestSwarm::empty("demo", &[]);
    let (_server, address) = watched(&mut swarm, &[]);
    let probe = |url: &str| {
        let mut command = Command::new(program("swarm-node"));
        command.args(["probe", url]);
        swarm.run("probe", command)
    };
    let ready = probe(&format!("{address}/ready"));
    assert_eq!((ready.code, ready.stdout.contains("ready")), (Some(0), true), "{ready:?}");
    let missing = probe(&format!("{address}/nothing"));
    assert_eq!((missing.code, missing.stderr.contains("404")), (Some(1), true), "{missing:?}");
    let nobody = probe("http://127.0.0.1:1/ready");
    assert_eq!((nobody.code, nobody.stderr.contains("--http")), (Some(1), true), "{nobody:?}");
    assert_eq!(probe("localhost").code, Some(2));
}

#[test]
fn an_address_in_use_is_told_before_anything_is_loaded() {
    let swarm = TestSwarm::empty("demo", &[]);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut command = swarm.node("serve");
    command.args(["--model", "demo", "--http", &address, "--listen", "/ip4/127.0.0.1/tcp/0"]);
    let exit = swarm.run("taken", command);
    assert_eq!(exit.code, Some(1));
    assert!(exit.stderr.contains(&address) && exit.stderr.contains("choose another"), "{}", exit.stderr);
}

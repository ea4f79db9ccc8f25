//! The page in a real browser: a chat over a swarm, and the map while a server is lost. Needs Node and Chromium.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use swarm_tests::harness::{TestSwarm, http_address};

/// The exit code of the script where there is no browser.
const NO_BROWSER: i32 = 3;

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// Where screenshots are left for people.
fn screenshots() -> PathBuf {
    let test = env::current_exe().unwrap();
    // target/PROFILE/deps/TEST
    test.ancestors().nth(3).unwrap().join("screenshots")
}

#[test]
fn a_person_chats_with_a_swarm_and_sees_it_lose_a_server() {
    let node = Command::new("node").arg("--version").output();
    if node.is_err() {
        return skipped("Node is not installed (apt-get install nodejs)");
    }
    let mut swarm = TestSwarm::demo(&[]);
    for (blocks, name) in [((0, 6), "attic"), ((6, 12), "garage"), ((6, 12), "cellar")] {
        swarm.serve(&[blocks], &["--name", name]);
    }
    let mut command = swarm.node("api");
    command.args(["--model", "demo", "--http", "127.0.0.1:0"]);
    let api = swarm.start("api", command);
    let url = http_address(&api);
    let mut check = Command::new("node");
    check.arg(workspace().join("scripts/browser-check/check.mjs")).arg(&url).arg(screenshots());
    let mut check = swarm.start("browser-check", check);
    let mut failure = None;
    let mut done = false;
    while let Some(event) = check.any_event() {
        match event["event"].as_str() {
            Some("kill") => swarm.servers[1].process.kill(),
            Some("failed") => failure = Some(event["reason"].as_str().unwrap_or_default().to_string()),
            Some("done") => done = true,
            Some("skipped") => failure = Some(event["reason"].to_string()),
            _ => eprintln!("{}", event.get("step").unwrap_or(&Value::Null)),
        }
    }
    let exit = check.exit();
    if exit.code == Some(NO_BROWSER) {
        return skipped(&failure.unwrap_or_default());
    }
    assert!(failure.is_none(), "{}\n{}", failure.unwrap_or_default(), exit.stderr);
    assert!(done, "the script ended early: {exit:?}");
    assert_eq!(exit.code, Some(0), "{exit:?}");
}

/// Says loudly that nothing was tested; where everything must be, that is a failure.
fn skipped(reason: &str) {
    assert!(env::var_os("CI").is_none_or(|ci| ci != "true"), "the page was not tested: {reason}");
    eprintln!("SKIPPED, the page was not tested: {reason}");
}

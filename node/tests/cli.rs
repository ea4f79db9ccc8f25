//! What the command line says and how it ends.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::process::{Command, Output};

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_swarm-node"));
    command.args(args);
    for (variable, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("SWARM_")) {
        command.env_remove(variable);
    }
    command
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn asked_for_nothing_it_says_what_to_try() {
    let output = command(&[]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    for example in ["swarm-node demo", "swarm-node serve --model demo", "swarm-node generate --model demo --bootstrap"]
    {
        assert!(text(&output.stderr).contains(example), "{example}: {}", text(&output.stderr));
    }
}

#[test]
fn switches_take_the_usual_words_from_the_environment() {
    let folder = tempfile::tempdir().unwrap();
    let keygen = |number: usize, args: &[&str], json: Option<&str>| -> Output {
        let file = folder.path().join(number.to_string());
        let mut command = command(&["keygen", file.to_str().unwrap()]);
        json.map(|value| command.env("SWARM_JSON", value));
        command.args(args).output().unwrap()
    };
    for (number, value) in ["1", "true", "yes", "0", "false", "no", ""].into_iter().enumerate() {
        let output = keygen(number, &[], Some(value));
        assert_eq!(output.status.code(), Some(0), "{value:?}: {}", text(&output.stderr));
        assert_eq!(text(&output.stdout).starts_with('{'), number < 3, "{value:?}: {}", text(&output.stdout));
    }
    assert!(text(&keygen(10, &["--json"], None).stdout).starts_with('{'));
    assert_eq!(keygen(11, &["--json=1"], None).status.code(), Some(2), "a switch takes no value");
}

#[test]
fn a_device_is_there_or_the_error_says_what_to_do() {
    let serve = |device: &str| {
        let args = ["serve", "--model", "demo", "--blocks", "1", "--bootstrap"];
        let nobody = "/ip4/127.0.0.1/tcp/1/p2p/12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";
        let output = command(&args).args([nobody, "--device", device]).output().unwrap();
        (output.status.code(), text(&output.stderr).to_string())
    };
    let (code, stderr) = serve("gpu");
    assert_eq!(code, Some(2), "{stderr}");
    assert!(stderr.contains("\"gpu\" names no device") && stderr.contains("cuda:0"), "{stderr}");
    if cfg!(not(feature = "cuda")) {
        let (code, stderr) = serve("cuda:0");
        assert_eq!(code, Some(1), "{stderr}");
        let error = stderr.lines().last().unwrap();
        assert!(error.starts_with("error: ") && error.contains("--features cuda"), "{stderr}");
    }
}

#[test]
fn what_no_swarm_could_obey_is_bad_usage() {
    let cases: [(&[&str], &str); 4] = [
        (&["generate", "--model", "demo", "--prompt", "a", "--top-p", "3"], "top_p"),
        (&["generate", "--model", "demo", "--prompt", "a"], "no way into a swarm"),
        (&["chat", "--model", "demo", "--temperature=-1"], "temperature"),
        (&["status"], "no way into a swarm"),
    ];
    for (args, says) in cases {
        let output = command(args).output().unwrap();
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{args:?}: {stderr}");
        assert!(stderr.starts_with("error: ") && stderr.contains(says), "{args:?}: {stderr}");
    }
}

//! What cannot work ends at once, with exit code 1 and one line that names the cause.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use swarm_model::synthetic::SyntheticSpec;
use swarm_protocol::Keypair;
use swarm_tests::harness::{Exit, Local, PROMPT, TestSwarm, eventually, greedy, program};
use tempfile::TempDir;

/// A random checkpoint on disk.
fn checkpoint(spec: &SyntheticSpec) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    spec.write(folder.path()).unwrap();
    folder
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The one line that says why a program failed.
fn reason(exit: &Exit) -> String {
    assert_eq!(exit.code, Some(1), "{exit:?}");
    let errors: Vec<&str> = exit.stderr.lines().filter_map(|line| line.strip_prefix("error: ")).collect();
    assert_eq!(errors.len(), 1, "exactly one line says why: {}", exit.stderr);
    assert!(!exit.stderr.contains("panicked"), "{}", exit.stderr);
    errors[0].to_string()
}

#[track_caller]
fn names(reason: &str, words: &[&str]) {
    for word in words {
        assert!(reason.contains(word), "{reason:?} does not say {word:?}");
    }
}

fn generate(swarm: &TestSwarm, options: &[&str]) -> Exit {
    swarm.generate(options).finish().exit
}

/// The swarm still does what it is for.
fn still_tells(swarm: &TestSwarm) {
    let told = swarm.generate(&["--prompt", PROMPT, "--max-tokens", "10"]).finish();
    assert_eq!(told.exit.code, Some(0), "{}", told.exit.stderr);
    assert_eq!(told.tokens, Local::demo().text(PROMPT, &greedy(), 10).tokens);
}

type Damage = fn(&Path);

fn cut(path: &Path, bytes: u64) {
    fs::File::options().write(true).open(path).unwrap().set_len(bytes).unwrap();
}

fn change_config(folder: &Path, from: &str, to: &str) {
    let path = folder.join("config.json");
    let config = fs::read_to_string(&path).unwrap();
    assert!(config.contains(from), "{config}");
    fs::write(path, config.replace(from, to)).unwrap();
}

const WEIGHTS: &str = "model.safetensors";
const SHARD: &str = "model-00002-of-00003.safetensors";

const DAMAGES: [(usize, &[&str], Damage); 11] = [
    (1, &["config.json", "missing"], |folder| fs::remove_file(folder.join("config.json")).unwrap()),
    (1, &["config.json"], |folder| fs::write(folder.join("config.json"), "{\"hidden_size\": 64").unwrap()),
    (1, &["MambaForCausalLM", "LlamaForCausalLM"], |folder| change_config(folder, "LlamaFor", "MambaFor")),
    (1, &["hidden_act", "gelu"], |folder| change_config(folder, "\"silu\"", "\"gelu\"")),
    (1, &[WEIGHTS, "missing"], |folder| fs::remove_file(folder.join(WEIGHTS)).unwrap()),
    (1, &[WEIGHTS, "cut short"], |folder| {
        let bytes = fs::metadata(folder.join(WEIGHTS)).unwrap().len();
        cut(&folder.join(WEIGHTS), bytes - 1);
    }),
    (1, &[WEIGHTS], |folder| cut(&folder.join(WEIGHTS), 100)),
    (1, &[WEIGHTS], |folder| cut(&folder.join(WEIGHTS), 0)),
    (1, &[WEIGHTS], |folder| fs::write(folder.join(WEIGHTS), [255; 4096]).unwrap()),
    (3, &[SHARD, "missing"], |folder| fs::remove_file(folder.join(SHARD)).unwrap()),
    (1, &["model.layers.0", "shape"], |folder| {
        change_config(folder, "\"intermediate_size\": 176", "\"intermediate_size\": 180")
    }),
];

#[test]
fn a_damaged_checkpoint_is_named() {
    let swarm = TestSwarm::empty("demo", &[]);
    for (shards, words, damage) in DAMAGES {
        let folder = checkpoint(&SyntheticSpec { shards, ..SyntheticSpec::default() });
        damage(folder.path());
        let mut command = swarm.node("serve");
        command.args(["--model", text(folder.path()), "--block-range", "0..4", "--listen", "/ip4/127.0.0.1/tcp/0"]);
        names(&reason(&swarm.run("serve", command)), words);
    }
    let mut command = swarm.node("serve");
    command.args(["--model", "/no/such/model", "--block-range", "0..4"]);
    let exit = swarm.run("serve", command);
    assert!(matches!(exit.code, Some(1 | 2)) && exit.stderr.contains("/no/such/model"), "{exit:?}");
    let mut command = swarm.node("serve");
    command.args(["--model", "demo", "--block-range", "8..20", "--listen", "/ip4/127.0.0.1/tcp/0"]);
    names(&reason(&swarm.run("serve", command)), &["0..12", "8..20"]);
}

#[test]
fn a_client_says_what_is_wrong_with_its_own_model() {
    let swarm = TestSwarm::demo(&[(0, 12)]);
    let folder = checkpoint(&SyntheticSpec::default());
    let generate = |words: &[&str]| {
        let mut command = swarm.node("generate");
        command.args(["--model", text(folder.path()), "--prompt", PROMPT, "--max-tokens", "5"]);
        names(&reason(&swarm.run("generate", command)), words);
    };
    // Nobody serves this one.
    generate(&["0..4"]);
    fs::remove_file(folder.path().join("tokenizer.json")).unwrap();
    generate(&["tokenizer.json", "missing"]);
    still_tells(&swarm);
}

#[test]
fn servers_with_other_weights_do_not_mix() {
    let one = checkpoint(&SyntheticSpec { seed: 1, ..SyntheticSpec::default() });
    let other = checkpoint(&SyntheticSpec { seed: 2, ..SyntheticSpec::default() });
    let mut swarm = TestSwarm::of(text(one.path()), &[(0, 3), (2, 4)]);
    let before = swarm.generate(&["--prompt", "a", "--max-tokens", "8"]).finish();
    assert_eq!(before.exit.code, Some(0), "{}", before.exit.stderr);
    for blocks in ["0..4", "1..2", "3..4"] {
        let mut command = swarm.node("serve");
        command.args(["--model", text(other.path()), "--block-range", blocks, "--listen", "/ip4/127.0.0.1/tcp/0"]);
        let said = reason(&swarm.run("serve", command));
        names(&said, &["differ"]);
        assert!(swarm.servers.iter().any(|server| said.contains(&server.peer.to_string())), "{said}");
    }
    swarm.serve(&[(0, 4)], &[]);
    let after = swarm.generate(&["--prompt", "a", "--max-tokens", "8"]).finish();
    assert_eq!((after.exit.code, after.tokens), (Some(0), before.tokens));
}

#[test]
fn what_is_missing_is_said() {
    let mut swarm = TestSwarm::demo(&[(0, 4), (8, 12)]);
    names(&reason(&generate(&swarm, &["--prompt", PROMPT])), &["4..8"]);
    swarm.serve(&[(4, 8)], &["--cache-tokens", "100"]);
    still_tells(&swarm);
    let long = PROMPT.repeat(20);
    names(&reason(&generate(&swarm, &["--prompt", &long, "--max-tokens", "5"])), &["4..8", "room", "128"]);
    let longer = PROMPT.repeat(300);
    let said = reason(&generate(&swarm, &["--prompt", &longer]));
    let context = "2048";
    names(&said, &["context", context]);
    let empty = generate(&swarm, &["--prompt", ""]);
    assert_eq!(empty.code, Some(2), "{empty:?}");
    names(&empty.stderr, &["prompt", "empty"]);
    still_tells(&swarm);
}

/// A bootstrap address where nobody answers.
fn nowhere() -> String {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    format!("/ip4/127.0.0.1/tcp/{port}/p2p/{}", Keypair::generate_ed25519().public().to_peer_id())
}

#[test]
fn an_entry_point_that_is_none_is_said() {
    let swarm = TestSwarm::demo(&[(0, 12)]);
    let other_program = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = other_program.local_addr().unwrap().port();
    let other_program = format!("/ip4/127.0.0.1/tcp/{port}/p2p/{}", swarm.entry().peer);
    let wrong_peer = format!("{}/p2p/{}", swarm.entry().address, swarm.servers[0].peer);
    let cases = [
        (nowhere(), &["cannot be reached", "check"][..]),
        (other_program, &["handshake"]),
        (wrong_peer, &["another peer answers"]),
    ];
    let serve = ["serve", "--block-range", "0..12", "--listen", "/ip4/127.0.0.1/tcp/0"];
    let generate = ["generate", "--prompt", PROMPT];
    for (address, words) in cases {
        for arguments in [&serve[..], &generate[..]] {
            let mut command = Command::new(program("swarm-node"));
            command.args(arguments).args(["--model", "demo", "--bootstrap", &address]);
            names(&reason(&swarm.run("astray", command)), words);
        }
    }
    // One good entry point among bad ones is enough.
    let told = swarm.generate(&["--bootstrap", &nowhere(), "--prompt", PROMPT, "--max-tokens", "10"]).finish();
    assert_eq!(told.tokens, Local::demo().text(PROMPT, &greedy(), 10).tokens, "{}", told.exit.stderr);
}

#[test]
fn swarms_of_other_names_do_not_mix() {
    let mut swarm = TestSwarm::empty("demo", &["--swarm", "lab"]);
    swarm.serve(&[(0, 12)], &[]);
    let mut command = swarm.outsider("generate");
    command.args(["--model", "demo", "--prompt", PROMPT]);
    names(&reason(&swarm.run("generate", command)), &["\"lab\"", "\"public\"", "--swarm lab"]);
    let mut command = swarm.outsider("serve");
    command.args(["--model", "demo", "--block-range", "0..12", "--listen", "/ip4/127.0.0.1/tcp/0", "--swarm", "den"]);
    names(&reason(&swarm.run("serve", command)), &["\"lab\"", "\"den\""]);
    still_tells(&swarm);
}

#[test]
fn a_key_opens_its_own_swarm_only() {
    let folder = tempfile::tempdir().unwrap();
    let [right, wrong] = ["right.key", "wrong.key"].map(|name| {
        let path = folder.path().join(name);
        let made = Command::new(program("swarm-node")).arg("keygen").arg(&path).output().unwrap();
        assert!(made.status.success());
        path
    });
    let mut closed = TestSwarm::empty("demo", &["--swarm-key", text(&right)]);
    closed.serve(&[(0, 6), (6, 12)], &[]);
    still_tells(&closed);
    let without: [&str; 0] = [];
    for key in [&without[..], &["--swarm-key", text(&wrong)]] {
        let mut command = closed.outsider("generate");
        command.args(["--model", "demo", "--prompt", PROMPT]).args(key);
        names(&reason(&closed.run("generate", command)), &["handshake", "--swarm-key"]);
    }
    let open = TestSwarm::demo(&[(0, 12)]);
    names(&reason(&generate(&open, &["--prompt", PROMPT, "--swarm-key", text(&right)])), &["handshake", "--swarm-key"]);
    still_tells(&open);
    still_tells(&closed);
}

#[test]
fn one_identity_serves_once() {
    let mut swarm = TestSwarm::demo(&[(0, 12)]);
    let (identity, copy) = (swarm.new_identity(), swarm.new_identity());
    let mut first = swarm.start("first", swarm.serve_command_as(&identity, "0..12"));
    let peer = first.event("listening")["peer_id"].as_str().unwrap().to_string();
    first.event("ready");
    fs::copy(&identity, &copy).unwrap();
    for file in [&identity, &copy] {
        let exit = swarm.run("second", swarm.serve_command_as(file, "0..12"));
        names(&reason(&exit), &[&peer, "--identity"]);
    }
    assert!(first.is_running(), "the rightful owner goes on");
    still_tells(&swarm);
}

#[test]
fn twins_on_two_machines_are_noticed() {
    let mut swarm = TestSwarm::demo(&[(0, 12)]);
    let (identity, copy) = (swarm.new_identity(), swarm.new_identity());
    let twin = |file: &Path, machine: &str| {
        let temporary = swarm.folder().join(machine);
        fs::create_dir_all(&temporary).unwrap();
        let mut command = swarm.serve_command_as(file, "0..12");
        // Locks are kept among temporary files: another folder for these is another machine.
        command.args(["--announce-interval", "1s"]).env("TMPDIR", temporary);
        swarm.start(machine, command)
    };
    let mut first = twin(&identity, "attic");
    first.event("ready");
    fs::copy(&identity, &copy).unwrap();
    let mut second = twin(&copy, "cellar");
    eventually("one of the twins gives up", || (!first.is_running() || !second.is_running()).then_some(()));
    let loser = if first.is_running() { &mut second } else { &mut first };
    names(&reason(&loser.exit()), &["another live server", "--identity"]);
    still_tells(&swarm);
}

//! A swarm that has formed lives on without its bootstrap peer, and any member lets others in.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::process::Command;

use swarm_tests::harness::{Local, PROMPT, TestSwarm, greedy, program, ready};

/// Tokens of each text.
const TOKENS: usize = 40;

/// An entry point where nothing listens.
const NOBODY: &str = "/ip4/127.0.0.1/tcp/1/p2p/12D3KooWR3844WEhCGDk2ntJP8yEChF6tdAS2BCZdc7rF8hskdZv";

#[test]
fn the_swarm_outlives_its_bootstrap_peer() {
    let expected = Local::demo().text(PROMPT, &greedy(), TOKENS).tokens;
    let mut swarm = TestSwarm::demo(&[(0, 6), (6, 12)]);
    let tokens = TOKENS.to_string();
    let mut running = swarm.generate(&["--prompt", PROMPT, "--max-tokens", &tokens]);
    running.tokens(5);
    swarm.bootstrap.process.kill();
    assert_eq!(running.finish().tokens, expected, "a running session does not need it");

    let entry = format!("{}/p2p/{}", swarm.servers[0].address, swarm.servers[0].peer);
    let through_a_server = |sub_command: &str| {
        let mut command = Command::new(program("swarm-node"));
        command.args([sub_command, "--model", "demo", "--json", "--bootstrap", NOBODY, "--bootstrap", &entry]);
        command
    };
    let mut generate = through_a_server("generate");
    generate.args(["--prompt", PROMPT, "--max-tokens", &tokens]);
    let exit = swarm.run("generate", generate);
    assert_eq!(exit.code, Some(0), "{exit:?}");

    let mut serve = through_a_server("serve");
    serve.args(["--blocks", "6", "--listen", "/ip4/127.0.0.1/tcp/0", "--until-stdin-closes"]);
    let newcomer = ready(swarm.start("newcomer", serve));
    let mut status = through_a_server("status");
    status.args(["--bootstrap", &entry]);
    let exit = swarm.run("status", status);
    assert!(exit.stdout.contains(&newcomer.peer.to_string()), "{exit:?}");
}

#[test]
fn servers_that_start_at_once_share_the_blocks_out() {
    let swarm = TestSwarm::empty("demo", &[]);
    let started: Vec<_> = (0..3)
        .map(|number| {
            let mut serve = swarm.node("serve");
            serve.args(["--model", "demo", "--json", "--blocks", "4", "--threads", "1"]);
            serve.args(["--listen", "/ip4/127.0.0.1/tcp/0", "--until-stdin-closes"]);
            swarm.start(&format!("joiner-{number}"), serve)
        })
        .collect();
    let servers: Vec<_> = started.into_iter().map(ready).collect();
    let tokens = TOKENS.to_string();
    let told = swarm.generate(&["--prompt", PROMPT, "--max-tokens", &tokens]).finish();
    assert_eq!(
        told.tokens,
        Local::demo().text(PROMPT, &greedy(), TOKENS).tokens,
        "{:?}",
        servers.iter().map(|s| s.blocks).collect::<Vec<_>>()
    );
}

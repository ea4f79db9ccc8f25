//! The program as it is started. That it is tested here also has `cargo test` build it beside the others, for whole swarms.
#![allow(clippy::unwrap_used)]

use std::process::{Command, Output};

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_swarm-bootstrap")).args(arguments).output().unwrap()
}

#[test]
fn it_says_what_it_is() {
    let version = run(&["--version"]);
    assert!(version.status.success());
    assert_eq!(
        String::from_utf8_lossy(&version.stdout).trim(),
        format!("swarm-bootstrap {}", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn a_flag_that_it_does_not_know_is_named() {
    let wrong = run(&["--prot", "4001"]);
    let said = String::from_utf8_lossy(&wrong.stderr);
    assert_eq!(wrong.status.code(), Some(2), "{said}");
    assert!(said.contains("--prot") && wrong.stdout.is_empty(), "{said}");
}

#[test]
fn an_address_that_cannot_be_listened_on_is_an_error_with_its_cause() {
    let wrong = run(&["--listen", "/ip4/192.0.2.1/tcp/0"]);
    let said = String::from_utf8_lossy(&wrong.stderr);
    assert!(!wrong.status.success(), "{said}");
    assert!(said.contains("192.0.2.1"), "{said}");
}

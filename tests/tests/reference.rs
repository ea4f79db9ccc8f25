//! The book's reference is what the programs say.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;
use std::process::Command;

use swarm_tests::harness::program;

#[test]
fn the_reference_of_the_command_line_is_what_the_programs_say() {
    let programs = program("swarm-node").parent().unwrap().to_path_buf();
    program("swarm-bootstrap");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/cli-reference");
    let checked = Command::new(script).arg("--check").env("SWARM_PROGRAMS", programs).output().unwrap();
    let said = String::from_utf8_lossy(&checked.stdout) + String::from_utf8_lossy(&checked.stderr);
    assert!(checked.status.success(), "{said}");
}

//! OpenAI's own Python client, unmodified, in front of a swarm: `scripts/openai-client/check.py`.
//!
//! Its packages come from PyPI into an environment under `target`, once. Where that cannot be had the test says so and passes,
//! unless `CI=true`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use swarm_tests::harness::{Api, Local, PROMPT, TestSwarm, greedy};

/// As in the script.
const TOKENS: usize = 40;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("scripts/openai-client")
}

/// Runs a command; what went wrong if it fails.
fn run(command: &mut Command) -> Result<Output, String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    match output.status.success() {
        true => Ok(output),
        false => Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr))),
    }
}

/// The Python of an environment that has what the script needs.
fn python() -> Result<PathBuf, String> {
    let environment = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("openai-client");
    let requirements = folder().join("requirements.txt");
    let wanted = fs::read_to_string(&requirements).unwrap();
    // Tests that run side by side wait for one another.
    let lock = File::create(environment.with_extension("lock")).unwrap();
    lock.lock().unwrap();
    let (python, made) = (environment.join("bin/python"), environment.join("made-of"));
    if fs::read_to_string(&made).is_ok_and(|made| made == wanted) {
        return Ok(python);
    }
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&environment))?;
    let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"];
    run(Command::new(&python).args(pip).arg(requirements))?;
    fs::write(made, wanted).unwrap();
    Ok(python)
}

#[test]
fn the_official_client_works_unmodified() {
    let python = match python() {
        Ok(python) => python,
        Err(reason) if std::env::var("CI").is_ok_and(|ci| ci == "true") => panic!("no OpenAI client: {reason}"),
        Err(reason) => {
            eprintln!("SKIPPED: OpenAI's Python client cannot be had here: {reason}");
            return;
        }
    };
    let swarm = TestSwarm::demo(&[(0, 6), (6, 12)]);
    let expected = swarm.folder().join("expected.txt");
    fs::write(&expected, Local::demo().text(PROMPT, &greedy(), TOKENS).text).unwrap();
    for key in [None, Some("a-test-key")] {
        let options: Vec<&str> = key.iter().flat_map(|key| ["--api-key", key]).collect();
        let api = Api::start(&swarm, &options);
        let mut command = Command::new(&python);
        command.arg(folder().join("check.py")).arg(api.base_url()).arg(&expected).args(&options);
        // A proxy of the surrounding environment has no part in it.
        command.env("NO_PROXY", "127.0.0.1").env_remove("OPENAI_API_KEY").env_remove("OPENAI_BASE_URL");
        let output = command.output().unwrap();
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{said}");
        assert!(said.contains("checks passed"), "{said}");
        eprintln!("{said}");
    }
}

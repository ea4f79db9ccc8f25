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

/// Runs with these variables, and gives the code and what stands on stderr.
fn run(args: &[&str], variables: &[(&str, &str)]) -> (Option<i32>, String) {
    let output = command(args).envs(variables.iter().copied()).output().unwrap();
    (output.status.code(), text(&output.stderr).to_string())
}

#[test]
fn a_value_that_is_none_is_told_in_plain_words() {
    let generate = ["generate", "--model", "demo", "--prompt", "a"];
    let serve = ["serve", "--model", "demo"];
    let api = ["api", "--model", "demo"];
    let cases: [(&[&str], [&str; 2], &str); 17] = [
        (&serve, ["--listen", "127.0.0.1:5000"], "/ip4/127.0.0.1/tcp/5000"),
        (&serve, ["--announce", "foo"], "/ip4/ADDRESS/tcp/PORT"),
        (&serve, ["--http", "8980"], "127.0.0.1:8980"),
        (&serve, ["--blocks", "0"], "at least 1"),
        (&serve, ["--blocks", "-1"], "at least 1"),
        (&serve, ["--threads", "0"], "from 1 to"),
        (&api, ["--cors", "example.org"], "https://example.org"),
        (&generate, ["--allow-peer", "abc"], "12D3KooW"),
        (&generate, ["--temperature", "abc"], "write a number"),
        (&generate, ["--max-tokens", "-3"], "at least 1"),
        (&generate, ["--top-k", "-1"], "at least 0"),
        (&generate, ["--log", "blah"], "is no level"),
        (&generate, ["--model", "nosuch.gguf"], "there is no file nosuch.gguf"),
        (&generate, ["--model", "./Cargo.toml"], "is a file, but no .gguf file"),
        (&generate, ["--prompt-file", "/no/such/file"], ""),
        (&["chat", "--model", "demo"], ["--context", "5"], "at least 32"),
        (&["generate", "--model", "demo"], ["--prompt-file", "/no/such/file"], "no such file"),
    ];
    for (command, [flag, value], says) in cases {
        // What is given twice is another error.
        let before = command.iter().position(|word| *word == flag).unwrap_or(command.len());
        let args: Vec<&str> = command[..before].iter().chain(&[flag, value]).copied().collect();
        let (code, stderr) = run(&args, &[]);
        assert_eq!(code, Some(2), "{args:?}: {stderr}");
        assert!(stderr.starts_with("error: ") && stderr.contains(says), "{args:?}: {stderr}");
        assert!(!stderr.contains("-- -"), "{args:?}: {stderr}");
    }
}

#[test]
fn a_bad_variable_is_named() {
    let generate = ["generate", "--model", "demo", "--prompt", "a"];
    let (code, stderr) = run(&generate, &[("SWARM_TEMPERATURE", "abc")]);
    assert_eq!(code, Some(2), "{stderr}");
    assert!(stderr.contains("--temperature is set by the variable SWARM_TEMPERATURE"), "{stderr}");
    let given = [&generate[..], &["--temperature", "x"]].concat();
    let (code, stderr) = run(&given, &[("SWARM_TEMPERATURE", "0.5")]);
    assert_eq!(code, Some(2), "{stderr}");
    assert!(!stderr.contains("SWARM_TEMPERATURE"), "{stderr}");
}

#[test]
fn the_command_line_goes_before_variables_that_contradict_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("prompt.txt");
    std::fs::write(&file, "Once").unwrap();
    let given = ["generate", "--model", "demo", "--prompt-file", file.to_str().unwrap()];
    // It gets as far as there is nobody to ask.
    let (code, stderr) = run(&given, &[("SWARM_PROMPT", "hello")]);
    assert_eq!((code, stderr.contains("no way into a swarm")), (Some(2), true), "{stderr}");
    let both = [("SWARM_PROMPT", "hello"), ("SWARM_PROMPT_FILE", file.to_str().unwrap())];
    let (code, stderr) = run(&["generate", "--model", "demo"], &both);
    assert_eq!((code, stderr.contains("cannot be used with")), (Some(2), true), "{stderr}");
    // A server's switch is none of a client's business.
    for (word, heard) in [("1", true), ("false", true), ("served", true), ("everybody", false)] {
        let (code, stderr) = run(&["generate", "--model", "demo", "--prompt", "a"], &[("SWARM_EDGES", word)]);
        assert_eq!((code, stderr.contains("no way into a swarm")), (Some(2), heard), "{word}: {stderr}");
    }
}

#[test]
fn a_configuration_files_values_are_checked() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.toml");
    let config = |text: &str| {
        std::fs::write(&file, text).unwrap();
        run(&["config", "--config", file.to_str().unwrap()], &[])
    };
    for (text, line) in [
        ("[serve]\nblocks = \"many\"\n", 2),
        ("[serve]\n\nblocks = -1\n", 3),
        ("bootstrap = 3\n", 1),
        ("[generate]\nwire = \"fast\"\n", 2),
    ] {
        let (code, stderr) = config(text);
        assert_eq!(code, Some(2), "{text:?}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{text:?}: {stderr}");
        assert!(stderr.contains(&format!(", line {line}: invalid value ")), "{text:?}: {stderr}");
    }
    let peer = "/ip4/127.0.0.1/tcp/1/p2p/12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";
    let (code, stderr) = config(&format!("bootstrap = [\"{peer}\"]\n[serve]\nblocks = 8\nedges = true\n"));
    assert_eq!(code, Some(0), "{stderr}");
}

#[test]
fn a_folder_is_not_made_of_a_typing_error() {
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("nowhere").join("swarm.key");
    let (code, stderr) = run(&["keygen", key.to_str().unwrap()], &[]);
    assert_eq!((code, stderr.lines().count()), (Some(1), 1), "{stderr}");
    assert!(stderr.contains("mkdir -p") && !key.parent().unwrap().exists(), "{stderr}");
}

#[test]
fn a_flag_that_changes_nothing_is_told() {
    let generate = |rest: &[&str]| run(&[&["generate", "--model", "demo", "--prompt", "a"], rest].concat(), &[]).1;
    assert!(generate(&["--top-k", "3"]).contains("note: --top-k counts only where there is a temperature"));
    assert!(!generate(&["--top-k", "3", "--temperature", "0.7"]).contains("note: "));
    assert!(!generate(&[]).contains("note: "));
}

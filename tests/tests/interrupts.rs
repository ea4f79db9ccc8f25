//! Ctrl-C at any moment: everything ends, nothing stays behind, and the exit code says what it was.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::process::Command;

use swarm_tests::harness::{
    Client, Exit, Local, PROMPT, Process, TestSwarm, eventually, greedy, leftovers, program, ready,
};
use tempfile::TempDir;

/// SIGINT's number.
const INTERRUPT: i32 = 2;

/// It ended itself with that code, or the signal came before it listened for signals.
fn ended(exit: &Exit, code: i32, started: bool) {
    let early = !started && exit.signal == Some(INTERRUPT);
    assert!(exit.code == Some(code) || early, "{exit:?}");
    assert!(!exit.stderr.contains("panicked"), "{}", exit.stderr);
}

/// How far a process is when it is interrupted.
const MOMENTS: [&[&str]; 3] = [&[], &["listening"], &["listening", "ready"]];

/// Whether Ctrl-C is ignored from the start, as by what a shell runs in the background: children inherit that, and begin
/// to listen a moment after their start.
fn deaf() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
    u64::from_str_radix(ignored.trim(), 16).unwrap() >> (INTERRUPT - 1) & 1 == 1
}

#[test]
fn a_server_ends_at_any_moment_of_its_start() {
    let mut swarm = TestSwarm::demo(&[(0, 12)]);
    for moments in MOMENTS.into_iter().skip(usize::from(deaf())) {
        let command = swarm.serve_command("0..12");
        let mut server = swarm.start("interrupted", command);
        for moment in moments {
            server.event(moment);
        }
        server.interrupt();
        ended(&server.exit(), 0, !moments.is_empty());
    }
    // Nobody is sent to any of them.
    let told = swarm.generate(&["--prompt", PROMPT, "--max-tokens", "5"]).finish();
    assert_eq!((told.exit.code, told.reroutes.len()), (Some(0), 0), "{}", told.exit.stderr);
    assert_eq!(told.routes[0][0].0, swarm.servers[0].peer);
    swarm.bootstrap.process.interrupt();
    ended(&swarm.bootstrap.process.exit(), 0, true);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_with_sessions_waits_for_them_until_told_twice() {
    let mut swarm = TestSwarm::demo(&[(0, 6)]);
    for twice in [false, true] {
        let mut command = swarm.serve_command("6..12");
        command.args(["--drain-timeout", if twice { "10m" } else { "1s" }]);
        let mut server = ready(swarm.start("interrupted", command));
        let client = Client::of(&swarm).await;
        let session = client.model.text_session(100).await.unwrap();
        server.process.interrupt();
        let leaving = server.process.event("leaving");
        assert_eq!(leaving["sessions"], 1, "{leaving}");
        if twice {
            assert!(server.process.is_running(), "it waits for its session");
            server.process.interrupt();
        }
        ended(&server.process.exit(), i32::from(twice), true);
        drop(session);
    }
}

#[test]
fn a_text_that_is_interrupted_is_not_reported_as_finished() {
    let swarm = TestSwarm::demo(&[(0, 6), (6, 12)]);
    for tokens in [None, Some(0), Some(1), Some(10)].into_iter().skip(usize::from(deaf())) {
        let mut generating = swarm.generate(&["--prompt", PROMPT, "--max-tokens", "1900"]);
        match tokens {
            None => {}
            Some(0) => assert_eq!(generating.next_event().unwrap()["event"], "route"),
            Some(count) => {
                generating.tokens(count);
            }
        }
        generating.process.interrupt();
        let told = generating.finish();
        // The whole text may have been on its way already.
        if told.done.is_null() {
            ended(&told.exit, 1, tokens.is_some());
        } else {
            assert_eq!((told.exit.code, &told.tokens), (Some(0), &Local::demo().text(PROMPT, &greedy(), 1900).tokens));
        }
    }
    let told = swarm.generate(&["--prompt", PROMPT, "--max-tokens", "5"]).finish();
    assert_eq!((told.exit.code, told.reroutes.len()), (Some(0), 0), "{}", told.exit.stderr);
}

fn demo(folder: &TempDir) -> Process {
    let mut command = Command::new(program("swarm-node"));
    command.arg("demo");
    Process::start("demo", command, folder.path())
}

fn nothing_is_left(folder: &TempDir, when: &str) {
    eventually(when, || leftovers(folder.path()).is_empty().then_some(()));
}

#[test]
fn the_demo_tells_its_story_and_cleans_up() {
    let folder = tempfile::tempdir().unwrap();
    let exit = demo(&folder).exit();
    assert_eq!(exit.code, Some(0), "{exit:?}");
    let story = Local::demo().text(PROMPT, &greedy(), 300).text;
    let squeezed = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let sentence = squeezed(story.trim());
    let shown = squeezed(&exit.stdout);
    assert!(shown.contains(&sentence[..40.min(sentence.len())]), "{sentence:?} is not in {shown:?}");
    nothing_is_left(&folder, "no process outlives the demo");
}

#[test]
fn the_demo_leaves_nothing_behind_when_it_is_interrupted() {
    for lines in [0, 2, 5, 8, 12].into_iter().skip(usize::from(deaf())) {
        let folder = tempfile::tempdir().unwrap();
        let mut demo = demo(&folder);
        for _ in 0..lines {
            demo.line().expect("the demo says more than that");
        }
        demo.interrupt();
        let exit = demo.exit();
        let finished = exit.code == Some(0);
        assert!(finished || exit.code == Some(1) || (lines == 0 && exit.signal == Some(INTERRUPT)), "{exit:?}");
        nothing_is_left(&folder, "no process outlives an interrupted demo");
    }
    let folder = tempfile::tempdir().unwrap();
    let mut killed = demo(&folder);
    killed.line().expect("the demo says something");
    killed.line().expect("the demo says more than that");
    killed.kill();
    nothing_is_left(&folder, "no process outlives a killed demo");
}

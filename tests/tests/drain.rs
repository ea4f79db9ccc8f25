//! Servers told to leave from the command line of their machine.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::Command;

use swarm_tests::harness::{Client, Exit, Local, PROMPT, Process, TestSwarm, greedy, program};

fn start(swarm: &TestSwarm, options: &[&str]) -> Process {
    let mut command = Command::new(program("swarm-node"));
    command.arg("drain").args(options);
    swarm.start("drain", command)
}

fn drain(swarm: &TestSwarm, options: &[&str]) -> Exit {
    start(swarm, options).exit()
}

fn sockets(swarm: &TestSwarm) -> Vec<PathBuf> {
    let folder = fs::read_dir(swarm.folder().join("swarm-node")).unwrap();
    folder.map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn the_only_server_needs_no_name_and_leaves_nothing_behind() {
    let mut swarm = TestSwarm::demo(&[(0, 12)]);
    let [socket] = &sockets(&swarm)[..] else { panic!("one server, one socket") };
    let mode = |path: &PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(socket), mode(&socket.parent().unwrap().to_path_buf())), (0o600, 0o700));
    let exit = drain(&swarm, &[]);
    assert_eq!(exit.code, Some(0), "{exit:?}");
    assert!(exit.stdout.contains("left ") && exit.stdout.contains("no session is running"), "{}", exit.stdout);
    let left = swarm.servers[0].process.exit();
    assert_eq!((left.code, left.signal), (Some(0), None), "{}", left.stderr);
    assert!(sockets(&swarm).is_empty());
    let nobody = drain(&swarm, &[]);
    assert_eq!(nobody.code, Some(1));
    assert!(nobody.stderr.contains("no server of yours runs"), "{}", nobody.stderr);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_text_goes_on_while_its_server_is_drained() {
    let mut swarm = TestSwarm::demo(&[(0, 6), (6, 12), (6, 12)]);
    let client = Client::of(&swarm).await;
    let mut draining = None;
    let told = client
        .tell_with(PROMPT, greedy(), 60, async |tokens, route| {
            if tokens == 20 {
                let server = swarm.server(route[1].peer);
                let pid = server.process.pid().to_string();
                let mut drain = start(&swarm, &[&pid, "--json"]);
                let leaving = drain.event("leaving");
                assert_eq!((&leaving["sessions"], &leaving["peer_id"]), (&1.into(), &route[1].peer.to_string().into()));
                draining = Some((route[1].peer, drain));
            }
        })
        .await
        .unwrap();
    assert_eq!(told.summary.tokens, Local::demo().text(PROMPT, &greedy(), 60).tokens);
    let (peer, mut drain) = draining.unwrap();
    assert_eq!(told.lost.iter().map(|(lost, _)| *lost).collect::<Vec<_>>(), [peer]);
    assert_eq!(drain.event("left")["peer_id"], peer.to_string());
    assert_eq!(drain.exit().code, Some(0));
    assert_eq!(swarm.server(peer).process.exit().code, Some(0));
}

#[test]
fn several_servers_are_listed_and_one_is_asked_for() {
    let mut swarm = TestSwarm::empty("demo", &[]);
    swarm.serve(&[(0, 6)], &["--name", "attic"]);
    swarm.serve(&[(0, 6), (6, 12)], &["--name", "cellar"]);
    let exit = drain(&swarm, &[]);
    assert_eq!((exit.code, exit.stdout.as_str()), (Some(1), ""), "{}", exit.stderr);
    for server in &swarm.servers {
        let (peer, pid) = (server.peer.to_string(), server.process.pid().to_string());
        let row = exit.stderr.lines().find(|line| line.contains(&peer[peer.len() - 8..])).expect(&exit.stderr);
        assert!(row.contains(&pid) && row.contains(&server.blocks.to_string()), "{row}");
    }
    assert!(exit.stderr.contains("attic") && exit.stderr.lines().all(|line| line.len() <= 120), "{}", exit.stderr);
    assert!(drain(&swarm, &["cellar"]).stderr.contains("stands for 2 servers"));
    assert!(drain(&swarm, &["garage"]).stderr.contains("is called"));
    assert_eq!(drain(&swarm, &["attic", "--all"]).code, Some(2));

    assert_eq!(drain(&swarm, &["attic"]).code, Some(0));
    assert_eq!(swarm.servers[0].process.exit().code, Some(0));
    let peer = swarm.servers[1].peer.to_string();
    assert_eq!(drain(&swarm, &[&peer]).code, Some(0));
    assert_eq!(swarm.servers[1].process.exit().code, Some(0));
    assert!(swarm.servers[2].process.is_running());
    assert_eq!(drain(&swarm, &["--all"]).code, Some(0));
    assert_eq!(swarm.servers[2].process.exit().code, Some(0));
}

#[test]
fn what_dead_servers_left_is_removed_and_what_is_silent_is_said() {
    let mut swarm = TestSwarm::demo(&[(0, 6), (6, 12)]);
    swarm.servers[0].process.kill();
    assert_eq!(sockets(&swarm).len(), 2);
    swarm.servers[1].process.freeze();
    let exit = drain(&swarm, &[]);
    assert!(exit.code == Some(1) && exit.stderr.contains("does not answer"), "{}", exit.stderr);
    assert_eq!(sockets(&swarm).len(), 1, "the dead one's socket is gone");
    // It was told, and hears it when it wakes.
    swarm.servers[1].process.thaw();
    assert_eq!(swarm.servers[1].process.exit().code, Some(0));
}

#[test]
fn a_server_that_dies_instead_of_leaving_is_reported() {
    let mut swarm = TestSwarm::demo(&[(0, 12)]);
    let mut generating = swarm.generate(&["--prompt", PROMPT, "--max-tokens", "1900"]);
    generating.tokens(1);
    generating.process.freeze();
    let mut drain = start(&swarm, &["--json"]);
    assert_eq!(drain.event("leaving")["sessions"], 1);
    swarm.servers[0].process.kill();
    let exit = drain.exit();
    assert!(exit.code == Some(1) && exit.stderr.contains("ended before it had left"), "{}", exit.stderr);
}

#[test]
fn a_server_that_cannot_be_visited_serves_all_the_same() {
    let mut swarm = TestSwarm::empty("demo", &[]);
    let mut command = swarm.serve_command("0..12");
    let file = swarm.folder().join("a-file");
    fs::write(&file, "").unwrap();
    for name in ["XDG_RUNTIME_DIR", "XDG_STATE_HOME", "TMPDIR"] {
        command.env(name, &file);
    }
    let mut server = swarm_tests::harness::ready(swarm.start("unvisited", command));
    server.process.terminate();
    let exit = server.process.exit();
    assert!(exit.code == Some(0) && exit.stderr.contains("swarm-node drain"), "{exit:?}");
}

#[test]
fn a_stranger_on_a_socket_gets_no_further() {
    let swarm = TestSwarm::empty("demo", &[]);
    let folder = swarm.folder().join("swarm-node");
    fs::create_dir(&folder).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
    let listener = UnixListener::bind(folder.join("1-0000.sock")).unwrap();
    std::thread::spawn(move || {
        use std::io::Write;
        for mut visitor in listener.incoming().flatten() {
            // More than any honest line.
            let _ = visitor.write_all(&vec![b'x'; 1 << 20]);
        }
    });
    let exit = drain(&swarm, &[]);
    assert!(exit.code == Some(1) && exit.stderr.contains("process 1"), "{}", exit.stderr);
    assert!(!exit.stderr.contains("panicked"), "{}", exit.stderr);
}

//! A disk that is full, or becomes so, while a model is fetched. The disk is a tmpfs in a mount namespace of the process's own,
//! which takes no root where user namespaces are allowed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use swarm_model::synthetic::SyntheticSpec;
use swarm_tests::harness::{Process, program};
use swarm_tests::hub_server::{Fault, HubServer, Rule};
use tempfile::TempDir;

const NAME: &str = "org/model";
/// What `swarm-node` leaves free on any disk, in MiB.
const LEFT_TO_OTHERS: u64 = 64;

/// A hub with a model, and the directory that its disk is mounted on.
struct Bed {
    hub: HubServer,
    files: TempDir,
    home: TempDir,
}

impl Bed {
    fn new() -> Self {
        let (files, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let spec = SyntheticSpec { hidden: 256, intermediate: 512, blocks: 6, head_dim: 64, ..Default::default() };
        spec.write(files.path()).unwrap();
        let hub = HubServer::start();
        hub.add(NAME, files.path());
        Self { hub, files, home }
    }

    /// Bytes of the weights.
    fn weights(&self) -> u64 {
        fs::metadata(self.files.path().join("model.safetensors")).unwrap().len()
    }

    /// `swarm-node pull` with a cache on a disk of `mebibytes`, which is there as long as the process.
    fn pull(&self, mebibytes: u64) -> Process {
        let script = format!("mount -t tmpfs -o size={mebibytes}m none \"$HF_HOME\" && exec \"$@\"");
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "sh", "-c", &script, "sh"]);
        command.arg(program("swarm-node")).args(["pull", NAME]);
        self.hub.point(&mut command, self.home.path());
        Process::start("pull", command, self.files.path())
    }

    /// The disk as this process sees it.
    fn disk_of(&self, process: &Process) -> PathBuf {
        Path::new("/proc")
            .join(process.pid().to_string())
            .join("root")
            .join(self.home.path().strip_prefix("/").unwrap())
    }
}

/// Whether processes may mount disks of their own here; says so if not.
fn can_mount() -> bool {
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", "mount -t tmpfs none /mnt"]);
    let can = command.stderr(Stdio::null()).status().is_ok_and(|status| status.success());
    if !can {
        eprintln!(
            "SKIPPED: this machine allows no mounts in user namespaces (`unshare --user --map-root-user --mount`)"
        );
    }
    can
}

#[test]
fn too_small_a_disk_is_seen_before_anything_travels() {
    if !can_mount() {
        return;
    }
    let bed = Bed::new();
    let exit = bed.pull(LEFT_TO_OTHERS + 1).exit();
    assert!(exit.code == Some(1) && exit.stderr.contains("has no room for"), "{exit:?}");
    assert!(exit.stderr.contains("HF_HOME") && exit.stderr.lines().count() == 1, "{exit:?}");
    assert!(bed.hub.sent() < bed.weights() / 4, "{} bytes came for nothing", bed.hub.sent());
}

#[test]
fn a_disk_that_becomes_full_ends_a_pull_with_advice() {
    if !can_mount() {
        return;
    }
    let bed = Bed::new();
    bed.hub.rule(Rule::always("model.safetensors", Fault::Hold(100_000)));
    let mut pull = bed.pull(LEFT_TO_OTHERS + 2 * bed.weights().div_ceil(1 << 20));
    bed.hub.wait_until_held(1);
    fill(&bed.disk_of(&pull).join("others"));
    bed.hub.forgive();
    bed.hub.release();
    let exit = pull.exit();
    assert!(exit.code == Some(1) && exit.stderr.contains("has no room for"), "{exit:?}");
    assert!(exit.stderr.contains("(0 B free)") && exit.stderr.lines().count() == 1, "{exit:?}");
}

/// Writes to `path` until the disk is full.
fn fill(path: &Path) {
    let mut file = File::create(path).unwrap();
    // The last bytes go in smaller and smaller pieces.
    let mut piece = vec![1; 1 << 20];
    while !piece.is_empty() {
        match file.write(&piece) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::StorageFull => piece.truncate(piece.len() / 2),
            Err(error) => panic!("{error}"),
        }
    }
}

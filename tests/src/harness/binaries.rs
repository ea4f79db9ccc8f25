//! Where the programs under test are. `cargo test --workspace` has built them; a run of this crate alone has not.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::SystemTime;

/// Uses the programs in that folder as they are, for example those of a release.
const FOLDER: &str = "SWARM_TESTS_BIN_DIR";

/// What the programs are made of.
const SOURCES: [&str; 10] =
    ["protocol", "model", "hub", "edges", "client", "api", "telemetry", "node", "bootstrap", "Cargo.lock"];

/// The path of `swarm-node` or `swarm-bootstrap`, built if it is missing or older than its sources.
pub fn program(name: &str) -> PathBuf {
    static FRESH: OnceLock<PathBuf> = OnceLock::new();
    let folder = FRESH.get_or_init(|| {
        env::var_os(FOLDER).map_or_else(
            || {
                let build = ["-p", "swarm-node", "-p", "swarm-bootstrap", "--bins"];
                fresh("swarm-tests-programs", &["swarm-node", "swarm-bootstrap"], &build);
                profile_folder()
            },
            PathBuf::from,
        )
    });
    folder.join(name)
}

/// The path of one of the client library's examples, built if it is missing or older than its sources.
pub fn example(name: &str) -> PathBuf {
    static FRESH: OnceLock<()> = OnceLock::new();
    FRESH.get_or_init(|| {
        let files = ["batch", "generate", "hidden_states", "logprobs", "score"].map(|name| format!("examples/{name}"));
        let files: Vec<&str> = files.iter().map(String::as_str).collect();
        fresh("swarm-tests-examples", &files, &["-p", "swarm-client", "--examples"]);
    });
    profile_folder().join("examples").join(name)
}

/// `target/debug` or the folder of another profile: where cargo has put this test.
fn profile_folder() -> PathBuf {
    let test = env::current_exe().expect("the test's own path");
    test.parent().and_then(Path::parent).expect("target/PROFILE/deps/TEST").to_path_buf()
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace around this crate").to_path_buf()
}

/// Lets cargo build `files` unless they, or the last build, are newer than all sources. Tests that run side by side wait
/// for one another.
fn fresh(stamp: &str, files: &[&str], build: &[&str]) {
    let folder = profile_folder();
    let lock = File::create(folder.join(format!("{stamp}.lock"))).expect("a lock file in the target folder");
    lock.lock().expect("the lock of the target folder");
    let stamp = folder.join(format!("{stamp}.built"));
    let oldest = files.iter().map(|file| changed(&folder.join(file))).min().flatten();
    let built = oldest.map(|oldest| changed(&stamp).map_or(oldest, |stamp| stamp.max(oldest)));
    let newest = SOURCES.iter().filter_map(|source| newest(&workspace().join(source))).max();
    if built.is_some() && built >= newest {
        return;
    }
    cargo_build(&folder, build);
    fs::write(stamp, "").expect("a stamp in the target folder");
}

fn cargo_build(folder: &Path, build: &[&str]) {
    let profile = match folder.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(profile) => profile,
    };
    let target = folder.parent().expect("the target folder");
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .current_dir(workspace())
        .args(["build", "--quiet", "--profile", profile, "--target-dir"])
        .arg(target)
        // With this crate among the packages, cargo unites the same features and takes the dependencies it has built.
        .args(["-p", env!("CARGO_PKG_NAME")])
        .args(build)
        .status()
        .expect("cargo runs");
    assert!(status.success(), "the programs under test do not build");
}

fn changed(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|metadata| metadata.modified()).ok()
}

/// When the youngest file in or under `path` was changed; tests and examples of a crate are part of neither program.
fn newest(path: &Path) -> Option<SystemTime> {
    let Ok(entries) = fs::read_dir(path) else {
        return changed(path);
    };
    let source = |path: &PathBuf| !path.ends_with("tests");
    entries.filter_map(Result::ok).map(|entry| entry.path()).filter(source).filter_map(|path| newest(&path)).max()
}

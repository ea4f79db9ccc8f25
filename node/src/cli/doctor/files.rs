//! Files and folders: the cache of models, keys.

use std::path::Path;

use swarm_hub::HubConfig;
use swarm_protocol::p2p::SwarmKey;

use super::Planned;
use super::check::{Check, counted};
use crate::cli::units::size;

/// The cache of models: whether it can be written, and has room.
pub(super) fn cache(config: &HubConfig, planned: Option<&Planned>) -> Vec<Check> {
    let shown = config.cache.display();
    let existing = config.cache.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let writable = match tempfile::tempfile_in(existing) {
        Ok(_) => Check::good("cache folder", format!("{shown} can be written")),
        Err(error) => Check::bad(
            "cache folder",
            format!("{shown} cannot be written: {error}"),
            "make it yours (chown), or name another with HF_HOME",
        ),
    };
    vec![writable, room(config, planned)]
}

fn room(config: &HubConfig, planned: Option<&Planned>) -> Check {
    let name = "disk";
    let Some(free) = swarm_hub::free_bytes(&config.cache) else {
        return Check::could(
            name,
            "this system does not tell how much is free",
            "see that the models you serve have room",
        );
    };
    let found = format!("{} free for models", size(free));
    let Some(planned) = planned else { return Check::good(name, found) };
    let about = planned.checkpoint.config();
    let blocks = planned.blocks.unwrap_or(about.blocks).min(about.blocks);
    let needed = u64::from(blocks) * about.block_bytes(planned.checkpoint.native_format());
    let (model, take) = (planned.checkpoint.name(), if blocks == 1 { "takes" } else { "take" });
    let found = format!("{found}; {} of {model} {take} {}", counted(blocks as usize, "block", "blocks"), size(needed));
    // What is here already needs no room again.
    match needed > free && !config.offline {
        true => Check::could(
            name,
            found,
            "unless they are cached already: free some (`swarm-node models`, `swarm-node rm`), or name another disk with HF_HOME",
        ),
        false => Check::good(name, found),
    }
}

/// The key of a private swarm.
pub(super) fn swarm_key(path: &Path) -> Check {
    match SwarmKey::read(path) {
        Ok(key) => {
            let check = private_file("swarm key", path);
            Check { found: format!("{}, fingerprint {}", check.found, key.fingerprint()), ..check }
        }
        Err(error) => Check::bad("swarm key", error.cause(), error.advice()),
    }
}

/// A file that nobody else should be able to read.
pub(super) fn private_file(name: &'static str, path: &Path) -> Check {
    let shown = path.display();
    match others_may_read(path) {
        Ok(false) => Check::good(name, format!("{shown} is yours alone")),
        Ok(true) => {
            Check::could(name, format!("others on this machine can read {shown}"), format!("chmod 600 {shown}"))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Check::good(name, format!("{shown} will be made at the first start"))
        }
        Err(error) => Check::bad(name, format!("{shown} cannot be read: {error}"), "check its path and owner"),
    }
}

#[cfg(unix)]
fn others_may_read(path: &Path) -> std::io::Result<bool> {
    use std::os::unix::fs::PermissionsExt;
    /// Read and write for group and others.
    const OTHERS: u32 = 0o066;
    std::fs::File::open(path)?;
    Ok(std::fs::metadata(path)?.permissions().mode() & OTHERS != 0)
}

#[cfg(not(unix))]
fn others_may_read(path: &Path) -> std::io::Result<bool> {
    std::fs::File::open(path).map(|_| false)
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::super::check::Verdict;
    use super::*;

    #[test]
    fn a_key_that_others_can_read_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("swarm.key");
        let missing = swarm_key(&path);
        assert_eq!(missing.verdict, Verdict::Bad);
        // What is wrong stands in one place, what to do in the other.
        assert!(!missing.found.contains("keygen"), "{missing}");
        assert!(missing.next.is_some_and(|next| next.contains("keygen")));
        SwarmKey::generate().write_new(&path).unwrap();
        let good = swarm_key(&path);
        assert_eq!((good.verdict, good.found.contains("fingerprint")), (Verdict::Good, true), "{good}");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let open = swarm_key(&path);
        assert_eq!((open.verdict, open.next.unwrap().contains("chmod 600")), (Verdict::Could, true));
        std::fs::write(&path, "no key").unwrap();
        assert_eq!(swarm_key(&path).verdict, Verdict::Bad);
        assert_eq!(private_file("identity", &folder.path().join("none")).verdict, Verdict::Good);
    }
}

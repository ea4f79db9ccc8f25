//! Where the sockets are: in a folder that nobody else can look into.

use std::ffi::OsString;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Nobody but the owner.
const PRIVATE: u32 = 0o700;

/// What others may do with it.
const OTHERS: u32 = 0o077;

const NAME: &str = "swarm-node";

/// How a socket's name ends once it is listened on.
const SOCKET: &str = "sock";

/// The folders of this user, best first. A server takes the first that works; a visitor looks into all of them, since
/// a service may have been started with less in its environment.
pub(super) fn folders() -> Vec<PathBuf> {
    let user = rustix::process::geteuid().as_raw();
    candidates(|name| std::env::var_os(name), &std::env::temp_dir(), user)
}

fn candidates(env: impl Fn(&str) -> Option<OsString>, temporary: &Path, user: u32) -> Vec<PathBuf> {
    let absolute = |name: &str| env(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let runtime = absolute("XDG_RUNTIME_DIR").map(|path| path.join(NAME));
    let state = absolute("XDG_STATE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/state")));
    let state = state.map(|path| path.join(NAME));
    runtime.into_iter().chain(state).chain([temporary.join(format!("{NAME}-{user}"))]).collect()
}

/// Makes the folder if it is missing.
///
/// # Errors
/// If it cannot be made, or is not this user's alone.
pub(super) fn make_private(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(PRIVATE).create(folder)?;
    check_private(folder)
}

/// In a folder of somebody else, a socket may be anybody's.
///
/// # Errors
/// If the folder is missing, or not this user's alone.
pub(super) fn check_private(folder: &Path) -> io::Result<()> {
    let about = fs::symlink_metadata(folder)?;
    let ours = about.is_dir() && about.uid() == rustix::process::geteuid().as_raw() && about.mode() & OTHERS == 0;
    if ours { Ok(()) } else { Err(io::Error::other(format!("{} is open to others", folder.display()))) }
}

/// The name of a process's socket: with a random part, since several machines or containers may share the folder.
pub(super) fn socket_name(pid: u32, random: u32) -> String {
    format!("{pid}-{random:08x}.{SOCKET}")
}

/// The process of a socket of that name.
fn pid_of(name: &str) -> Option<u32> {
    let (pid, rest) = name.split_once('-')?;
    rest.ends_with(&format!(".{SOCKET}")).then(|| pid.parse().ok()).flatten()
}

/// All sockets in this user's folders, with their processes.
pub(super) fn sockets() -> Vec<(PathBuf, u32)> {
    let mut sockets = Vec::new();
    for folder in folders().into_iter().filter(|folder| check_private(folder).is_ok()) {
        for entry in fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok) {
            if let Some(pid) = entry.file_name().to_str().and_then(pid_of) {
                sockets.push((entry.path(), pid));
            }
        }
    }
    sockets.sort();
    sockets.dedup();
    sockets
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_environment_says_where() {
        let of = |given: &[(&str, &str)]| {
            let env = |name: &str| given.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value));
            candidates(env, Path::new("/tmp"), 7).iter().map(|path| path.display().to_string()).collect::<Vec<_>>()
        };
        assert_eq!(of(&[]), ["/tmp/swarm-node-7"]);
        assert_eq!(of(&[("XDG_RUNTIME_DIR", ""), ("HOME", "home")]), ["/tmp/swarm-node-7"]);
        assert_eq!(
            of(&[("XDG_RUNTIME_DIR", "/run/user/7"), ("HOME", "/home/a")]),
            ["/run/user/7/swarm-node", "/home/a/.local/state/swarm-node", "/tmp/swarm-node-7"]
        );
        assert_eq!(of(&[("XDG_STATE_HOME", "/s"), ("HOME", "/h")])[0], "/s/swarm-node");
    }

    #[test]
    fn a_name_tells_the_process() {
        assert_eq!(socket_name(42, 0xab), "42-000000ab.sock");
        assert_eq!(pid_of(&socket_name(42, 0xab)), Some(42));
        for other in ["42-000000ab.new", "x-1.sock", "42.sock", "", "-.sock"] {
            assert_eq!(pid_of(other), None, "{other}");
        }
    }

    #[test]
    fn a_folder_that_others_can_open_is_not_used() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("a/b");
        make_private(&folder).unwrap();
        make_private(&folder).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(make_private(&folder).is_err());
        let link = root.path().join("link");
        std::os::unix::fs::symlink(root.path(), &link).unwrap();
        assert!(make_private(&link).is_err());
    }
}

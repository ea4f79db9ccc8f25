//! Where processes run: on this machine's loopback, or on a host of a [`Wan`](super::Wan).

use std::net::Ipv4Addr;
use std::process::Command;

use super::namespace;

/// Where a process runs and listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    namespace: Option<String>,
    address: Ipv4Addr,
}

impl Place {
    /// This machine.
    pub const fn loopback() -> Self {
        Self { namespace: None, address: Ipv4Addr::LOCALHOST }
    }

    pub(super) fn in_namespace(name: String, address: Ipv4Addr) -> Self {
        Self { namespace: Some(name), address }
    }

    /// Any free TCP port there, as a multiaddress.
    pub fn listen(&self) -> String {
        format!("/ip4/{}/tcp/0", self.address)
    }

    /// `command`, to be run there. Its program, arguments, environment and directory count; its streams are still to be
    /// said.
    pub fn command(&self, command: &Command) -> Command {
        match &self.namespace {
            Some(name) => namespace::command_in(name, command),
            None => copy(command),
        }
    }
}

impl Default for Place {
    fn default() -> Self {
        Self::loopback()
    }
}

fn copy(command: &Command) -> Command {
    let mut copy = Command::new(command.get_program());
    namespace::copy_settings(command, copy.args(command.get_args()));
    copy
}

//! The name of a swarm, which every protocol name holds.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The longest swarm name, in bytes: protocol names travel in every negotiation.
pub const MAX_SWARM_NAME: usize = 48;

/// The swarm that a node joins when no other is named.
pub const DEFAULT_SWARM: &str = "public";

/// A swarm's name: lower-case letters, digits, `-`, `_` and `.`. Peers of different swarms share no protocol, so they
/// never enter one another's tables.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SwarmName(String);

/// A text that is no swarm name.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("\"{0}\" is no swarm name; use 1 to {MAX_SWARM_NAME} of a-z, 0-9, '-', '_' and '.'")]
pub struct BadSwarmName(String);

impl SwarmName {
    /// The name itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of one of the swarm's protocols: `/swarm-node/NAME/PART/VERSION`.
    pub fn protocol(&self, part: &str, version: u32) -> String {
        format!("/swarm-node/{}/{part}/{version}", self.0)
    }

    /// The swarm that a name made by [`protocol`](Self::protocol) belongs to.
    pub fn of_protocol(protocol: &str) -> Option<Self> {
        protocol.strip_prefix("/swarm-node/")?.split('/').next()?.parse().ok()
    }
}

impl Default for SwarmName {
    fn default() -> Self {
        Self(DEFAULT_SWARM.to_string())
    }
}

impl FromStr for SwarmName {
    type Err = BadSwarmName;

    fn from_str(text: &str) -> Result<Self, BadSwarmName> {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte);
        if text.is_empty() || text.len() > MAX_SWARM_NAME || !text.bytes().all(allowed) {
            return Err(BadSwarmName(text.chars().take(MAX_SWARM_NAME).collect()));
        }
        Ok(Self(text.to_string()))
    }
}

impl TryFrom<String> for SwarmName {
    type Error = BadSwarmName;

    fn try_from(text: String) -> Result<Self, BadSwarmName> {
        text.parse()
    }
}

impl From<SwarmName> for String {
    fn from(name: SwarmName) -> Self {
        name.0
    }
}

impl fmt::Display for SwarmName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_survives_its_protocols_and_bad_names_are_refused() {
        let name: SwarmName = "my-lab.1".parse().unwrap();
        assert_eq!(name.protocol("kad", 1), "/swarm-node/my-lab.1/kad/1");
        assert_eq!(SwarmName::of_protocol("/swarm-node/my-lab.1/kad/1"), Some(name));
        assert_eq!(SwarmName::of_protocol("/ipfs/kad/1.0.0"), None);
        for bad in ["", "a/b", "Ä", "UPPER", &"x".repeat(MAX_SWARM_NAME + 1)] {
            assert!(bad.parse::<SwarmName>().is_err(), "{bad}");
        }
    }
}

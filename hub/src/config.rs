//! Which hub, where its files are kept, and how patiently it is asked.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where the hub is, unless `HF_ENDPOINT` says otherwise.
const DEFAULT_ENDPOINT: &str = "https://huggingface.co";

/// How the hub is asked, and where what it gives is kept. The variables are those of Python's `huggingface_hub`, so that all
/// tools share one cache and one login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubConfig {
    /// The hub's address, without a slash at its end.
    pub endpoint: String,
    /// The folder of the cache: `models--ORG--NAME` and so on.
    pub cache: PathBuf,
    /// Who asks, if the repository is not for everybody.
    pub token: Option<Token>,
    /// Whether only what is cached is used.
    pub offline: bool,
    /// The most bytes that this program's own files in the cache may take; `None` if only the disk sets a limit.
    pub max_disk: Option<u64>,
    /// How often a request is tried.
    pub retries: Retries,
}

/// How often a request that failed for a while is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retries {
    /// Failures one after the other, without a byte in between, after which it is given up.
    pub most: u32,
    /// The pause after the first failure; it doubles with each further one.
    pub first_pause: Duration,
    /// The longest pause, also if the hub asks for a longer one: then the user is told.
    pub longest_pause: Duration,
}

impl Default for Retries {
    /// Some 30 seconds in all: a restart of a router, not an outage.
    fn default() -> Self {
        let (first_pause, longest_pause) = (Duration::from_millis(500), Duration::from_secs(60));
        Self { most: 6, first_pause, longest_pause }
    }
}

/// A secret that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// The token in `text`, if it is one that a header can carry.
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        (!text.is_empty() && text.chars().all(|c| c.is_ascii_graphic())).then(|| Self(text.to_string()))
    }

    pub(crate) fn secret(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

impl HubConfig {
    /// As this process's environment says; the token is read from its file.
    pub fn of_environment() -> Self {
        let home = std::env::home_dir().unwrap_or_default();
        let config = Self::new(&home, &|name| std::env::var(name).ok());
        let token = config.token.clone().or_else(|| {
            let file = token_file(&home, &|name| std::env::var(name).ok());
            Token::new(&std::fs::read_to_string(file).ok()?)
        });
        Self { token, ..config }
    }

    /// As the variables say that `variable` knows, with the home folder `home`; reads no file.
    pub fn new(home: &Path, variable: &dyn Fn(&str) -> Option<String>) -> Self {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let endpoint = set("HF_ENDPOINT").unwrap_or_else(|| DEFAULT_ENDPOINT.to_string());
        let cache = set("HF_HUB_CACHE").or_else(|| set("HUGGINGFACE_HUB_CACHE")).map(PathBuf::from);
        let token = set("HF_TOKEN").or_else(|| set("HUGGING_FACE_HUB_TOKEN"));
        Self {
            endpoint: endpoint.trim_end_matches('/').to_string(),
            cache: cache.unwrap_or_else(|| hf_home(home, variable).join("hub")),
            token: token.as_deref().and_then(Token::new),
            offline: set("HF_HUB_OFFLINE").is_some_and(|value| is_true(&value)),
            max_disk: None,
            retries: Retries::default(),
        }
    }
}

fn hf_home(home: &Path, variable: &dyn Fn(&str) -> Option<String>) -> PathBuf {
    let set = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("HF_HOME").unwrap_or_else(|| {
        let caches = set("XDG_CACHE_HOME").unwrap_or_else(|| home.join(".cache"));
        caches.join("huggingface")
    })
}

fn token_file(home: &Path, variable: &dyn Fn(&str) -> Option<String>) -> PathBuf {
    let set = variable("HF_TOKEN_PATH").filter(|value| !value.is_empty());
    set.map_or_else(|| hf_home(home, variable).join("token"), PathBuf::from)
}

fn is_true(value: &str) -> bool {
    ["1", "ON", "YES", "TRUE"].contains(&value.to_uppercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(variables: &[(&str, &str)]) -> HubConfig {
        let variables: Vec<_> = variables.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        let of = |name: &str| variables.iter().find(|(set, _)| set == name).map(|(_, value)| value.clone());
        HubConfig::new(Path::new("/home/u"), &of)
    }

    #[test]
    fn the_cache_is_where_other_tools_look() {
        for (variables, cache) in [
            (&[][..], "/home/u/.cache/huggingface/hub"),
            (&[("XDG_CACHE_HOME", "/x")], "/x/huggingface/hub"),
            (&[("XDG_CACHE_HOME", "/x"), ("HF_HOME", "/hf")], "/hf/hub"),
            (&[("HF_HOME", "/hf"), ("HUGGINGFACE_HUB_CACHE", "/old")], "/old"),
            (&[("HUGGINGFACE_HUB_CACHE", "/old"), ("HF_HUB_CACHE", "/new")], "/new"),
            (&[("HF_HUB_CACHE", "")], "/home/u/.cache/huggingface/hub"),
        ] {
            assert_eq!(config(variables).cache, Path::new(cache), "{variables:?}");
        }
    }

    #[test]
    fn the_rest_of_the_environment_is_heard() {
        let ours = config(&[("HF_ENDPOINT", "http://127.0.0.1:1/"), ("HF_TOKEN", " hf_x\n"), ("HF_HUB_OFFLINE", "1")]);
        assert_eq!(ours.endpoint, "http://127.0.0.1:1");
        assert_eq!(ours.token.as_ref().map(Token::secret), Some("hf_x"));
        assert!(ours.offline && !config(&[("HF_HUB_OFFLINE", "0")]).offline);
        assert!(!format!("{ours:?}").contains("hf_x"));
        assert_eq!(Token::new("two words"), None);
    }
}

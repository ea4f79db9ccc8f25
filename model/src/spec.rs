//! What a user names a model by.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::error::ModelError;

/// MODEL on a command line, parsed once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelSpec {
    /// `demo`: the small model inside the binary.
    Demo,
    /// An existing directory with `config.json`, `*.safetensors` and `tokenizer.json`.
    Directory(PathBuf),
    /// `org/name[@revision][:FILE]` on the Hugging Face hub; the crate `swarm-hub` opens it.
    Hub {
        /// `org/name`.
        repository: String,
        /// A branch, tag or commit.
        revision: Option<String>,
        /// The `.gguf` file of the repository; its safetensors files, if none is named.
        file: Option<String>,
    },
    /// A `.gguf` file, which holds configuration, weights and tokenizer; of a model in several parts, any.
    Gguf(PathBuf),
}

impl FromStr for ModelSpec {
    type Err = ModelError;

    fn from_str(text: &str) -> Result<Self, ModelError> {
        let path = Path::new(text);
        if text == "demo" {
            Ok(Self::Demo)
        } else if let Some(hub) = hub_file(text).filter(|_| !path.exists()) {
            Ok(hub)
        } else if text.ends_with(".gguf") {
            let path = path.to_path_buf();
            if path.exists() { Ok(Self::Gguf(path)) } else { Err(ModelError::NoSuchFile(path)) }
        } else if path.is_dir() {
            Ok(Self::Directory(path.to_path_buf()))
        } else if path.is_file() {
            Err(ModelError::NoModelFile(path.to_path_buf()))
        } else if let Some(hub) = hub(text) {
            Ok(hub)
        } else if text.contains(['/', '\\']) || text.starts_with(['.', '~']) {
            Err(ModelError::NoSuchDirectory(path.to_path_buf()))
        } else {
            Err(ModelError::BadSpec(text.to_string()))
        }
    }
}

/// `org/name[@revision]`, each of the hub's letters; a leading dot or tilde is a path.
fn hub(text: &str) -> Option<ModelSpec> {
    let (repository, revision) = match text.split_once('@') {
        Some((repository, revision)) => (repository, Some(revision)),
        None => (text, None),
    };
    let (organisation, name) = repository.split_once('/')?;
    let plain = |part: &str| {
        let letters = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        part.starts_with(|c: char| c.is_ascii_alphanumeric()) && part.chars().all(letters)
    };
    let revised =
        revision.is_none_or(|revision| !revision.is_empty() && revision.chars().all(|c| c.is_ascii_graphic()));
    (plain(organisation) && plain(name) && revised).then(|| ModelSpec::Hub {
        repository: repository.to_string(),
        revision: revision.map(str::to_string),
        file: None,
    })
}

/// `org/name[@revision]:FILE.gguf`, FILE a path inside the repository.
fn hub_file(text: &str) -> Option<ModelSpec> {
    let (model, file) = text.split_once(':')?;
    let inside = |part: &str| !part.is_empty() && !part.starts_with('.') && !part.contains('\\');
    let plain = file.ends_with(".gguf") && file.split('/').all(inside) && file.chars().all(|c| !c.is_control());
    match hub(model)? {
        ModelSpec::Hub { repository, revision, .. } if plain => {
            Some(ModelSpec::Hub { repository, revision, file: Some(file.to_string()) })
        }
        _ => None,
    }
}

impl fmt::Display for ModelSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Demo => f.write_str("demo"),
            Self::Directory(path) | Self::Gguf(path) => path.display().fmt(f),
            Self::Hub { repository, revision, file } => {
                f.write_str(repository)?;
                revision.iter().try_for_each(|revision| write!(f, "@{revision}"))?;
                file.iter().try_for_each(|file| write!(f, ":{file}"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spec_is_parsed_once_and_prints_as_given() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().to_str().unwrap();
        let revised = "meta-llama/Llama-3.2-1B@main";
        let (file, revised_file) = ("org/name:tiny.Q4_K_M.gguf", "org/name@v1:sub/tiny.gguf");
        let gguf = directory.path().join("tiny.gguf");
        std::fs::write(&gguf, "").unwrap();
        let gguf = gguf.to_str().unwrap();
        for text in ["demo", "org/name", revised, gguf, file, revised_file, path] {
            assert_eq!(text.parse::<ModelSpec>().unwrap().to_string(), text);
        }
        assert!(matches!(path.parse(), Ok(ModelSpec::Directory(_))));
        let parsed = revised_file.parse::<ModelSpec>().unwrap();
        let (repository, revision) = ("org/name".to_string(), Some("v1".to_string()));
        assert_eq!(parsed, ModelSpec::Hub { repository, revision, file: Some("sub/tiny.gguf".to_string()) });
        assert!(matches!(gguf.parse(), Ok(ModelSpec::Gguf(_))));
        assert!(matches!("org/name:../x.gguf".parse::<ModelSpec>(), Err(ModelError::NoSuchFile(_))));
    }

    #[test]
    fn a_directory_that_does_not_exist_is_named() {
        for text in ["./nowhere", "/no/such/place", "~/models/x", "a/b/c"] {
            let error = text.parse::<ModelSpec>().unwrap_err();
            assert!(matches!(error, ModelError::NoSuchDirectory(_)), "{error}");
            assert!(error.to_string().contains(text));
        }
        let error = "nosuch.gguf".parse::<ModelSpec>().unwrap_err();
        assert!(error.to_string().starts_with("there is no file nosuch.gguf; "), "{error}");
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("bad.toml");
        std::fs::write(&file, "").unwrap();
        let error = file.to_str().unwrap().parse::<ModelSpec>().unwrap_err();
        assert!(error.to_string().contains("bad.toml is a file, but no .gguf file; "), "{error}");
        assert!(matches!("".parse::<ModelSpec>(), Err(ModelError::BadSpec(_))));
        assert!(matches!("llama".parse::<ModelSpec>(), Err(ModelError::BadSpec(_))));
    }
}

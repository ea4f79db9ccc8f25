//! GGUF, the format of llama.cpp: configuration, weights, tokenizer and chat template in one file, or in several parts
//! (<https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>).
//!
//! A file is shown to the rest of the crate as what it would be as a directory: metadata becomes the text of a `config.json`
//! and of a `tokenizer.json`, tensors get the names of a safetensors checkpoint. So every family has one parser and one loader.

mod architecture;
mod chat;
mod config;
mod cursor;
mod header;
mod metadata;
mod names;
mod pre;
mod rope;
mod special;
mod split;
mod tokenizer;
mod types;
mod value;
mod vocabulary;

use std::collections::BTreeMap;

use blake3::Hasher;
use swarm_protocol::block::BlockIndex;
use swarm_protocol::wire::ElementType;

use crate::block_tensors::{BlockTensors, split_fused};
use crate::chat::ChatTemplate;
use crate::config::{ModelConfig, StoredTypes};
use crate::error::ModelError;
use crate::generation::GenerationDefaults;
use crate::source::{ByteSource, CheckpointFiles};
use crate::stored_type::StoredType;
use crate::tensors::Tensors;
use crate::text::TextTokenizer;
use config::{EXPERTS, HEADS, KV_HEADS, Keys, config_json};
use header::{Arrays, Header};
use metadata::Metadata;
use names::{Heads, entries};
use split::{ENDING, PartName};
use value::Value;

pub(crate) use types::type_number;

/// The most parts of a model: well above the largest known.
const MAX_PARTS: u64 = 4096;
/// The most tensors of all parts, once experts are counted one by one.
const MAX_TENSORS: usize = 1 << 20;
const ARCHITECTURE: &str = "general.architecture";

/// The metadata of a model, which its first file holds.
pub(crate) struct Gguf {
    file: String,
    metadata: BTreeMap<String, Value>,
}

/// A model whose headers are read.
pub(crate) struct Opened {
    pub(crate) gguf: Gguf,
    pub(crate) config: ModelConfig,
    pub(crate) tensors: Tensors,
}

/// A part of a model whose header is read.
struct Part {
    file: String,
    label: String,
    source: Box<dyn ByteSource>,
    header: Header,
}

/// What a file is called without its ending, and without the number of a part.
pub(crate) fn stem(file: &str) -> &str {
    let name = file.rsplit('/').next().unwrap_or(file);
    match PartName::parse(name) {
        Some(part) => part.stem,
        None => name.strip_suffix(ENDING).unwrap_or(name),
    }
}

/// The names of all files of the model of which `file` is one: the parts, the first one first, or `file` alone.
pub fn gguf_parts(file: &str) -> Vec<String> {
    match PartName::parse(file).filter(|name| name.count <= MAX_PARTS) {
        Some(name) => (0..name.count).map(|index| name.of(index)).collect(),
        None => vec![file.to_string()],
    }
}

/// Reads the headers of the model that `file` is, or is a part of.
pub(crate) fn open(files: &dyn CheckpointFiles, file: &str) -> Result<Opened, ModelError> {
    let mut parts = open_parts(files, file)?;
    let values = std::mem::take(&mut parts[0].header.metadata);
    let first = files.open(&parts[0].file)?;
    let label = parts[0].label.clone();
    let metadata = Metadata { values: &values, arrays: Arrays { source: &*first, file: &label } };
    let name = metadata.str(ARCHITECTURE)?.ok_or_else(|| metadata.bad(ARCHITECTURE, "is missing"))?;
    let experts = metadata.u64(&format!("{name}.{EXPERTS}"))?.is_some_and(|count| count > 0);
    let keys = Keys { metadata: &metadata, architecture: architecture::find(name, experts)? };
    let first_file = parts[0].file.clone();
    let mut tensors = collect(&keys, parts)?;
    let ids = special::token_ids(&metadata)?;
    let json = config_json(&keys, &tensors, &ids)?;
    let mut config = ModelConfig::parse(json.to_string().as_bytes())?;
    split_fused(&mut tensors, &config)?;
    config.stored = Some(stored_types(&config, &tensors));
    Ok(Opened { gguf: Gguf { file: first_file, metadata: values }, config, tensors })
}

/// All parts, the first one first; never none.
fn open_parts(files: &dyn CheckpointFiles, file: &str) -> Result<Vec<Part>, ModelError> {
    let Some(name) = PartName::parse(file) else {
        let part = open_part(files, file.to_string())?;
        let count = split::count(&part.header);
        if count > 1 {
            let reason =
                format!("it is one of {count} parts, but its name does not end in -00001-of-{count:05}{ENDING}");
            return Err(ModelError::file(part.label, reason));
        }
        return Ok(vec![part]);
    };
    if name.count > MAX_PARTS {
        return Err(ModelError::file(files.label(file), format!("its name says that it has {} parts", name.count)));
    }
    let mut parts = Vec::new();
    for index in 0..name.count {
        let part = open_part(files, name.of(index))?;
        // A file may be called so and be whole.
        if name.count > 1 || split::count(&part.header) > 1 {
            split::check_part(&part.label, &name, index, &part.header)?;
        }
        parts.push(part);
    }
    let tensors: usize = parts.iter().map(|part| part.header.tensors.len()).sum();
    split::check_tensors(&parts[0].label, &parts[0].header, tensors as u64)?;
    Ok(parts)
}

fn open_part(files: &dyn CheckpointFiles, file: String) -> Result<Part, ModelError> {
    let (source, label) = (files.open(&file)?, files.label(&file));
    let header = Header::read(&*source, &label)?;
    Ok(Part { file, label, source, header })
}

/// The tensors of all parts by their names in a checkpoint.
fn collect(keys: &Keys<'_>, parts: Vec<Part>) -> Result<Tensors, ModelError> {
    let query = keys.u64(HEADS)?.ok_or_else(|| keys.bad(HEADS, "is missing"))?;
    let key = keys.u64(KV_HEADS)?.unwrap_or(query);
    // What does not fit is no number of heads, and is refused with the tensors.
    let count = |heads: u64| usize::try_from(heads).unwrap_or(0).min(usize::MAX / 2);
    let heads = Heads { query: count(query), key: count(key) };
    let (mut tensors, mut total) = (Tensors::default(), 0);
    for part in parts {
        let mut found = Vec::new();
        for tensor in &part.header.tensors {
            total += tensor.shape[0].min(MAX_TENSORS) * usize::from(tensor.shape.len() > 2) + 1;
            if total > MAX_TENSORS {
                return Err(ModelError::file(
                    part.label,
                    format!("it has more than {MAX_TENSORS} tensors and experts"),
                ));
            }
            found.extend(entries(keys.architecture, heads, &part.label, tensor)?);
        }
        tensors.add_file(part.file, part.label, part.source, found)?;
    }
    Ok(tensors)
}

/// The types of all tensors, and what the largest block takes.
fn stored_types(config: &ModelConfig, tensors: &Tensors) -> StoredTypes {
    let mut digest = Hasher::new();
    for (name, stored) in tensors.types() {
        digest.update(format!("{name} {stored}\n").as_bytes());
    }
    let bytes_of = |block| {
        BlockTensors::new(config, BlockIndex(block)).all().iter().map(|tensor| tensors.held_bytes(&tensor.name)).sum()
    };
    let block_bytes = (0..config.blocks).map(bytes_of).max().unwrap_or(0);
    StoredTypes { digest: *digest.finalize().as_bytes(), block_bytes }
}

impl Gguf {
    /// Whether nothing but floats of one type makes up the blocks' matrices: then that is the model's format. Routers do not
    /// count: they are f32 in every file.
    pub(crate) fn one_float_type(config: &ModelConfig, tensors: &Tensors) -> Option<ElementType> {
        let blocks = 0..config.blocks;
        let all = blocks.flat_map(|block| {
            let block = BlockTensors::new(config, BlockIndex(block));
            let router = block.router().name;
            block.all().into_iter().filter(move |tensor| tensor.name != router)
        });
        let matrices =
            all.filter_map(|tensor| tensors.entry(&tensor.name).ok()).filter(|(_, entry)| entry.shape.len() > 1);
        let mut types = matrices.map(|(_, entry)| entry.stored);
        match types.next()? {
            StoredType::Float(first) if types.all(|stored| stored == StoredType::Float(first)) => Some(first),
            _ => None,
        }
    }

    /// What a `tokenizer.json` would hold.
    pub(crate) fn tokenizer(&self, files: &dyn CheckpointFiles) -> Result<TextTokenizer, ModelError> {
        let json = self.with_metadata(files, tokenizer::tokenizer_json)?;
        TextTokenizer::parse_of(json.to_string().as_bytes(), &files.label(&self.file))
    }

    /// The chat template, if the file has one.
    pub(crate) fn chat_template(&self, files: &dyn CheckpointFiles) -> Result<Option<ChatTemplate>, ModelError> {
        match self.with_metadata(files, chat::tokenizer_config)? {
            Some(json) => ChatTemplate::parse(None, Some(json.to_string().as_bytes())),
            None => Ok(None),
        }
    }

    /// What a `generation_config.json` would suggest.
    pub(crate) fn generation_defaults(
        &self,
        files: &dyn CheckpointFiles,
        config: &ModelConfig,
    ) -> Result<GenerationDefaults, ModelError> {
        let json = self.with_metadata(files, chat::generation_config)?;
        GenerationDefaults::parse(Some(json.to_string().as_bytes()), &files.label(&self.file), config)
    }

    fn with_metadata<T>(
        &self,
        files: &dyn CheckpointFiles,
        read: impl FnOnce(&Metadata<'_>) -> Result<T, ModelError>,
    ) -> Result<T, ModelError> {
        let (source, label) = (files.open(&self.file)?, files.label(&self.file));
        read(&Metadata { values: &self.metadata, arrays: Arrays { source: &*source, file: &label } })
    }
}

#[cfg(test)]
mod tests;

//! A checkpoint on disk or in the binary: its headers read, its tensors on demand.

use std::fmt;

use blake3::Hasher;
use swarm_protocol::block::{BlockIndex, BlockRange};
use swarm_protocol::model_id::{BlockDigest, ModelId, WeightFormat};
use swarm_protocol::wire::ElementType;

use crate::block::Block;
use crate::block_loader::{BlockLoader, BlockNames, Layer};
use crate::blocks::{Blocks, Hosted};
use crate::chat::ChatTemplate;
use crate::config::ModelConfig;
use crate::device::{ComputeDevice, DeviceBlocks};
use crate::edges::Edges;
use crate::error::ModelError;
use crate::generation::GenerationDefaults;
use crate::kv::KvFormat;
use crate::manifest::model_id;
use crate::source::Files;
use crate::spec::ModelSpec;
use crate::tensors::Tensors;
use crate::text::TextTokenizer;

/// The longest JSON file read beside the weights: large vocabularies have tokenizers of some 20 MiB.
const MAX_JSON: u64 = 256 << 20;

const EMBEDDING: &str = "model.embed_tokens.weight";
const FINAL_NORM: &str = "model.norm.weight";
const HEAD: &str = "lm_head.weight";

/// How far [`Checkpoint::load_blocks`] has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoadProgress {
    /// The block being read.
    pub block: BlockIndex,
    /// Bytes read so far, as stored in the checkpoint.
    pub bytes_done: u64,
    /// Bytes to read in all, as stored in the checkpoint.
    pub bytes_total: u64,
}

/// A model whose headers are read; weights are read by [`Checkpoint::load_blocks`] and [`Checkpoint::load_edges`].
pub struct Checkpoint {
    name: String,
    files: Files,
    config: ModelConfig,
    tensors: Tensors,
    native: WeightFormat,
}

impl fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checkpoint").field("name", &self.name).field("config", &self.config).finish_non_exhaustive()
    }
}

impl Checkpoint {
    /// Reads `config.json` and the headers of the safetensors files.
    ///
    /// # Errors
    /// [`ModelError`] if a file is missing, damaged or hostile, or the model is of a kind that is not supported.
    pub fn open(spec: &ModelSpec) -> Result<Self, ModelError> {
        let files = match spec {
            ModelSpec::Demo => Files::Demo,
            ModelSpec::Directory(path) => Files::Directory(path.clone()),
            ModelSpec::Hub { .. } => return Err(unsupported("the Hugging Face model", spec)),
            ModelSpec::Gguf(_) => return Err(unsupported("the GGUF file", spec)),
        };
        let config = ModelConfig::parse(&files.read("config.json", MAX_JSON)?)?;
        let tensors = Tensors::open(&files)?;
        Self::from_parts(name(spec), files, config, tensors)
    }

    fn from_parts(name: String, files: Files, config: ModelConfig, tensors: Tensors) -> Result<Self, ModelError> {
        let native = tensors.element_of(&BlockNames::new(BlockIndex(0)).query())?.into();
        Ok(Self { name, files, config, tensors, native })
    }

    /// The model's configuration.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The model's name for people.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The format the weights are stored in.
    pub fn native_format(&self) -> WeightFormat {
        self.native
    }

    /// What servers of this model in `format` share.
    pub fn id(&self, format: WeightFormat) -> ModelId {
        model_id(&self.config, format)
    }

    /// Makes blocks `range`, and nothing else, ready to compute in `format`. Weights stored in `format` stay where they are, in
    /// the mapped file; others are converted one tensor after the other. `progress` is told after each tensor.
    ///
    /// # Errors
    /// [`ModelError`] if the model has no such blocks, or a tensor is missing, damaged or of another shape.
    pub fn load_blocks(
        &self,
        range: BlockRange,
        format: WeightFormat,
        progress: &mut dyn FnMut(LoadProgress),
    ) -> Result<Blocks, ModelError> {
        self.load_blocks_on(&ComputeDevice::cpu(), range, format, progress)
    }

    /// Like [`Checkpoint::load_blocks`], on any device: an accelerator's memory gets a copy of the weights, one tensor after
    /// the other. Digests do not depend on the device.
    ///
    /// # Errors
    /// Those of [`Checkpoint::load_blocks`], and [`ModelError::Tensor`] if the device has no memory left.
    pub fn load_blocks_on(
        &self,
        device: &ComputeDevice,
        range: BlockRange,
        format: WeightFormat,
        progress: &mut dyn FnMut(LoadProgress),
    ) -> Result<Blocks, ModelError> {
        let (hosted, digests) = match device.candle() {
            None => {
                let (blocks, digests) = self.read_blocks(&(), range, format, progress)?;
                (Hosted::Host(blocks), digests)
            }
            Some(device) => {
                let (blocks, digests) = self.read_blocks(device, range, format, progress)?;
                (Hosted::Device(DeviceBlocks { device: device.clone(), blocks }), digests)
            }
        };
        let class = device.numeric_class(format, KvFormat::default())?;
        Ok(Blocks::new(self.config.clone(), range, format, class, hosted, digests))
    }

    fn read_blocks<L: Layer>(
        &self,
        place: &L::Place,
        range: BlockRange,
        format: WeightFormat,
        progress: &mut dyn FnMut(LoadProgress),
    ) -> Result<(Vec<Block<L>>, Vec<BlockDigest>), ModelError> {
        if range.end() > self.config.blocks {
            let blocks = self.config.blocks;
            return Err(ModelError::RangePastModel { range, blocks });
        }
        let stored = |block| -> u64 {
            let names = BlockNames::new(block);
            names.all(&self.config).iter().map(|name| self.tensors.stored_bytes(name)).sum()
        };
        let bytes_total = range.blocks().map(stored).sum();
        let mut bytes_done = 0;
        let (mut blocks, mut digests) = (Vec::new(), Vec::new());
        for block in range.blocks() {
            let mut tensor_done = |bytes| {
                bytes_done += bytes;
                progress(LoadProgress { block, bytes_done, bytes_total });
            };
            let loader = BlockLoader::new(place, &self.config, &self.tensors, block, format, &mut tensor_done);
            let (block, digest) = loader.load()?;
            blocks.push(block);
            digests.push(digest);
        }
        Ok((blocks, digests))
    }

    /// Makes embedding, final norm and head ready. For a quantised format they are in the type of its activations: looking up
    /// rows gains nothing from fewer bits, and the head decides between tokens.
    ///
    /// # Errors
    /// [`ModelError`] if a tensor is missing, damaged or of another shape.
    pub fn load_edges(&self, format: WeightFormat) -> Result<Edges, ModelError> {
        let config = &self.config;
        let table = (config.vocab, config.hidden);
        let floats = WeightFormat::from(ElementType::from(format));
        // Nobody asks for it.
        let mut digest = Hasher::new();
        let embedding = self.tensors.matrix(EMBEDDING, table, floats, &mut digest)?;
        let norm = self.tensors.vector(FINAL_NORM, config.hidden, &mut digest)?;
        let head = match config.tied {
            true => None,
            false => Some(self.tensors.matrix(HEAD, table, floats, &mut digest)?),
        };
        Ok(Edges::new(config.clone(), format, embedding, norm, head))
    }

    /// The model's tokenizer.
    ///
    /// # Errors
    /// [`ModelError`] if `tokenizer.json` is missing or damaged.
    pub fn tokenizer(&self) -> Result<TextTokenizer, ModelError> {
        TextTokenizer::parse(&self.files.read("tokenizer.json", MAX_JSON)?)
    }

    /// The model's chat template, if it has one: `chat_template.jinja`, or what `tokenizer_config.json` holds.
    ///
    /// # Errors
    /// [`ModelError`] if a file is damaged or the template does not parse.
    pub fn chat_template(&self) -> Result<Option<ChatTemplate>, ModelError> {
        let jinja = self.files.read_if_there("chat_template.jinja", MAX_JSON)?;
        let config = self.files.read_if_there("tokenizer_config.json", MAX_JSON)?;
        ChatTemplate::parse(jinja.as_deref(), config.as_deref())
    }

    /// What `generation_config.json` suggests, with `config.json` where it is silent.
    ///
    /// # Errors
    /// [`ModelError::BadFile`] if the file is damaged.
    pub fn generation_defaults(&self) -> Result<GenerationDefaults, ModelError> {
        let name = "generation_config.json";
        let json = self.files.read_if_there(name, MAX_JSON)?;
        GenerationDefaults::parse(json.as_deref(), &self.files.label(name), &self.config)
    }
}

fn unsupported(kind: &str, spec: &ModelSpec) -> ModelError {
    ModelError::UnsupportedSource { what: format!("{kind} {spec}") }
}

fn name(spec: &ModelSpec) -> String {
    let file_name = match spec {
        ModelSpec::Directory(path) => path.canonicalize().ok().and_then(|path| {
            let name = path.file_name()?;
            Some(name.to_string_lossy().into_owned())
        }),
        _ => None,
    };
    file_name.unwrap_or_else(|| spec.to_string())
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::source::ByteSource;
    use crate::tensors::SINGLE;

    type Reads = Arc<Mutex<Vec<std::ops::Range<u64>>>>;

    /// A file that remembers what was read.
    struct Watched {
        source: Box<dyn ByteSource>,
        reads: Reads,
    }

    impl ByteSource for Watched {
        fn len(&self) -> u64 {
            self.source.len()
        }

        fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
            let end = offset + buffer.len() as u64;
            self.reads.lock().unwrap().push(offset..end);
            self.source.read_at(offset, buffer)
        }
    }

    fn watched_demo() -> (Checkpoint, Reads) {
        let reads = Reads::default();
        let source = Box::new(Watched { source: Files::Demo.open(SINGLE).unwrap(), reads: reads.clone() });
        let mut tensors = Tensors::default();
        tensors.add_shard(SINGLE.into(), source).unwrap();
        let config = ModelConfig::parse(&Files::Demo.read("config.json", MAX_JSON).unwrap()).unwrap();
        let checkpoint = Checkpoint::from_parts("demo".into(), Files::Demo, config, tensors).unwrap();
        (checkpoint, reads)
    }

    #[test]
    fn only_the_bytes_of_the_range_are_read() {
        let (checkpoint, reads) = watched_demo();
        let header = reads.lock().unwrap().drain(..).map(|read| read.end).max().unwrap();
        assert!(header < 20_000, "opening read {header} bytes");
        let mut last = None;
        let range = BlockRange::new(5, 8).unwrap();
        checkpoint.load_blocks(range, WeightFormat::F32, &mut |progress| last = Some(progress)).unwrap();
        let mut read = std::mem::take(&mut *reads.lock().unwrap());
        let of_block = |block| BlockNames::new(block).all(checkpoint.config());
        let names: Vec<String> = range.blocks().flat_map(of_block).collect();
        let mut expected: Vec<_> = names.iter().map(|name| checkpoint.tensors.place(name).unwrap()).collect();
        read.sort_by_key(|bytes| bytes.start);
        expected.sort_by_key(|bytes| bytes.start);
        assert_eq!(read, expected);
        let total = read.iter().map(|bytes| bytes.end - bytes.start).sum();
        let done = LoadProgress { block: BlockIndex(7), bytes_done: total, bytes_total: total };
        assert_eq!(last, Some(done));
    }

    #[test]
    fn a_digest_is_of_the_stored_bytes_or_of_the_quantised_ones() {
        let (checkpoint, _) = watched_demo();
        let digests = |start, end, format| {
            let range = BlockRange::new(start, end).unwrap();
            checkpoint.load_blocks(range, format, &mut |_| ()).unwrap().digests().to_vec()
        };
        let all = digests(0, 12, WeightFormat::Bf16);
        assert_eq!(digests(3, 5, WeightFormat::F32), all[3..5]);
        for format in [WeightFormat::Q8_0, WeightFormat::Q4_0, WeightFormat::Q4K] {
            let quantised = digests(3, 5, format);
            assert_eq!(quantised, digests(3, 5, format));
            assert!(quantised.iter().all(|digest| !all.contains(digest)), "{format}");
            assert!(quantised != digests(4, 6, format));
        }
        let distinct: std::collections::HashSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), 12);
    }

    #[test]
    fn weights_stay_in_the_file_unless_they_change() {
        let directory = tempfile::tempdir().unwrap();
        crate::synthetic::SyntheticSpec::default().write(directory.path()).unwrap();
        let checkpoint = Checkpoint::open(&ModelSpec::Directory(directory.path().into())).unwrap();
        let load = |format| {
            let blocks =
                checkpoint.load_blocks(checkpoint.config().all_blocks().unwrap(), format, &mut |_| ()).unwrap();
            format!("{blocks:?} {:?}", checkpoint.load_edges(format).unwrap())
        };
        assert!(!load(WeightFormat::Bf16).contains("owned"));
        assert!(!load(WeightFormat::F32).contains("in place"));
        let quantised = load(WeightFormat::Q8_0);
        assert!(quantised.contains("Packed") && !quantised.contains("owned"));
    }
}

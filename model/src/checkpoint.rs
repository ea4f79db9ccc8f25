//! A checkpoint on disk or in the binary, a directory or a GGUF file: its headers read, its tensors on demand.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use blake3::Hasher;
use swarm_protocol::block::{BlockIndex, BlockRange};
use swarm_protocol::model_id::{BlockDigest, ModelId, WeightFormat};
use swarm_protocol::wire::ElementType;

use crate::block::Block;
use crate::block_loader::{BlockLoader, Layer, with_offset};
use crate::block_tensors::{BlockTensors, split_fused};
use crate::blocks::{Blocks, Hosted};
use crate::chat::ChatTemplate;
use crate::config::ModelConfig;
use crate::device::{ComputeDevice, DeviceBlocks};
use crate::edges::Edges;
use crate::embedding::Embedding;
use crate::error::ModelError;
use crate::generation::GenerationDefaults;
use crate::gguf::{self, Gguf, Opened};
use crate::kv::KvFormat;
use crate::manifest::model_id;
use crate::source::{CheckpointFiles, DemoFiles, DirectoryFiles, FileRange, read_file, read_if_there};
use crate::spec::ModelSpec;
use crate::stacked_experts::split_stacked;
use crate::stored_type::StoredType;
use crate::tensors::Tensors;
use crate::text::TextTokenizer;

/// The longest JSON file read beside the weights: large vocabularies have tokenizers of some 20 MiB.
const MAX_JSON: u64 = 256 << 20;

const EMBEDDING: &str = "model.embed_tokens.weight";
const FINAL_NORM: &str = "model.norm.weight";
const HEAD: &str = "lm_head.weight";

/// What [`Checkpoint::load_blocks`] does at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoadStage {
    /// Bytes that are not on this machine yet are brought here; only those are counted.
    Fetch,
    /// Weights are read, digested and converted.
    Read,
}

/// A part of a model that needs bytes of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelPart {
    /// What a server of these blocks holds.
    Blocks(BlockRange),
    /// What a client holds: embedding, final norm and head.
    Edges,
}

/// How far [`Checkpoint::load_blocks`] has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoadProgress {
    /// What the bytes are counted of.
    pub stage: LoadStage,
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
    files: Arc<dyn CheckpointFiles>,
    config: ModelConfig,
    tensors: Tensors,
    native: WeightFormat,
    /// Where configuration and tokenizer come from, if not from files of their own.
    gguf: Option<Gguf>,
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
        let files: Arc<dyn CheckpointFiles> = match spec {
            ModelSpec::Gguf(path) => return Self::open_gguf(path),
            ModelSpec::Demo => Arc::new(DemoFiles),
            ModelSpec::Directory(path) => Arc::new(DirectoryFiles(path.clone())),
            ModelSpec::Hub { .. } => return Err(unsupported("the Hugging Face model", spec)),
        };
        Self::open_files(name(spec), files)
    }

    /// The same for files that lie anywhere; `name` is the model's name for people.
    ///
    /// # Errors
    /// Those of [`Checkpoint::open`].
    pub fn open_files(name: String, files: Arc<dyn CheckpointFiles>) -> Result<Self, ModelError> {
        let config = ModelConfig::parse(&read_file(&*files, "config.json", MAX_JSON)?)?;
        let mut tensors = Tensors::open(&*files)?;
        tensors.lift_text_model();
        if let Some(odd) = tensors.beside(&[EMBEDDING, FINAL_NORM, HEAD], config.blocks) {
            let architecture = config.family.architecture().to_string();
            return Err(ModelError::UnknownTensor { tensor: odd.to_string(), architecture });
        }
        Self::from_parts(name, files, config, tensors)
    }

    fn open_gguf(path: &Path) -> Result<Self, ModelError> {
        let no_file = || ModelError::MissingFile { file: path.display().to_string() };
        let file = path.file_name().ok_or_else(no_file)?.to_str().ok_or_else(no_file)?;
        let directory = path.parent().unwrap_or(Path::new(""));
        Self::open_gguf_files(gguf::stem(file).to_string(), Arc::new(DirectoryFiles(directory.into())), file)
    }

    /// The model in the GGUF file `first_file` of `files`, or in the parts of which it is one; `name` is the model's name for
    /// people.
    ///
    /// # Errors
    /// [`ModelError`] if a part is missing, damaged or hostile, or the model is of a kind that is not supported.
    pub fn open_gguf_files(
        name: String,
        files: Arc<dyn CheckpointFiles>,
        first_file: &str,
    ) -> Result<Self, ModelError> {
        let Opened { gguf, config, tensors } = gguf::open(&*files, first_file)?;
        let native = Gguf::one_float_type(&config, &tensors).map_or(WeightFormat::Gguf, WeightFormat::from);
        Ok(Self { native, gguf: Some(gguf), ..Self::from_parts(name, files, config, tensors)? })
    }

    fn from_parts(
        name: String,
        files: Arc<dyn CheckpointFiles>,
        config: ModelConfig,
        mut tensors: Tensors,
    ) -> Result<Self, ModelError> {
        split_fused(&mut tensors, &config)?;
        split_stacked(&mut tensors, &config)?;
        let query = BlockTensors::new(&config, BlockIndex(0)).query().name;
        let native = match tensors.type_of(&query)? {
            StoredType::Float(element) => element.into(),
            StoredType::Quantised(_) => WeightFormat::Gguf,
            other => return Err(ModelError::WrongType { tensor: query, found: other.to_string() }),
        };
        Ok(Self { name, files, config, tensors, native, gguf: None })
    }

    pub(crate) fn tensors(&self) -> &Tensors {
        &self.tensors
    }

    /// A small file of the checkpoint.
    pub(crate) fn read_json(&self, name: &str) -> Result<Vec<u8>, ModelError> {
        read_file(&*self.files, name, MAX_JSON)
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
        self.check_format(format)?;
        if range.end() > self.config.blocks {
            let blocks = self.config.blocks;
            return Err(ModelError::RangePastModel { range, blocks });
        }
        let first = BlockIndex(range.start());
        self.files.fetch(&self.byte_ranges(ModelPart::Blocks(range)), &mut |bytes_done, bytes_total| {
            progress(LoadProgress { stage: LoadStage::Fetch, block: first, bytes_done, bytes_total });
        })?;
        let names = self.tensor_names(ModelPart::Blocks(range));
        let bytes_total = names.iter().map(|name| self.tensors.stored_bytes(name)).sum();
        let mut bytes_done = 0;
        let (mut blocks, mut digests) = (Vec::new(), Vec::new());
        for block in range.blocks() {
            let mut tensor_done = |bytes| {
                bytes_done += bytes;
                progress(LoadProgress { stage: LoadStage::Read, block, bytes_done, bytes_total });
            };
            let loader = BlockLoader::new(place, &self.config, &self.tensors, block, format, &mut tensor_done);
            let (block, digest) = loader.load()?;
            blocks.push(block);
            digests.push(digest);
        }
        Ok((blocks, digests))
    }

    fn check_format(&self, format: WeightFormat) -> Result<(), ModelError> {
        match format == WeightFormat::Gguf && self.gguf.is_none() {
            true => Err(ModelError::NoGguf { name: self.name.clone(), native: self.native }),
            false => Ok(()),
        }
    }

    /// Which bytes of which files `part` needs, in the order of its tensors; tensors that the checkpoint lacks are left out.
    pub fn byte_ranges(&self, part: ModelPart) -> Vec<FileRange> {
        self.tensor_names(part).iter().flat_map(|name| self.tensors.places(name)).collect()
    }

    /// Brings all bytes of `part` here, if the checkpoint's files lie elsewhere. `progress` is told how many of the bytes that
    /// were missing have come, and how many were missing. Loading does the same; this is for those who want to see it, or
    /// load later.
    ///
    /// # Errors
    /// [`ModelError`] if some cannot be had.
    pub fn fetch(&self, part: ModelPart, progress: &mut dyn FnMut(u64, u64)) -> Result<(), ModelError> {
        self.files.fetch(&self.byte_ranges(part), progress)
    }

    fn tensor_names(&self, part: ModelPart) -> Vec<String> {
        match part {
            ModelPart::Blocks(range) => {
                let tensors = range.blocks().flat_map(|block| BlockTensors::new(&self.config, block).all());
                tensors.map(|tensor| tensor.name).collect()
            }
            ModelPart::Edges => {
                let head = (!self.config.tied).then_some(HEAD);
                [EMBEDDING, FINAL_NORM].into_iter().chain(head).map(str::to_string).collect()
            }
        }
    }

    /// Makes embedding, final norm and head ready. For a quantised format they are in the type of its activations: looking up
    /// rows gains nothing from fewer bits, and the head decides between tokens. As a GGUF file stores them, they are as its
    /// makers chose: rows of the embedding are looked up in the file.
    ///
    /// # Errors
    /// [`ModelError`] if a tensor is missing, damaged or of another shape.
    pub fn load_edges(&self, format: WeightFormat) -> Result<Edges, ModelError> {
        self.check_format(format)?;
        let config = &self.config;
        self.files.fetch(&self.byte_ranges(ModelPart::Edges), &mut |_, _| ())?;
        let table = (config.vocab, config.hidden);
        let held = match format {
            WeightFormat::Gguf => format,
            _ => WeightFormat::from(ElementType::from(format)),
        };
        let mut digest = Hasher::new();
        let embedding = self.tensors.embedding(EMBEDDING, table, held, &mut digest)?;
        let norm = self.tensors.vector(FINAL_NORM, config.hidden, &mut digest)?;
        let norm = with_offset(norm, config.norm_offset)?;
        let head = match (config.tied, &embedding) {
            (true, Embedding::Floats(matrix)) => matrix.clone(),
            (true, Embedding::Ggml { .. }) => self.tensors.matrix(EMBEDDING, table, held, &mut digest)?,
            (false, _) => self.tensors.matrix(HEAD, table, held, &mut digest)?,
        };
        let digest = BlockDigest(*digest.finalize().as_bytes());
        Ok(Edges::new(config.clone(), format, embedding, norm, head, digest))
    }

    /// The model's tokenizer.
    ///
    /// # Errors
    /// [`ModelError`] if `tokenizer.json` is missing or damaged.
    pub fn tokenizer(&self) -> Result<TextTokenizer, ModelError> {
        if let Some(gguf) = &self.gguf {
            return gguf.tokenizer(&*self.files);
        }
        TextTokenizer::parse(&read_file(&*self.files, "tokenizer.json", MAX_JSON)?)
    }

    /// The model's chat template, if it has one: `chat_template.jinja`, or what `tokenizer_config.json` holds.
    ///
    /// # Errors
    /// [`ModelError`] if a file is damaged or the template does not parse.
    pub fn chat_template(&self) -> Result<Option<ChatTemplate>, ModelError> {
        if let Some(gguf) = &self.gguf {
            return gguf.chat_template(&*self.files);
        }
        let jinja = read_if_there(&*self.files, "chat_template.jinja", MAX_JSON)?;
        let config = read_if_there(&*self.files, "tokenizer_config.json", MAX_JSON)?;
        ChatTemplate::parse(jinja.as_deref(), config.as_deref())
    }

    /// What `generation_config.json` suggests, with `config.json` where it is silent.
    ///
    /// # Errors
    /// [`ModelError::BadFile`] if the file is damaged.
    pub fn generation_defaults(&self) -> Result<GenerationDefaults, ModelError> {
        if let Some(gguf) = &self.gguf {
            return gguf.generation_defaults(&*self.files, &self.config);
        }
        let name = "generation_config.json";
        let json = read_if_there(&*self.files, name, MAX_JSON)?;
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
    use std::sync::Mutex;

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
        let source = Box::new(Watched { source: DemoFiles.open(SINGLE).unwrap(), reads: reads.clone() });
        let mut tensors = Tensors::default();
        tensors.add_shard(SINGLE.into(), SINGLE.into(), source).unwrap();
        let config = ModelConfig::parse(&read_file(&DemoFiles, "config.json", MAX_JSON).unwrap()).unwrap();
        let checkpoint = Checkpoint::from_parts("demo".into(), Arc::new(DemoFiles), config, tensors).unwrap();
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
        let names = checkpoint.tensor_names(ModelPart::Blocks(range));
        let place = |name: &String| checkpoint.tensors.places(name)[0].bytes.clone();
        let mut expected: Vec<_> = names.iter().map(place).collect();
        read.sort_by_key(|bytes| bytes.start);
        expected.sort_by_key(|bytes| bytes.start);
        assert_eq!(read, expected);
        let total = read.iter().map(|bytes| bytes.end - bytes.start).sum();
        let done = LoadProgress { stage: LoadStage::Read, block: BlockIndex(7), bytes_done: total, bytes_total: total };
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

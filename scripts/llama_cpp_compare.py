#!/usr/bin/env python3
"""Milliseconds per block of llama.cpp on blocks of the shape of Llama 3.2 1B with random weights.

Takes `llama-cpp-python` and `gguf` (both from PyPI). By itself it measures everything a few times and prints one JSON
object. With --serve it loads its models, says {"about": ...}, and then answers each line `FORMAT SEQUENCES ROWS PAST` on
stdin with {"ms_per_block": ...}: so `swarm-bench compute --llama-cpp PYTHON` measures it by turns with its own blocks.

Each model has three blocks and a head of 64 tokens, which is below 1%. Of a prompt, the logits of all rows are asked for: else
llama.cpp would leave them out in the last block.
"""

import argparse
import ctypes
import json
import os
import statistics
import sys
import tempfile
import time

import gguf
import llama_cpp
import numpy

HIDDEN, INTERMEDIATE, HEADS, KV_HEADS, HEAD_DIM, VOCAB = 2048, 8192, 32, 8, 64, 64
# More weights than a processor's caches hold.
BLOCKS = 3
MOST_ROWS = 512
MOST_SEQUENCES = 8
# Positions of a sequence: a whole prompt, or a past and a step.
CONTEXT = 640
# A scale that keeps the activations of random weights small in every format.
SCALE = 2e-4
FORMATS = {
    "f16": gguf.GGMLQuantizationType.F16,
    "bf16": gguf.GGMLQuantizationType.BF16,
    "q8_0": gguf.GGMLQuantizationType.Q8_0,
    "q4_0": gguf.GGMLQuantizationType.Q4_0,
    "q4_k": gguf.GGMLQuantizationType.Q4_K,
}
# What `swarm-bench compute` measures: sequences, rows of each, positions before.
WORKLOADS = {"decode-1": (1, 1, 128), "decode-8": (8, 1, 128), "prefill-512": (1, 512, 0)}


def random_bytes(kind, outputs, inner, rng):
    """A matrix in one of ggml's formats, every element of which is a small number."""
    per_block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    blocks = rng.integers(0, 256, (outputs, inner // per_block, block_bytes), dtype=numpy.uint8)
    if kind in (gguf.GGMLQuantizationType.F16, gguf.GGMLQuantizationType.BF16):
        floats = (rng.random((outputs, inner), dtype=numpy.float32) - 0.5) * (256 * SCALE)
        if kind == gguf.GGMLQuantizationType.F16:
            return floats.astype(numpy.float16)
        return (floats.view(numpy.uint32) >> 16).astype(numpy.uint16).view(numpy.uint8)
    if kind == gguf.GGMLQuantizationType.Q8_0:
        blocks[..., 0:2] = half(SCALE)
    elif kind == gguf.GGMLQuantizationType.Q4_0:
        blocks[..., 0:2] = half(16 * SCALE)
    else:
        # Scale and minimum, so that nibbles lie around zero.
        blocks[..., 0:2], blocks[..., 2:4] = half(SCALE / 2), half(SCALE / 2 * 7.5)
    return blocks.reshape(outputs, -1)


def half(value):
    return numpy.frombuffer(numpy.float16(value).tobytes(), numpy.uint8)


def write_model(path, name, blocks):
    kind, rng = FORMATS[name], numpy.random.default_rng(1)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(blocks)
    writer.add_context_length(4096)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(INTERMEDIATE)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_dimension_count(HEAD_DIM)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(VOCAB)
    writer.add_tokenizer_model("none")
    table = (rng.random((VOCAB, HIDDEN), dtype=numpy.float32) - 0.5).astype(numpy.float16)
    writer.add_tensor("token_embd.weight", table)
    writer.add_tensor("output_norm.weight", numpy.ones(HIDDEN, numpy.float32))
    matrices = {
        "attn_q": (HEADS * HEAD_DIM, HIDDEN),
        "attn_k": (KV_HEADS * HEAD_DIM, HIDDEN),
        "attn_v": (KV_HEADS * HEAD_DIM, HIDDEN),
        "attn_output": (HIDDEN, HEADS * HEAD_DIM),
        "ffn_gate": (INTERMEDIATE, HIDDEN),
        "ffn_up": (INTERMEDIATE, HIDDEN),
        "ffn_down": (HIDDEN, INTERMEDIATE),
    }
    # Blocks may have the same values; they do not share memory.
    values = {part: random_bytes(kind, outputs, inner, rng) for part, (outputs, inner) in matrices.items()}
    raw = None if name == "f16" else kind
    for block in range(blocks):
        for part in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{block}.{part}.weight", numpy.ones(HIDDEN, numpy.float32))
        for part, matrix in values.items():
            writer.add_tensor(f"blk.{block}.{part}.weight", matrix, raw_dtype=raw)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


class Model:
    """One model and its context."""

    def __init__(self, path, threads):
        self.model = llama_cpp.llama_model_load_from_file(path.encode(), llama_cpp.llama_model_default_params())
        if not self.model:
            sys.exit(f"llama.cpp does not load {path}")
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = CONTEXT * (MOST_SEQUENCES + 1)
        params.n_batch = params.n_ubatch = MOST_ROWS
        params.n_seq_max = MOST_SEQUENCES + 1
        params.n_threads = params.n_threads_batch = threads
        self.context = llama_cpp.llama_init_from_model(self.model, params)
        if not self.context:
            sys.exit("llama.cpp makes no context")
        self.memory = llama_cpp.llama_get_memory(self.context)
        self.batch = llama_cpp.llama_batch_init(MOST_ROWS, 0, MOST_SEQUENCES)
        # Positions that each sequence has.
        self.held = [0] * (MOST_SEQUENCES + 1)

    def prepare(self, sequence, past):
        """Leaves `past` positions in a sequence."""
        if self.held[sequence] < past:
            self.decode([(sequence, position) for position in range(self.held[sequence], past)])
        llama_cpp.llama_memory_seq_rm(self.memory, sequence, past, -1)
        self.held[sequence] = past

    def decode(self, rows):
        batch = self.batch
        batch.n_tokens = len(rows)
        for index, (sequence, position) in enumerate(rows):
            batch.token[index] = (7 * position + sequence) % VOCAB
            batch.pos[index] = position
            batch.n_seq_id[index] = 1
            batch.seq_id[index][0] = sequence
            batch.logits[index] = True
        start = time.perf_counter()
        code = llama_cpp.llama_decode(self.context, batch)
        llama_cpp.llama_synchronize(self.context)
        took = time.perf_counter() - start
        if code != 0:
            sys.exit(f"llama_decode says {code}")
        return took * 1e3

    def measure(self, sequences, rows, past):
        """Milliseconds of one call. Prompts take a sequence of their own, so that the others keep their past."""
        first = 0 if past else MOST_SEQUENCES
        used = range(first, first + sequences)
        for sequence in used:
            self.prepare(sequence, past)
        took = self.decode([(sequence, past + row) for sequence in used for row in range(rows)])
        for sequence in used:
            self.held[sequence] = past + rows
        return took


def load(names, threads):
    models = {}
    with tempfile.TemporaryDirectory(prefix="swarm-bench-") as directory:
        for name in names:
            path = os.path.join(directory, f"{name}.gguf")
            write_model(path, name, BLOCKS)
            models[name] = Model(path, threads)
    # The files are mapped; the system keeps them until this process ends.
    return models


def per_block(model, workload):
    sequences, rows, _ = workload
    if sequences * rows <= MOST_SEQUENCES:
        # Wakes its threads.
        model.measure(*workload)
    return model.measure(*workload) / BLOCKS


def serve(models, about):
    print(json.dumps({"about": about}), flush=True)
    for line in sys.stdin:
        name, *workload = line.split()
        print(json.dumps({"ms_per_block": per_block(models[name], [int(number) for number in workload])}), flush=True)


def alone(models, about, rounds):
    times = {name: {workload: [] for workload in WORKLOADS} for name in models}
    for _ in range(rounds + 1):
        for name, model in models.items():
            for workload, shape in WORKLOADS.items():
                times[name][workload].append(per_block(model, shape))
    # The first round found cold caches.
    medians = {name: {key: statistics.median(all[1:]) for key, all in of.items()} for name, of in times.items()}
    print(json.dumps({"about": about, "rounds": rounds, "ms_per_block": medians}))


@llama_cpp.llama_log_callback
def quiet(_level, _text, _data):
    pass


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--formats", default=",".join(FORMATS), help="separated by commas")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--serve", action="store_true", help="answer what stdin asks")
    args = parser.parse_args()
    llama_cpp.llama_log_set(quiet, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    models = load([name for name in args.formats.split(",") if name], args.threads)
    features = llama_cpp.llama_print_system_info().decode().strip().rstrip("|").strip()
    about = f"llama-cpp-python {llama_cpp.__version__}, {features}"
    if args.serve:
        serve(models, about)
    else:
        alone(models, about, args.rounds)


if __name__ == "__main__":
    main()

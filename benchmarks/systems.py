"""The systems under test, one small class each, all with the same few methods.

Each runs in a process of its own (see worker.py), in a Python that may lack the libraries of this
project and of the others. So everything is imported where it is used, NumPy too, before which this
project has a setting to make; and what a system needs of the model lies in a folder in plain
formats (`write_plain_model`).
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np

WEIGHTS, HPARAMS, VOCABULARY, MERGES = "weights.npz", "hparams.json", "vocab.json", "merges.txt"
TEMPERATURE = 1.0
SEED = 1

Prompts = list[list[int]]  # one a row, all of one length
Tick = Callable[[], None]


def threads() -> int:
    """How many processor cores there are for this process."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class System(Protocol):
    """What is measured."""

    packages: tuple[str, ...]  # that do the work
    ours: bool
    ticks: bool  # whether it can tell when each token is there
    # For each number of a matrix, and of the embeddings as the output layer, as read from memory.
    matrix_bytes: float
    head_bytes: float

    def prepare(self, model: Path, plain: Path) -> None:
        """Convert the weights, unless that is done.

        Args:
            model: the model's folder in OpenAI's form.
            plain: the folder of `write_plain_model`, where conversions may be put too.
        """

    def open(self, model: Path, plain: Path) -> None:
        """Load the weights."""

    def generate(self, prompts: Prompts, new: int, top_k: int, tick: Tick | None) -> Prompts:
        """Go on from the prompts, all at once, by exactly so many tokens each.

        Args:
            tick: called after each token; only given for a single prompt, and if `ticks`.

        Returns:
            The new tokens, [B, new].
        """


def version(system: System) -> str:
    """Which versions of its packages a system runs on."""
    found = []
    for name in system.packages:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:  # there under the name of a variant
            found.append(name)
    return " on ".join(found)


def write_plain_model(model: Path, plain: Path) -> None:
    """Write a model's weights, sizes and vocabulary in formats that need no library of ours."""
    import numpy as np

    from gpt2.checkpoint.folder import ModelFolder
    from gpt2.tokenizer import ENCODER_FILE, MERGES_FILE

    folder = ModelFolder(model)
    np.savez(plain / WEIGHTS, **folder.weights())
    folder.hparams.save(plain / HPARAMS)
    shutil.copyfile(folder.file(ENCODER_FILE), plain / VOCABULARY)
    shutil.copyfile(folder.file(MERGES_FILE), plain / MERGES)


class ThisProject:
    """This project, with one of its engines."""

    ours = True
    ticks = True
    packages = ("tensorflow",)

    def __init__(self, engine: str, quantize: str, kv_cache: str = "float32"):
        self._engine, self._quantize, self._kv_cache = engine, quantize, kv_cache
        # int4 has a 16-bit scale for each block of 32 weights, and the head in 8 bits.
        self.matrix_bytes = {"none": 4.0, "int8": 1.0, "int4": 0.5 + 2 / 32}[quantize]
        self.head_bytes = {"none": 4.0, "int8": 1.0, "int4": 1.0}[quantize]

    def prepare(self, model: Path, plain: Path) -> None:
        self.open(model, plain)
        del self._model

    def open(self, model: Path, plain: Path) -> None:
        from gpt2.checkpoint.folder import ModelFolder
        from gpt2.commands.signals import load_tensorflow
        from gpt2.generation.loading import open_model

        load_tensorflow()  # as the commands do, without Keras
        self._model = open_model(
            ModelFolder(model), self._engine, self._quantize, kv_cache=self._kv_cache
        )

    def generate(self, prompts: Prompts, new: int, top_k: int, tick: Tick | None) -> Prompts:
        settings = self._model.settings(
            length=new, seed=SEED, temperature=TEMPERATURE, top_k=top_k, ignore_endoftext=True
        )
        texts = {}
        for text in self._model.completions(enumerate(prompts), settings, len(prompts)):
            texts[text.number] = text
            if tick:
                tick()
        return [texts[number].tokens for number in range(len(prompts))]


class Transformers:
    """Hugging Face transformers' `generate` on PyTorch, as it comes."""

    ours = False
    ticks = True
    packages = ("transformers", "torch")
    matrix_bytes = head_bytes = 4.0

    def prepare(self, model: Path, plain: Path) -> None:
        hugging_face_folder(plain)

    def open(self, model: Path, plain: Path) -> None:
        import torch
        import transformers

        torch.set_num_threads(threads())
        self._model = transformers.GPT2LMHeadModel.from_pretrained(hugging_face_folder(plain))
        self._model.generation_config.eos_token_id = None  # it writes on to the full length

    def generate(self, prompts: Prompts, new: int, top_k: int, tick: Tick | None) -> Prompts:
        import torch

        ids = torch.tensor(prompts)
        with torch.inference_mode():
            written = self._model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=new,
                do_sample=True,
                temperature=TEMPERATURE,
                top_k=top_k,
                pad_token_id=0,
                streamer=_Streamer(tick) if tick else None,
            )
        return written[:, ids.shape[1] :].tolist()


class _Streamer:
    """What transformers hands the prompt to, and then each token."""

    def __init__(self, tick: Tick):
        self._tick = tick
        self._prompt_is_past = False

    def put(self, tokens: object) -> None:
        if self._prompt_is_past:
            self._tick()
        self._prompt_is_past = True

    def end(self) -> None:
        pass


def hugging_face_folder(plain: Path) -> Path:
    """The model in the form of transformers' `save_pretrained`, made if it is not there."""
    folder = plain / "transformers"
    if folder.exists():
        return folder
    import numpy as np
    import torch
    import transformers

    hparams = json.loads((plain / HPARAMS).read_text())
    end = json.loads((plain / VOCABULARY).read_text()).get("<|endoftext|>")
    config = transformers.GPT2Config(
        vocab_size=hparams["n_vocab"],
        n_positions=hparams["n_ctx"],
        n_embd=hparams["n_embd"],
        n_head=hparams["n_head"],
        n_layer=hparams["n_layer"],
        bos_token_id=end,
        eos_token_id=end,
    )
    network = transformers.GPT2LMHeadModel(config)
    state = {}
    with np.load(plain / WEIGHTS) as weights:
        for name, weight in weights.items():
            *path, kind = name.removeprefix("model/").split("/")  # h0/attn/c_attn/w
            if path:
                kind = {"w": "weight", "g": "weight", "b": "bias"}[kind]
            else:
                path, kind = [kind], "weight"  # wte, wpe
            if path[0][1:].isdigit():
                path[0] = f"h.{path[0][1:]}"
            matrix = weight[0] if weight.ndim == 3 else weight
            state[".".join(["transformer", *path, kind])] = torch.from_numpy(matrix)
    missing, unexpected = network.load_state_dict(state, strict=False)
    if set(missing) - {"lm_head.weight"} or unexpected:  # the head is the embedding
        raise RuntimeError(f"transformers has other tensors: {missing}, {unexpected}")
    partial = plain / "transformers.partial"
    shutil.rmtree(partial, ignore_errors=True)
    network.save_pretrained(partial)
    for name in (VOCABULARY, MERGES):
        shutil.copyfile(plain / name, partial / name)
    names = dict.fromkeys(("bos_token", "eos_token", "unk_token"), "<|endoftext|>")
    settings = {"tokenizer_class": "GPT2Tokenizer", **names}
    (partial / "tokenizer_config.json").write_text(json.dumps(settings))
    partial.rename(folder)
    return folder


class CTranslate2:
    """CTranslate2, with weights of one of its types."""

    ours = False
    ticks = True
    packages = ("ctranslate2",)

    def __init__(self, compute_type: str):
        self._compute_type = compute_type
        self.matrix_bytes = self.head_bytes = 1.0 if compute_type == "int8" else 4.0

    def _folder(self, plain: Path) -> Path:
        return plain / f"ctranslate2-{self._compute_type}"

    def prepare(self, model: Path, plain: Path) -> None:
        from ctranslate2.converters import TransformersConverter

        if not self._folder(plain).exists():
            converter = TransformersConverter(str(hugging_face_folder(plain)))
            converter.convert(str(self._folder(plain)), quantization=self._compute_type)

    def open(self, model: Path, plain: Path) -> None:
        import ctranslate2

        self._generator = ctranslate2.Generator(
            str(self._folder(plain)),
            device="cpu",
            compute_type=self._compute_type,
            intra_threads=threads(),
        )
        vocabulary = json.loads((plain / VOCABULARY).read_text())
        self._tokens = {number: token for token, number in vocabulary.items()}

    def generate(self, prompts: Prompts, new: int, top_k: int, tick: Tick | None) -> Prompts:
        results = self._generator.generate_batch(
            [[self._tokens[number] for number in prompt] for prompt in prompts],
            min_length=new,
            max_length=new,
            sampling_topk=top_k,
            sampling_temperature=TEMPERATURE,
            include_prompt_in_result=False,
            callback=(lambda step: tick()) if tick else None,  # None goes on, True would stop
        )
        return [result.sequences_ids[0] for result in results]


class LlamaCpp:
    """llama.cpp through its C interface, with weights of one of its types."""

    ours = False
    ticks = True
    packages = ("llama-cpp-python",)

    def __init__(self, kind: str):
        self._kind = kind
        # A block of 32 numbers in Q8_0 or Q4_0 has a scale of two bytes.
        sizes = {"F32": 4.0, "F16": 2.0, "Q8_0": 34 / 32, "Q4_0": 18 / 32}
        self.matrix_bytes, self.head_bytes = sizes[kind], sizes[embedding_type(kind)]

    def _file(self, plain: Path) -> Path:
        return plain / f"llama-{self._kind}.gguf"

    def prepare(self, model: Path, plain: Path) -> None:
        import llama_cpp  # noqa: F401  so that one without it does not convert for it

        if not self._file(plain).exists():
            write_gguf(plain, self._file(plain), self._kind)

    def open(self, model: Path, plain: Path) -> None:
        import llama_cpp

        llama_cpp.llama_backend_init()
        path = str(self._file(plain)).encode()
        self._model = llama_cpp.llama_model_load_from_file(
            path, llama_cpp.llama_model_default_params()
        )
        if not self._model:
            raise RuntimeError(f"llama.cpp cannot load {path!r}")
        self._contexts = {}  # by how many texts they hold

    def _context(self, rows: int):
        import llama_cpp

        if rows not in self._contexts:
            window = llama_cpp.llama_model_n_ctx_train(self._model)
            params = llama_cpp.llama_context_default_params()
            params.n_ctx, params.n_seq_max, params.n_batch = rows * window, rows, window
            params.n_threads = params.n_threads_batch = threads()
            self._contexts[rows] = llama_cpp.llama_init_from_model(self._model, params)
        return self._contexts[rows]

    def generate(self, prompts: Prompts, new: int, top_k: int, tick: Tick | None) -> Prompts:
        import llama_cpp

        context = self._context(len(prompts))
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), False)
        sampler = llama_cpp.llama_sampler_chain_init(llama_cpp.llama_sampler_chain_default_params())
        llama_cpp.llama_sampler_chain_add(sampler, llama_cpp.llama_sampler_init_top_k(top_k))
        llama_cpp.llama_sampler_chain_add(sampler, llama_cpp.llama_sampler_init_dist(SEED))
        written = [[] for _ in prompts]
        fed = prompts
        batch = llama_cpp.llama_batch_init(sum(map(len, prompts)), 0, 1)
        try:
            for step in range(new):
                start = step and len(prompts[0]) + step - 1
                last = _fill(batch, fed, start)
                if llama_cpp.llama_decode(context, batch):
                    raise RuntimeError("llama.cpp cannot decode")
                for tokens, index in zip(written, last, strict=True):
                    tokens.append(llama_cpp.llama_sampler_sample(sampler, context, index))
                fed = [tokens[-1:] for tokens in written]
                if tick:
                    tick()
        finally:
            llama_cpp.llama_batch_free(batch)
            llama_cpp.llama_sampler_free(sampler)
        return written


def _fill(batch: object, rows: Prompts, start: int) -> list[int]:
    """Put the tokens of each row, which begin at one position, into a batch of llama.cpp's.

    Returns:
        Where in the batch the last token of each row is.
    """
    place, last = 0, []
    for row, tokens in enumerate(rows):
        for offset, token in enumerate(tokens):
            batch.token[place] = token
            batch.pos[place] = start + offset
            batch.n_seq_id[place] = 1
            batch.seq_id[place][0] = row
            batch.logits[place] = offset == len(tokens) - 1
            place += 1
        last.append(place - 1)
    batch.n_tokens = place
    return last


# From OpenAI's names of tensors to GGUF's; w and g are "weight" there, b is "bias".
GGUF_NAMES = {
    "wte": "token_embd",
    "wpe": "position_embd",
    "ln_f": "output_norm",
    "ln_1": "attn_norm",
    "attn/c_attn": "attn_qkv",
    "attn/c_proj": "attn_output",
    "ln_2": "ffn_norm",
    "mlp/c_fc": "ffn_up",
    "mlp/c_proj": "ffn_down",
}


def embedding_type(kind: str) -> str:
    """Return the type of the token embeddings, which are the output layer, too.

    llama.cpp's own files of Q4_0 have more precise ones (Q6_K, which its Python package cannot
    write), and so has this project with 4-bit weights.
    """
    return "Q8_0" if kind == "Q4_0" else kind


def write_gguf(plain: Path, path: Path, kind: str) -> None:
    """Write the model for llama.cpp, matrices in the given type, all else in float32."""
    import gguf
    import numpy as np

    hparams = json.loads((plain / HPARAMS).read_text())
    partial = path.with_suffix(".partial")
    writer = gguf.GGUFWriter(partial, "gpt2")
    writer.add_context_length(hparams["n_ctx"])
    writer.add_embedding_length(hparams["n_embd"])
    writer.add_feed_forward_length(4 * hparams["n_embd"])
    writer.add_block_count(hparams["n_layer"])
    writer.add_head_count(hparams["n_head"])
    writer.add_layer_norm_eps(1e-5)

    vocabulary = json.loads((plain / VOCABULARY).read_text())
    token_of = {number: token for token, number in vocabulary.items()}
    end = vocabulary.get("<|endoftext|>", hparams["n_vocab"] - 1)
    numbers = range(hparams["n_vocab"])
    control, normal = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL
    merges = (plain / MERGES).read_text(encoding="utf-8").split("\n")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([token_of.get(number, f"[unused {number}]") for number in numbers])
    writer.add_token_types([control if number == end else normal for number in numbers])
    writer.add_token_merges([line for line in merges if line and not line.startswith("#version")])
    writer.add_bos_token_id(end)
    writer.add_eos_token_id(end)

    with np.load(plain / WEIGHTS) as weights:
        for name, weight in weights.items():
            gguf_name, matrix = _gguf_tensor(name, weight)
            quantized = kind if matrix.ndim == 2 and "position" not in gguf_name else "F32"
            if gguf_name == f"{GGUF_NAMES['wte']}.weight":
                quantized = embedding_type(kind)
            dtype = gguf.GGMLQuantizationType[quantized]
            writer.add_tensor(gguf_name, gguf.quants.quantize(matrix, dtype), raw_dtype=dtype)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    partial.rename(path)


def _gguf_tensor(name: str, weight: np.ndarray) -> tuple[str, np.ndarray]:
    """A tensor of OpenAI's under GGUF's name, a matrix as [out, in]."""
    name, _, kind = name.removeprefix("model/").rpartition("/")
    if not name:
        return f"{GGUF_NAMES[kind]}.weight", weight  # wte, wpe
    block = ""
    if name.startswith("h"):
        layer, _, name = name.partition("/")
        block = f"blk.{layer[1:]}."
    matrix = weight[0].T.copy() if weight.ndim == 3 else weight
    return f"{block}{GGUF_NAMES[name]}.{'bias' if kind == 'b' else 'weight'}", matrix


class GPT2Simple:
    """gpt-2-simple's sampling loop; its graph is built before, which its `generate` always does."""

    ours = False
    ticks = False
    packages = ("gpt-2-simple", "tensorflow")
    matrix_bytes = head_bytes = 4.0

    def prepare(self, model: Path, plain: Path) -> None:
        import gpt_2_simple  # noqa: F401

    def open(self, model: Path, plain: Path) -> None:
        import gpt_2_simple
        from gpt_2_simple.src.model import default_hparams

        self._hparams = default_hparams()
        self._hparams.override_from_dict(json.loads((plain / HPARAMS).read_text()))
        self._session = gpt_2_simple.start_tf_sess()
        gpt_2_simple.load_gpt2(self._session, model_name=model.name, model_dir=str(model.parent))
        self._loops = {}  # by batch and top_k, which its graph has to know

    def _loop(self, rows: int, top_k: int) -> tuple:
        import tensorflow as tf
        from gpt_2_simple.src.sample import sample_sequence

        if (rows, top_k) not in self._loops:
            context = tf.compat.v1.placeholder(tf.int32, [rows, None])
            length = tf.compat.v1.placeholder(tf.int32, [])
            output = sample_sequence(
                hparams=self._hparams,
                length=length,
                context=context,
                batch_size=rows,
                temperature=TEMPERATURE,
                top_k=top_k,
            )
            self._loops[rows, top_k] = context, length, output
        return self._loops[rows, top_k]

    def generate(self, prompts: Prompts, new: int, top_k: int, tick: Tick | None) -> Prompts:
        context, length, output = self._loop(len(prompts), top_k)
        tokens = self._session.run(output, feed_dict={context: prompts, length: new})
        return tokens[:, len(prompts[0]) :].tolist()


SYSTEMS: dict[str, System] = {
    "litert none": ThisProject("litert", "none"),
    "transformers fp32": Transformers(),
    "llama.cpp F32": LlamaCpp("F32"),
    "CTranslate2 float32": CTranslate2("float32"),
    "litert int8": ThisProject("litert", "int8"),
    "litert int8, int8 cache": ThisProject("litert", "int8", "int8"),
    "llama.cpp F16": LlamaCpp("F16"),
    "llama.cpp Q8_0": LlamaCpp("Q8_0"),
    "CTranslate2 int8": CTranslate2("int8"),
    "litert int4": ThisProject("litert", "int4"),
    "litert int4, int8 cache": ThisProject("litert", "int4", "int8"),
    "llama.cpp Q4_0": LlamaCpp("Q4_0"),
    "tensorflow": ThisProject("tensorflow", "none"),
    "gpt-2-simple": GPT2Simple(),
}

"""`load`: our own BART and T5 behind `generator_service.models.base`. Knows rows, beams and caches, not layers.

Rows are packed side by side, so linear layers never see padding, only a little filling (`rounded_rows`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from weakref import WeakValueDictionary

import torch
import torch.nn.functional as F
from torch import Tensor

from generator_service.models import bart, t5, teacher
from generator_service.models.base import DecodeState, EncodedRow, ModelSpec, StepItem, count_step
from generator_service.models.buckets import buckets, packs
from generator_service.models.cache import CrossKeysValues, LeanState, SelfKeysValues
from generator_service.models.checkpoint import Checkpoint
from generator_service.models.graphs import CudaGraphs, GraphBackend, GraphedSteps
from generator_service.models.stepping import StepPart, step_logits
from generator_service.models.transformer import Transformer
from generator_service.models.tree import TokenTree, token_trees
from generator_service.models.weights import Weights
from serving.attention import packed_attention
from serving.errors import Unimplemented
from serving.linear import Backend, choose_backend, rounded_rows

FAMILIES = bart.FAMILIES | t5.FAMILIES
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "int8": torch.int8}
# Bounds of activations: tokens that pass a layer together, nodes of one target tree, logits held at once.
_MAX_PACKED_TOKENS = 4096
_MAX_TREE_NODES = 512
_MAX_LOGITS = 1 << 22


def load(path: Path | str, *, dtype: str = "float32", device: str = "cpu", backend: Backend | None = None) -> LeanModel:
    """Loads a checkpoint directory of the BART or T5 family.

    Args:
        path: Holds config.json and safetensors weights, as transformers saves them; a saved RAG model will do.
        dtype: "float32", "bfloat16", "float16", or "int8": products of integers on a CPU, where that is faster, float32
            for the rest.
        device: A torch device.
        backend: How linear layers run; None takes what this machine runs best.

    Raises:
        Unimplemented: If the family, its activation or the dtype is not known here.
        ValueError: If the directory lacks something.
    """
    checkpoint = Checkpoint(Path(path))
    family = checkpoint.config.get("model_type")
    module = next((module for module in (bart, t5) if family in module.FAMILIES), None)
    if module is None:
        raise Unimplemented(f"model_type {family!r}: only {', '.join(sorted(FAMILIES))} have code of their own")
    if dtype not in DTYPES:
        raise Unimplemented(f"dtype {dtype!r}: only {', '.join(DTYPES)} are possible")
    kind, place = DTYPES[dtype], torch.device(device)
    with torch.inference_mode():
        backend = backend or choose_backend(kind, place.type)
        if kind == torch.int8:
            kind, dtype = torch.float32, "int8" if backend == "int8" else "float32"
        network = module.build(Weights(checkpoint, dtype=kind, device=place, backend=backend))
    graphs = CudaGraphs() if place.type == "cuda" else None
    # Products of integers are rough anyway, and in bfloat16 attention takes two thirds of the time.
    attention_dtype = torch.bfloat16 if backend == "int8" and torch.cpu._is_avx512_bf16_supported() else kind
    spec = _spec(checkpoint, network, module.DEFAULT_TOKEN_IDS, dtype)
    return LeanModel(network, spec, graphs=graphs, attention_dtype=attention_dtype)


def _spec(checkpoint: Checkpoint, network: Transformer, defaults: dict[str, int], dtype: str) -> ModelSpec:
    config = checkpoint.config

    def token_id(name: str) -> int | None:
        return checkpoint.token_id(name, defaults.get(name))

    def required(name: str, instead: str = "") -> int:
        value = token_id(name)
        value = token_id(instead) if value is None and instead else value
        if value is None:
            raise ValueError(f"{checkpoint.path} does not say its {name}")
        return value

    max_tokens = config.get("max_position_embeddings", config.get("n_positions", 512))
    return ModelSpec(
        name=checkpoint.path.name,
        architecture=(config.get("architectures") or [config["model_type"]])[0],
        digest=checkpoint.digest(),
        dtype=dtype,
        device=str(network.device),
        num_parameters=network.num_parameters,
        vocab_size=config["vocab_size"],
        max_input_tokens=max_tokens,
        max_target_tokens=max_tokens,
        decoder_start_token_id=required("decoder_start_token_id", "bos_token_id"),
        eos_token_id=required("eos_token_id"),
        pad_token_id=required("pad_token_id", "eos_token_id"),
        bos_token_id=token_id("bos_token_id"),
        forced_bos_token_id=token_id("forced_bos_token_id"),
        forced_eos_token_id=token_id("forced_eos_token_id"),
    )


class LeanModel:
    """A `Seq2SeqModel`. One thread owns it.

    `counters` counts, besides what `Seq2SeqModel` says, rows_projected (cross-attention keys and values) and
    scored_tokens; padded_tokens are padded in attention alone, and filling is not among them.
    """

    def __init__(
        self,
        network: Transformer,
        spec: ModelSpec,
        *,
        graphs: GraphBackend | None = None,
        attention_dtype: torch.dtype | None = None,
    ) -> None:
        """Takes the weights; `graphs` records decode steps, None where that is not possible.

        `attention_dtype` is what rows attend to themselves in while they are encoded; None is the network's.
        """
        self._network = network
        self._attention_dtype = attention_dtype or network.dtype
        self._graphed = None if graphs is None else GraphedSteps(network, graphs)
        self._spec = spec
        # Keys and values of open states by the id of the encoder row they belong to. They keep the row alive, so an id
        # found here is that row's.
        self._open: WeakValueDictionary[int, CrossKeysValues] = WeakValueDictionary()
        self.counters: Counter[str] = Counter()

    @property
    def spec(self) -> ModelSpec:
        """What the model is."""
        return self._spec

    @torch.inference_mode()
    def encode(self, rows: Sequence[Sequence[int]]) -> list[EncodedRow]:
        """See `Seq2SeqModel.encode`.

        Raises:
            ValueError: If a row is empty or longer than `spec.max_input_tokens`.
        """
        for row in rows:
            if not 0 < len(row) <= self._spec.max_input_tokens:
                raise ValueError(f"an input row has {len(row)} tokens; 1 to {self._spec.max_input_tokens} are possible")
        states: dict[int, Tensor] = {}
        for batch in self._batches([len(row) for row in rows]):
            packed = self._encode_packed([rows[number] for number in batch])
            # Clones: a view would keep the whole batch alive for as long as one of its rows is cached.
            parts = torch.split(packed, [len(rows[number]) for number in batch])
            states.update(zip(batch, (part.clone() for part in parts), strict=True))
        self.counters["rows_encoded"] += len(rows)
        self.counters["encoded_tokens"] += sum(len(row) for row in rows)
        return [EncodedRow(states[number]) for number in range(len(rows))]

    def _batches(self, lengths: Sequence[int]) -> Iterable[list[int]]:
        """Rows that are encoded together: of similar length only where attention pads."""
        if self._network.device.type == "cpu":
            return packs(lengths, max_tokens=_MAX_PACKED_TOKENS)
        return buckets(lengths, max_tokens=_MAX_PACKED_TOKENS)

    def _encode_packed(self, rows: Sequence[Sequence[int]]) -> Tensor:
        net = self._network
        lengths = [len(row) for row in rows]
        num_filling = rounded_rows(sum(lengths)) - sum(lengths)
        ids = torch.tensor([*(token for row in rows for token in row), *[0] * num_filling], device=net.device)
        steps = torch.arange(max(lengths), device=net.device)
        positions = torch.cat([*(steps[:length] for length in lengths), steps.new_zeros(num_filling)])
        bias = None if net.encoder.bias is None else net.encoder.bias.at(steps[None] - steps[:, None])
        attend = packed_attention(lengths, net.device)
        self.counters["padded_tokens"] += attend.num_padded_tokens

        def attend_self(_: int, qkv: Tensor) -> Tensor:
            return attend(qkv.to(self._attention_dtype), bias, net.encoder.scale).to(qkv.dtype)

        return net.encode(ids, positions, attend_self)[: sum(lengths)]

    @torch.inference_mode()
    def open(self, rows: Sequence[EncodedRow], *, num_beams: int = 1) -> LeanState:
        """See `Seq2SeqModel.open`."""
        net = self._network
        cross = self._cross_keys_values([row.states for row in rows])
        inner = cross.layers[0][0].shape[1] * cross.layers[0][0].shape[3]
        # On CPU in float32 whatever the model's dtype: they are small, and a bfloat16 product whose shape grows with
        # every token costs two to three times the float32 one.
        dtype = torch.float32 if net.device.type == "cpu" else net.dtype
        own = SelfKeysValues(len(net.decoder_layers), num_beams * len(rows), inner, dtype=dtype, device=net.device)
        return LeanState(cross, own, num_beams=num_beams)

    def _cross_keys_values(self, states: Sequence[Tensor]) -> CrossKeysValues:
        net = self._network
        lengths = [len(row) for row in states]
        num_tokens = sum(lengths)
        packed = F.pad(torch.cat(list(states)), (0, 0, 0, rounded_rows(num_tokens) - num_tokens))
        layers = []
        for number in range(len(net.decoder_layers)):
            projected = net.cross_keys_values(number, packed)
            layers.append(_by_row(projected[:num_tokens], lengths))
        cross = CrossKeysValues(states, layers)
        self._open.update({id(row): cross for row in states})
        self.counters["rows_projected"] += len(states)
        return cross

    @torch.inference_mode()
    def step(self, items: Sequence[StepItem]) -> list[Tensor]:
        """See `Seq2SeqModel.step`."""
        parts = [StepPart.of(_own(item.state), item.tokens) for item in items]
        logits = step_logits(self._network, parts) if self._graphed is None else self._graphed.step(parts)
        count_step(self.counters, items)
        return [
            each[0] if item.tokens.ndim == 2 else each.permute(1, 2, 0, 3)
            for item, each in zip(items, logits, strict=True)
        ]

    def rewind(self, state: DecodeState, num_tokens: int) -> None:
        """See `Seq2SeqModel.rewind`.

        Raises:
            ValueError: If the state has not consumed as many.
        """
        _own(state).rewind(num_tokens)

    @torch.inference_mode()
    def reorder(self, state: DecodeState, beams: Tensor, rows: Sequence[int] | None = None) -> None:
        """See `Seq2SeqModel.reorder`."""
        _own(state).reorder(beams.to(self._network.device), rows)

    @torch.inference_mode()
    def score(self, rows: Sequence[EncodedRow], targets: Sequence[Sequence[int]]) -> list[Tensor]:
        """See `Seq2SeqModel.score`.

        Targets go through the decoder as a prefix tree: what they share is computed once.

        Raises:
            ValueError: If a target is empty or longer than `spec.max_target_tokens`.
        """
        for target in targets:
            if not 0 < len(target) <= self._spec.max_target_tokens:
                raise ValueError(f"a target has {len(target)} tokens; 1 to {self._spec.max_target_tokens} are possible")
        scores = [torch.empty(len(rows), len(target), device=self._network.device) for target in targets]
        for tree in token_trees(targets, self._spec.decoder_start_token_id, max_nodes=_MAX_TREE_NODES):
            size = max(1, _MAX_PACKED_TOKENS // len(tree.tokens))
            for first in range(0, len(rows), size):
                self._score_tree([row.states for row in rows[first : first + size]], first, tree, targets, scores)
        return scores

    def _score_tree(
        self,
        rows: Sequence[Tensor],
        first: int,
        tree: TokenTree,
        targets: Sequence[Sequence[int]],
        scores: Sequence[Tensor],
    ) -> None:
        """Fills the scores of one tree's targets under the rows from number `first` on."""
        net = self._network
        missing = [row for row in rows if id(row) not in self._open]
        projected = self._cross_keys_values(missing) if missing else None  # alive until the rows are scored
        where = [(cross := self._open[id(row)], cross.index(row)) for row in rows]
        states = teacher.tree_states(net, where, tree)
        nodes = [node for path in tree.paths.values() for node in path]
        tokens = [token for number in tree.paths for token in targets[number]]
        log_probs = teacher.log_probs(net, states, nodes, tokens, block=max(1, _MAX_LOGITS // self._spec.vocab_size))
        parts = torch.split(log_probs, [len(path) for path in tree.paths.values()], dim=1)
        for number, part in zip(tree.paths, parts, strict=True):
            scores[number][first : first + len(rows)] = part
        self.counters["scored_tokens"] += len(rows) * len(tree.tokens)
        del projected


def _own(state: DecodeState) -> LeanState:
    if not isinstance(state, LeanState):
        raise TypeError(f"a state of another model: {type(state).__name__}")
    return state


def _by_row(packed: Tensor, lengths: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Keys and values (S, 2, H, d) of packed rows -> two of (N, H, T, d), zero beyond a row's length."""
    longest = max(lengths)
    _, _, heads, width = packed.shape
    make = packed.new_empty if min(lengths) == longest else packed.new_zeros
    both = make(2, len(lengths), heads, longest, width)
    for row, part in enumerate(torch.split(packed, list(lengths))):
        both[:, row, :, : lengths[row]] = part.permute(1, 2, 0, 3)
    return both[0], both[1]

"""What the generator's tests share: a fake model without weights, and tiny random checkpoints for oracle tests."""

from __future__ import annotations

import functools
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from generator_service.models.base import EncodedRow, ModelSpec, StepItem, count_step

VOCAB = 40

# Tiny products gain nothing from a second thread, and cost twenty times as much where the cores are shared.
torch.set_num_threads(1)


@dataclass(slots=True)
class FakeState:
    """Rows by their seed; counts itself among the model's open states while it lives."""

    seeds: list[int]
    num_beams: int
    position: int = 0

    @property
    def num_rows(self) -> int:
        return len(self.seeds)


class FakeModel:
    """A `Seq2SeqModel` whose next-token logits are a table over (row, last token, position)."""

    def __init__(self, *, vocab_size: int = 12, eos: int = 2, sharpness: float = 2.0, dtype: Any = None) -> None:
        generator = torch.Generator().manual_seed(7)
        self.table = torch.randn(997, vocab_size, generator=generator) * sharpness
        self.dtype = dtype or torch.float32
        self.num_steps = 0
        self.counters: Counter[str] = Counter()
        self.rows_per_step: list[int] = []
        self.fail_step: Exception | None = None
        self.before_step: Any = None
        self.spec = ModelSpec(
            name="fake", architecture="Fake", digest="f" * 64, dtype="float32", device="cpu", num_parameters=1,
            vocab_size=vocab_size, max_input_tokens=128, max_target_tokens=128, decoder_start_token_id=1,
            eos_token_id=eos, pad_token_id=0, bos_token_id=None, forced_bos_token_id=None, forced_eos_token_id=None,
        )  # fmt: skip

    def encode(self, rows: Sequence[Sequence[int]]) -> list[EncodedRow]:
        self.counters.update(rows_encoded=len(rows), encoded_tokens=sum(map(len, rows)))
        return [EncodedRow(torch.tensor(list(row), dtype=torch.float32)[:, None]) for row in rows]

    def open(self, rows: Sequence[EncodedRow], *, num_beams: int = 1) -> FakeState:
        return FakeState([self._seed(row) for row in rows], num_beams)

    def step(self, items: Sequence[StepItem]) -> list[torch.Tensor]:
        if self.before_step is not None:
            self.before_step()
        if self.fail_step is not None:
            raise self.fail_step
        self.num_steps += 1
        self.rows_per_step.append(sum(item.tokens.shape[:2].numel() for item in items))
        count_step(self.counters, items)
        results = []
        for item in items:
            state: Any = item.state
            assert item.tokens.shape[:2] == (state.num_beams, state.num_rows)
            by_token = item.tokens.reshape(*item.tokens.shape[:2], -1).unbind(-1)
            logits = [self._logits(state.seeds, each, state.position + s) for s, each in enumerate(by_token)]
            results.append(logits[0] if item.tokens.ndim == 2 else torch.stack(logits, 2))
            state.position += len(by_token)
        return results

    def rewind(self, state: Any, num_tokens: int) -> None:
        assert 0 <= num_tokens <= state.position
        state.position -= num_tokens

    def reorder(self, state: Any, beams: torch.Tensor, rows: Sequence[int] | None = None) -> None:
        state.seeds = state.seeds if rows is None else [state.seeds[row] for row in rows]
        assert beams.shape[1] == state.num_rows
        assert int(beams.max()) < state.num_beams
        state.num_beams = beams.shape[0]

    def score(self, rows: Sequence[EncodedRow], targets: Sequence[Sequence[int]]) -> list[torch.Tensor]:
        seeds = [self._seed(row) for row in rows]
        scores = []
        for target in targets:
            inputs = [self.spec.decoder_start_token_id, *target[:-1]]
            steps = [
                self._logits(seeds, torch.full((1, len(seeds)), token), place)[0].float().log_softmax(-1)[:, wanted]
                for place, (token, wanted) in enumerate(zip(inputs, target, strict=True))
            ]
            scores.append(torch.stack(steps, dim=1))
        return scores

    def _seed(self, row: EncodedRow) -> int:
        return int((row.states[:, 0] * torch.arange(1, row.states.shape[0] + 1)).sum())

    def _logits(self, seeds: list[int], tokens: torch.Tensor, position: int) -> torch.Tensor:
        places = (torch.tensor(seeds) * 31 + tokens * 7 + position * 13) % len(self.table)
        return self.table[places].to(self.dtype)


def tiny_bart(seed: int = 0, *, vocab_size: int = VOCAB, **overrides: object) -> Any:
    from transformers import BartConfig, BartForConditionalGeneration

    torch.manual_seed(seed)
    fields: dict[str, object] = {
        "vocab_size": vocab_size, "d_model": 16, "encoder_layers": 1, "decoder_layers": 2,
        "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32,
        "max_position_embeddings": 64, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2,
        "decoder_start_token_id": 2, "forced_eos_token_id": None, "init_std": 0.6, "dropout": 0.0,
    }  # fmt: skip
    return BartForConditionalGeneration(BartConfig(**{**fields, **overrides})).eval()


def tiny_t5(seed: int = 0, *, vocab_size: int = VOCAB, **overrides: object) -> Any:
    from transformers import T5Config, T5ForConditionalGeneration

    torch.manual_seed(seed)
    fields: dict[str, object] = {
        "vocab_size": vocab_size, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2,
        "pad_token_id": 3, "eos_token_id": 1, "decoder_start_token_id": 3, "dropout_rate": 0.0,
        "initializer_factor": 2.0,
    }  # fmt: skip
    return T5ForConditionalGeneration(T5Config(**{**fields, **overrides})).eval()


def adapt(model: Any) -> Any:
    """Our adapter over a transformers model."""
    from generator_service.models.hf import HfSeq2Seq
    from generator_service.models.loading import adapter_spec

    return HfSeq2Seq(model, adapter_spec(model, name="tiny", digest="0" * 64))


@functools.cache
def _question_encoder() -> Any:
    from transformers import DPRConfig, DPRQuestionEncoder

    config = DPRConfig(
        vocab_size=10, hidden_size=4, num_hidden_layers=1, num_attention_heads=1, intermediate_size=4,
        max_position_embeddings=4,
    )  # fmt: skip
    return DPRQuestionEncoder(config)


def rag(generator: Any, num_docs: int, *, per_token: bool, bos: int = 10**6) -> Any:
    """transformers' RAG model around a generator; a first token equal to `bos` in all hypotheses does not count."""
    from transformers import RagConfig, RagSequenceForGeneration, RagTokenForGeneration

    encoder = _question_encoder()
    config = RagConfig.from_question_encoder_generator_configs(
        encoder.config,
        generator.config,
        n_docs=num_docs,
        bos_token_id=bos,
        eos_token_id=generator.config.eos_token_id,
        pad_token_id=generator.config.pad_token_id,
        decoder_start_token_id=generator.config.decoder_start_token_id,
    )
    kind = RagTokenForGeneration if per_token else RagSequenceForGeneration
    return kind(config=config, question_encoder=encoder, generator=generator).eval()


def random_rows(source: random.Random, count: int, *, vocab_size: int = VOCAB) -> list[list[int]]:
    """Encoder inputs of ragged lengths, without special tokens."""
    return [[source.randrange(5, vocab_size) for _ in range(source.randrange(2, 12))] for _ in range(count)]


def padded(rows: list[list[int]], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and attention mask as transformers takes them."""
    longest = max(len(row) for row in rows)
    ids = torch.tensor([row + [pad] * (longest - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    return ids, mask


WORDS = "paris is the capital of france it has a large river and 2 airports who what where ready berlin germany"


@functools.cache
def word_piece() -> Any:
    """An uncased WordPiece tokenizer like BERT's, with a few words and every letter."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    tokens = [
        "[PAD]",
        "[CLS]",
        "[SEP]",
        "[UNK]",
        *WORDS.split(),
        *"?.,:-'",
        *letters,
        *(f"##{each}" for each in letters),
    ]
    vocabulary = {token: number for number, token in enumerate(dict.fromkeys(tokens))}
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(prefix="##", cleanup=True)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]"
    )


def loaded(model: Any = None, **defaults: Any) -> Any:
    """A loaded generator over the fake model (or another) and the small tokenizer."""
    from generator_service.confidence import Confidence
    from generator_service.models.defaults import GenerationDefaults
    from generator_service.models.loading import LoadedGenerator
    from generator_service.prompt import PromptFormat

    tokenizer = word_piece()
    defaults = {"max_new_tokens": 8, "min_new_tokens": 1, **defaults}
    return LoadedGenerator(
        name="fake",
        model=model or FakeModel(vocab_size=len(tokenizer)),
        tokenizer=tokenizer,
        prompt=PromptFormat(max_input_tokens=64),
        defaults=GenerationDefaults(**defaults),
        confidence=Confidence(),
    )


class Tiny:
    """The functions above, for tests to take as one fixture."""

    vocab = VOCAB
    adapt = staticmethod(adapt)
    bart = staticmethod(tiny_bart)
    fake = FakeModel
    loaded = staticmethod(loaded)
    word_piece = staticmethod(word_piece)
    words = frozenset(WORDS.split())
    padded = staticmethod(padded)
    rag = staticmethod(rag)
    rows = staticmethod(random_rows)
    t5 = staticmethod(tiny_t5)

    @staticmethod
    def family(name: str, seed: int = 0, **overrides: object) -> Any:
        return {"bart": tiny_bart, "t5": tiny_t5}[name](seed, **overrides)

    @staticmethod
    def run(model: Any, program: Any) -> Any:
        """Decodes one program alone, as the plainest engine would."""
        program.start(model, model.encode(program.rows))
        while not program.is_done:
            items = program.items()
            program.advance(model.step(items) if items else [])
        return program.finish()


@pytest.fixture(scope="session")
def tiny() -> Tiny:
    return Tiny()


@pytest.fixture(scope="session")
def tiny_lean(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Our own model with random weights, for the small tokenizer; its counters go on from test to test.

    On plain linears: the packed ones keep half a megabyte for each of up to 1024 shapes, which would hide a leak.
    """
    from generator_service.models import lean

    folder = tmp_path_factory.mktemp("tiny-lean")
    tiny_bart(vocab_size=len(word_piece())).save_pretrained(folder)
    return lean.load(folder, backend="plain")

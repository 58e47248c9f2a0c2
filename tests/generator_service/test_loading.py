"""A checkpoint directory becomes a generator: the lean code where it knows the family, the adapter otherwise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from generator_service.models import loading
from generator_service.models.hf import HfSeq2Seq
from generator_service.models.lean import LeanModel
from generator_service.models.loading import load_generator
from generator_service.prompt import PromptFormat
from generator_service.task_prompts import TaskPrompt
from training.pack import pack


def save(folder: Path, model: Any, tokenizer: Any, **config: Any) -> Path:
    model.save_pretrained(folder)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    if config:
        fields = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**fields, **config}))
    return folder


def load(folder: Path | str, cache: Path) -> Any:
    return load_generator(str(folder), dtype="float32", device="cpu", cache_dir=cache)


def test_a_known_family_is_served_by_the_lean_code_with_its_own_defaults(tiny: Any, tmp_path: Path) -> None:
    tokenizer = tiny.word_piece()
    model = tiny.bart(vocab_size=len(tokenizer))
    model.generation_config.update(num_beams=4, max_length=30, min_length=5, no_repeat_ngram_size=3, length_penalty=2.0)
    prompt = {"format": "question_passage", "max_input_tokens": 40}
    loaded = load(save(tmp_path, model, tokenizer, rag_prompt=prompt), tmp_path)
    assert isinstance(loaded.model, LeanModel)
    assert loaded.prompt == PromptFormat(max_input_tokens=40)
    defaults = loaded.defaults
    assert (defaults.num_beams, defaults.max_new_tokens, defaults.min_new_tokens) == (4, 29, 4)
    assert (defaults.no_repeat_ngram_size, defaults.length_penalty) == (3, 2.0)
    assert not loaded.confidence.is_calibrated


def test_a_checkpoint_says_how_it_reads_tasks_and_a_wrong_word_is_told(tiny: Any, tmp_path: Path) -> None:
    tokenizer = tiny.word_piece()
    model = tiny.bart(vocab_size=len(tokenizer))
    tasks = {"summarization": {"template": "summarize: {question}"}}
    loaded = load(save(tmp_path / "good", model, tokenizer, rag_tasks=tasks), tmp_path)
    assert loaded.tasks == (TaskPrompt("summarization", "summarize: {question}"),)
    with pytest.raises(ValueError, match=r"rag_tasks\.sumarization: no such task"):
        load(save(tmp_path / "bad", model, tokenizer, rag_tasks={"sumarization": {}}), tmp_path)


def test_a_checkpoint_says_what_number_format_it_is_served_in(tiny: Any, tmp_path: Path) -> None:
    def loaded(dtype: str, **config: str) -> Any:
        tokenizer = tiny.word_piece()
        folder = save(tmp_path / dtype / "-".join(config), tiny.bart(vocab_size=len(tokenizer)), tokenizer, **config)
        return load_generator(str(folder), dtype=dtype, device="cpu", cache_dir=tmp_path).model.spec.dtype

    assert loaded("auto") == "float32"
    assert loaded("auto", rag_dtype="bfloat16") == "bfloat16"
    assert loaded("float32", rag_dtype="bfloat16") == "float32"
    with pytest.raises(ValueError, match="rag_dtype of the checkpoint's config is 'int3'"):
        loaded("auto", rag_dtype="int3")


def test_a_checkpoint_says_whether_it_answers_nothing_to_a_passage_without_the_answer(
    tiny: Any, tmp_path: Path
) -> None:
    tokenizer = tiny.word_piece()
    model = tiny.bart(vocab_size=len(tokenizer))
    assert load(save(tmp_path / "taught", model, tokenizer, rag_abstains=True), tmp_path).abstains
    assert not load(save(tmp_path / "silent", model, tokenizer), tmp_path).abstains
    with pytest.raises(ValueError, match=r"rag_abstains .* 'yes', neither true nor false"):
        load(save(tmp_path / "bad", model, tokenizer, rag_abstains="yes"), tmp_path)


def test_another_family_is_served_by_the_adapter(tiny: Any, tmp_path: Path) -> None:
    from transformers import PegasusConfig, PegasusForConditionalGeneration

    tokenizer = tiny.word_piece()
    config = PegasusConfig(
        vocab_size=len(tokenizer), d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16, max_position_embeddings=32,
        pad_token_id=0, eos_token_id=2, decoder_start_token_id=0, forced_eos_token_id=None,
    )  # fmt: skip
    loaded = load(save(tmp_path, PegasusForConditionalGeneration(config), tokenizer), tmp_path)
    assert isinstance(loaded.model, HfSeq2Seq)
    assert loaded.prompt.max_input_tokens == 32
    assert len(loaded.model.spec.digest) == 64
    encoded = loaded.model.encode([[5, 6, 2], [7, 2]])
    assert [score.shape for score in loaded.model.score(encoded, [[8, 2]])] == [(2, 2)]


def test_the_digest_follows_the_weights(tiny: Any, tmp_path: Path) -> None:
    tokenizer = tiny.word_piece()
    digests = [
        load(save(tmp_path / name, tiny.bart(seed, vocab_size=len(tokenizer)), tokenizer), tmp_path).model.spec.digest
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    assert digests[0] == digests[1] != digests[2]


def test_what_is_missing_is_named(tiny: Any, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="generator 'some/where' is neither"):
        load("some/where", tmp_path)
    with pytest.raises(ValueError, match=r"config\.json"):
        load(tmp_path, tmp_path)
    with pytest.raises(FileNotFoundError, match="tokenizer"):
        load(save(tmp_path / "bare", tiny.bart(), None), tmp_path)


def test_a_tokenizer_without_separators_gets_the_question_context_format(tiny: Any) -> None:
    class Plain:
        cls_token_id = None
        sep_token_id = None
        eos_token_id = 1

        def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
            return [len(word) + 10 for word in text.split()]

    prompt = PromptFormat.fitting(Plain(), 8)  # type: ignore[arg-type]
    assert prompt == PromptFormat("question_context", 8)
    ids = prompt.encode(Plain(), "who is it", "Title", "a very long passage")  # type: ignore[arg-type]
    assert ids == [19, 13, 12, 12, 18, 16, 11, 1]
    assert prompt.encode(Plain(), "a b c d e f g h i j", "", "x")[-2:] == [18, 1]  # type: ignore[arg-type]


def test_a_directory_gives_the_generator_its_name(tiny: Any, tmp_path: Path) -> None:
    tokenizer = tiny.word_piece()
    folder = save(tmp_path / "my-model", tiny.bart(vocab_size=len(tokenizer)), tokenizer)
    assert load(folder, tmp_path).name == "my-model"


def test_default_and_fast_are_the_packed_generators(tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = tiny.word_piece()
    default, fast = (
        save(tmp_path / name, tiny.bart(vocab_size=len(tokenizer), seed=seed), tokenizer)
        for seed, name in enumerate(("generator", "student"))
    )
    monkeypatch.setattr(loading, "PACK", tmp_path / "pack")
    pack({"generator": default}, tmp_path / "pack")
    assert load("default", tmp_path / "cache").name == "default"
    with pytest.raises(FileNotFoundError, match="holds no checkpoint 'fast'; it holds generator"):
        load("fast", tmp_path / "cache")
    pack({"generator": default, "fast": fast}, tmp_path / "pack")
    loaded = [load(name, tmp_path / "cache") for name in ("default", "fast")]
    assert [each.name for each in loaded] == ["default", "fast"]
    assert loaded[0].model.spec.digest != loaded[1].model.spec.digest

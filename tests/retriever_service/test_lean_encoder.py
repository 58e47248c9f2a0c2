"""The BERT family's own code gives transformers' vectors; other families still go through transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    BertConfig,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    DPRConfig,
    DPRQuestionEncoder,
    MPNetConfig,
    MPNetModel,
    RobertaConfig,
    RobertaModel,
)

from retriever_service import bert
from retriever_service.bert import Bert, Rows
from retriever_service.checkpoint import Pooling, find_checkpoint
from retriever_service.encoder import PassageText
from retriever_service.scripted import run_layers
from retriever_service.tower import LeanNetwork, TransformersNetwork, load_tower
from serving.attention import PaddedAttention
from serving.errors import Unimplemented

SIZES: dict[str, Any] = {
    "vocab_size": 30, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
    "max_position_embeddings": 64, "initializer_range": 0.3,
}  # fmt: skip
QUERIES = [
    "What is the capital of France?",
    "Paris",
    "who wrote the opera that opened the new theatre in milan",
    "A longer text, so that rows differ in length: " + "words and more words " * 20,
]


def make_model(family: str, **overrides: Any) -> Any:
    torch.manual_seed(3)
    kinds: dict[str, tuple[Any, Any]] = {
        "bert": (BertConfig, BertModel),
        "roberta": (RobertaConfig, RobertaModel),
        "mpnet": (MPNetConfig, MPNetModel),
        "dpr": (DPRConfig, DPRQuestionEncoder),
    }
    config, model = kinds[family]
    return model(config(**{**SIZES, "pad_token_id": 1, **overrides})).eval()


def rows_of(lengths: list[int], *, with_types: bool) -> dict[str, list[list[int]]]:
    source = np.random.default_rng(0)
    tokens = {
        "input_ids": [source.integers(3, 30, length).tolist() for length in lengths],
        "attention_mask": [[1] * length for length in lengths],
    }
    if with_types:
        tokens["token_type_ids"] = [[0] * (length // 2) + [1] * (length - length // 2) for length in lengths]
    return tokens


class Padder:
    """What the adapter needs of a tokenizer."""

    def pad(self, tokens: dict[str, list[list[int]]], return_tensors: str) -> Any:
        from transformers import BatchEncoding

        longest = max(map(len, tokens["input_ids"]))
        fill = {"input_ids": 1, "attention_mask": 0, "token_type_ids": 0}
        padded = {key: [row + [fill[key]] * (longest - len(row)) for row in rows] for key, rows in tokens.items()}
        return BatchEncoding(padded, tensor_type=return_tensors)


def cosines(a: Any, b: Any) -> Any:
    return torch.nn.functional.cosine_similarity(torch.as_tensor(a).double(), torch.as_tensor(b).double())


@pytest.mark.parametrize("lengths", [[5], [7, 7, 7], [1, 9, 4, 33, 9]])
@pytest.mark.parametrize(
    ("family", "pooling", "overrides"),
    [
        ("bert", Pooling.MEAN, {}),
        ("bert", Pooling.CLS, {"hidden_act": "relu"}),
        ("roberta", Pooling.MEAN, {"type_vocab_size": 2}),
        ("mpnet", Pooling.MEAN, {}),
        ("dpr", Pooling.POOLER, {}),
        ("dpr", Pooling.POOLER, {"projection_dim": 8}),
    ],
)
@torch.inference_mode()
def test_every_family_gives_transformers_vectors(
    family: str, pooling: Pooling, overrides: dict[str, Any], lengths: list[int]
) -> None:
    model = make_model(family, **overrides)
    tokens = rows_of(lengths, with_types=family != "mpnet")
    expected = TransformersNetwork(model, Padder(), pooling)(tokens)
    device = torch.device("cpu")
    exact = LeanNetwork(model, pooling, device=device, dtype=torch.float32)(tokens)
    assert torch.allclose(exact, expected, atol=2e-5)
    assert (1 - cosines(exact, expected)).max() < 1e-6
    half = LeanNetwork(model, pooling, device=device, dtype=torch.bfloat16)(tokens)
    assert half.dtype == torch.float32
    assert (1 - cosines(half, expected)).max() < 5e-3  # A random model; for a real one see below.


@pytest.mark.parametrize("family", ["bert", "mpnet"])
@torch.inference_mode()
def test_long_bfloat16_rows_agree_with_float32(family: str) -> None:
    ids = rows_of([62, 62, 13], with_types=False)["input_ids"]
    model = make_model(family, max_position_embeddings=80)
    ids = [row + row[:10] for row in ids]  # Over the length from which two products replace the fused kernel.
    exact, _ = Bert(model, dtype=torch.float32, device=torch.device("cpu"))(ids, None)
    half, rows = Bert(model, dtype=torch.bfloat16, device=torch.device("cpu"))(ids, None)
    assert (1 - cosines(rows.mean(half), rows.mean(exact))).max() < 5e-3


@pytest.mark.parametrize("family", ["bert", "mpnet"])
@torch.inference_mode()
def test_padding_as_on_a_gpu_changes_nothing(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network = Bert(make_model(family), dtype=torch.float32, device=torch.device("cpu"))
    ids = rows_of([9, 9, 5, 1], with_types=False)["input_ids"]
    by_runs, rows = network(ids, None)
    monkeypatch.setattr(bert, "packed_attention", PaddedAttention)
    padded, _ = network(ids, None)
    assert torch.allclose(by_runs[: rows.num_tokens], padded[: rows.num_tokens], atol=1e-5)


@torch.inference_mode()
def test_layers_without_torchscript_give_the_same_states(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Bert(make_model("bert"), dtype=torch.float32, device=torch.device("cpu"))
    ids = rows_of([9, 9, 5, 1], with_types=False)["input_ids"]
    compiled, _ = network(ids, None)
    monkeypatch.setattr(bert, "layers_program", lambda: run_layers)
    assert torch.allclose(compiled, network(ids, None)[0], atol=1e-6)


def test_linear_layers_meet_few_numbers_of_rows() -> None:
    def packed(lengths: list[int]) -> int:
        return Rows(lengths, torch.device("cpu")).num_packed

    assert len({packed([total]) for total in range(1, 1025)}) <= 70
    for total in range(1, 1025):
        assert total <= packed([1] * total) <= total + max(7, total // 16)


def test_minilm_in_either_number_format_gives_transformers_vectors() -> None:
    checkpoint = find_checkpoint("all-MiniLM-L6-v2")
    from transformers import AutoModel, AutoTokenizer

    model, tokenizer = AutoModel.from_pretrained(checkpoint.path).eval(), AutoTokenizer.from_pretrained(checkpoint.path)
    with torch.inference_mode():
        tokens = dict(tokenizer(QUERIES, truncation=True, max_length=256))
        expected = TransformersNetwork(model, tokenizer, checkpoint.pooling)(tokens)
    for dtype, deviation in (("float32", 1e-6), ("bfloat16", 1e-4)):
        tower = load_tower(checkpoint, device="cpu", dtype=dtype)
        assert (1 - cosines(tower.encode_queries(QUERIES), expected)).max() < deviation
        passages = [PassageText(query) for query in QUERIES]
        assert (1 - cosines(tower.encode_passages(passages), expected)).max() < deviation


def test_the_default_encoders_digest_is_what_collections_were_written_with() -> None:
    assert find_checkpoint("all-MiniLM-L6-v2").digest().startswith("cef8c14e756a0fbfc9fb21a4b143336b")


@pytest.mark.parametrize(
    "config",
    [{"hidden_act": "silu_of_another_kind"}, {"is_decoder": True}, {"position_embedding_type": "relative_key"}],
)
def test_what_the_own_code_would_compute_wrongly_is_refused_by_name(config: dict[str, Any]) -> None:
    model = make_model("bert")
    for name, value in config.items():
        setattr(model.config, name, value)
    with pytest.raises(Unimplemented, match=next(iter(config)).removeprefix("hidden_")[:6]):
        Bert(model, dtype=torch.float32, device=torch.device("cpu"))


def test_another_family_is_served_by_transformers_own_model(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = DistilBertConfig(vocab_size=40, dim=16, n_layers=1, n_heads=2, hidden_dim=16, max_position_embeddings=32)
    model = DistilBertModel(config).eval()
    model.save_pretrained(tmp_path)
    minilm = find_checkpoint("all-MiniLM-L6-v2").path
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(minilm)
    small = tokenizer.train_new_from_iterator(["what is the capital of france"], 40)
    small.save_pretrained(tmp_path)
    tower = load_tower(find_checkpoint(str(tmp_path)), device="cpu", dtype="float32")
    assert tower.architecture == "DistilBertModel"
    with torch.inference_mode():
        expected = model(**small("what is france", return_tensors="pt")).last_hidden_state[0].mean(0)
    assert np.abs(tower.encode_queries(["what is france", "what"])[0] - expected.numpy()).max() < 1e-5

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    AutoModel,
    AutoTokenizer,
    BertConfig,
    BertModel,
    BertTokenizerFast,
    DPRConfig,
    DPRContextEncoder,
    DPRQuestionEncoder,
)

from retriever_service import checkpoint
from retriever_service.bi_encoder import BiEncoder
from retriever_service.checkpoint import Pooling, find_checkpoint
from retriever_service.encoder import PassageText, Query
from serving.errors import FailedPrecondition
from training.pack import pack

TEXTS = [
    "What is the capital of France?",
    "Paris",
    "A longer text, so that the batch is padded: " + "words " * 60,
    "Über die Brücke",
]
SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "what", "paris", "capital", "france", "is", "query", ":"]


def make_tokenizer(directory):
    (directory / "vocab.txt").write_text("\n".join(WORDS))
    BertTokenizerFast(vocab=str(directory / "vocab.txt")).save_pretrained(directory)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A plain BERT checkpoint with random weights."""
    torch.manual_seed(0)
    directory = tmp_path_factory.mktemp("tiny")
    make_tokenizer(directory)
    BertModel(BertConfig(vocab_size=len(WORDS), max_position_embeddings=32, **SIZES)).save_pretrained(directory)
    return directory


@pytest.fixture(scope="module")
def dpr(tmp_path_factory):
    """A DPR pair with random weights."""
    torch.manual_seed(1)
    directories = []
    for kind in (DPRQuestionEncoder, DPRContextEncoder):
        directory = tmp_path_factory.mktemp(kind.__name__)
        make_tokenizer(directory)
        kind(DPRConfig(vocab_size=len(WORDS), max_position_embeddings=32, **SIZES)).save_pretrained(directory)
        directories.append(directory)
    return directories


@pytest.fixture
def make_checkpoint(tiny, tmp_path):
    """The tiny checkpoint as sentence-transformers lays it out."""

    def make(modules=("Transformer", "Pooling"), pooling=None, prompts=None, max_seq_length=8):
        root = tmp_path / "st"
        shutil.copytree(tiny, root)
        paths = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize", "Dense": "2_Dense"}
        (root / "modules.json").write_text(
            json.dumps([{"type": f"sentence_transformers.models.{name}", "path": paths[name]} for name in modules])
        )
        (root / "1_Pooling").mkdir()
        (root / "1_Pooling" / "config.json").write_text(json.dumps(pooling or {"pooling_mode_cls_token": True}))
        (root / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": max_seq_length}))
        if prompts:
            (root / "config_sentence_transformers.json").write_text(json.dumps({"prompts": prompts}))
        return str(root)

    return make


def test_minilm_equals_plain_transformers_mean_pooled_and_normalised(minilm):
    path = find_checkpoint("all-MiniLM-L6-v2").path
    model, tokenizer = AutoModel.from_pretrained(path).eval(), AutoTokenizer.from_pretrained(path)
    expected = []
    with torch.no_grad():
        for text in TEXTS:  # One by one: without padding.
            tokens = tokenizer(text, truncation=True, max_length=256, return_tensors="pt")
            mean = model(**tokens).last_hidden_state[0].mean(0)
            expected.append((mean / mean.norm()).numpy())
    vectors = minilm.encode([Query(text) for text in TEXTS])
    assert vectors.dtype == np.float32
    assert np.abs(vectors - np.stack(expected)).max() < 1e-5
    assert np.abs(np.linalg.norm(vectors, axis=1) - 1).max() < 1e-6


def test_minilm_reads_its_own_configuration(minilm):
    checkpoint = find_checkpoint("all-MiniLM-L6-v2")
    assert (checkpoint.pooling, checkpoint.is_normalising, checkpoint.max_input_tokens) == (Pooling.MEAN, True, 256)
    assert minilm.info.identity.dim == 384
    assert len(minilm.info.identity.digest) == 64


def test_minilm_finds_the_passage_that_answers(minilm):
    query = minilm.encode([Query("Which city is the capital of France?")])[0]
    passages = [PassageText("Paris has been the seat of government since 987."), PassageText("Whales are mammals.")]
    assert np.argmax(minilm.encode(passages) @ query) == 0


def test_order_and_company_do_not_change_a_vector(minilm):
    together = minilm.encode([Query(text) for text in TEXTS])
    backwards = minilm.encode([Query(text) for text in TEXTS[::-1]])[::-1]
    assert np.abs(together - backwards).max() < 1e-6


def test_a_passages_title_is_part_of_it(minilm):
    bare, titled = minilm.encode([PassageText("It is in Europe."), PassageText("It is in Europe.", "France")])
    query = minilm.encode([Query("France")])[0]
    assert titled @ query > bare @ query


def test_a_plain_checkpoint_is_mean_pooled_and_not_normalised(tiny):
    encoder = BiEncoder(str(tiny))
    model, tokenizer = AutoModel.from_pretrained(tiny).eval(), AutoTokenizer.from_pretrained(tiny)
    with torch.no_grad():
        expected = model(**tokenizer("what is paris", return_tensors="pt")).last_hidden_state[0].mean(0).numpy()
    vectors = encoder.encode([Query("what is paris"), Query("france")])
    assert np.abs(vectors[0] - expected).max() < 1e-5
    assert not encoder.info.identity.is_normalising


def test_cls_pooling_window_and_normalisation_come_from_the_checkpoint(make_checkpoint, tiny):
    encoder = BiEncoder(make_checkpoint(modules=("Transformer", "Pooling", "Normalize")))
    model, tokenizer = AutoModel.from_pretrained(tiny).eval(), AutoTokenizer.from_pretrained(tiny)
    with torch.no_grad():
        tokens = tokenizer("what is paris " * 9, truncation=True, max_length=8, return_tensors="pt")
        state = model(**tokens).last_hidden_state[0, 0]
    assert np.abs(encoder.encode([Query("what is paris " * 9)])[0] - (state / state.norm()).numpy()).max() < 1e-5
    assert encoder.info.identity.is_normalising


def test_prompts_of_the_checkpoint_are_put_before_the_text(make_checkpoint):
    encoder = BiEncoder(make_checkpoint(prompts={"query": "query: ", "document": "capital: "}))
    prompted = encoder.encode([Query("paris"), PassageText("paris")])
    plain = BiEncoder.encode(encoder, [Query("paris")])
    assert np.abs(prompted[0] - plain[0]).max() < 1e-6
    assert np.abs(prompted[0] - prompted[1]).max() > 1e-3


def test_a_dpr_pair_embeds_questions_and_title_text_pairs_with_its_own_towers(dpr):
    question, context = dpr
    encoder = BiEncoder(str(question), str(context))
    vectors = encoder.encode([PassageText("is capital", "france"), Query("what is paris")])
    tokenizer = AutoTokenizer.from_pretrained(context)
    with torch.no_grad():
        passage = DPRContextEncoder.from_pretrained(context)(**tokenizer("france", "is capital", return_tensors="pt"))
        query = DPRQuestionEncoder.from_pretrained(question)(**tokenizer("what is paris", return_tensors="pt"))
    assert np.abs(vectors[0] - passage.pooler_output[0].numpy()).max() < 1e-5
    assert np.abs(vectors[1] - query.pooler_output[0].numpy()).max() < 1e-5
    assert encoder.info.architecture == "DPRQuestionEncoder"
    assert not encoder.info.identity.is_normalising


def test_a_long_dpr_passage_is_cut_and_keeps_its_title(dpr):
    encoder = BiEncoder(str(dpr[0]), str(dpr[1]))
    assert np.isfinite(encoder.encode([PassageText("paris " * 100, "france")])).all()


def test_the_digest_follows_weights_and_pooling_and_not_the_place(tiny, make_checkpoint, tmp_path):
    shutil.copytree(tiny, tmp_path / "copy")
    digest = find_checkpoint(str(tiny)).digest()
    assert find_checkpoint(str(tmp_path / "copy")).digest() == digest
    assert find_checkpoint(make_checkpoint()).digest() != digest
    with (tmp_path / "copy" / "model.safetensors").open("r+b") as file:
        file.seek(-4, 2)
        file.write(b"\1\2\3\4")
    assert find_checkpoint(str(tmp_path / "copy")).digest() != digest


def test_a_checkpoint_that_cannot_be_had_is_refused_by_name(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(FailedPrecondition, match="no/such-encoder"):
        find_checkpoint("no/such-encoder")


def test_modules_and_poolings_that_are_not_supported_are_refused_by_name(make_checkpoint, tmp_path):
    with pytest.raises(FailedPrecondition, match="Dense"):
        find_checkpoint(make_checkpoint(modules=("Transformer", "Pooling", "Dense")))
    shutil.rmtree(tmp_path / "st")
    with pytest.raises(FailedPrecondition, match="max_tokens"):
        find_checkpoint(make_checkpoint(pooling={"pooling_mode_max_tokens": True}))


def test_the_default_encoder_is_the_packed_one_with_its_pooling(make_checkpoint, tmp_path, monkeypatch):
    given = make_checkpoint(modules=("Transformer", "Pooling", "Normalize"))
    pack({"encoder": Path(given)}, tmp_path / "pack")
    monkeypatch.setattr(checkpoint, "PACK", tmp_path / "pack")
    default, original = BiEncoder("default", cache_dir=tmp_path / "cache"), BiEncoder(given)
    assert default.info.identity.name == "default"
    assert default.info.identity.is_normalising
    queries = [Query("what is paris"), Query("capital")]
    similarities = (default.encode(queries) * original.encode(queries)).sum(1)
    assert np.all(similarities > 0.999)
    assert np.all(similarities < 1)
    assert [path.name.split("-")[0] for path in (tmp_path / "cache").iterdir()] == ["encoder"]

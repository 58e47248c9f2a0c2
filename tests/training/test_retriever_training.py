"""Tiny models on a toy task: asked in words of one language, answered in those of another."""

import json

import numpy as np
import pytest
import torch
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertModel,
    DPRConfig,
    DPRContextEncoder,
    DPRQuestionEncoder,
)

from retriever_service.bi_encoder import BiEncoder
from retriever_service.encoder import PassageText, Query
from tests.training.tiny_tokenizer import tiny_tokenizer
from training.retriever.__main__ import main
from training.retriever.towers import load_bi_encoder
from training.runtime.logs import read_log

NUM = 12
WORDS = [f"{kind}{i}" for kind in ("ask", "tell", "name") for i in range(NUM)]
SIZES = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """A tiny BERT with random weights and lengths of 1."""
    torch.manual_seed(0)
    root = tmp_path_factory.mktemp("encoder")
    BertModel(BertConfig(vocab_size=100, max_position_embeddings=16, **SIZES)).save_pretrained(root)
    tiny_tokenizer(WORDS).save_pretrained(root)
    modules = [{"type": f"sentence_transformers.models.{name}", "path": ""} for name in ("Transformer", "Normalize")]
    (root / "modules.json").write_text(json.dumps(modules))
    return root


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Passages and two questions on each; "ask3" is answered by the passage of "tell3"."""
    root = tmp_path_factory.mktemp("data")
    passages = [{"id": f"p{i}", "title": "", "text": f"tell{i} name{i}"} for i in range(NUM)]
    questions = [
        {"id": f"{i}:{n}", "question": f"ask{i} " * (n + 1), "answers": [f"name{i}"], "passage_id": f"p{i}"}
        for i in range(NUM)
        for n in range(2)
    ]
    for name, rows in (("passages", passages), ("questions", questions)):
        (root / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return [str(root / "passages.jsonl"), str(root / "questions.jsonl")]


@pytest.fixture
def run(encoder, source, tmp_path):
    """Trains; returns the folder."""

    def run(name, *flags, steps=2, start=encoder):
        given = ["--out", tmp_path / name, "--encoder", start, "--source", *source, "--max-steps", steps]
        given += ["--batch-size", 16, "--threads", 1, "--dtype", "float32", *flags]
        main([str(each) for each in given])
        return tmp_path / name

    return run


def recall(folder):
    model = BiEncoder(str(folder))
    asked = model.encode([Query(f"ask{i}") for i in range(NUM)])
    stored = model.encode([PassageText(f"tell{i} name{i}") for i in range(NUM)])
    return float(((asked @ stored.T).argmax(1) == np.arange(NUM)).mean())


def vectors(folder, inputs):
    return BiEncoder(str(folder)).encode(inputs)


def test_training_lowers_the_loss_and_finds_what_was_not_found_before(encoder, run):
    folder = run("out", "--train-words", "--rate", "0.01", steps=40)
    losses = [record["train/loss"] for record in read_log(folder) if "train/loss" in record]
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) / 2
    assert recall(encoder) < 0.3
    assert recall(folder / "checkpoint") > 0.85


def test_the_query_half_alone_is_trained_and_documents_keep_their_vectors(encoder, run):
    folder = run("out", "--train", "query") / "checkpoint"
    asked, stored = [Query("ask1")], [PassageText("tell1 name1")]
    np.testing.assert_array_equal(vectors(folder, stored), vectors(encoder, stored))
    assert not np.allclose(vectors(folder, asked), vectors(encoder, asked), atol=1e-4)
    again = run("again", "--train", "query", start=folder) / "checkpoint"
    np.testing.assert_array_equal(vectors(again, stored), vectors(encoder, stored))


def test_word_embeddings_stay_as_they_are(encoder, run):
    folder = run("out") / "checkpoint"
    before, after = (BertModel.from_pretrained(each).state_dict() for each in (encoder, folder))
    assert torch.equal(before["embeddings.word_embeddings.weight"], after["embeddings.word_embeddings.weight"])
    assert not torch.equal(before["encoder.layer.0.output.dense.weight"], after["encoder.layer.0.output.dense.weight"])


def test_a_resumed_run_ends_with_the_very_same_weights(run):
    whole = run("whole", "--mine", "bm25", "dense", steps=4)
    run("parts", "--mine", "bm25", "dense", "--max-minutes", "0.0000001", steps=4)
    parts = run("parts", "--mine", "bm25", "dense", "--resume", steps=4)
    losses = [[each["train/loss"] for each in read_log(folder) if "train/loss" in each] for folder in (whole, parts)]
    assert losses[0] == losses[1]
    weights = [(folder / "checkpoint" / "model.safetensors").read_bytes() for folder in (whole, parts)]
    assert weights[0] == weights[1]


def test_recomputing_saves_memory_and_changes_no_gradient(encoder):
    gradients = []
    for recompute in (False, True):
        model = load_bi_encoder(str(encoder), "", trained="both", trains_words=True, dropout=0.0, max_tokens=16)
        tokens = model.query.tokenization.queries([f"ask{i} " * (i + 1) for i in range(5)])
        made = model.query.embed(tokens, range(5), recompute=recompute)
        (made * torch.arange(made.numel()).view_as(made)).sum().backward()
        gradients.append([each.grad for each in model.parameters() if each.grad is not None])
    torch.testing.assert_close(gradients[0], gradients[1])


def test_vectors_in_training_are_those_that_are_served(encoder):
    model = load_bi_encoder(str(encoder), "", trained="both", trains_words=False, dropout=0.0, max_tokens=16)
    texts = ["ask1", "tell2 " * 9, "name3 ask4"]
    tokens = model.query.tokenization.queries(texts)
    made = model.query.embed(tokens, [2, 0, 1], recompute=False).detach().numpy()
    np.testing.assert_allclose(made, vectors(encoder, [Query(texts[i]) for i in (2, 0, 1)]), atol=1e-5)


def test_a_dpr_pair_is_trained_and_read_again(tmp_path, run):
    torch.manual_seed(1)
    for name, kind in (("question", DPRQuestionEncoder), ("passage", DPRContextEncoder)):
        kind(DPRConfig(vocab_size=100, max_position_embeddings=16, **SIZES)).save_pretrained(tmp_path / name)
        tiny_tokenizer(WORDS).save_pretrained(tmp_path / name)
    folder = run("out", "--passage-encoder", tmp_path / "passage", "--rate", "1e-3", start=tmp_path / "question")
    trained = BiEncoder(str(folder / "checkpoint"))
    before = BiEncoder(str(tmp_path / "question"), str(tmp_path / "passage"))
    for inputs in ([Query("ask1")], [PassageText("tell1", "name1")]):
        assert not np.allclose(trained.encode(inputs), before.encode(inputs), atol=1e-5)
        np.testing.assert_allclose(trained.encode(inputs), before.encode(inputs), atol=0.3)


@pytest.fixture(scope="module")
def generator(tmp_path_factory):
    """A tiny reader with random weights."""
    torch.manual_seed(2)
    root = tmp_path_factory.mktemp("generator")
    config = BartConfig(
        vocab_size=100, max_position_embeddings=64, d_model=16, encoder_layers=1, decoder_layers=2,
        encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16,
        pad_token_id=0, bos_token_id=2, eos_token_id=3, decoder_start_token_id=2, forced_eos_token_id=None,
        init_std=0.3,
    )  # fmt: skip
    BartForConditionalGeneration(config).save_pretrained(root)
    tiny_tokenizer(WORDS).save_pretrained(root)
    return root


@pytest.mark.parametrize("train", ["query", "both"])
@pytest.mark.parametrize("loss", ["pdist", "emdr2", "loop", "adist"])
def test_a_reader_teaches(encoder, generator, run, loss, train):
    flags = ("--loss", loss, "--generator", generator, "--train", train, "--batch-size", 22, "--top-k", NUM)
    folder = run("out", *flags, "--rate", "3e-3", steps=4)
    losses = [record["train/loss"] for record in read_log(folder) if "train/loss" in record]
    assert losses[-1] < losses[0]
    assert not np.allclose(
        vectors(folder / "checkpoint", [Query("ask1")]), vectors(encoder, [Query("ask1")]), atol=1e-4
    )


@pytest.mark.parametrize(
    "given", [("--loss", "pdist", "--mine", "dense"), ("--loss", "loop", "--hard-negatives", "2"), ("--top-k", "3")]
)
def test_a_flag_without_effect_is_refused_by_name(given, tmp_path, capsys) -> None:
    with pytest.raises(SystemExit):
        main(["--out", str(tmp_path), *given])
    assert f"{given[-2]} has no effect" in capsys.readouterr().err

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast, RobertaConfig

from retriever_service.__main__ import build_retriever
from retriever_service.collection import Passage
from retriever_service.config import RetrieverConfig
from retriever_service.cross_encoder import CrossEncoder, _max_input_tokens
from retriever_service.encoder import PassageText
from retriever_service.options import QueryInput, RetrievalOptions
from retriever_service.reranker import Pair
from serving.errors import FailedPrecondition

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "capital", "of", "france", "paris", "is", "the", "title", "long"]
WINDOW = 24


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Makes a tiny random BERT with so many classes, saved by transformers; returns its directory."""

    def make(num_labels):
        path = tmp_path_factory.mktemp(f"bert{num_labels}")
        (path / "words.txt").write_text("\n".join(WORDS))
        torch.manual_seed(num_labels)
        config = BertConfig(
            vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
            max_position_embeddings=WINDOW, num_labels=num_labels, initializer_range=0.5,
        )  # fmt: skip
        BertForSequenceClassification(config).save_pretrained(path)
        BertTokenizerFast(str(path / "words.txt"), model_max_length=WINDOW).save_pretrained(path)
        return path

    return make


PAIRS = [
    Pair("capital of france", PassageText("paris is the capital of france", "title")),
    Pair("capital", PassageText("long " * 40)),
    Pair("france " * 30, PassageText("paris")),
    *(Pair("the", PassageText("is " * count)) for count in range(1, 12)),
]


def by_transformers(path, pairs):
    """One by one, without padding."""
    model = BertForSequenceClassification.from_pretrained(path).eval()
    tokenizer = BertTokenizerFast.from_pretrained(path)
    rows = []
    for pair in pairs:
        given = tokenizer(
            pair.query, pair.passage.joined(), truncation="longest_first", max_length=WINDOW, return_tensors="pt"
        )
        with torch.inference_mode():
            rows.append(model(**given).logits[0].double().numpy())
    return np.stack(rows)


def test_one_logit_is_the_score_as_transformers_computes_it(checkpoint):
    path = checkpoint(1)
    scores = CrossEncoder(str(path)).score(PAIRS)
    assert scores == pytest.approx(by_transformers(path, PAIRS)[:, 0].tolist(), abs=1e-5)
    assert len({round(score, 4) for score in scores}) > 5


def test_two_classes_are_the_log_odds_of_the_second(checkpoint):
    path = checkpoint(2)
    logits = by_transformers(path, PAIRS)
    assert CrossEncoder(str(path)).score(PAIRS) == pytest.approx((logits[:, 1] - logits[:, 0]).tolist(), abs=1e-5)


async def test_the_retriever_of_a_configuration_with_a_reranker_reranks(checkpoint, tmp_path, upsert):
    path = checkpoint(1)
    retriever = build_retriever(RetrieverConfig(data_dir=tmp_path, reranker=str(path)))
    await retriever.start()
    try:
        await upsert(retriever, [Passage(text, "", text) for text in ("paris is the capital", "france", "the title")])
        found = await retriever.retrieve([QueryInput("capital of france")], RetrievalOptions(num_reread=0))
    finally:
        await retriever.close()
    pairs = [Pair("capital of france", PassageText(hit.passage.text)) for hit in found.results[0]]
    scores = [hit.rerank_score for hit in found.results[0]]
    assert scores == pytest.approx(by_transformers(path, pairs)[:, 0].tolist(), abs=1e-5)
    assert scores == sorted(scores, reverse=True)


def test_more_classes_are_refused(checkpoint):
    with pytest.raises(FailedPrecondition, match="3 classes"):
        CrossEncoder(str(checkpoint(3)))


def test_a_directory_without_a_model_is_refused_by_name(tmp_path):
    with pytest.raises(FailedPrecondition, match="reranker") as caught:
        CrossEncoder(str(tmp_path))
    assert caught.value.reason == "RERANKER_UNSUPPORTED"


def test_a_checkpoint_without_a_tokenizer_is_refused(checkpoint):
    path = checkpoint(1)
    for file in (*path.glob("tokenizer*"), *path.glob("*.txt")):
        file.unlink()
    with pytest.raises(FailedPrecondition, match="no tokenizer"):
        CrossEncoder(str(path))


def test_the_digest_names_the_weights(checkpoint):
    one, two = checkpoint(1), checkpoint(2)
    assert CrossEncoder(str(one)).digest == CrossEncoder(str(one)).digest != CrossEncoder(str(two)).digest


def test_roberta_has_two_positions_less_than_its_table():
    config = RobertaConfig(max_position_embeddings=514, pad_token_id=1)
    assert _max_input_tokens(config, SimpleNamespace(model_max_length=10**30)) == 512

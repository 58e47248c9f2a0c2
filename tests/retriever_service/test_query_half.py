import shutil

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel, BertTokenizerFast

from retriever_service.bi_encoder import BiEncoder
from retriever_service.encoder import PassageText, Query

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "what", "paris", "capital", "france", "is"]
ASKED, STORED = [Query("what is paris")], [PassageText("paris is capital", "france")]


def save_model(directory, seed):
    torch.manual_seed(seed)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=len(WORDS), max_position_embeddings=32, **sizes)).save_pretrained(directory)


@pytest.fixture
def plain(tmp_path):
    """A checkpoint of one tower."""
    root = tmp_path / "plain"
    root.mkdir()
    (root / "vocab.txt").write_text("\n".join(WORDS))
    BertTokenizerFast(vocab=str(root / "vocab.txt")).save_pretrained(root)
    save_model(root, 0)
    return root


@pytest.fixture
def halved(plain, tmp_path):
    """The same with a query half of its own."""
    root = tmp_path / "halved"
    shutil.copytree(plain, root)
    save_model(root / "query", 1)
    return root


def test_the_query_half_embeds_queries_and_the_weights_beside_it_passages(plain, halved, tmp_path):
    alone = tmp_path / "alone"
    shutil.copytree(plain, alone)
    shutil.copytree(halved / "query", alone, dirs_exist_ok=True)
    encoder = BiEncoder(str(halved))
    np.testing.assert_array_equal(encoder.encode(ASKED), BiEncoder(str(alone)).encode(ASKED))
    np.testing.assert_array_equal(encoder.encode(STORED), BiEncoder(str(plain)).encode(STORED))
    assert not np.allclose(encoder.encode(ASKED), BiEncoder(str(plain)).encode(ASKED), atol=1e-3)


def test_both_halves_make_the_fingerprint_and_the_size(plain, halved, tmp_path):
    before = BiEncoder(str(halved)).info
    single = BiEncoder(str(plain)).info
    assert before.identity.digest != single.identity.digest
    assert before.num_parameters == 2 * single.num_parameters
    save_model(halved / "query", 2)
    assert BiEncoder(str(halved)).info.identity.digest != before.identity.digest


def test_a_query_half_goes_with_passage_weights_from_elsewhere(plain, halved):
    encoder = BiEncoder(str(halved), str(plain))
    np.testing.assert_array_equal(encoder.encode(ASKED), BiEncoder(str(halved)).encode(ASKED))
    assert encoder.info.identity.digest == BiEncoder(str(halved)).info.identity.digest

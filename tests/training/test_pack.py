"""Packing stores what checkpoints share once, and a second tower as its difference; all loads as it was saved."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from transformers import AutoModelForSeq2SeqLM, BartForConditionalGeneration, BertConfig, BertModel

from serving.packed_checkpoint import WEIGHTS, restore
from tests.training.tiny_tokenizer import tiny_tokenizer
from training.generator.warm_start import GeneratorShape, random_generator
from training.pack import SHARED, main, pack, sizes

NUM_WORDS, DIM = 1200, 16
TABLE, SHARED_TABLE = "embeddings.word_embeddings.weight", "model.shared.weight"
SHAPE = GeneratorShape(
    vocab_size=NUM_WORDS, d_model=DIM, heads=2, ffn_dim=32, encoder_layers=1, decoder_layers=1,
    max_position_embeddings=32, cls_id=2, sep_id=3,
)  # fmt: skip


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=NUM_WORDS, hidden_size=DIM, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=32,
    )  # fmt: skip
    BertModel(config).save_pretrained(tmp_path / "encoder")
    tiny_tokenizer(("paris", "oil")).save_pretrained(tmp_path / "encoder")
    (tmp_path / "encoder/1_Pooling").mkdir()
    (tmp_path / "encoder/1_Pooling/config.json").write_text('{"pooling_mode_mean_tokens": true}')
    (tmp_path / "encoder/training_arguments.txt").write_text("not part of the model")
    return tmp_path / "encoder"


@pytest.fixture
def generator(tmp_path: Path, encoder: Path) -> Path:
    """With the encoder's word embeddings, frozen in bfloat16."""
    model = random_generator(SHAPE, seed=0)
    with torch.no_grad():
        model.get_input_embeddings().weight.copy_(torch.from_numpy(load_file(encoder / WEIGHTS)[TABLE]).bfloat16())
    model.save_pretrained(tmp_path / "generator")
    tiny_tokenizer(("paris", "oil")).save_pretrained(tmp_path / "generator")
    return tmp_path / "generator"


def add_query_tower(encoder: Path, *, change: float) -> None:
    tensors, random = load_file(encoder / WEIGHTS), np.random.default_rng(3)
    for name, tensor in tensors.items():
        if name != TABLE and tensor.ndim == 2:
            tensors[name] = tensor + (random.normal(size=tensor.shape) * tensor.std() * change).astype(np.float32)
    (encoder / "query").mkdir()
    save_file(tensors, encoder / "query" / WEIGHTS, metadata={"format": "pt"})
    shutil.copyfile(encoder / "config.json", encoder / "query/config.json")


def test_the_restored_generator_loads_as_a_plain_hugging_face_model(
    encoder: Path, generator: Path, tmp_path: Path
) -> None:
    pack({"encoder": encoder, "generator": generator}, tmp_path / "packed")
    restored = restore(tmp_path / "packed", "generator", tmp_path / "cache")
    model = AutoModelForSeq2SeqLM.from_pretrained(restored)
    original = BartForConditionalGeneration.from_pretrained(generator)
    assert model.config.rag_prompt == {"format": "question_passage", "max_input_tokens": 512}
    assert model.generation_config.min_new_tokens == 1
    for name, weight in original.named_parameters():
        assert torch.allclose(model.get_parameter(name), weight, atol=weight.detach().abs().max().item() / 100)


def test_only_the_models_own_files_are_packed(encoder: Path, generator: Path, tmp_path: Path) -> None:
    pack({"encoder": encoder, "generator": generator}, tmp_path / "packed")
    restored = restore(tmp_path / "packed", "encoder", tmp_path / "cache")
    found = {path.relative_to(restored).as_posix() for path in restored.rglob("*") if path.is_file()}
    own = {"config.json", "tokenizer.json", "tokenizer_config.json", "1_Pooling/config.json", WEIGHTS}
    assert found == own | {"verified.json"}


def test_the_word_embeddings_that_all_share_are_stored_once(encoder: Path, generator: Path, tmp_path: Path) -> None:
    pack({"generator": generator}, tmp_path / "earlier")
    student = restore(tmp_path / "earlier", "generator", tmp_path / "cache")  # Its word embeddings are rounded twice.
    pack({"encoder": encoder, "generator": generator, "fast": student}, tmp_path / "packed")
    found = sizes(tmp_path / "packed")
    own = max(found["encoder"], found["generator"], found["fast"])
    assert found[SHARED] > 0.8 * NUM_WORDS * DIM > own
    tables = [
        load_file(restore(tmp_path / "packed", checkpoint, tmp_path / "cache") / WEIGHTS)[tensor]
        for checkpoint, tensor in (("encoder", TABLE), ("generator", SHARED_TABLE), ("fast", SHARED_TABLE))
    ]
    assert all(np.array_equal(table, tables[0]) for table in tables)


def test_word_embeddings_that_were_trained_are_stored_for_themselves(
    encoder: Path, generator: Path, tmp_path: Path
) -> None:
    tensors = load_file(generator / WEIGHTS)
    tensors[SHARED_TABLE][7] *= 1.05
    save_file(tensors, generator / WEIGHTS, metadata={"format": "pt"})
    pack({"encoder": encoder, "generator": generator}, tmp_path / "packed")
    restored = load_file(restore(tmp_path / "packed", "generator", tmp_path / "cache") / WEIGHTS)
    assert np.allclose(
        restored[SHARED_TABLE][7], tensors[SHARED_TABLE][7], atol=np.abs(tensors[SHARED_TABLE][7]).max() / 250
    )


@pytest.mark.parametrize("change", [0.01, 0.2])
def test_a_second_tower_is_a_small_difference_to_the_first(encoder: Path, tmp_path: Path, change: float) -> None:
    pack({"encoder": encoder}, tmp_path / "one")
    add_query_tower(encoder, change=change)
    pack({"encoder": encoder}, tmp_path / "two")
    first, second = (sizes(tmp_path / name)["encoder"] for name in ("one", "two"))
    own = {name: tensor for name, tensor in load_file(encoder / "query" / WEIGHTS).items() if name != TABLE}
    assert second - first < 0.8 * sum(tensor.size for tensor in own.values())  # int8 would be more than 1
    restored = load_file(restore(tmp_path / "two", "encoder", tmp_path / "cache") / "query" / WEIGHTS)
    base = load_file(encoder / WEIGHTS)
    for name, tensor in own.items():
        if tensor.ndim == 2 and min(tensor.shape) > 2:
            error, moved = np.linalg.norm(restored[name] - tensor), np.linalg.norm(tensor - base[name])
            assert error < max(0.4 * moved, 0.02 * np.linalg.norm(tensor))
        elif tensor.ndim == 1:
            assert np.array_equal(restored[name], tensor)


def test_packing_what_a_pack_restored_gives_the_same_weights(encoder: Path, generator: Path, tmp_path: Path) -> None:
    first = pack({"encoder": encoder, "generator": generator}, tmp_path / "packed")
    again = {name: restore(tmp_path / "packed", name, tmp_path / "cache") for name in ("encoder", "generator")}
    assert pack(again, tmp_path / "again").restored == first.restored


def test_equal_checkpoints_give_equal_packs(encoder: Path, generator: Path, tmp_path: Path) -> None:
    packs = [pack({"encoder": encoder, "generator": generator}, tmp_path / name) for name in ("one", "two")]
    assert packs[0] == packs[1]


def test_packing_anew_leaves_nothing_of_the_earlier_checkpoints(encoder: Path, generator: Path, tmp_path: Path) -> None:
    pack({"encoder": encoder, "generator": generator, "fast": generator}, tmp_path / "packed")
    pack({"encoder": encoder, "generator": generator}, tmp_path / "packed")
    assert not (tmp_path / "packed/fast").exists()
    with pytest.raises(FileNotFoundError, match="fast"):
        restore(tmp_path / "packed", "fast", tmp_path / "cache")


@pytest.mark.parametrize("missing", [WEIGHTS, "config.json", "tokenizer.json"])
def test_a_folder_that_is_no_checkpoint_is_refused_before_anything_is_written(
    encoder: Path, tmp_path: Path, missing: str
) -> None:
    (encoder / missing).unlink()
    with pytest.raises(FileNotFoundError, match=missing):
        pack({"encoder": encoder}, tmp_path / "packed")
    assert not (tmp_path / "packed").exists()


def test_a_pack_is_not_written_over_what_it_is_made_of(encoder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="lies in"):
        pack({"encoder": encoder}, tmp_path)
    assert (encoder / WEIGHTS).exists()


def test_the_command_packs_and_prints_what_takes_how_much(
    encoder: Path, generator: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["--encoder", str(encoder), "--generator", str(generator), "--out", str(tmp_path / "packed")])
    printed = capsys.readouterr().out
    for name in ("encoder", "generator", SHARED):
        assert name in printed
    assert restore(tmp_path / "packed", "generator", tmp_path / "cache").is_dir()

"""Students cut out of teachers: which layers, which neurons, and that what comes out is a plain checkpoint."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForSeq2SeqLM,
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertModel,
    PreTrainedModel,
    T5Config,
    T5ForConditionalGeneration,
)

from training.distillation.shapes import StackShape, StudentShape, copied_layers, cut, matched_layers
from training.distillation.width import narrowed

IDS = torch.arange(2, 20).view(2, 9)
TARGETS = torch.tensor([[2, 5, 6], [2, 7, 8]])


def _bart() -> PreTrainedModel:
    return BartForConditionalGeneration(
        BartConfig(
            vocab_size=40, d_model=16, encoder_layers=6, decoder_layers=2, encoder_attention_heads=2,
            decoder_attention_heads=2, encoder_ffn_dim=24, decoder_ffn_dim=24, max_position_embeddings=32,
        )
    )  # fmt: skip


def _t5(projection: str) -> PreTrainedModel:
    return T5ForConditionalGeneration(
        T5Config(
            vocab_size=40, d_model=16, d_kv=8, d_ff=24, num_layers=4, num_decoder_layers=2, num_heads=2,
            feed_forward_proj=projection, decoder_start_token_id=0,
        )
    )  # fmt: skip


def _bert() -> PreTrainedModel:
    return BertModel(
        BertConfig(
            vocab_size=40, hidden_size=16, num_hidden_layers=4, num_attention_heads=4, intermediate_size=24,
            max_position_embeddings=32,
        )
    )  # fmt: skip


TEACHERS = {
    "bart": _bart,
    "t5": lambda: _t5("relu"),
    "t5, gated": lambda: _t5("gated-gelu"),
    "bert": _bert,
}


@pytest.fixture(params=TEACHERS)
def teacher(request: pytest.FixtureRequest) -> PreTrainedModel:
    torch.manual_seed(0)
    model = TEACHERS[request.param]().eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def _run(model: PreTrainedModel) -> torch.Tensor:
    given = {"decoder_input_ids": TARGETS} if model.config.is_encoder_decoder else {}
    output: Any = model(input_ids=IDS, **given)
    return output.logits if given else output.last_hidden_state


def _shape(**sides: int) -> StudentShape:
    return StudentShape(StackShape(sides.get("encoder"), 12), StackShape(sides.get("decoder"), 12))


def test_layers_are_spread_from_the_first_to_the_last() -> None:
    assert copied_layers(12, 6) == [0, 2, 4, 7, 9, 11]
    assert copied_layers(12, 3) == [0, 6, 11]
    assert copied_layers(6, 6) == [0, 1, 2, 3, 4, 5]
    assert copied_layers(2, 1) == [1]
    with pytest.raises(ValueError, match="does not come out of a teacher of 3"):
        copied_layers(3, 4)


def test_students_layers_stand_for_equal_shares_of_the_teachers() -> None:
    assert matched_layers(6, 3) == [1, 3, 5]
    assert matched_layers(6, 6) == [0, 1, 2, 3, 4, 5]


def test_whole_teacher_is_its_own_student(teacher: PreTrainedModel) -> None:
    student = cut(teacher, StudentShape(), _run).eval()
    assert torch.equal(_run(student), _run(teacher))


def test_neurons_that_do_nothing_are_cut_first(teacher: PreTrainedModel) -> None:
    """With half of every layer's inner neurons switched off, the student without them is the same function."""
    names = ("fc2", "wo", "output.dense")
    for name, module in teacher.named_modules():
        if name.endswith(names) and "attention" not in name:
            module.weight.data[:, torch.randperm(24)[:12]] = 0
    student = cut(teacher, _shape(), _run).eval()
    assert student.num_parameters() < teacher.num_parameters()
    torch.testing.assert_close(_run(student), _run(teacher), rtol=1e-4, atol=1e-4)


def test_neurons_that_stay_do_what_they_can_of_what_the_others_did() -> None:
    """No other output weights of theirs, and no other neurons tried here, come nearer to the teacher's output."""
    torch.manual_seed(0)
    teacher = _bart().eval()
    for parameter in teacher.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    layer = teacher.model.encoder.layers[0]
    layer.fc2.register_forward_hook(lambda _, given, out: seen.append((given[0], out)))
    ids = torch.randint(2, 40, (40, 20))
    student = cut(teacher, StudentShape.parse("encoder_ffn_dim=6"), lambda model: model(ids, decoder_input_ids=ids))
    copied = student.model.encoder.layers[0]
    with torch.no_grad():
        teacher(ids, decoder_input_ids=ids)
    inner, wanted = (each.flatten(0, 1).double() for each in seen[-1])
    kept = [int((layer.fc1.weight == row).all(1).nonzero()) for row in copied.fc1.weight]

    def best(numbers: list[int]) -> float:
        given = torch.nn.functional.pad(inner[:, numbers], (0, 1), value=1.0)
        return float((given @ torch.linalg.lstsq(given, wanted).solution - wanted).square().sum())

    with torch.no_grad():
        left = inner[:, kept] @ copied.fc2.weight.double().T + copied.fc2.bias.double() - wanted
    assert float(left.square().sum()) < 1.01 * best(kept)
    others = [torch.randperm(24)[:6].tolist() for _ in range(20)]
    assert best(kept) < min(map(best, others))


def test_student_is_a_plain_checkpoint_of_its_shape(teacher: PreTrainedModel, tmp_path: Path) -> None:
    student = cut(teacher, _shape(encoder=2, decoder=1), _run).eval()
    student.save_pretrained(tmp_path)
    kind: Any = AutoModelForSeq2SeqLM if teacher.config.is_encoder_decoder else BertModel
    loaded = kind.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(_run(loaded), _run(student))
    assert 2 in (getattr(loaded.config, name, None) for name in ("encoder_layers", "num_layers", "num_hidden_layers"))


def test_named_layers_are_the_ones_copied() -> None:
    teacher = _bart().eval()
    student = cut(teacher, StudentShape.parse("encoder_layers=0+2+5,decoder_layers=1"), _run)
    copied = [layer.fc1.weight for layer in student.model.encoder.layers]
    for mine, number in zip(copied, (0, 2, 5), strict=True):
        assert torch.equal(mine, teacher.model.encoder.layers[number].fc1.weight)
    assert torch.equal(student.model.decoder.layers[0].fc1.weight, teacher.model.decoder.layers[1].fc1.weight)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("layers=3", "not 'layers'"),
        ("encoder_layers=0", "at least 1, not '0'"),
        ("encoder_layers=six", "whole number"),
        ("ffn_dim=", "whole number"),
        ("encoder_layers=1+9", "no layer 9"),
        ("encoder_layers=7", "does not come out of a teacher of 6"),
        ("ffn_dim=25", "inner width 25"),
    ],
)
def test_shape_that_cannot_be_is_refused_by_name(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cut(_bart(), StudentShape.parse(text), _run)


def test_t5_has_one_inner_width() -> None:
    with pytest.raises(ValueError, match="one inner width"):
        cut(_t5("relu"), StudentShape.parse("encoder_ffn_dim=12"), _run)


def test_other_families_are_refused() -> None:
    teacher = _bart()
    teacher.config.model_type = "gpt2"
    with pytest.raises(ValueError, match="'gpt2'"):
        cut(teacher, StudentShape(), _run)


def test_narrowed_bert_keeps_the_heads_that_matter() -> None:
    torch.manual_seed(0)
    teacher = _bert().eval()
    for layer in teacher.encoder.layer:
        layer.attention.output.dense.weight.data[:, :8] = 0  # The first two heads of four do nothing.
    student = narrowed(teacher, 8, _run).eval()
    assert _run(student).shape == (2, 9, 8)
    rows = teacher.encoder.layer[0].attention.self.query.bias[8:]
    assert torch.equal(student.encoder.layer[0].attention.self.query.bias, rows)


def test_bert_narrowed_to_its_own_width_is_itself() -> None:
    teacher = _bert().eval()
    assert torch.equal(_run(narrowed(teacher, 16, _run).eval()), _run(teacher))
    with pytest.raises(ValueError, match="multiple of 4"):
        narrowed(teacher, 10, _run)

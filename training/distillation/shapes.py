"""Students cut out of a teacher: alternating layers, and of each feed-forward part the neurons that matter.

Knows the module names of BART, T5 and BERT; nothing of data, losses or training.
"""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel

from training.distillation.neurons import activation_moments, narrow


@dataclass(frozen=True, slots=True)
class _Stack:
    """Where a stack's layers lie in the model, and what its config calls their number and inner width."""

    layers: str
    depth: str
    width: str


_BART = (
    _Stack("model.encoder.layers", "encoder_layers", "encoder_ffn_dim"),
    _Stack("model.decoder.layers", "decoder_layers", "decoder_ffn_dim"),
)
_T5 = (_Stack("encoder.block", "num_layers", "d_ff"), _Stack("decoder.block", "num_decoder_layers", "d_ff"))
_STACKS: Mapping[str, Sequence[_Stack]] = {
    "bart": _BART,
    "mbart": _BART,
    "plbart": _BART,
    "t5": _T5,
    "mt5": _T5,
    "bert": (_Stack("encoder.layer", "num_hidden_layers", "intermediate_size"),),
}


@dataclass(frozen=True, slots=True)
class StackShape:
    """What of one of the teacher's stacks a student keeps; None keeps all of it.

    Attributes:
        layers: how many, or which, by number.
        ffn_dim: inner neurons of each layer's feed-forward part.
    """

    layers: int | Sequence[int] | None = None
    ffn_dim: int | None = None


@dataclass(frozen=True, slots=True)
class StudentShape:
    """The shape of a student. BERT has no decoder."""

    encoder: StackShape = StackShape()
    decoder: StackShape = StackShape()

    @classmethod
    def parse(cls, text: str) -> "StudentShape":
        """Read ``encoder_layers=3,decoder_layers=1,ffn_dim=768``; ``encoder_layers=0+2+4`` names the layers to copy.

        ``encoder_ffn_dim`` and ``decoder_ffn_dim`` set one side's width.

        Raises:
            ValueError: a name is unknown, or a number is none or out of range.
        """
        sides: dict[str, dict[str, int | list[int]]] = {"encoder": {}, "decoder": {}}
        for part in filter(None, text.split(",")):
            name, _, value = part.partition("=")
            side, _, what = name.partition("_")
            if what == "layers" and side in sides:
                numbers = [_number(name, number, lowest=int("+" not in value)) for number in value.split("+")]
                sides[side][what] = numbers if "+" in value else numbers[0]
            elif what == "ffn_dim" and side in sides:
                sides[side][what] = _number(name, value, lowest=1)
            elif name == "ffn_dim":
                for each in sides.values():
                    each[name] = _number(name, value, lowest=1)
            else:
                raise ValueError(f"a student shape has encoder_ and decoder_ layers and ffn_dim, not {name!r}")
        return cls(*(StackShape(**side) for side in sides.values()))  # type: ignore[arg-type]


def _number(name: str, text: str, *, lowest: int) -> int:
    if not text.isdecimal() or int(text) < lowest:
        raise ValueError(f"{name} must be a whole number of at least {lowest}, not {text!r}")
    return int(text)


def copied_layers(num_teacher: int, num_student: int) -> list[int]:
    """The teacher's layers that start a student's, evenly spread from the first to the last: 12 → 3 is [0, 6, 11].

    A single layer is the last, which feeds the output: of two decoder layers it alone gave 5.0 nats a token untrained,
    the first alone 9.7.

    Source: Shleifer & Rush 2020 (arXiv 2010.13002), section 3.

    Raises:
        ValueError: the student has more layers than the teacher, or none.
    """
    if not 1 <= num_student <= num_teacher:
        raise ValueError(f"a student of {num_student} layers does not come out of a teacher of {num_teacher}")
    if num_student == 1:
        return [num_teacher - 1]
    step = (num_teacher - 1) / (num_student - 1)
    return [int(index * step + 0.5) for index in range(num_student)]


def _chosen(num_layers: int, wanted: int | Sequence[int] | None) -> Sequence[int]:
    if wanted is None:
        return range(num_layers)
    if isinstance(wanted, int):
        return copied_layers(num_layers, wanted)
    if max(wanted) >= num_layers:
        raise ValueError(f"the teacher has no layer {max(wanted)}, only 0 to {num_layers - 1}")
    return wanted


def matched_layers(num_teacher: int, num_student: int) -> list[int]:
    """For each of the student's layers the teacher's whose output it should give, by number; the last is the last."""
    return [int(number * num_teacher / num_student + 0.5) - 1 for number in range(1, num_student + 1)]


def cut(teacher: PreTrainedModel, shape: StudentShape, run: Callable[[PreTrainedModel], None]) -> PreTrainedModel:
    """A student of ``shape`` with the teacher's weights, in the teacher's class and dtype.

    Args:
        teacher: BART, T5 or BERT; left as it is.
        shape: what to keep.
        run: sends examples through the model it is given; feed-forward neurons are chosen by what they do there.

    Raises:
        ValueError: the family is unknown, the teacher is smaller than ``shape``, or T5 is to have two inner widths.
    """
    if teacher.config.model_type not in _STACKS:
        raise ValueError(f"a student of {teacher.config.model_type!r}: only {', '.join(_STACKS)} can be cut")
    given, config = teacher.config.to_dict(), teacher.config.to_dict()
    trimmed = deepcopy(teacher).eval()
    stacks = _STACKS[teacher.config.model_type]
    layers = [layer for stack in stacks for layer in trimmed.get_submodule(stack.layers)]
    moments = activation_moments(layers, run, trimmed)
    widths = set()
    for stack, wanted in zip(stacks, (shape.encoder, shape.decoder), strict=False):
        layers = trimmed.get_submodule(stack.layers)
        width = wanted.ffn_dim or given[stack.width]
        kept = [layers[index] for index in _chosen(len(layers), wanted.layers)]
        for layer in kept:
            narrow(layer, moments[layer], width)
        _keep_relative_positions(layers[0], kept[0])
        trimmed.set_submodule(stack.layers, nn.ModuleList(kept))
        widths.add((stack.width, width))
        config |= {stack.depth: len(kept), stack.width: width}
    if len(widths) > len(dict(widths)):
        raise ValueError(f"{teacher.config.model_type} has one inner width for both sides: give ffn_dim alone")
    # Made anew, since a layer knows its own number.
    student: PreTrainedModel = type(teacher)(type(teacher.config)(**config)).to(teacher.dtype)
    student.load_state_dict(trimmed.state_dict())
    if teacher.can_generate():
        student.generation_config = deepcopy(teacher.generation_config)
    return student


def _keep_relative_positions(first: nn.Module, kept: nn.Module) -> None:
    """T5's first layer holds the position bias of all of them."""
    name = "layer.0.SelfAttention.relative_attention_bias"
    if kept is not first and name in dict(first.named_modules()):
        kept.set_submodule(name, first.get_submodule(name))

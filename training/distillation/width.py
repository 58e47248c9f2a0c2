"""A narrower BERT: whole attention heads and channels of the hidden states are left out, the least active first."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from transformers import BertModel


def narrowed(model: BertModel, dimension: int, run: Callable[[BertModel], None]) -> BertModel:
    """A copy with ``dimension`` channels; heads keep their size, so that it is a multiple of that.

    Args:
        model: left as it is.
        dimension: of the hidden states, and of vectors pooled from them.
        run: sends examples through the model it is given; channels and heads are ranked by what they do there.

    Raises:
        ValueError: the width is above the model's own, or no multiple of a head's.
    """
    head_size = model.config.hidden_size // model.config.num_attention_heads
    if not 0 < dimension <= model.config.hidden_size or dimension % head_size:
        raise ValueError(
            f"a student's dimension is a multiple of {head_size} up to {model.config.hidden_size}, not {dimension}"
        )
    channels, inner = _ranked(model, dimension, head_size, run)
    config = type(model.config)(
        **{**model.config.to_dict(), "hidden_size": dimension, "num_attention_heads": dimension // head_size}
    )
    student = BertModel(config, add_pooling_layer=model.pooler is not None)
    given = model.state_dict()
    student.load_state_dict(
        {name: _cut(name, given[name], channels, inner) if name in given else own
         for name, own in student.state_dict().items()}
    )  # fmt: skip
    return student


def _ranked(
    model: BertModel, dimension: int, head_size: int, run: Callable[[BertModel], None]
) -> tuple[Tensor, dict[str, Tensor]]:
    """The channels that stay, and by layer number the rows of the heads that stay."""
    states = torch.zeros(model.config.hidden_size)
    heads = {str(number): torch.zeros(model.config.num_attention_heads) for number in range(len(model.encoder.layer))}

    def look(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        states.add_(output.float().var(dim=tuple(range(output.ndim - 1))))

    def weigh(number: str) -> Callable[[nn.Linear, tuple[Tensor, ...]], None]:
        def hook(linear: nn.Linear, inputs: tuple[Tensor, ...]) -> None:
            squares = inputs[0].float().square().flatten(0, -2).sum(0) * linear.weight.float().square().sum(0)
            heads[number] += squares.view(-1, head_size).sum(1)

        return hook

    hooks = []
    for number, layer in enumerate(model.encoder.layer):
        hooks.append(layer.output.LayerNorm.register_forward_hook(look))
        hooks.append(layer.attention.output.dense.register_forward_pre_hook(weigh(str(number))))
    with torch.no_grad():
        run(model)
    for hook in hooks:
        hook.remove()
    channels = states.topk(dimension).indices.sort().values
    inner = {
        number: (each.topk(dimension // head_size).indices.sort().values[:, None] * head_size
                 + torch.arange(head_size)).flatten()
        for number, each in heads.items()
    }  # fmt: skip
    return channels, inner


def _cut(name: str, weight: Tensor, channels: Tensor, inner: dict[str, Tensor]) -> Tensor:
    """Leaves rows and columns out, by what the weight of this name reads and writes."""
    if not weight.is_floating_point():
        return weight
    parts = name.split(".")
    rows = inner[parts[2]] if ".attention." in name else None
    if ".attention.self." in name:
        weight = weight[rows]
        return weight[:, channels] if weight.ndim == 2 else weight
    if name.endswith("attention.output.dense.weight"):
        return weight[channels][:, rows]
    if "embeddings.weight" in name or name.endswith("_embeddings.weight") or ".intermediate.dense.weight" in name:
        return weight[:, channels]
    if ".intermediate.dense.bias" in name:
        return weight
    if name == "pooler.dense.weight":
        return weight[channels][:, channels]
    return weight[channels]

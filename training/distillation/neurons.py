"""A narrower feed-forward part: neurons are left out one by one, and those that stay take over what they did.

Source: Hassibi & Stork 1992, Optimal Brain Surgeon, here for whole neurons.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

_FFN_IN = {"fc1", "wi", "wi_0", "wi_1", "intermediate.dense"}
_FFN_OUT = {"fc2", "wo", "output.dense"}
_RIDGE = 1e-4


def activation_moments(
    layers: Sequence[nn.Module], run: Callable[[PreTrainedModel], None], model: PreTrainedModel
) -> Mapping[nn.Module, Tensor]:
    """Of each layer the sums of a_i·a_j over tokens, (I + 1, I + 1): of its I neurons and of one that is always 1."""
    moments: dict[nn.Module, Tensor] = {}
    with ExitStack() as hooks:
        for layer in layers:

            def add(_: nn.Module, inputs: tuple[Tensor], layer: nn.Module = layer) -> None:
                active = nn.functional.pad(inputs[0].float().flatten(0, -2), (0, 1), value=1.0)
                moments[layer] = moments.get(layer, 0) + (active.T @ active).double()

            (out,) = _linears(layer, _FFN_OUT)
            hooks.callback(out.register_forward_pre_hook(add).remove)
        with torch.no_grad():
            run(model)
    return moments


def narrow(layer: nn.Module, moments: Tensor, width: int) -> None:
    """Keep ``width`` inner neurons of ``layer``, in their order, with output weights that fit what all of them gave.

    Each time that neuron goes whose loss is the least after the others have made up for it: of the squared error of the
    layer's output, ‖w_i‖² / (C⁻¹)_ii, C being the moments.

    Args:
        layer: changed in place.
        moments: of its neurons, as `activation_moments` gives them.
        width: how many stay.

    Raises:
        ValueError: it has not as many.
    """
    count = len(moments) - 1
    if width > count:
        raise ValueError(f"a student of inner width {width} does not come out of a teacher of {count}")
    if width == count:
        return
    (out,) = _linears(layer, _FFN_OUT)
    size = count if out.bias is None else count + 1
    parts = [out.weight] if out.bias is None else [out.weight, out.bias[:, None]]
    weight, kept = _without(torch.cat(parts, 1).detach().double(), moments[:size, :size], count, count - width)
    for linear in _linears(layer, _FFN_IN):
        linear.weight = nn.Parameter(linear.weight[kept])
        linear.bias = None if linear.bias is None else nn.Parameter(linear.bias[kept])
    out.weight = nn.Parameter(weight[:, kept].to(out.weight))
    if out.bias is not None:
        out.bias = nn.Parameter(weight[:, count].to(out.bias))


def _without(weight: Tensor, moments: Tensor, count: int, num_left_out: int) -> tuple[Tensor, Tensor]:
    """The weights (out, I) after so many of the first ``count`` neurons are left out, and the numbers of the others."""
    ridge = _RIDGE * moments.diagonal().mean() * torch.eye(len(moments), dtype=moments.dtype)
    inverse = torch.linalg.inv(moments + ridge)
    stays = torch.ones(count, dtype=torch.bool)
    for _ in range(num_left_out):
        lost = weight[:, :count].square().sum(0) / inverse.diagonal()[:count]
        number = int(lost.masked_fill(~stays, torch.inf).argmin())
        row = inverse[number] / inverse[number, number]
        weight = weight - torch.outer(weight[:, number], row)
        inverse = torch.addr(inverse, inverse[:, number].clone(), row, alpha=-1)
        inverse[number, number] = 1.0  # It is out: all else in its row and column is 0.
        stays[number] = False
    return weight, stays.nonzero().squeeze(-1)


def _linears(layer: nn.Module, names: set[str]) -> list[nn.Linear]:
    """The linear layers of ``layer`` whose full name, or its last part, is one of ``names``."""
    return [
        module
        for name, module in layer.named_modules()
        if isinstance(module, nn.Linear) and (name in names or name.rpartition(".")[2] in names)
    ]

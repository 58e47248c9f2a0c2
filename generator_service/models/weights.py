"""Turns named checkpoint tensors into layers of one dtype on one device."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from generator_service.models.checkpoint import Checkpoint
from serving.linear import Backend, Linear, make_linear


class Weights:
    """Reads each tensor when a layer asks for it, so that packed weights never lie beside a whole unpacked model."""

    def __init__(self, checkpoint: Checkpoint, *, dtype: torch.dtype, device: torch.device, backend: Backend) -> None:
        self.checkpoint = checkpoint
        self.dtype = dtype
        self.device = device
        self._backend = backend
        self._tables: list[Tensor] = []
        self._sizes: dict[str, int] = {}

    @property
    def num_parameters(self) -> int:
        """Of all tensors read so far, each once."""
        return sum(self._sizes.values())

    def tensor(self, name: str, *, dtype: torch.dtype | None = None) -> Tensor:
        """The tensor of that name.

        Raises:
            ValueError: If the checkpoint has none.
        """
        tensor = self.checkpoint.get(name, dtype=dtype or self.dtype, device=self.device)
        self._sizes[name] = tensor.numel()
        return tensor

    def embedding(self, names: Sequence[str]) -> Tensor:
        """The table stored under the first of these names that exists; equal tables are kept once."""
        name = self.checkpoint.first(names)
        table = self.tensor(name)
        twin = next((other for other in self._tables if torch.equal(other, table)), None)
        if twin is not None:
            return twin
        self._tables.append(table)
        return table

    def linear(self, names: Sequence[str], *, biased: Sequence[str] = (), dtype: torch.dtype | None = None) -> Linear:
        """One layer whose outputs are those of several stored layers side by side.

        Args:
            names: Stored weights, each (out, in).
            biased: Stored biases, as many as weights or none.
            dtype: Another dtype than the model's.
        """
        weight = torch.cat([self.tensor(name, dtype=dtype) for name in names])
        bias = torch.cat([self.tensor(name, dtype=dtype) for name in biased]) if biased else None
        return make_linear(weight, bias, self._backend if dtype in (None, self.dtype) else "plain")

    def head(self, name: str, bias: Tensor | None) -> Linear:
        """The layer from decoder states to logits; a bias of nothing but zeros is left out."""
        if bias is not None and not bool(bias.any()):
            bias = None
        return make_linear(self.tensor(name), bias, self._backend)

"""Reads a transformers checkpoint directory: config and safetensors weights. Builds no model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"
# Where the generator lies inside a checkpoint of a whole RAG model.
_RAG_PREFIXES = ("rag.generator.", "generator.")


class Checkpoint:
    """One generator on disk: `config` as its file has it, `generation` merged over it, weights by name.

    A checkpoint saved from a whole RAG model is read as its generator; `rag_config` is then the whole model's.
    """

    def __init__(self, path: Path) -> None:
        """Reads the config and the list of weights, not the weights.

        Raises:
            ValueError: If there is no config, or no weights in safetensors format.
        """
        self.path = path
        config = _read_json(path / "config.json")
        if config is None:
            raise ValueError(f"{path} has no config.json: a model directory saved by transformers is expected")
        self.rag_config: Mapping[str, Any] | None = config if config.get("model_type") == "rag" else None
        self.config: Mapping[str, Any] = config["generator"] if self.rag_config else config
        self.generation: Mapping[str, Any] | None = _read_json(path / "generation_config.json")
        self._files = _weight_files(path)
        opened: list[Any] = [safe_open(file, framework="pt") for file in self._files]
        self._names = {_without_prefix(name): (name, file) for file in opened for name in file.keys()}  # noqa: SIM118

    @property
    def architecture(self) -> str:
        """The class that was saved, as the config names it; "" where it names none."""
        return next(iter((self.rag_config or self.config).get("architectures") or ()), "")

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def get(self, name: str, *, dtype: torch.dtype, device: torch.device) -> Tensor:
        """The weight of that name.

        Raises:
            ValueError: If the checkpoint has none.
        """
        if name not in self._names:
            raise ValueError(f"{self.path} has no weight {name!r}")
        stored, file = self._names[name]
        tensor: Tensor = file.get_tensor(stored)
        return tensor.to(device=device, dtype=dtype)

    def first(self, names: Iterable[str]) -> str:
        """The first of these names that the checkpoint has, as tied weights are stored under any of theirs.

        Raises:
            ValueError: If it has none of them.
        """
        names = list(names)
        found = next((name for name in names if name in self._names), None)
        if found is None:
            raise ValueError(f"{self.path} has none of the weights {', '.join(names)}")
        return found

    def token_id(self, name: str, default: int | None) -> int | None:
        """A special token's id: from the generation config if it says, else from the config, else the default.

        A forced token is an option of generation: where there is a generation config, it alone decides.
        """
        if self.generation is not None and (name.startswith("forced_") or self.generation.get(name) is not None):
            value = self.generation.get(name)
        else:
            value = self.config.get(name, default)
        return value[0] if isinstance(value, list) else value

    def digest(self) -> str:
        """SHA-256 over config and weights, in hexadecimal."""
        digest = hashlib.sha256(json.dumps(self.config, sort_keys=True).encode())
        for file in self._files:
            with file.open("rb") as content:
                digest.update(hashlib.file_digest(content, "sha256").digest())
        return digest.hexdigest()


def _read_json(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    value = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(value, dict):
        raise ValueError(f"{path} is not a JSON object")
    return value


def _weight_files(path: Path) -> list[Path]:
    index = _read_json(path / _INDEX)
    if index is not None:
        return [path / name for name in sorted(set(index["weight_map"].values()))]
    if (path / _SINGLE).is_file():
        return [path / _SINGLE]
    if any(path.glob("pytorch_model*.bin*")):
        raise ValueError(
            f"{path} has its weights in pytorch_model.bin, a pickle that can run code when it is read; "
            "save it again with save_pretrained(..., safe_serialization=True)"
        )
    raise ValueError(f"{path} has neither {_SINGLE} nor {_INDEX}")


def _without_prefix(name: str) -> str:
    for prefix in _RAG_PREFIXES:
        if name.startswith(prefix):
            return name[len(prefix) :]
    return name

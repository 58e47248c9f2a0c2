"""A collection's settings as the store keeps them: JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from retriever_service.collection import CollectionSettings, EncoderIdentity, FieldType, LexicalScoring, Metric
from retriever_service.fusion import Fusion, FusionMethod


def settings_to_json(settings: CollectionSettings) -> str:
    """Settings as the store keeps them."""
    return json.dumps(asdict(settings))


def settings_from_json(text: str) -> CollectionSettings:
    """The inverse of `settings_to_json`."""
    given: dict[str, Any] = json.loads(text)
    return CollectionSettings(
        **{
            **given,
            "metric": Metric(given["metric"]),
            "encoder": EncoderIdentity(**given["encoder"]),
            "filterable_fields": {name: FieldType(kind) for name, kind in given["filterable_fields"].items()},
            "fusion": fusion_from_json(given["fusion"]),
            "lexical_scoring": LexicalScoring(given.get("lexical_scoring", LexicalScoring.BM25)),
        }
    )


def fusion_from_json(given: dict[str, Any]) -> Fusion:
    """A fusion from its fields."""
    return Fusion(**{**given, "method": FusionMethod(given["method"])})

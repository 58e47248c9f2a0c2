"""Vectors as they come in: checked, and normalised where the metric says so. Pure."""

from __future__ import annotations

import math

import numpy as np

from retriever_service.collection import CollectionSettings, Metric, Vectors
from serving.errors import InvalidRequest

_MIN_NORM = 1e-12
_UNIT_TOLERANCE = 1e-6


def check_vector(vector: Vectors, settings: CollectionSettings, field: str) -> Vectors:
    """A caller's vector (D,), ready to be stored or searched with.

    Raises:
        InvalidRequest: When it has not the encoder's dimension, is not finite, or is zero.
    """
    if vector.shape != (settings.encoder.dim,):
        raise InvalidRequest(
            f"{field} has {vector.size} dimensions; collection {settings.name!r} has {settings.encoder.dim} "
            f"(encoder {settings.encoder.name!r})",
            field=field,
            reason="WRONG_DIMENSION",
        )
    exact = vector.astype(np.float64)
    norm = math.sqrt(exact @ exact)
    if not math.isfinite(norm):  # So is every float32 number's square in float64.
        raise InvalidRequest(f"{field} holds a number that is not finite", field=field)
    if norm < _MIN_NORM:
        raise InvalidRequest(f"{field} is a zero vector", field=field)
    if settings.metric is Metric.INNER_PRODUCT or abs(norm - 1.0) < _UNIT_TOLERANCE:
        return vector
    return np.asarray(exact / norm, np.float32)


def normalised(vectors: Vectors, metric: Metric) -> Vectors:
    """(N, D) vectors of length 1 for COSINE; as they are for INNER_PRODUCT."""
    if metric is Metric.INNER_PRODUCT or not len(vectors):
        return vectors
    norms = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    norms[np.abs(norms - 1.0) < _UNIT_TOLERANCE] = 1.0  # What was normalised once stays the same, bit for bit.
    return np.asarray(vectors / np.maximum(norms, _MIN_NORM), np.float32)

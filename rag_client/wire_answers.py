"""The options of questions → wire messages; see `wire.py`."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from protos.rag.v1 import common_pb2, gateway_pb2
from rag_client import options, wire
from rag_client.answer_types import Turn
from rag_client.types import CandidateRanking, Sampling


def answer_fields(question: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of AnswerRequest and StreamAnswerRequest."""
    wire.refuse_unknown(given, options.ANSWER_NAMES)
    answer_options = _answer_options(given)
    answer_options.MergeFrom(_task_options(given))
    return {
        "question": question,
        "task": wire.number(gateway_pb2.Task, "TASK_", given.get("task"), field="task"),
        "history": _turns(given.get("history") or ()),
        "options": answer_options,
    }


def compare_fields(question: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of CompareAnswersRequest, but for the index generations."""
    wire.refuse_unknown(given, options.COMPARE_NAMES)
    return {"question": question, "options": _answer_options(given)}


def _answer_options(given: Mapping[str, Any]) -> gateway_pb2.AnswerOptions:
    return wire.message(
        gateway_pb2.AnswerOptions,
        {
            "retrieval": wire.retrieval_options(given),
            "decoding": _decoding_options(given),
            "explanation": wire.message(common_pb2.ExplanationOptions, wire.select(given, options.EXPLANATION_NAMES)),
            "min_confidence": given.get("min_confidence"),
        },
    )


def _task_options(given: Mapping[str, Any]) -> gateway_pb2.AnswerOptions:
    modes = gateway_pb2.HistoryOptions.Mode
    history = {
        "mode": wire.number(modes, "MODE_", given.get("dialogue_mode"), field="dialogue_mode"),
        "turn_discount": given.get("turn_discount"),
        "num_turns": given.get("num_turns"),
    }
    recommendation = wire.select(given, frozenset({"liked_sources", "item_field"}))
    fields = {
        "history": wire.message(gateway_pb2.HistoryOptions, history),
        "labels": given.get("labels"),
        "summarization": wire.message(gateway_pb2.SummarizationOptions, {"source": given.get("source")}),
        "document": wire.message(gateway_pb2.DocumentOptions, {"max_sections": given.get("max_sections")}),
        "recommendation": wire.message(gateway_pb2.RecommendationOptions, recommendation),
        "translation": wire.message(gateway_pb2.TranslationOptions, {"field": given.get("translation_field")}),
    }
    return wire.message(gateway_pb2.AnswerOptions, fields)


def _turns(history: Sequence[Turn]) -> list[gateway_pb2.Turn]:
    roles = gateway_pb2.Turn.Role
    return [
        wire.message(
            gateway_pb2.Turn,
            {"role": wire.number(roles, "ROLE_", turn.role, field="history.role"), "text": turn.text},
        )
        for turn in history
    ]


def _decoding_options(given: Mapping[str, Any]) -> common_pb2.DecodingOptions:
    """The decoding options among those given."""
    fields = wire.select(given, options.DECODING_NAMES)
    fields["model"] = wire.number(common_pb2.DecodingModel, "DECODING_MODEL_", fields.get("model"), field="model")
    fields["sequence_scoring"] = wire.number(
        common_pb2.SequenceScoring, "SEQUENCE_SCORING_", fields.get("sequence_scoring"), field="sequence_scoring"
    )
    sampling: Sampling | None = fields.get("sampling")
    fields["sampling"] = sampling and wire.message(common_pb2.Sampling, asdict(sampling))
    ranking: CandidateRanking | None = fields.get("candidate_ranking")
    fields["candidate_ranking"] = ranking and wire.message(common_pb2.CandidateRanking, asdict(ranking))
    return wire.message(common_pb2.DecodingOptions, fields)

"""The gateway's answers and events → what callers get."""

from collections.abc import Mapping, MutableSequence, Sequence

from gateway.answers import Answer, Event, Part, StageEnded
from gateway.convert_retriever import ranked_passages
from gateway.stages import Delta, Generation, Retrieval
from protos.rag.v1 import common_pb2, gateway_pb2, generator_pb2

_MIN_CITED_SHARE = 0.1


def answer_response(answer: Answer, build_version: str) -> gateway_pb2.AnswerResponse:
    """An answer, as the caller sees it."""
    provenance = common_pb2.Provenance()
    for made_by in (answer.made.retrieval.provenance, *(each.provenance for each in answer.made.generations)):
        if made_by is not None:
            provenance.MergeFrom(made_by)
    provenance.build_version = build_version
    return gateway_pb2.AnswerResponse(
        answer=_answer(answer), provenance=provenance, timings=_timing_messages(answer.timings)
    )


def _answer(answer: Answer) -> gateway_pb2.Answer:
    made = answer.made
    message = gateway_pb2.Answer(
        answer_id=answer.answer_id,
        finish_reason="FINISH_REASON_" + answer.finish_reason.upper(),
        from_cache=made.from_cache,
        confidence=made.confidence,
        rewritten_question=made.rewritten_question,
    )
    passages = ranked_passages(made.retrieval)
    for cited in answer.citations:
        message.citations.add(retrieved=passages[cited.index], prior=cited.prior, posterior=cited.posterior)
    for generation in made.generations:
        decoded: generator_pb2.Generation = generation.message
        message.log_probability += decoded.log_probability
        message.num_new_tokens += decoded.num_new_tokens
        message.num_input_tokens += decoded.num_input_tokens
        message.pruned_prior_mass = max(message.pruned_prior_mass, decoded.pruned_prior_mass)
        message.model = decoded.model
    if answer.has_text:
        order = [cited.index for cited in answer.citations]
        if made.generation is not None:
            _add_generation(message, made.generation, order)
        else:
            _add_parts(message, answer, {index: place for place, index in enumerate(order)})
    return message


def _add_generation(message: gateway_pb2.Answer, generation: Generation, order: Sequence[int]) -> None:
    decoded: generator_pb2.Generation = generation.message
    message.text, message.raw_text = decoded.text, decoded.raw_text
    message.tokens.extend(decoded.tokens)
    message.hypotheses.extend(decoded.hypotheses)
    message.leave_one_out.extend(decoded.leave_one_out)
    for label in generation.labels:
        message.labels.add(label=label.text, probability=label.probability, log_probability=label.log_probability)
    for token in message.tokens:
        _reorder(token.posteriors, order)
    for hypothesis in message.hypotheses:
        _reorder(hypothesis.posteriors, order)


def _add_parts(message: gateway_pb2.Answer, answer: Answer, places: Mapping[int, int]) -> None:
    """The sections or items, and the text that they make."""
    for item in answer.made.items:
        message.items.add(name=item.name, probability=item.probability, citations=_places(item.parts, places))
    for section in answer.made.sections:
        message.sections.add(
            heading=section.heading,
            text=section.generation.text,
            prior=section.prior,
            log_probability=section.generation.message.log_probability,
            confidence=section.generation.confidence,
            citations=_places(section.parts, places),
        )
    message.text = markdown(message) if message.sections else "\n".join(item.name for item in message.items)
    message.raw_text = message.text


def markdown(answer: gateway_pb2.Answer) -> str:
    """A document's sections, each with the numbers of the passages that explain most of it; then what those are."""
    blocks, cited = [], set()
    for section in answer.sections:
        best, *others = section.citations
        shown = [best.index, *(place.index for place in others if place.posterior >= _MIN_CITED_SHARE)]
        cited.update(shown)
        marks = "".join(f"[{index + 1}]" for index in sorted(shown))
        blocks.append(f"## {section.heading}\n\n{section.text} {marks}")
    passages = {index: answer.citations[index].retrieved.passage for index in sorted(cited)}
    sources = [f"- [{index + 1}] {_where(passage)}" for index, passage in passages.items()]
    return "\n\n".join([*blocks, "## Sources", "\n".join(sources)]) + "\n"


def _where(passage: common_pb2.Passage) -> str:
    return ", ".join(part for part in (passage.title, passage.source) if part) or passage.id


def _places(parts: Sequence[Part], places: Mapping[int, int]) -> list[gateway_pb2.CitationPlace]:
    """From places among the passages to places among the citations."""
    return [gateway_pb2.CitationPlace(index=places[part.index], posterior=part.share) for part in parts]


def _reorder(posteriors: MutableSequence[float], order: Sequence[int]) -> None:
    """From the passages' order into the citations'."""
    if posteriors:
        posteriors[:] = [posteriors[index] for index in order]


def event(event: Event, build_version: str) -> gateway_pb2.StreamAnswerResponse:
    """One event of a streamed answer."""
    match event:
        case StageEnded(stage, seconds, section):
            (timing,) = _timing_messages({stage: seconds})
            return gateway_pb2.StreamAnswerResponse(stage=gateway_pb2.StageEvent(timing=timing, section=section))
        case Retrieval():
            return gateway_pb2.StreamAnswerResponse(
                passages=gateway_pb2.RetrievedPassages(passages=ranked_passages(event), provenance=event.provenance)
            )
        case Delta(message):
            return gateway_pb2.StreamAnswerResponse(delta=message)
        case Answer():
            return gateway_pb2.StreamAnswerResponse(final=answer_response(event, build_version))


def _timing_messages(timings: Mapping[str, float]) -> list[common_pb2.StageTiming]:
    return [
        common_pb2.StageTiming(stage="STAGE_" + name.upper(), duration_seconds=seconds)
        for name, seconds in timings.items()
    ]

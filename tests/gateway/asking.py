"""Questions of every task, and what the fakes saw of them."""

import math

from protos.rag.v1 import common_pb2, gateway_pb2, generator_pb2
from tests.gateway import refusals


def ask(question, task, *, turns=(), kind=gateway_pb2.AnswerRequest, **options):
    history = [gateway_pb2.Turn(role=f"ROLE_{role.upper()}", text=text) for role, text in turns]
    name = f"TASK_{task.upper()}" if task else None
    return kind(question=question, task=name, history=history, options=gateway_pb2.AnswerOptions(**options))


def hit(name, prior, *, title="", source="", text="", **metadata):
    values = {key: common_pb2.Value(string_value=value) for key, value in metadata.items()}
    passage = common_pb2.Passage(id=name, title=title, source=source, text=text or f"Text {name}", metadata=values)
    return common_pb2.RetrievedPassage(passage=passage, rank=1, log_prior=math.log(prior))


def taught(house, **task):
    house.generator.tasks.append(generator_pb2.TaskPrompt(**task))


async def answer(house, request):
    return (await house.answers.Answer(request)).answer


async def refusal(house, request):
    return await refusals.refusal(house.answers.Answer(request))


def queries(house):
    return [query.text for seen in house.retriever.script.seen for query in seen.request.queries]


def read(house):
    """What the generator read, in the order of the calls."""
    return [seen.request.input for seen in house.generator.script.seen]

"""What a request says of its task → the gateway's values. What a task does not read is refused."""

from collections.abc import Sequence

from gateway.convert_names import enum_name
from gateway.convert_retriever import DEFAULT_TOP_K, rerank_method
from gateway.prompts import Turn
from gateway.stages import Task, TaskOptions
from gateway.tasks import summarization
from protos.rag.v1 import common_pb2, gateway_pb2
from serving.errors import InvalidRequest, Unimplemented

Request = gateway_pb2.AnswerRequest | gateway_pb2.StreamAnswerRequest

MAX_TEXT_BYTES = 8192
MAX_TURNS = 64
MIN_LABELS, MAX_LABELS = 2, 64
MAX_SECTIONS, DEFAULT_SECTIONS = 20, 5
MAX_LIKED_SOURCES = 32
MAX_SUMMARIZED_PASSAGES = summarization.MAX_PASSAGES
DEFAULT_TRANSLATION_FIELD = "translation"
DEFAULT_DIALOGUE_TURNS, DEFAULT_DIALOGUE_DISCOUNT = 3, 0.5
DEFAULT_BROAD_TOP_K = 20

# What only some tasks read.
_READ = {
    "history": (Task.DIALOGUE, Task.RECOMMENDATION),
    "options.history": (Task.DIALOGUE, Task.RECOMMENDATION),
    "options.history.mode": (Task.DIALOGUE,),
    "options.labels": (Task.FACT_VERIFICATION,),
    "options.summarization": (Task.SUMMARIZATION,),
    "options.document": (Task.DOCUMENT_GENERATION,),
    "options.recommendation": (Task.RECOMMENDATION,),
    "options.translation": (Task.TRANSLATION,),
}
_DECODING = tuple(f"options.decoding.{name}" for name in common_pb2.DecodingOptions.DESCRIPTOR.fields_by_name)
_RETRIEVAL = tuple(f"options.retrieval.{name}" for name in common_pb2.RetrievalOptions.DESCRIPTOR.fields_by_name)
# What every task reads but these: labels are scored, items ranked, sections have no candidates.
_UNREAD = {
    Task.FACT_VERIFICATION: (*(path for path in _DECODING if not path.endswith(".model")), "options.explanation"),
    Task.RECOMMENDATION: ("options.decoding", "options.explanation", "options.min_confidence"),
    Task.DOCUMENT_GENERATION: (
        "options.explanation",
        "options.min_confidence",
        "options.decoding.candidate_ranking",
        "options.decoding.num_return_sequences",
    ),
    Task.TRANSLATION: ("options.decoding.candidate_ranking",),
}
_UNREAD_WITH_A_SOURCE = (
    *(path for path in _RETRIEVAL if not path.endswith(".collection")),
    "options.decoding.candidate_ranking",
)


def task_of(request: Request) -> Task:
    """What the answer is for.

    Raises:
        Unimplemented: The number is newer than this gateway.
    """
    if request.task == gateway_pb2.TASK_UNSPECIFIED:
        return Task.DIALOGUE if request.history else Task.QUESTION_ANSWERING
    if request.task not in gateway_pb2.Task.values():
        raise Unimplemented(f"task {request.task} is not known here")
    return Task(enum_name(gateway_pb2.Task, request.task, "TASK_"))


def history(request: Request) -> tuple[Turn, ...]:
    """The earlier turns.

    Raises:
        InvalidRequest: Names the field and the limit.
    """
    check_count("history", len(request.history), 0, MAX_TURNS, "turns")
    for index, turn in enumerate(request.history):
        check_text(f"history[{index}].text", turn.text)
    assistant = gateway_pb2.Turn.ROLE_ASSISTANT
    return tuple(Turn("assistant" if turn.role == assistant else "user", turn.text) for turn in request.history)


def task_options(request: Request, task: Task) -> TaskOptions:
    """What the request says to its task, with the defaults filled in.

    Raises:
        InvalidRequest: Names the field and the limit, or an option that the task does not read.
    """
    _check_read(request, task)
    options = request.options
    is_dialogue, given = task is Task.DIALOGUE, options.history
    discount = given.turn_discount if given.HasField("turn_discount") else None
    if discount is not None and not 0 < discount <= 1:
        raise _out_of_range("options.history.turn_discount", "in (0, 1]", discount)
    check_count("options.history.num_turns", given.num_turns, 0, MAX_TURNS)
    check_count("options.document.max_sections", options.document.max_sections, 0, MAX_SECTIONS)
    num_turns = DEFAULT_DIALOGUE_TURNS if is_dialogue else MAX_TURNS
    return TaskOptions(
        rewrites=_rewrites(given),
        turn_discount=discount or (DEFAULT_DIALOGUE_DISCOUNT if is_dialogue else 1.0),
        top_k=_top_k(options.retrieval, task),
        num_turns=given.num_turns if given.HasField("num_turns") else num_turns,
        labels=_texts("options.labels", options.labels, MIN_LABELS, MAX_LABELS),
        source=options.summarization.source,
        max_sections=options.document.max_sections or DEFAULT_SECTIONS,
        liked_sources=_texts(
            "options.recommendation.liked_sources", options.recommendation.liked_sources, 1, MAX_LIKED_SOURCES
        ),
        item_field=options.recommendation.item_field,
        translation_field=(options.translation.field or DEFAULT_TRANSLATION_FIELD) if task is Task.TRANSLATION else "",
    )


def with_task_defaults(options: gateway_pb2.AnswerOptions, task: Task) -> gateway_pb2.AnswerOptions:
    """The options with what the task does otherwise than a question."""
    completed = gateway_pb2.AnswerOptions()
    completed.CopyFrom(options)
    if task in (Task.SUMMARIZATION, Task.DOCUMENT_GENERATION) and not completed.decoding.model:
        completed.decoding.model = common_pb2.DECODING_MODEL_FUSION_IN_DECODER
    if task in (Task.RECOMMENDATION, Task.DOCUMENT_GENERATION):
        completed.retrieval.top_k = _top_k(completed.retrieval, task)
    return completed


def check_question(request: Request, task: Task, options: TaskOptions) -> None:
    """Refuses a question that is too long, or blank where its task needs it.

    Raises:
        InvalidRequest: Says so.
    """
    likes = bool(options.liked_sources) or any(turn.role != gateway_pb2.Turn.ROLE_ASSISTANT for turn in request.history)
    if not (options.source or (task is Task.RECOMMENDATION and likes)):
        check_text("question", request.question)
    check_size("question", request.question)


def check_text(field: str, text: str) -> None:
    """Refuses a blank or oversize text.

    Raises:
        InvalidRequest: Names the field and the limit.
    """
    if not text.strip():
        raise InvalidRequest(f"{field} must not be blank", field=field, reason="BLANK")
    check_size(field, text)


def check_size(field: str, text: str, limit: int = MAX_TEXT_BYTES) -> None:
    """Refuses an oversize text.

    Raises:
        InvalidRequest: Names the field and the limit.
    """
    size = len(text.encode())
    if size > limit:
        raise InvalidRequest(f"{field} has {size} bytes, at most {limit}", field=field, reason="TOO_LARGE")


def check_count(field: str, count: int, least: int, most: int, unit: str = "") -> None:
    """Refuses a number outside of its range.

    Raises:
        InvalidRequest: Names the field and the limit.
    """
    if not least <= count <= most:
        raise _out_of_range(field, f"{least} to {most} {unit}".strip(), count)


def _check_read(request: Request, task: Task) -> None:
    for path, tasks in _READ.items():
        if task not in tasks and _is_given(request, path):
            names = " and ".join(each.upper() for each in tasks)
            raise InvalidRequest(f"{path} is for {names}, not for {task.upper()}", field=path)
    for path in _UNREAD.get(task, ()):
        if _is_given(request, path):
            raise InvalidRequest(f"{path} has no meaning for {task.upper()}", field=path)
    options = request.options
    if options.summarization.source:
        for path in _UNREAD_WITH_A_SOURCE:
            if _is_given(request, path):
                raise InvalidRequest(
                    f"{path} cannot go with options.summarization.source: all of its passages are read", field=path
                )
    if options.recommendation.liked_sources and options.retrieval.index_generation:
        raise InvalidRequest(
            "options.retrieval.index_generation cannot go with liked_sources: they are read from the one served",
            field="options.retrieval.index_generation",
        )
    reads_none = options.decoding.model == common_pb2.DECODING_MODEL_CLOSED_BOOK
    if reads_none and (task is Task.DOCUMENT_GENERATION or options.summarization.source):
        raise InvalidRequest(f"{task.upper()} needs passages; CLOSED_BOOK has none", field="options.decoding.model")
    method = rerank_method(options.retrieval)
    if method is not None and task is Task.RECOMMENDATION:
        raise InvalidRequest(f"rerank by {method} has no meaning for RECOMMENDATION", field="options.retrieval.rerank")


def _is_given(message: Request, path: str) -> bool:
    """Whether a field is set; a message is, when anything in it is."""
    value: object = message
    for name in path.split("."):
        fields = {field.name: given for field, given in value.ListFields()}  # type: ignore[attr-defined]
        if name not in fields:
            return False
        value = fields[name]
    return not hasattr(value, "ListFields") or bool(value.ListFields())


def _top_k(options: common_pb2.RetrievalOptions, task: Task) -> int:
    default = DEFAULT_BROAD_TOP_K if task in (Task.RECOMMENDATION, Task.DOCUMENT_GENERATION) else DEFAULT_TOP_K
    return options.top_k if options.HasField("top_k") else default


def _rewrites(given: gateway_pb2.HistoryOptions) -> bool | None:
    if given.mode == gateway_pb2.HistoryOptions.MODE_UNSPECIFIED:
        return None
    return given.mode == gateway_pb2.HistoryOptions.MODE_QUERY_REWRITING


def _texts(field: str, texts: Sequence[str], least: int, most: int) -> tuple[str, ...]:
    """Different texts, none of them blank; or none at all."""
    if texts:
        check_count(field, len(texts), least, most)
    for index, text in enumerate(texts):
        check_text(f"{field}[{index}]", text)
    if len(set(texts)) < len(texts):
        raise InvalidRequest(f"{field} has the same text twice", field=field, reason="DUPLICATE")
    return tuple(texts)


def _out_of_range(field: str, wanted: str, given: float) -> InvalidRequest:
    return InvalidRequest(f"{field} must be {wanted}, not {given}", field=field, reason="OUT_OF_RANGE")

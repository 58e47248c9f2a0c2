import json

import grpc
import grpc.aio
import pytest

from gateway.feedback import Feedback, FeedbackLog
from protos.rag.v1 import gateway_pb2

GOOD = Feedback(answer_id="a1", rating="good", comment="yes", helpful_passage_ids=("p1",))


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


async def open_log(path):
    log = FeedbackLog(path)
    await log.open()
    return log


async def test_feedback_is_on_disk_when_append_returns(tmp_path):
    path = tmp_path / "deep" / "feedback.jsonl"
    log = await open_log(path)
    feedback_id = await log.append(GOOD)
    (record,) = lines(path)
    assert record["feedback_id"] == feedback_id
    assert (record["answer_id"], record["rating"], record["helpful_passage_ids"]) == ("a1", "good", ["p1"])
    assert record["created_at"].endswith("+00:00")


async def test_the_same_feedback_is_stored_once_even_after_a_restart(tmp_path):
    path = tmp_path / "feedback.jsonl"
    first = await (await open_log(path)).append(GOOD)
    again = await (await open_log(path)).append(GOOD)
    assert first == again
    assert len(lines(path)) == 1


async def test_other_content_on_the_same_answer_is_other_feedback(tmp_path):
    path = tmp_path / "feedback.jsonl"
    log = await open_log(path)
    assert await log.append(GOOD) != await log.append(Feedback(answer_id="a1", rating="bad"))
    assert len(lines(path)) == 2


async def test_a_line_cut_short_by_a_crash_is_dropped(tmp_path):
    path = tmp_path / "feedback.jsonl"
    await (await open_log(path)).append(GOOD)
    with path.open("ab") as file:
        file.write(b'{"feedback_id": "half')
    log = await open_log(path)
    await log.append(Feedback(answer_id="a2", rating="bad"))
    assert [record["answer_id"] for record in lines(path)] == ["a1", "a2"]


async def test_feedback_over_the_wire_is_stored_with_its_id(house):
    feedback = gateway_pb2.Feedback(answer_id="a1", rating="RATING_BAD", expected_answer="Lyon")
    reply = await house.answers.SendFeedback(gateway_pb2.SendFeedbackRequest(feedback=feedback))
    (record,) = lines(house.gateway.config.feedback_path)
    assert record["feedback_id"] == reply.feedback_id
    assert (record["rating"], record["expected_answer"]) == ("bad", "Lyon")


@pytest.mark.parametrize(
    ("feedback", "words"),
    [
        (gateway_pb2.Feedback(rating="RATING_GOOD"), "feedback.answer_id must not be blank"),
        (gateway_pb2.Feedback(answer_id="a" * 65, rating="RATING_GOOD"), "at most 64"),
        (gateway_pb2.Feedback(answer_id="a", comment="x" * 8193), "feedback.comment"),
        (gateway_pb2.Feedback(answer_id="a", helpful_passage_ids=["p"] * 101), "at most 100"),
        (gateway_pb2.Feedback(answer_id="a"), "says nothing"),
    ],
)
async def test_bad_feedback_is_refused_and_not_stored(house, feedback, words):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await house.answers.SendFeedback(gateway_pb2.SendFeedbackRequest(feedback=feedback))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert words in caught.value.details()
    assert lines(house.gateway.config.feedback_path) == []

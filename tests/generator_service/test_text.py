"""Answers as text: deltas that only grow, pieces that join, surfaces, and what lies before a stop string."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import pytest

from generator_service.decoding.marginal import TokenShare
from generator_service.decoding.program import EmittedToken
from generator_service.planning import PassagePrior
from generator_service.presenting import Deltas
from generator_service.request import Explanation
from generator_service.text import DeltaText, TextCodec
from tests.generator_service.asking import PASSAGES


def test_deltas_hold_back_what_the_next_token_may_change(tiny: Any) -> None:
    codec = TextCodec(tiny.word_piece(), tiny.loaded().prompt)
    ids = tiny.word_piece().encode("Paris, it's france", add_special_tokens=False)
    delta, whole = DeltaText(codec, ()), codec.decode(ids)
    given = ""
    for end in range(1, len(ids) + 1):
        given += delta.push(ids[:end])
        assert whole.startswith(given)
    assert given + delta.finish(whole) == whole


def test_pieces_of_an_answer_join_to_its_text(tiny: Any) -> None:
    codec = TextCodec(tiny.word_piece(), tiny.loaded().prompt)
    ids = [*tiny.word_piece().encode("Paris, it's franconian", add_special_tokens=False), 2]
    assert "".join(codec.pieces(ids)) == codec.decode(ids)
    assert len(codec.pieces(ids)) == len(ids)


def test_an_answer_comes_back_in_the_surface_of_the_most_probable_passage(tiny: Any) -> None:
    codec = TextCodec(tiny.word_piece(), tiny.loaded().prompt)
    ids = tiny.word_piece().encode("france", add_special_tokens=False)
    answer = codec.answer([*ids, 2], PASSAGES, ())
    assert (answer.text, answer.raw) == ("France", "france")


def test_a_word_that_the_vocabulary_lacks_cannot_be_written(tiny: Any) -> None:
    codec = TextCodec(tiny.word_piece(), tiny.loaded().prompt)
    assert codec.writable_ids("Paris") == (tuple(tiny.word_piece().encode("paris", add_special_tokens=False)),)
    assert codec.writable_ids("東京") == ()


def test_the_tokens_before_a_stop_string_end_before_it_begins(tiny: Any) -> None:
    codec = TextCodec(tiny.word_piece(), tiny.loaded().prompt)
    ids = tiny.word_piece().encode("paris has a large river", add_special_tokens=False)
    assert codec.decode(codec.before_stop(ids, ["a large"])).strip() == "paris has"
    assert codec.before_stop(ids, ["berlin"]) == ids
    assert codec.before_stop(ids, ()) == ids


@pytest.mark.parametrize(
    ("stop", "sizes", "expected"),
    [
        ((), (1, 3, 1), "paris has a large"),
        (("germany",), (1, 1, 1, 1, 1), "paris has a larg"),
        ((), (5,), "paris has a large"),
    ],
)
def test_a_delta_has_the_tokens_whose_text_is_out(tiny: Any, stop: Any, sizes: Any, expected: str) -> None:
    codec = TextCodec(tiny.word_piece(), tiny.loaded().prompt)
    ids = tiny.word_piece().encode("paris has a large river", add_special_tokens=False)
    share = TokenShare(-1.0, (1.0,))
    plan: Any = SimpleNamespace(
        decoding=SimpleNamespace(stop=stop),
        request=SimpleNamespace(explanation=Explanation(token_posteriors=True)),
        prior=PassagePrior.of(PASSAGES[:1], 0.0),
    )
    deltas, text, told, coming = Deltas(codec, plan), "", "", iter(ids)
    for size in sizes:
        delta = deltas.push([EmittedToken(token, share) for token in itertools.islice(coming, size)])
        if delta is not None:
            text += delta.text
            told += "".join(each.text for each in delta.tokens)
            assert text.startswith(told)
            assert not text[len(told) :].strip().count(" ")  # At most one word is out without its token.
    assert text == expected

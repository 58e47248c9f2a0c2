import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from protos.rag.v1 import common_pb2 as common
from protos.rag.v1 import retriever_pb2 as wire
from retriever_service import convert
from retriever_service.collection import Passage, Span
from retriever_service.filters import AllOf, AnyOf, Equals, In, Not, Range
from retriever_service.options import RetrievalOptions
from retriever_service.search import Mode
from serving.errors import InvalidRequest, Unimplemented

vectors = arrays(np.float32, st.integers(1, 40), elements=st.floats(-1e4, 1e4, width=32))


@given(vectors)
def test_float32_vectors_survive_bit_for_bit(vector):
    assert convert.vector_from(convert.vector_to(vector), "v").tobytes() == vector.tobytes()


@given(vectors)
def test_half_precision_vectors_keep_their_relative_precision(vector):
    for dtype, bits, tiny in ((common.DATA_TYPE_FLOAT16, 11, 1e-7), (common.DATA_TYPE_BFLOAT16, 8, 1e-37)):
        back = convert.vector_from(convert.vector_to(vector, dtype), "v")
        assert np.all(np.abs(back - vector) <= np.abs(vector) * 2.0**-bits + tiny)


def test_bfloat16_rounds_to_nearest_even_as_torch_does():
    import torch

    vector = np.random.default_rng(0).normal(size=1_000).astype(np.float32)
    expected = torch.from_numpy(vector).bfloat16().float().numpy()
    assert np.array_equal(convert.vector_from(convert.vector_to(vector, common.DATA_TYPE_BFLOAT16), "v"), expected)


@pytest.mark.parametrize(
    "message",
    [
        common.Vector(data=b"\0" * 15, dim=4),
        common.Vector(data=b"\0" * 16, dim=4, dtype=common.DATA_TYPE_FLOAT16),
        common.Vector(data=b"", dim=0),
        common.Vector(data=b"\0" * 16, dim=4, dtype=99),  # type: ignore[arg-type]
    ],
)
def test_bytes_that_do_not_fit_type_and_dimension_are_refused(message):
    with pytest.raises(InvalidRequest):
        convert.vector_from(message, "query.vector")


def test_a_passage_survives_the_way_there_and_back():
    metadata = {"s": "x", "i": -3, "d": 1.0, "b": True, "l": ("a", "b")}
    passage = Passage("id", "title", "text", "source", Span(1, 5, 2), metadata)
    message = wire.UpsertRequest(passages=[wire.PassageUpsert(passage=convert.passage_to(passage))])
    assert convert.upsert_from(message).items[0].passage == passage
    assert len(convert.passage_to(passage).content_digest) == 64


def test_filters_become_the_domains_algebra():
    one = common.Value(int_value=1)
    message = common.Filter(
        all_of=common.FilterList(
            filters=[
                common.Filter(equals=common.FieldEquals(field="a", value=common.Value(string_value="x"))),
                common.Filter(
                    any_of=common.FilterList(
                        filters=[
                            common.Filter(**{"in": common.FieldIn(field="b", values=[one])}),
                            common.Filter(**{"not": common.Filter(equals=common.FieldEquals(field="c", value=one))}),
                        ]
                    )
                ),
                common.Filter(range=common.FieldRange(field="d", less_than=one, greater_or_equal=one)),
            ]
        )
    )
    expected = AllOf(
        (
            Equals("a", "x"),
            AnyOf((In("b", (1,)), Not(Equals("c", 1)))),
            Range("d", (("greater_or_equal", 1), ("less_than", 1))),
        )
    )
    assert convert.filter_from(message) == expected


@pytest.mark.parametrize(
    "message",
    [
        common.Filter(),
        common.Filter(**{"not": common.Filter()}),
        common.Filter(equals=common.FieldEquals(field="a", value=common.Value())),
    ],
)
def test_filters_without_a_condition_or_value_are_refused(message):
    with pytest.raises(InvalidRequest):
        convert.filter_from(message)


def test_unset_options_take_defaults_and_zero_top_k_is_not_unset():
    assert convert.options_from(common.RetrievalOptions()) == RetrievalOptions()
    set_ = convert.options_from(common.RetrievalOptions(top_k=0, mode=common.RETRIEVAL_MODE_DENSE, temperature=0.5))
    assert (set_.top_k, set_.mode, set_.temperature) == (0, Mode.DENSE, 0.5)


@pytest.mark.parametrize("method", ["QUESTION_LIKELIHOOD", "ANSWERABILITY"])
def test_reranking_by_the_generator_is_refused_naming_the_gateway(method):
    rerank = common.Rerank(method=f"METHOD_{method}")
    with pytest.raises(Unimplemented, match=f"{method} needs the generator: ask the gateway"):
        convert.options_from(common.RetrievalOptions(rerank=rerank))


def test_what_a_cross_encoder_does_not_read_is_refused():
    rerank = common.Rerank(method=common.Rerank.METHOD_CROSS_ENCODER, answerability_weight=0.1)
    with pytest.raises(InvalidRequest, match="for ANSWERABILITY alone") as refused:
        convert.options_from(common.RetrievalOptions(rerank=rerank))
    assert refused.value.field == "options.rerank.answerability_weight"


def test_what_a_second_look_takes_is_read():
    rerank = common.Rerank(method=common.Rerank.METHOD_CROSS_ENCODER, num_candidates=7)
    options = convert.options_from(
        common.RetrievalOptions(rerank=rerank, diversity=common.Diversity(relevance=0.0), num_neighbors=2)
    )
    assert (options.num_reread, options.relevance, options.num_neighbors) == (7, 0.0, 2)
    assert convert.options_from(common.RetrievalOptions(diversity=common.Diversity())).relevance == 0.7
    assert convert.options_from(common.RetrievalOptions(rerank=common.Rerank(num_candidates=7))).num_reread is None
    with pytest.raises(InvalidRequest, match=r"options\.rerank\.method"):
        convert.options_from(common.RetrievalOptions(rerank=common.Rerank(method=9)))


@given(st.text(min_size=1))
def test_page_tokens_survive(key):
    assert convert.page_token_from(convert.page_token_to(key)) == key


def test_a_foreign_page_token_is_refused():
    with pytest.raises(InvalidRequest, match="page_token"):
        convert.page_token_from("ÿ not base64")

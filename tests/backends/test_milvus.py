"""Milvus's expressions, versions and errors. Expressions were run against milvus-lite and a Milvus 2.3.5 server."""

import pytest

pytest.importorskip("pymilvus")

from retriever_service.backends.milvus.errors import error_of
from retriever_service.backends.milvus.expressions import compile_filter
from retriever_service.backends.milvus.schema import document_from, document_to
from retriever_service.backends.milvus.server import version_numbers
from retriever_service.backends.remote import Document
from retriever_service.collection import FieldType, Passage
from retriever_service.filters import AllOf, AnyOf, Equals, In, Not, Range
from serving.errors import InvalidRequest, NotFound, NotReady, Overloaded, Unimplemented
from tests.retriever_service.conftest import FakeEncoder

FIELDS = {"kind": FieldType.STRING, "n": FieldType.INT, "d": FieldType.DOUBLE}


@pytest.mark.parametrize(
    ("given", "expression"),
    [
        (Equals("kind", 'a"b'), r'((json_contains(fields["kind"], "a\"b")) and (exists fields["kind"]))'),
        (Equals("d", 1), '((fields["d"] == 1.0) and (exists fields["d"]))'),
        (In("n", (1, 2)), '((fields["n"] == 1 or fields["n"] == 2) and (exists fields["n"]))'),
        (Not(Equals("n", 1)), '(not (fields["n"] == 1) or not (exists fields["n"]))'),
        (Range("n", (("greater_than", 1),)), '((fields["n"] > 1) and (exists fields["n"]))'),
        (Range("id", (("less_or_equal", "x"),)), '(id <= "x")'),
        (In("source", ("s", "t")), '(source in ["s", "t"])'),
        (In("source", ()), "(row < 0)"),
        (Not(AnyOf((Equals("id", "a"), Equals("id", "b")))), '((not (id in ["a"])) and (not (id in ["b"])))'),
        (Not(AllOf((Equals("id", "a"), Not(Equals("id", "b"))))), '((not (id in ["a"])) or (id in ["b"]))'),
    ],
)  # fmt: skip
def test_filters_are_expressions_with_negations_at_the_tests(given, expression):
    assert compile_filter(given, FIELDS) == expression


def test_a_range_of_strings_in_metadata_is_refused():
    with pytest.raises(Unimplemented, match="milvus backend has no range on the string field 'kind'"):
        compile_filter(Range("kind", (("less_than", "x"),)), FIELDS)


def test_versions_are_read_as_servers_write_them():
    assert version_numbers("v2.3.5-lite") == (2, 3)
    assert version_numbers("2.5.12") == (2, 5)
    assert version_numbers("milvus_lite-3.2.2") == (3, 2)
    assert version_numbers("unknown") == (0, 0)


def test_failures_are_the_domains_errors():
    kinds = {2: NotReady, 8: Overloaded, 100: NotFound, 1100: InvalidRequest}
    assert {code: type(error_of(code, "x")) for code in kinds} == kinds


def test_a_passage_comes_back_as_it_was_and_one_that_is_too_long_is_refused():
    vector = FakeEncoder().vector("x")
    passage = Passage("p", "Title", "text", "s", None, {"kind": ("a", "b"), "n": 3})
    document = Document(7, passage, vector, ("other",))
    back = document_from(document_to(document, FIELDS))
    assert (back.row, back.passage, back.duplicate_sources) == (7, passage, ("other",))
    with pytest.raises(InvalidRequest, match="over 65,535 bytes"):
        document_to(Document(1, Passage("p", "T", "x" * 65_535), vector), FIELDS)

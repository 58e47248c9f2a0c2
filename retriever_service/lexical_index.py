"""BM25 over title and text: a tantivy index on disk, derived from the store and rebuilt from it when it is lost."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tantivy

from retriever_service.collection import Rows, Scores
from serving.durable import replacing
from serving.errors import InvalidRequest
from serving.logs import get_logger

NO_STEMMING = "none"
LANGUAGES = (
    "arabic", "danish", "dutch", "english", "finnish", "french", "german", "greek", "hungarian", "italian",
    "norwegian", "portuguese", "romanian", "russian", "spanish", "swedish", "tamil", "turkish",
)  # fmt: skip

# Words that ask. Passages state, so these are rare in them, and BM25 would take the rare for the telling.
QUESTION_WORDS: Mapping[str, Sequence[str]] = {
    "english": ("what", "which", "who", "whom", "whose", "when", "where", "why", "how", "do", "does", "did"),
}

FORMAT = 1
_STATE_FILE = "applied.json"
_ANALYZER = "passage"
_MAX_WORD_BYTES = 64
MAX_QUERY_TERMS = 512
_WRITER_HEAP_BYTES = 32_000_000

log = get_logger(__name__)


def check_language(language: str) -> str:
    """The language in lower case when its stemming is known; "english" for ""."""
    language = language.lower() or "english"
    if language not in (*LANGUAGES, NO_STEMMING):
        raise InvalidRequest(
            f"language {language!r} has no stemmer; there are {', '.join(LANGUAGES)}, and {NO_STEMMING}",
            field="settings.language",
        )
    return language


class LexicalIndex:
    """Rows by the BM25 score of their text. One thread changes it, any thread searches.

    What `add` and `remove` did is found, and durable, after `commit`.
    """

    def __init__(self, directory: Path, language: str, store_id: str) -> None:
        """Opens the index; one that is missing, damaged, of another format or another store's becomes empty.

        Args:
            directory: Where it lies; made when missing.
            language: One of `LANGUAGES`, or NO_STEMMING.
            store_id: Names the store that it is derived from.

        Attributes:
            applied_sequence: The change up to which it holds the store's log, durably; None while it holds nothing.
        """
        self._directory = directory
        self._origin = {"format": FORMAT, "language": language, "store_id": store_id}
        self._analyzer = _analyzer(language)
        self._query_analyzer = _analyzer(language, without=QUESTION_WORDS.get(language, ()))
        self._schema = _schema()
        self.applied_sequence = _read_state(directory, self._origin)
        try:
            if self.applied_sequence is None:
                raise ValueError("no state of this format")
            _delete_strays(directory)
            self._index = tantivy.Index.open(str(directory))
        except (ValueError, OSError) as error:
            log.info("lexical index is built anew", directory=directory.name, cause=str(error))
            shutil.rmtree(directory, ignore_errors=True)
            directory.mkdir(parents=True)
            self._index = tantivy.Index(self._schema, str(directory))
            self.applied_sequence = None
        self._index.register_tokenizer(_ANALYZER, self._analyzer)
        self._writer = self._index.writer(_WRITER_HEAP_BYTES, 1)
        self._num_with: dict[str, int] = {}  # Of words asked for since the last commit.

    @property
    def num_passages(self) -> int:
        """Passages found by searches."""
        return int(self._index.searcher().num_docs)

    @property
    def num_bytes(self) -> int:
        """Size on disk."""
        total = 0
        for entry in os.scandir(self._directory):
            with contextlib.suppress(FileNotFoundError):  # A merge has just deleted it.
                total += entry.stat().st_size
        return total

    def add(self, passages: Iterable[tuple[int, str, str]]) -> None:
        """Adds (row, title, text) passages; a row that is there already is replaced, so that replaying is harmless."""
        passages = list(passages)
        self.remove([row for row, _, _ in passages])
        for row, title, text in passages:
            document = tantivy.Document()
            document.add_unsigned("row", row)
            document.add_text("text", indexed_text(title, text))
            self._writer.add_document(document)

    def remove(self, rows: Sequence[int]) -> None:
        """Removes rows; absent ones are no error."""
        if rows:
            self._writer.delete_documents_by_query(self._among(rows))

    def clear(self) -> None:
        """Removes every row."""
        self._writer.delete_all_documents()

    def commit(self, sequence: int) -> None:
        """Makes changes durable and visible, then records that the log is applied up to `sequence`."""
        self._writer.commit()
        self._index.reload()
        self._num_with = {}
        _write_state(self._directory, {**self._origin, "sequence": sequence})
        self.applied_sequence = sequence

    def close(self) -> None:
        """Waits for merges and gives the directory's lock back."""
        self._writer.wait_merging_threads()

    def words(self, text: str) -> list[str]:
        """The words that a passage's text is found by, in order."""
        found: list[str] = self._analyzer.analyze(text)
        return found

    def query_words(self, text: str) -> Mapping[str, int]:
        """The words of a query that are looked for, and how often each stands in it."""
        counts = Counter(self._query_analyzer.analyze(text) or self._analyzer.analyze(text))
        return dict(itertools.islice(counts.items(), MAX_QUERY_TERMS))

    def num_with(self, word: str) -> int:
        """Passages that hold a word, those removed left out: tantivy's own count drops them only with a merge."""
        known = self._num_with  # Another state's after a commit meanwhile, and then forgotten with it.
        count = known.get(word)
        if count is None:
            query = tantivy.Query.const_score_query(self._term(word), 0.0)
            found: Any = self._index.searcher().search(query, 1, count=True)
            count = int(found.count)
            if count:  # Words that no passage holds are endless.
                known[word] = count
        return count

    def search(self, text: str, count: int, among: Rows | None = None) -> tuple[Rows, Scores]:
        """The `count` best rows for a query, best first, with their BM25 scores.

        The text is split into terms and never read as query syntax.

        Args:
            text: The query.
            count: Rows at most; fewer where fewer hold one of the terms.
            among: Only these rows, where given.
        """
        terms = self._terms(text)
        if terms is None or count == 0:
            return np.empty(0, np.int64), np.empty(0)
        query = terms if among is None else self._within(among, terms, tantivy.Occur.Must)
        return self._found(query, count)

    def scores(self, text: str, rows: Rows) -> Scores:
        """The BM25 score of each of `rows`; 0 where none of the query's terms matches."""
        scores = np.zeros(len(rows))
        terms = self._terms(text)
        if terms is None or not len(rows):
            return scores
        found, values = self._found(self._within(rows, terms, tantivy.Occur.Should), len(rows))
        order = np.argsort(rows)
        scores[order[np.searchsorted(rows, found, sorter=order)]] = values
        return scores

    def _found(self, query: Any, count: int) -> tuple[Rows, Scores]:
        searcher = self._index.searcher()
        hits = searcher.search(query, count, count=False).hits
        rows = searcher.fast_field_values("row", [address for _, address in hits])
        return np.array(rows, np.int64), np.array([score for score, _ in hits], np.float64)

    def _terms(self, text: str) -> Any:
        words = self.query_words(text)
        queries = [(tantivy.Occur.Should, _boosted(self._term(word), count)) for word, count in words.items()]
        return tantivy.Query.boolean_query(queries) if queries else None

    def _term(self, word: str) -> Any:
        return tantivy.Query.term_query(self._schema, "text", word, "freq")

    def _within(self, rows: Rows, terms: Any, occur: Any) -> Any:
        membership = tantivy.Query.const_score_query(self._among(rows.tolist()), 0.0)
        return tantivy.Query.boolean_query([(tantivy.Occur.Must, membership), (occur, terms)])

    def _among(self, rows: Sequence[int]) -> Any:
        return tantivy.Query.term_set_query(self._schema, "row", list(rows))


def indexed_text(title: str, text: str) -> str:
    """What of a passage is searched."""
    return f"{title}\n{text}" if title else text


def _boosted(query: Any, count: int) -> Any:
    return query if count == 1 else tantivy.Query.boost_query(query, float(count))


def _analyzer(language: str, without: Sequence[str] = ()) -> Any:
    """Words in lower case, stemmed, but those in `without`. Stop words stay: BM25 weighs them down by itself."""
    builder = tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.simple())
    builder = builder.filter(tantivy.Filter.remove_long(_MAX_WORD_BYTES)).filter(tantivy.Filter.lowercase())
    if without:
        builder = builder.filter(tantivy.Filter.custom_stopword(list(without)))
    return builder.build() if language == NO_STEMMING else builder.filter(tantivy.Filter.stemmer(language)).build()


def _schema() -> Any:
    builder = tantivy.SchemaBuilder()
    builder.add_unsigned_field("row", stored=False, indexed=True, fast=True)
    builder.add_text_field("text", stored=False, tokenizer_name=_ANALYZER, index_option="freq")
    return builder.build()


def _delete_strays(directory: Path) -> None:
    """Deletes lists of deleted rows that no commit names: tantivy refuses to write one that is there already."""
    segments = json.loads((directory / "meta.json").read_text(encoding="utf-8"))["segments"]
    named = {
        f"{one['segment_id'].replace('-', '')}.{one['deletes']['opstamp']}.del" for one in segments if one["deletes"]
    }
    for path in directory.glob("*.del"):
        if path.name not in named:
            path.unlink()


def _read_state(directory: Path, origin: Mapping[str, object]) -> int | None:
    """The sequence that the index on disk has applied; None when it is of no use."""
    try:
        state = json.loads((directory / _STATE_FILE).read_text(encoding="utf-8"))
        sequence = int(state.pop("sequence"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return sequence if state == origin else None


def _write_state(directory: Path, state: Mapping[str, object]) -> None:
    """Replaces the state file, durably. Behind the index it is harmless: replaying changes nothing."""
    with replacing(directory / _STATE_FILE) as temporary:
        temporary.write_text(json.dumps(state), encoding="utf-8")

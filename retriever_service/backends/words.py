"""The words of a query that a lexical stage looks for: the same for every engine. Pure."""

from __future__ import annotations

import re

from retriever_service.lexical_index import MAX_QUERY_TERMS, QUESTION_WORDS

_WORD = re.compile(r"[^\W_]+")


def telling_words(text: str, language: str) -> str:
    """The query without the words that only ask, as `LexicalIndex.query_words` leaves them out; "" without words."""
    asking = QUESTION_WORDS.get(language, ())
    telling = _WORD.sub(lambda word: "" if word[0].lower() in asking else word[0], text)
    words = _WORD.findall(telling)
    if not words:
        telling, words = text, _WORD.findall(text)
    if len(words) > MAX_QUERY_TERMS:
        return " ".join(words[:MAX_QUERY_TERMS])
    return telling if words else ""

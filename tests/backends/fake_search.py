"""What Elasticsearch's queries mean, over a few documents: filters, Lucene's BM25, exact kNN."""

import math
import re
from collections import Counter

import numpy as np

K1, B = 1.2, 0.75
WORD = re.compile(r"[^\W_]+")


class Searchable:
    def __init__(self, documents, body):
        self.documents = documents
        vector = body["mappings"]["properties"].get("vector", {})
        self.similarity = vector.get("similarity")
        self.words = {id_: words_of(f"{one.get('title', '')} {one.get('text', '')}") for id_, one in documents.items()}

    def count(self, query):
        return sum(self.matches(query, id_) for id_ in self.documents)

    def search(self, body):
        if "knn" in body:
            scored = self.nearest(body["knn"])
        else:
            scored = [
                (id_, self.score(body["query"], id_)) for id_ in self.documents if self.matches(body["query"], id_)
            ]
        if "sort" in body:
            ((field, _),) = body["sort"][0].items()
            scored.sort(key=lambda pair: self.documents[pair[0]][field].encode())
            if "search_after" in body:
                after = body["search_after"][0].encode()
                scored = [pair for pair in scored if self.documents[pair[0]][field].encode() > after]
        else:
            scored.sort(key=lambda pair: -pair[1])
        hits = [(id_, score, self.documents[id_]) for id_, score in scored[: body.get("size", 10)]]
        aggregations = {name: self.terms(one["terms"], scored) for name, one in body.get("aggs", {}).items()}
        return {"hits": hits, "aggregations": {"aggregations": aggregations} if aggregations else {}}

    def terms(self, terms, scored):
        counts = Counter(self.documents[id_][terms["field"]] for id_, _ in scored)
        return {"buckets": [{"key": key, "doc_count": n} for key, n in counts.most_common(terms["size"])]}

    def nearest(self, knn):
        query = np.array(knn["query_vector"])
        allowed = [id_ for id_ in self.documents if all(self.matches(one, id_) for one in knn.get("filter", ()))]
        scored = [(id_, self.similar(query, np.array(self.documents[id_]["vector"]))) for id_ in allowed]
        return sorted(scored, key=lambda pair: -pair[1])[: knn["k"]]

    def similar(self, query, vector):
        product = float(query @ vector)
        if self.similarity == "cosine":
            return (1 + product / float(np.linalg.norm(query) * np.linalg.norm(vector))) / 2
        return 1 + product if product >= 0 else 1 / (1 - product)

    def matches(self, query, id_):
        ((kind, given),) = query.items()
        if kind == "match_all":
            return True
        if kind == "bool":
            should = given.get("should", ())
            return (
                all(self.matches(one, id_) for one in (*given.get("must", ()), *given.get("filter", ())))
                and not any(self.matches(one, id_) for one in given.get("must_not", ()))
                and sum(self.matches(one, id_) for one in should) >= given.get("minimum_should_match", 0)
            )
        ((field, wanted),) = given.items()
        if kind == "match":
            return bool(set(words_of(wanted["query"])) & set(self.words[id_]))
        values = self.values(field, id_)
        if kind == "term":
            return wanted["value"] in values
        if kind == "terms":
            return any(value in wanted for value in values)
        if kind == "prefix":
            return any(value.startswith(wanted["value"]) for value in values)
        return any(all(within(value, name, bound) for name, bound in wanted.items()) for value in values)

    def values(self, field, id_):
        found = self.documents[id_]
        for part in field.split("."):
            found = found.get(part)
            if found is None:
                return []
        return found if isinstance(found, list) else [found]

    def score(self, query, id_):
        """Only `match` scores, within the `must` of a bool."""
        ((kind, given),) = query.items()
        if kind == "bool":
            return sum(self.score(one, id_) for one in given.get("must", ()))
        return self.bm25(given["words"]["query"], id_) if kind == "match" else 0.0

    def bm25(self, text, id_):
        """As Lucene has it since version 8: without the factor k1 + 1."""
        total = len(self.words)
        average = sum(map(len, self.words.values())) / total
        counts, length, score = Counter(self.words[id_]), len(self.words[id_]), 0.0
        for word in words_of(text):
            with_word = sum(word in words for words in self.words.values())
            idf = math.log(1 + (total - with_word + 0.5) / (with_word + 0.5))
            score += idf * counts[word] / (counts[word] + K1 * (1 - B + B * length / average))
        return score


def words_of(text):
    return WORD.findall(text.lower())


def within(value, name, bound):
    if isinstance(value, str):
        value, bound = value.encode(), bound.encode()
    return {"gt": value > bound, "gte": value >= bound, "lt": value < bound, "lte": value <= bound}[name]

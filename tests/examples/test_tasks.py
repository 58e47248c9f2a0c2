"""The worked examples of tasks beyond question answering."""

import importlib.util
import json
import random
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest

from training.tasks.cases import LABELS

EXAMPLES = Path(__file__).parents[2] / "examples"
TASKS = EXAMPLES / "tasks"


def load(name: str) -> ModuleType:
    """An example's module, which finds those beside it as when it is run."""
    path = TASKS / f"{name}.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # A dataclass looks its module up.
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(path.parent))
    return module


@pytest.fixture(scope="module")
def language():
    return load("translation/language")


@pytest.fixture(scope="module")
def training(language):
    return load("translation/train")


@pytest.fixture(scope="module")
def translation(language):
    return load("translation/translate")


@pytest.fixture(scope="module")
def recommendation():
    return load("recommendation/recommend")


def test_a_translation_puts_adjectives_and_owners_after_the_noun_and_counts_by_kind(language):
    turtle = language.Word("turtle", "penyu", "animal")
    quiet = language.Word("quiet", "tenang", "adjective")
    drawn = [language.sentence([turtle, quiet], random.Random(seed)).pair for seed in range(200)]
    phrases = {
        "a turtle": "seekor penyu",
        "a quiet turtle": "seekor penyu tenang",
        "this turtle": "penyu ini",
        "my quiet turtle": "penyu tenang saya",
    }
    for english, indonesian in phrases.items():
        pair = next(pair for pair in drawn if pair.english.startswith(f"{english} "))
        assert pair.indonesian.startswith(f"{indonesian} ")
    assert (turtle.entry, quiet.entry) == (
        language.Pair("a turtle", "seekor penyu"),
        language.Pair("quiet", "tenang"),
    )


def test_a_translator_never_trains_on_held_out_words_and_finds_every_made_up_one_in_its_memory(language, training):
    listed = {word.english: word.indonesian for word in language.WORDS}
    assert set(listed) >= language.HELD_OUT
    unseen = language.HELD_OUT | {listed[word] for word in language.HELD_OUT}
    known = {word.indonesian for word in training.KNOWN}
    small = {"seorang", "seekor", "sebuah", "di", "bawah", "dekat", "belakang", "depan", "itu", "ini", "saya", "kamu"}
    small |= {"dia", "kami", "akan", "dapat", "harus", "tidak", *(verb for _, _, verb in language.VERBS)}
    for seed in range(300):
        pair, passages = training.draw(random.Random(seed))
        remembered = {word for passage in passages for word in passage.split()}
        assert len(passages) == training.NUM_ENTRIES
        assert not unseen & {*pair.english.split(), *pair.indonesian.split()}
        assert {*pair.indonesian.split()} - small - known <= remembered


def test_held_out_sentences_have_a_new_word_or_none(language, translation):
    sentences = translation.held_out_sentences(20)
    assert all(not language.HELD_OUT & {w.english for w in each.words} for each in sentences["known words"])
    assert all(language.HELD_OUT & {w.english for w in each.words} for each in sentences["new words"])
    assert {p.metadata["translation"] for p in translation.memory()} >= {"seorang pencuri", "tenang"}
    known = {each.pair.english: each.pair.indonesian for each in sentences["new words"]}
    perfect = translation.measure(known.__getitem__, sentences["new words"])
    assert perfect == (1.0, pytest.approx(1.0))


def test_a_reader_liked_three_articles_of_the_file_that_the_one_left_out_is_of(recommendation):
    files = recommendation.articles()
    assert sum(map(len, files.values())) == 390
    readers = recommendation.readers(files, 50)
    for reader in readers:
        assert reader.left_out not in reader.liked
        interest = reader.left_out.split("/")[0]
        assert Counter(name.split("/")[0] for name in reader.liked)[interest] == 3
        assert len(reader.liked) == 4
        assert reader.left_out not in recommendation.popular([reader])(reader)
    assert recommendation.measure(lambda reader: ["x", reader.left_out], readers) == {
        "recall@1": 0.0, "recall@5": 1.0, "recall@10": 1.0, "ndcg@10": pytest.approx(0.6309, abs=1e-4),
    }  # fmt: skip


def test_each_sample_claim_is_about_a_section_of_the_sample_knowledge_base():
    claims = [json.loads(line) for line in (TASKS / "fact_verification/claims.jsonl").read_text("utf-8").splitlines()]
    assert len({claim["id"] for claim in claims}) == len(claims) == 48
    assert {claim["label"] for claim in claims} == set(LABELS)
    for claim in claims:
        text = (EXAMPLES / "sample_kb" / claim["source"]).read_text("utf-8")
        assert f"\n## {claim['section']}\n" in text


@pytest.mark.slow
def test_recommendations_beat_popularity_and_chance(rag_system, recommendation):
    scores = recommendation.main(["--address", rag_system.gateway.address, "--readers", "40"])
    assert scores["rag"]["recall@10"] > 5 * max(scores["popular"]["recall@10"], scores["chance"]["recall@10"])


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_memory_lets_the_translator_translate_words_it_never_saw(start_rag_system, tmp_path, training, translation):
    training.main(["--out", str(tmp_path / "translator"), "--threads", "2"])
    flags = {"generator": [f"--model={tmp_path / 'translator/checkpoint'}"]}
    with start_rag_system(tmp_path, flags) as system:
        scores = translation.main(["--address", system.gateway.address, "--count", "100"])
    assert scores["new words", "with memory"][0] > scores["new words", "without"][0] + 0.3

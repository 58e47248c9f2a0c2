"""The parts of joint training: what is searched, how, with which questions, and when to warn."""

import asyncio
import logging
import math
import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from generator_service.prompt import PromptFormat
from retriever_service.__main__ import build_retriever, build_service
from retriever_service.collection import Passage as StoredPassage
from retriever_service.config import RetrieverConfig
from retriever_service.encoder import Query
from retriever_service.fusion import Fusion, FusionMethod
from retriever_service.options import QueryInput, RetrievalOptions
from retriever_service.search import Mode
from serving.testing import test_server as run_server
from tests.training.joint_toy import SHAPE, WORDS, ingest, save_encoder
from tests.training.tiny_tokenizer import tiny_tokenizer
from training.generator.warm_start import random_generator
from training.joint.knowledge import read_from_files, read_from_service
from training.joint.losses import log_prior
from training.joint.monitor import CollapseMonitor, posterior_kl, prior_entropy
from training.joint.questions import Question, QuestionStream, hold_out, preferred, window
from training.joint.reader import Reader, Row
from training.joint.search import Search
from training.retriever.data import Passage

TEXTS = ("name1 lives in place2", "place2 word3 word4", "name5 lives in place6 word3", "word1 word2 name1 name5")
QUERY = "where lives name1 ?"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("collection")
    save_encoder(folder / "encoder", tiny_tokenizer(WORDS))
    passages = [StoredPassage(f"p{i}", f"word{i}", text) for i, text in enumerate(TEXTS)]
    ingest(folder / "data", folder / "encoder", passages)
    return folder


@pytest.mark.parametrize("mode", [Mode.DENSE, Mode.HYBRID])
async def test_training_searches_as_the_retriever_does_read_from_files_or_over_grpc(folder: Path, mode: Mode) -> None:
    config = RetrieverConfig(data_dir=folder / "data", encoder=str(folder / "encoder"), num_encoder_threads=1)
    retriever = build_retriever(config)
    async with run_server(build_service(config, retriever), warm_up=retriever.start, close=retriever.close) as server:
        options = RetrievalOptions("toy", mode=mode, top_k=3)
        found = await retriever.retrieve([QueryInput(QUERY)], options)
        vector = torch.from_numpy((await retriever.embed([Query(QUERY)])).vectors)
        bases = [
            await asyncio.to_thread(read_from_files, folder / "data", "toy"),
            await asyncio.to_thread(read_from_service, server.address, "toy"),
        ]
    (expected,) = found.results
    assert isinstance(expected, tuple)
    for base in bases:
        search = Search(base, mode)
        hits = search.find(vector, [QUERY], 3, required=[None])
        scores = search.scores(vector, torch.arange(len(base.passages)), hits).gather(1, hits.places)
        search.close()
        assert [base.passages[place].id for place in hits.places[0].tolist()] == [hit.passage.id for hit in expected]
        assert scores[0].tolist() == pytest.approx([hit.score for hit in expected], abs=1e-5)
        prior = log_prior(scores, base.scoring.temperature)
        assert prior[0].tolist() == pytest.approx([hit.log_prior for hit in expected], abs=1e-3)
    assert bases[0].passages == bases[1].passages
    assert bases[0].scoring == bases[1].scoring


@pytest.mark.parametrize("mode", [Mode.DENSE, Mode.HYBRID])
async def test_training_searches_by_the_best_sentences_too(tmp_path: Path, mode: Mode) -> None:
    save_encoder(tmp_path / "encoder", tiny_tokenizer(WORDS))
    texts = ("name1 lives in place2\nplace6 word3", "word1 word2\nname1 word3\nname5 lives", *TEXTS)
    passages = [StoredPassage(f"p{i}", "", text) for i, text in enumerate(texts)]
    await asyncio.to_thread(ingest, tmp_path / "data", tmp_path / "encoder", passages, sentence_vectors=True)
    config = RetrieverConfig(data_dir=tmp_path / "data", encoder=str(tmp_path / "encoder"), num_encoder_threads=1)
    retriever = build_retriever(config)
    await retriever.start()
    options = RetrievalOptions("toy", mode=mode, top_k=6)
    (expected,) = (await retriever.retrieve([QueryInput(QUERY)], options)).results
    vector = torch.from_numpy((await retriever.embed([Query(QUERY)])).vectors).requires_grad_()
    await retriever.close()
    assert isinstance(expected, tuple)
    search = Search(read_from_files(tmp_path / "data", "toy"), mode)
    assert len(search.base.sentences) == 5
    hits = search.find(vector.detach(), [QUERY], 6, required=[None])
    scores = search.scores(vector, torch.arange(len(search.base.passages)), hits).gather(1, hits.places)
    search.close()
    assert [search.base.passages[place].id for place in hits.places[0].tolist()] == [hit.passage.id for hit in expected]
    assert scores[0].tolist() == pytest.approx([hit.score for hit in expected], abs=1e-4)
    (gradient,) = torch.autograd.grad(scores.sum(), vector)
    assert gradient.abs().sum() > 0


def test_a_required_passage_takes_the_last_place_unless_it_was_found(folder: Path) -> None:
    search = Search(read_from_files(folder / "data", "toy"), Mode.DENSE)
    vectors = search.base.vectors[[0, 0]]
    free = search.find(vectors, ["", ""], 2, required=[None, None]).places[0].tolist()
    missing = next(place for place in range(4) if place not in free)
    places = search.find(vectors, ["", ""], 2, required=[missing, free[0]]).places.tolist()
    assert places == [[free[0], missing], free]


def test_fewer_passages_than_wanted_are_all_found(folder: Path) -> None:
    search = Search(read_from_files(folder / "data", "toy"), Mode.DENSE)
    assert search.find(search.base.vectors[:1], [""], 9, required=[None]).places.shape == (1, 4)


def test_rows_of_any_length_get_the_log_probabilities_of_the_model_itself() -> None:
    reader = Reader(random_generator(SHAPE, seed=3), tiny_tokenizer(WORDS), PromptFormat(max_input_tokens=64)).eval()
    rng = random.Random(0)
    rows = [
        Row([2, *rng.choices(range(4, 40), k=length), 3], [*rng.choices(range(4, 40), k=answer), 3])
        for length, answer in zip(rng.choices(range(2, 50), k=19), rng.choices(range(1, 7), k=19), strict=True)
    ]
    with torch.no_grad():
        found, every = reader(rows, every_word=True)
        assert every is not None
        for place, row in enumerate(rows):
            decoder_ids = torch.tensor([[2, *row.target_ids[:-1]]])
            logits = reader.generator(input_ids=torch.tensor([row.input_ids]), decoder_input_ids=decoder_ids).logits[0]
            expected = logits.log_softmax(-1)
            size = len(row.target_ids)
            torch.testing.assert_close(every[place, :size], expected, atol=1e-4, rtol=1e-4)
            chosen = expected[torch.arange(size), torch.tensor(row.target_ids)]
            torch.testing.assert_close(found[place, :size], chosen, atol=1e-4, rtol=1e-4)
            assert not found[place, size:].any()


def test_a_long_passage_is_read_in_a_stretch_from_anywhere_and_a_short_one_whole() -> None:
    tokenizer, passage = tiny_tokenizer(WORDS), Passage("p", "", " ".join(f"word{i}" for i in range(12)))
    cut = {window(tokenizer, passage, 4, random.Random(seed)) for seed in range(60)}
    assert cut == {" ".join(f"word{j}" for j in range(i, i + 4)) for i in range(9)}
    assert window(tokenizer, passage, 12, random.Random(0)) == passage.text


def _question(number: int) -> Question:
    return Question(f"q{number}", "?", ("x",), "x", frozenset({f"p{number // 2}"}))


def test_every_question_comes_once_an_epoch_in_an_order_that_the_seed_decides() -> None:
    questions = [_question(i) for i in range(12)]
    batches = [QuestionStream(questions, batch_size=4, seed=1).batch(number) for number in range(6)]
    assert sorted(q.id for batch in batches[:3] for q in batch) == sorted(q.id for q in questions)
    assert batches[3:] != batches[:3]
    assert QuestionStream(questions, batch_size=4, seed=1).batch(4) == batches[4]
    assert QuestionStream(questions, batch_size=4, seed=2).batch(4) != batches[4]


def test_questions_about_one_passage_come_together_in_another_order_each_epoch() -> None:
    questions = [_question(i) for i in range(12)]
    stream = QuestionStream(questions, batch_size=4, seed=1, groups=True)
    batches = [stream.batch(number) for number in range(6)]
    assert sorted(q.id for batch in batches[:3] for q in batch) == sorted(q.id for q in questions)
    assert all(
        first.gold == second.gold for batch in batches for first, second in zip(batch[::2], batch[1::2], strict=True)
    )
    assert batches[3:] != batches[:3]


def test_questions_are_held_out_by_their_passage() -> None:
    kept, held_out = hold_out([_question(i) for i in range(400)], ratio=0.3)
    assert 0.2 < len(held_out) / 400 < 0.4
    assert not {q.gold for q in kept} & {q.gold for q in held_out}


def test_the_answer_that_is_learnt_is_the_one_most_people_gave() -> None:
    assert preferred(("the Walt Disney Company", "Disney", "Walt Disney Company")) == "Walt Disney Company"


def test_the_signs_of_collapse_are_what_they_say() -> None:
    uniform = torch.full((1, 4), math.log(0.25))
    certain = torch.tensor([[0.0, -torch.inf, -torch.inf, -torch.inf]])
    assert prior_entropy(uniform).item() == pytest.approx(math.log(4))
    assert prior_entropy(certain).item() == 0
    assert posterior_kl(uniform, uniform.exp()).item() == pytest.approx(0, abs=1e-6)
    assert posterior_kl(uniform, certain.exp()).item() == pytest.approx(math.log(4))


def test_a_collapse_is_warned_of_once_and_again_after_a_recovery(caplog: pytest.LogCaptureFixture) -> None:
    monitor = CollapseMonitor(4)
    healthy, collapsed = {"prior_entropy": 1.0, "posterior_kl": 0.5}, {"prior_entropy": 0.0, "posterior_kl": 0.5}
    with caplog.at_level(logging.WARNING):
        for _ in range(30):
            monitor.observe(healthy)
        assert not caplog.records
        for _ in range(2):
            for _ in range(400):
                monitor.observe(collapsed)
            for _ in range(400):
                monitor.observe(healthy)
    assert [record.getMessage().split(" is ")[0] for record in caplog.records] == ["collapse: prior_entropy"] * 2
    monitor.observe_distinct(12.0, 5000)
    assert "distinct_passages_per_1k" in caplog.records[-1].getMessage()


def test_a_fusion_of_ranks_is_refused(folder: Path) -> None:
    base = read_from_files(folder / "data", "toy")
    ranks = replace(base.scoring, fusion=Fusion(FusionMethod.RRF))
    with pytest.raises(SystemExit, match="linear fusion"):
        Search(replace(base, scoring=ranks), Mode.HYBRID)

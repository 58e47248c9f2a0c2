"""``rag train retriever``: train a bi-encoder for retrieval, by contrast or by what a frozen reader finds useful.

Contrast (``--loss in_batch``) needs questions with their own passages; the losses by a reader need answers alone.
Hard negatives come from BM25 and from the encoder's own index. To mine anew, start again from the checkpoint made.
"""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from retriever_service.checkpoint import MINILM
from retriever_service.lexical_index import LexicalIndex
from serving.packed_checkpoint import DEFAULT_CACHE
from training.joint.reader import load_reader
from training.retriever.batches import BatchStream
from training.retriever.contrastive import Contrastive
from training.retriever.corpus_vectors import CorpusVectors, HeldOut
from training.retriever.data import Source, read_corpus, shared_sources, with_sentences
from training.retriever.from_reader import FromReader, ReaderLoss
from training.retriever.mining import Answering, lexical_index, mine_dense, mine_lexical
from training.retriever.reading import FrozenReader
from training.retriever.towers import load_bi_encoder
from training.runtime.flags import add_data_flag, add_run_flags
from training.runtime.loop import Schedule
from training.runtime.optimizer import MasterWeights
from training.runtime.program import begin, run

_IN_BATCH = "in_batch"


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The program's flags."""
    parser = argparse.ArgumentParser(prog="rag train retriever", description=__doc__)
    add_run_flags(parser, max_steps=500, batch_size=128, watch="hybrid MRR")
    data = parser.add_argument_group("data")
    add_data_flag(data)
    data.add_argument(
        "--source", type=Path, nargs=2, action="append", metavar=("PASSAGES", "QUESTIONS"),
        help="JSON lines to train on instead; may be given several times",
    )  # fmt: skip
    data.add_argument("--sentences", action="store_true", help="train on the answers' sentences as passages, too")
    model = parser.add_argument_group("model")
    model.add_argument("--encoder", default=MINILM, help="name or path of the encoder to start from")
    model.add_argument("--passage-encoder", default="", help="of passages where it is another one, as of a DPR pair")
    model.add_argument("--train", choices=("both", "query"), default="both", help="halves that are trained")
    model.add_argument("--train-words", action="store_true", help="train the word embeddings, too")
    model.add_argument("--dropout", type=float, default=0.0, help="on hidden states")
    model.add_argument("--max-tokens", type=int, default=160, help="longer passages are cut off in training")
    model.add_argument("--rate", type=float, default=1e-4, help="peak learning rate")
    model.add_argument("--recompute", action="store_true", help="keep only vectors for the backward pass: less memory")
    loss = parser.add_argument_group("loss")
    loss.add_argument("--loss", choices=(_IN_BATCH, *ReaderLoss), default=_IN_BATCH)
    loss.add_argument("--temperature", type=float, default=0.05, help="of the retriever's scores")
    by_reader = _add_loss_flags(parser)
    flags = parser.parse_args(arguments)
    if flags.top_k < 2:
        parser.error("--top-k must be 2 or more")
    for action in by_reader[flags.loss == _IN_BATCH]:
        if getattr(flags, action.dest) != action.default:
            parser.error(f"{action.option_strings[0]} has no effect with --loss {flags.loss}")
    return flags


def _add_loss_flags(parser: argparse.ArgumentParser) -> tuple[list[argparse.Action], list[argparse.Action]]:
    """Returns those of the contrast alone and those of the losses by a reader alone."""
    contrast = parser.add_argument_group(f"of --loss {_IN_BATCH}")
    of_contrast: list[argparse.Action] = [
        contrast.add_argument(
            "--mine", nargs="*", choices=("bm25", "dense"), default=["bm25"], help="who finds hard negatives"
        ),
        contrast.add_argument("--hard-negatives", type=int, default=1, help="that a batch adds per passage"),
    ]
    reader = parser.add_argument_group("of the losses by a reader")
    of_reader: list[argparse.Action] = [
        reader.add_argument("--generator", default="default", help="the reader: name or path of a BART checkpoint"),
        reader.add_argument("--cache-dir", type=Path, default=DEFAULT_CACHE, help="of the default generator"),
        reader.add_argument("--top-k", type=int, default=8, help="passages found for a question"),
        reader.add_argument("--reader-temperature", type=float, default=0.1, help="of the target; emdr2 has none"),
    ]
    return of_contrast, of_reader


def main(arguments: Sequence[str] | None = None) -> None:
    """Reads the data, mines, trains."""
    flags = parse_arguments(arguments)
    schedule = begin(flags)
    corpus = read_corpus([Source(*pair) for pair in flags.source] if flags.source else shared_sources(flags.data))
    if flags.sentences:
        corpus = with_sentences(corpus)
    logging.info(
        "%d questions, %d held out, %d passages", len(corpus.questions), len(corpus.held_out), len(corpus.passages)
    )
    encoder = load_bi_encoder(
        flags.encoder,
        flags.passage_encoder,
        trained=flags.train,
        trains_words=flags.train_words,
        dropout=flags.dropout,
        max_tokens=flags.max_tokens,
    )
    vectors = CorpusVectors(encoder, corpus, recompute=flags.recompute, is_searched=flags.loss != _IN_BATCH)
    with lexical_index(corpus.passages) as index:
        task = _task(flags, vectors, index, schedule)
        weights = MasterWeights(
            encoder, rate=lambda _: float(flags.rate), dtype=schedule.dtype, warmup_ratio=schedule.warmup_ratio
        )
        run(task, weights, flags, schedule)


def _task(
    flags: argparse.Namespace, vectors: CorpusVectors, index: LexicalIndex, schedule: Schedule
) -> Contrastive | FromReader:
    held_out = HeldOut(vectors.corpus, index)
    mined = _mined(flags, vectors, index)
    stream = BatchStream(
        vectors.corpus.questions,
        mined,
        batch_size=flags.batch_size,
        num_negatives=flags.hard_negatives,
        seed=flags.seed,
    )
    sizes = {"batch_size": flags.batch_size, "accumulate": flags.accumulate}
    if flags.loss == _IN_BATCH:
        return Contrastive(vectors, stream, held_out, temperature=flags.temperature, **sizes)
    return FromReader(
        vectors,
        stream,
        held_out,
        FrozenReader(load_reader(flags.generator, flags.cache_dir.expanduser()), dtype=schedule.dtype),
        loss=ReaderLoss(flags.loss),
        top_k=flags.top_k,
        temperature=flags.temperature,
        reader_temperature=flags.reader_temperature,
        **sizes,
    )


def _mined(flags: argparse.Namespace, vectors: CorpusVectors, index: LexicalIndex) -> list[list[int]]:
    """For each question, the negatives of all who mine, the first finder's first; none for the losses by a reader."""
    questions, answering = vectors.corpus.questions, Answering(vectors.corpus.passages)
    found: list[list[list[int]]] = [[[] for _ in questions]]
    if flags.loss == _IN_BATCH and "bm25" in flags.mine:
        found.append(mine_lexical(index, questions, answering))
    if flags.loss == _IN_BATCH and "dense" in flags.mine:
        found.append(mine_dense(questions, vectors.all_questions(), vectors.all_passages(), answering))
    return [list(dict.fromkeys(place for places in each for place in places)) for each in zip(*found, strict=True)]


if __name__ == "__main__":
    main()

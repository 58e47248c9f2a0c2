"""``rag distill encoder``: a smaller, faster bi-encoder whose vectors are, or rank like, its teacher's.

With the teacher's width the student's vectors approach the teacher's own, so that it can search what the teacher
embedded. A narrower student needs an index of its own; a projection learned beside it makes its vectors comparable.
"""

import argparse
from pathlib import Path

from retriever_service.checkpoint import MINILM
from training.distillation.encoder_task import EncoderDistillation, EncoderStudent, cut_encoder
from training.distillation.shapes import StudentShape
from training.retriever.batches import BatchStream
from training.retriever.corpus_vectors import CorpusVectors, HeldOut
from training.retriever.data import Source, read_corpus, shared_sources
from training.retriever.mining import Answering, lexical_index, mine_lexical
from training.retriever.towers import load_bi_encoder
from training.runtime.flags import add_data_flag, add_run_flags
from training.runtime.optimizer import MasterWeights
from training.runtime.program import begin, run


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The program's flags."""
    parser = argparse.ArgumentParser(prog="rag distill encoder", description=__doc__)
    parser.add_argument("--teacher", default=MINILM, help="name or path of a BERT bi-encoder")
    parser.add_argument(
        "--student-shape", type=StudentShape.parse, default=StudentShape(), metavar="NAME=N,...",
        help="encoder_layers (how many, or which: 0+2+4) and encoder_ffn_dim; the rest is the teacher's",
    )  # fmt: skip
    parser.add_argument("--dimension", type=int, default=None, help="of the student's vectors; default: the teacher's")
    add_data_flag(parser)
    parser.add_argument(
        "--source", type=Path, nargs=2, action="append", metavar=("PASSAGES", "QUESTIONS"),
        help="JSON lines to train on instead; may be given several times",
    )  # fmt: skip
    parser.add_argument("--embedding", type=float, default=1.0, help="weight of the distance of vectors")
    parser.add_argument("--similarity", type=float, default=1.0, help="weight of the divergence of rankings")
    parser.add_argument("--temperature", type=float, default=0.05, help="of both rankings")
    parser.add_argument("--max-tokens", type=int, default=160, help="longer passages are cut off in training")
    parser.add_argument("--hard-negatives", type=int, default=1, help="of BM25, that a batch adds for each passage")
    parser.add_argument("--rate", type=float, default=5e-4, help="peak learning rate")
    add_run_flags(parser, max_steps=1000, batch_size=64, watch="dense MRR")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Reads the data, cuts the student, trains it."""
    flags = parse_arguments(arguments)
    schedule = begin(flags)
    corpus = read_corpus([Source(*pair) for pair in flags.source] if flags.source else shared_sources(flags.data))
    teacher = load_bi_encoder(
        flags.teacher, "", trained="both", trains_words=False, dropout=0.0, max_tokens=flags.max_tokens
    )
    texts = [passage.text for passage in corpus.passages]
    student = EncoderStudent(
        cut_encoder(teacher, flags.student_shape, flags.dimension, texts),
        teacher_dimension=teacher.passage.model.config.hidden_size,
    )
    mine = CorpusVectors(student.encoder, corpus, recompute=False, is_searched=False)
    theirs = CorpusVectors(teacher.to(schedule.dtype).eval(), corpus, recompute=False, is_searched=False)
    weights = MasterWeights(
        student, rate=lambda _: float(flags.rate), dtype=schedule.dtype, warmup_ratio=schedule.warmup_ratio
    )
    with lexical_index(corpus.passages) as index:
        mined = mine_lexical(index, corpus.questions, Answering(corpus.passages))
        stream = BatchStream(
            corpus.questions,
            mined,
            batch_size=flags.batch_size,
            num_negatives=flags.hard_negatives,
            seed=flags.seed,
        )
        task = EncoderDistillation(
            theirs,
            mine,
            student,
            stream,
            HeldOut(corpus, index),
            embedding=flags.embedding,
            similarity=flags.similarity,
            temperature=flags.temperature,
            batch_size=flags.batch_size,
            accumulate=flags.accumulate,
        )
        run(task, weights, flags, schedule)

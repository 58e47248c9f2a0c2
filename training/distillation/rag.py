"""``rag distill rag``: a whole RAG model, question encoder and generator, into a smaller one over the same collection.

The student answers from the same passages, weighs them alike and cites the same; the collection's index stays.
"""

import argparse
import logging
from contextlib import closing
from pathlib import Path

from retriever_service.search import Mode
from serving.packed_checkpoint import DEFAULT_CACHE
from training.distillation.losses import Mixing
from training.distillation.rag_task import RagDistillation
from training.joint.knowledge import read_from_files
from training.joint.losses import Marginal
from training.joint.measuring import Measuring
from training.joint.questions import QuestionStream, hold_out, read
from training.joint.reader import load_reader
from training.joint.search import Search
from training.joint.task import JointModel, Options
from training.retriever.towers import load_bi_encoder
from training.runtime.flags import add_run_flags
from training.runtime.optimizer import MasterWeights
from training.runtime.program import begin, run


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The program's flags."""
    parser = argparse.ArgumentParser(prog="rag distill rag", description=__doc__)
    mixing = Mixing()
    parser.add_argument("--teacher", default="default", help='generator: "default", a directory, or a name on the hub')
    parser.add_argument("--student", required=True, help="generator to train, as `rag distill generator` makes it")
    parser.add_argument("--teacher-encoder", help="question encoder; default: the collection's")
    parser.add_argument("--student-encoder", help="question encoder to train; default: a copy of the teacher's")
    parser.add_argument("--questions", type=Path, required=True, help=".jsonl or .jsonl.gz with question and answers")
    parser.add_argument("--data-dir", type=Path, required=True, help="a retriever's data directory")
    parser.add_argument("--collection", default="default", help="what is searched")
    parser.add_argument("--cache-dir", type=Path, default=DEFAULT_CACHE, help="of the default models")
    parser.add_argument("--search", choices=[Mode.DENSE.value, Mode.HYBRID.value], default=Mode.HYBRID.value)
    parser.add_argument("--passages", type=int, default=4, help="found for each question")
    parser.add_argument("--max-passage-tokens", type=int, default=224, help="longer ones: a random stretch")
    parser.add_argument("--kd", type=float, default=mixing.kd, help="weight of the teacher's distributions")
    parser.add_argument("--nll", type=float, default=mixing.nll, help="weight of the gold answers")
    parser.add_argument("--encoder-rate", type=float, default=5e-5, help="peak learning rate")
    parser.add_argument("--generator-rate", type=float, default=1e-4, help="peak learning rate")
    parser.add_argument("--measure-answers", type=int, default=100, metavar="N", help="held-out questions to answer")
    add_run_flags(parser, max_steps=2000, batch_size=4, watch="em")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Read collection, questions and the four models; train."""
    flags = parse_arguments(arguments)
    schedule = begin(flags)
    base = read_from_files(flags.data_dir, flags.collection)
    named = flags.teacher_encoder or base.encoder
    teacher = _model(named, flags.teacher, flags)
    student = _model(flags.student_encoder or named, flags.student, flags)
    teacher.requires_grad_(False).eval().to(schedule.dtype)
    options = Options(
        num_passages=flags.passages,
        temperature=base.scoring.temperature,
        max_passage_tokens=flags.max_passage_tokens,
        seed=flags.seed,
    )
    training, held_out = hold_out(read(flags.questions))
    logging.info("%d questions, %d held out, %d passages", len(training), len(held_out), len(base.passages))
    weights = MasterWeights(
        student,
        rate=lambda name: float(flags.encoder_rate if name.startswith("encoder.") else flags.generator_rate),
        dtype=schedule.dtype,
        warmup_ratio=schedule.warmup_ratio,
    )
    with closing(Search(base, Mode(flags.search))) as search:
        measuring = Measuring(student, held_out, flags.measure_answers, options)
        task = RagDistillation(
            teacher,
            student,
            QuestionStream(training, batch_size=flags.batch_size, seed=flags.seed),
            search,
            options,
            mixing=Mixing(kd=flags.kd, nll=flags.nll),
            batch_size=flags.batch_size,
            accumulate=flags.accumulate,
            measure=lambda: measuring(search),
        )
        run(task, weights, flags, schedule)


def _model(encoder: str, generator: str, flags: argparse.Namespace) -> JointModel:
    """A question encoder, to be trained without its words, and a generator."""
    bi_encoder = load_bi_encoder(
        encoder, "", trained="query", trains_words=False, dropout=0.0, max_tokens=flags.max_passage_tokens
    )
    return JointModel(bi_encoder, load_reader(generator, flags.cache_dir.expanduser()), Marginal.SEQUENCE)

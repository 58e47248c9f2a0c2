"""``rag distill generator``: a smaller, faster generator that answers like its teacher."""

import argparse
import logging
import re
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import torch
from transformers import AutoModelForSeq2SeqLM, PreTrainedModel

from generator_service.models.loading import DEFAULT_MODEL, DTYPE_KEY, DTYPES, locate
from generator_service.prompt import PromptFormat
from serving.packed_checkpoint import DEFAULT_CACHE
from training.distillation.generator_task import GeneratorDistillation, Mode, Pair, held_out_questions
from training.distillation.losses import Mixing
from training.distillation.shapes import StudentShape, cut
from training.generator.examples import ExampleStream, SpecialIds
from training.generator.negatives import mine_negatives
from training.generator.pool import read_pool
from training.generator.warm_start import load_tokenizer
from training.runtime.flags import add_data_flag, add_run_flags
from training.runtime.optimizer import MasterWeights
from training.runtime.program import begin, run

_RANKING_BATCHES = 32


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The program's flags."""
    parser = argparse.ArgumentParser(prog="rag distill generator", description=__doc__)
    mixing = Mixing()
    parser.add_argument("--teacher", default=DEFAULT_MODEL, help='"default", a directory, or a name on the model hub')
    parser.add_argument("--cache-dir", type=Path, default=DEFAULT_CACHE, help="of the default generator")
    start = parser.add_mutually_exclusive_group()
    start.add_argument("--student", type=Path, help="folder of a student to train on, as this program writes it")
    start.add_argument(
        "--student-shape", type=StudentShape.parse, default=StudentShape(), metavar="NAME=N,...",
        help="encoder_layers and decoder_layers (how many, or which: 0+2+4), encoder_ffn_dim, decoder_ffn_dim, "
        "ffn_dim (of both); the rest is the teacher's",
    )  # fmt: skip
    parser.add_argument("--mode", choices=[mode.value for mode in Mode], default=Mode.TOKEN.value)
    add_data_flag(parser)
    parser.add_argument("--temperature", type=float, default=mixing.temperature, help="of both token distributions")
    parser.add_argument("--kd", type=float, default=mixing.kd, help="weight of the teacher's distributions")
    parser.add_argument("--nll", type=float, default=mixing.nll, help="weight of the gold answers")
    parser.add_argument("--hidden", type=float, default=mixing.hidden, help="weight of the encoder's hidden states")
    parser.add_argument(
        "--attention", type=float, default=mixing.attention, help="weight of the decoder's last cross-attention"
    )
    parser.add_argument("--num-beams", type=int, default=4, help="the teacher's, in the sequence modes")
    parser.add_argument(
        "--train", default="", metavar="REGEX", help="parameters that learn, by name; the others stay, bit for bit"
    )
    parser.add_argument("--encoder-rate", type=float, default=2.5e-4, help="peak learning rate")
    parser.add_argument("--decoder-rate", type=float, default=2e-4, help="peak learning rate")
    parser.add_argument("--serve-in", choices=DTYPES, help="number format that it will be served in by default")
    parser.add_argument("--held-out", type=int, default=400, metavar="N", help="questions that measure")
    add_run_flags(parser, max_steps=12_000, batch_size=16, watch="em")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Read the data, cut the student, train it."""
    flags = parse_arguments(arguments)
    schedule = begin(flags)
    folder = locate(flags.teacher, flags.cache_dir.expanduser())
    tokenizer = load_tokenizer(folder)
    teacher = AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=torch.float32)
    prompt = PromptFormat.from_config(getattr(teacher.config, "rag_prompt", PromptFormat().as_config()))
    if prompt.format != PromptFormat().format:
        raise SystemExit(f"{flags.teacher} reads {prompt.format}; the training examples are {PromptFormat().format}")
    ids = SpecialIds(tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id)
    pool = read_pool(flags.data, tokenizer, prompt=prompt)
    logging.info("%d questions, %d held out, %d passages", len(pool.questions), len(pool.held_out), len(pool.passages))
    stream = ExampleStream(pool, mine_negatives(pool, pool.questions), prompt=prompt, ids=ids, seed=flags.seed)
    if flags.student:
        student = AutoModelForSeq2SeqLM.from_pretrained(flags.student, dtype=torch.float32)
    else:
        student = cut(teacher, flags.student_shape, _ranking(stream))
    if flags.serve_in:
        setattr(student.config, DTYPE_KEY, flags.serve_in)
    _freeze_others(student, flags.train)
    logging.info("parameters: teacher %d, student %d", teacher.num_parameters(), student.num_parameters())
    task = GeneratorDistillation(
        Pair(teacher, student, dtype=schedule.dtype),
        stream,
        tokenizer,
        prompt,
        schedule,
        mode=Mode(flags.mode),
        mixing=Mixing(flags.temperature, flags.kd, flags.nll, flags.hidden, flags.attention),
        batch_size=flags.batch_size,
        num_beams=flags.num_beams,
        held_out=held_out_questions(pool, flags.held_out),
    )
    weights = MasterWeights(
        student,
        rate=lambda name: flags.encoder_rate if ".encoder." in name else flags.decoder_rate,
        dtype=schedule.dtype,
        warmup_ratio=schedule.warmup_ratio,
    )
    run(task, weights, flags, schedule)


def _freeze_others(student: PreTrainedModel, pattern: str) -> None:
    for name, parameter in student.named_parameters():
        parameter.requires_grad_(re.search(pattern, name) is not None)


def _ranking(stream: ExampleStream) -> Callable[[PreTrainedModel], None]:
    """Sends some training batches through a model."""

    def run(model: PreTrainedModel) -> None:
        for batch in islice(stream.batches(16, first_step=0), _RANKING_BATCHES):
            model(batch.input_ids, batch.attention_mask, decoder_input_ids=batch.decoder_ids)

    return run

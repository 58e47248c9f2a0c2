"""``python -m training.tasks``: teach a generator fact verification, query rewriting and summarisation."""

import argparse
from collections import defaultdict

from transformers import BartForConditionalGeneration

from generator_service.config import GeneratorConfig
from generator_service.models.loading import locate
from training.generator.examples import Example, SpecialIds
from training.generator.warm_start import load_tokenizer
from training.runtime.flags import add_data_flag, add_run_flags
from training.runtime.optimizer import MasterWeights
from training.runtime.program import begin, run
from training.tasks.stream import Batches, encode, shared_mixture
from training.tasks.task import TasksTask, peak_rate

_NUM_HELD_OUT = 300


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The program's flags."""
    parser = argparse.ArgumentParser(prog="python -m training.tasks", description=__doc__)
    add_data_flag(parser)
    parser.add_argument("--generator", default="default", help="the one to start from: default, or a BART directory")
    add_run_flags(parser, max_steps=900, batch_size=16)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Read the data, load the generator, train."""
    flags = parse_arguments(arguments)
    schedule = begin(flags)
    folder, ids = locate(flags.generator, GeneratorConfig().cache_dir.expanduser()), SpecialIds()
    tokenizer = load_tokenizer(folder)
    batches = Batches(
        shared_mixture(flags.data, tokenizer), tokenizer, batch_size=flags.batch_size, seed=flags.seed, ids=ids
    )
    kept = shared_mixture(flags.data, tokenizer, held_out=True)
    held_out: dict[str, list[Example]] = defaultdict(list)
    cases = [kept.case(number, seed=0) for number in range(_NUM_HELD_OUT)]
    for case, example in zip(cases, encode(cases, tokenizer), strict=True):
        held_out[case.task].append(example)
    generator = BartForConditionalGeneration.from_pretrained(folder)
    task = TasksTask(
        generator,
        batches,
        tokenizer,
        batch_size=flags.batch_size,
        accumulate=flags.accumulate,
        ids=ids,
        held_out=held_out,
    )
    weights = MasterWeights(generator, rate=peak_rate, dtype=schedule.dtype, warmup_ratio=schedule.warmup_ratio)
    run(task, weights, flags, schedule)


if __name__ == "__main__":
    main()

"""``python -m training.generator``: train the embedded default generator on CPUs."""

import argparse
import logging
from pathlib import Path

from generator_service.prompt import PromptFormat
from training.generator.examples import ExampleStream, SpecialIds
from training.generator.negatives import mine_negatives
from training.generator.objective import Objective
from training.generator.pool import read_pool
from training.generator.task import GeneratorTask, peak_rate
from training.generator.warm_start import find_minilm, generator_from_minilm, load_tokenizer
from training.runtime.flags import add_data_flag, add_run_flags
from training.runtime.optimizer import MasterWeights
from training.runtime.program import begin, run


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The program's flags."""
    parser = argparse.ArgumentParser(prog="python -m training.generator", description=__doc__)
    add_data_flag(parser)
    parser.add_argument("--minilm", type=Path, default=None, help="MiniLM folder; default: the PyPI package's")
    parser.add_argument("--dropout", type=float, default=0.1, help="hidden dropout while training")
    add_run_flags(parser, max_steps=12_000, batch_size=16)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Read the data, warm-start the model, train."""
    flags = parse_arguments(arguments)
    schedule = begin(flags)
    minilm = flags.minilm or find_minilm()
    tokenizer = load_tokenizer(minilm)
    prompt, ids = PromptFormat(), SpecialIds()
    pool = read_pool(flags.data, tokenizer, prompt=prompt)
    logging.info("%d questions, %d held out, %d passages", len(pool.questions), len(pool.held_out), len(pool.passages))
    stream = ExampleStream(pool, mine_negatives(pool, pool.questions), prompt=prompt, ids=ids, seed=flags.seed)
    generator = generator_from_minilm(minilm)
    generator.config.dropout = flags.dropout
    for layer in (*generator.model.encoder.layers, *generator.model.decoder.layers):
        layer.dropout = flags.dropout
    objective = Objective(generator)
    task = GeneratorTask(
        objective, stream, tokenizer, schedule, batch_size=flags.batch_size, ids=ids, held_out=pool.held_out
    )
    weights = MasterWeights(objective, rate=peak_rate, dtype=schedule.dtype, warmup_ratio=schedule.warmup_ratio)
    run(task, weights, flags, schedule)


if __name__ == "__main__":
    main()

"""Our model code against transformers' on the same weights, part by part: encode, open, decode steps, scoring.

Measures process CPU time with one thread, the variants interleaved in one run, so that neighbours on the machine slow
them alike; the ratios are what to read. Usage:

    python -m benchmarks.generator_step                       # random weights in bart-base and t5-small shapes
    python -m benchmarks.generator_step --checkpoint DIR      # a checkpoint of one's own
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForSeq2SeqLM, BartConfig, T5Config
from transformers.modeling_outputs import BaseModelOutput

from generator_service.models import lean
from generator_service.models.base import StepItem

Variant = Callable[[], dict[str, float]]


def main() -> None:
    """Prints one table per checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, action="append", help="a BART or T5 directory; may be repeated")
    parser.add_argument("--tokens", type=int, default=200, help="tokens of each of the five input rows")
    parser.add_argument("--steps", type=int, default=12, help="decode steps")
    parser.add_argument("--repeats", type=int, default=5, help="rounds over all variants; the median counts")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for path in _checkpoints(options.checkpoint):
        _compare(path, options)


def _checkpoints(given: list[Path] | None) -> Iterator[Path]:
    if given:
        yield from given
        return
    bart = BartConfig(
        vocab_size=50265, d_model=768, encoder_layers=6, decoder_layers=6, encoder_attention_heads=12,
        decoder_attention_heads=12, encoder_ffn_dim=3072, decoder_ffn_dim=3072,
    )  # fmt: skip
    shapes: dict[str, Callable[[], Any]] = {
        "bart-base": lambda: transformers.BartForConditionalGeneration(bart),
        "t5-small": lambda: transformers.T5ForConditionalGeneration(T5Config(decoder_start_token_id=0)),
    }
    for name, make in shapes.items():
        with tempfile.TemporaryDirectory() as folder:
            torch.manual_seed(0)
            make().save_pretrained(Path(folder) / name)
            yield Path(folder) / name


def _compare(path: Path, options: argparse.Namespace) -> None:
    theirs = AutoModelForSeq2SeqLM.from_pretrained(path, dtype=torch.float32).eval()
    models: dict[str, lean.LeanModel] = {
        "plain": lean.load(path, backend="plain"),
        "fp32": lean.load(path),
        "bf16": lean.load(path, dtype="bfloat16"),
    }
    generator = torch.Generator().manual_seed(1)
    rows = torch.randint(3, models["fp32"].spec.vocab_size, (5, options.tokens), generator=generator)
    targets = [torch.randint(3, 1000, (8,), generator=generator).tolist() for _ in range(16)]
    variants: dict[str, Variant] = {"theirs": lambda: _their_times(theirs, rows, targets, options.steps)}
    for name, model in models.items():
        variants[name] = lambda model=model: _our_times(model, rows, targets, options.steps)  # type: ignore[misc]
    times: dict[str, list[dict[str, float]]] = {name: [] for name in variants}
    for _ in range(options.repeats + 1):
        for name, run in variants.items():
            times[name].append(run())
    _print(path.name, {name: rounds[1:] for name, rounds in times.items()})


@contextmanager
def _clock(times: dict[str, float], name: str) -> Iterator[None]:
    started = time.process_time()
    yield
    times[name] = 1000 * (time.process_time() - started)


@torch.inference_mode()
def _their_times(model: Any, rows: torch.Tensor, targets: list[list[int]], steps: int) -> dict[str, float]:
    """The way RagTokenForGeneration runs its generator: KV and encoder states repeated per beam, all reordered."""
    times: dict[str, float] = {}
    with _clock(times, "encode"):
        states = model.get_encoder()(input_ids=rows).last_hidden_state
    for beams in (1, 4):
        repeated = BaseModelOutput(last_hidden_state=states.repeat(beams, 1, 1))
        cache = None
        ids = torch.full((beams * len(rows), 1), 2)
        order = torch.arange(beams * len(rows)).flip(0)
        with _clock(times, f"open + {steps} steps, {beams} x 5"):
            for _ in range(steps):
                out = model(encoder_outputs=repeated, decoder_input_ids=ids, past_key_values=cache, use_cache=True)
                cache = out.past_key_values
                if beams > 1:
                    cache.reorder_cache(order)
    with _clock(times, "score 16 targets x 5"):
        ids = torch.tensor([[2, *target[:-1]] for target in targets]).repeat_interleave(len(rows), 0)
        repeated = BaseModelOutput(last_hidden_state=states.repeat(len(targets), 1, 1))
        labels = torch.tensor(targets).repeat_interleave(len(rows), 0)
        logits = model(encoder_outputs=repeated, decoder_input_ids=ids, use_cache=False).logits
        logits.log_softmax(-1).gather(-1, labels[..., None])
    return times


@torch.inference_mode()
def _our_times(model: lean.LeanModel, rows: torch.Tensor, targets: list[list[int]], steps: int) -> dict[str, float]:
    times: dict[str, float] = {}
    inputs = rows.tolist()
    with _clock(times, "encode"):
        encoded = model.encode(inputs)
    for beams in (1, 4):
        tokens = torch.full((beams, len(rows)), 2)
        order = torch.arange(beams).flip(0)[:, None].expand(-1, len(rows))
        with _clock(times, f"open + {steps} steps, {beams} x 5"):
            state = model.open(encoded, num_beams=beams)
            for _ in range(steps):
                model.step([StepItem(state, tokens)])
                if beams > 1:
                    model.reorder(state, order)
        del state
    state = model.open(encoded)
    with _clock(times, f"{steps // 4} steps of 4 tokens, 1 x 5"):
        for _ in range(steps // 4):
            model.step([StepItem(state, torch.full((1, len(rows), 4), 2))])
    with _clock(times, "score 16 targets x 5"):
        model.score(encoded, targets)
    states = [model.open(encoded) for _ in range(4)]
    with _clock(times, f"{steps} steps, 4 requests of 1 x 5"):
        for _ in range(steps):
            model.step([StepItem(state, torch.full((1, len(rows)), 2)) for state in states])
    return times


def _print(title: str, times: dict[str, list[dict[str, float]]]) -> None:
    rounds = len(times["theirs"])
    print(f"\n{title}: ms of CPU, one thread, median of {rounds}; in brackets transformers / ours", flush=True)
    parts = list(times["plain"][0])
    for part in parts:
        middle = {name: statistics.median(r[part] for r in runs) for name, runs in times.items()
                  if part in runs[0]}  # fmt: skip
        cells = [f"{name} {value:8.1f}" + (f" ({middle['theirs'] / value:4.2f}x)" if "theirs" in middle else "")
                 for name, value in middle.items()]  # fmt: skip
        print(f"  {part:28} " + "   ".join(cells), flush=True)


if __name__ == "__main__":
    main()

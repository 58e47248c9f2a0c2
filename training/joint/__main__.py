"""``rag train joint``: question encoder and generator learn together to answer from a collection.

It maximises log p(answer | question) of RAG-Sequence or RAG-Token over the passages found. The passage encoder stays
as it is, unless --refresh-every names how often the collection is re-encoded with the encoder in training.
"""

import argparse
import logging
from contextlib import closing
from pathlib import Path

import torch

from generator_service.rag_prompt import RagPrompt
from retriever_service.encoder import PassageText
from retriever_service.search import Mode
from training.joint.knowledge import KnowledgeBase, read_from_files, read_from_service
from training.joint.losses import Marginal
from training.joint.measuring import Measuring
from training.joint.questions import Question, QuestionStream, hold_out, read
from training.joint.reader import Reader, load_reader
from training.joint.refresh import Refreshing, first_generation
from training.joint.search import Search
from training.joint.task import JointModel, JointTask, Options
from training.retriever.towers import BiEncoder, load_bi_encoder
from training.runtime.flags import add_run_flags
from training.runtime.optimizer import MasterWeights
from training.runtime.program import begin, run

_MAX_TARGET_TOKENS = 64
_REFRESH = "refresh"  # In the run's folder: what re-encoding the collection needs and leaves.
_NUM_CHECKED, _MIN_SIMILARITY = 4, 0.99


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The program's flags."""
    parser = argparse.ArgumentParser(prog="rag train joint", description=__doc__)
    parser.add_argument("--questions", type=Path, required=True, help=".jsonl or .jsonl.gz with question and answers")
    parser.add_argument(
        "--dev", type=Path, help="questions that measure; default: 3 %% of --questions, never trained on"
    )
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--data-dir", type=Path, help="a retriever's data directory, read in this process")
    where.add_argument("--address", help="of a running gateway or retriever, read over gRPC")
    parser.add_argument("--collection", default="default", help="what is searched")
    parser.add_argument("--encoder", default="", help="what made its vectors: name or directory; default: as it says")
    parser.add_argument("--passage-encoder", default="", help="of its passages where it is another, as DPR's")
    parser.add_argument("--generator", default="default", help='"default", a directory, or a name on the model hub')
    parser.add_argument("--cache-dir", type=Path, default=Path("~/.cache/rag-serving"), help="of the default generator")
    parser.add_argument("--model", choices=[each.value for each in Marginal], default=Marginal.SEQUENCE.value)
    parser.add_argument("--search", choices=[Mode.DENSE.value, Mode.HYBRID.value], default=Mode.HYBRID.value)
    parser.add_argument("--passages", type=int, default=4, help="found for each question")
    parser.add_argument("--temperature", type=float, help="of the prior; default: the collection's")
    parser.add_argument("--max-passage-tokens", type=int, default=224, help="longer ones: a random stretch")
    parser.add_argument(
        "--sampled", type=int, default=0, metavar="M",
        help="the generator learns from M passages drawn by their share of the gradient: unbiased, and cheaper than "
        "from all, the default",
    )  # fmt: skip
    parser.add_argument(
        "--include-gold", type=int, default=0, metavar="STEPS",
        help="in so many steps at first, a gold passage is always among those found",
    )  # fmt: skip
    parser.add_argument(
        "--refresh-every", type=int, default=0, metavar="STEPS",
        help="train the passage encoder, too, and re-encode the collection as often into a new index generation",
    )  # fmt: skip
    parser.add_argument(
        "--in-batch", action="store_true",
        help="normalise the prior over what is found for any question of the batch, not for each alone; questions "
        "about one passage then come together",
    )  # fmt: skip
    parser.add_argument(
        "--abstain",
        type=float,
        default=0.0,
        metavar="WEIGHT",
        help="the generator also learns to give the empty answer to a passage found that holds none",
    )
    parser.add_argument("--label-smoothing", type=float, default=0.0)
    parser.add_argument("--encoder-rate", type=float, default=5e-5, help="peak learning rate")
    parser.add_argument("--generator-rate", type=float, default=3e-5, help="peak learning rate; 0 freezes it")
    parser.add_argument("--recompute", action="store_true", help="gradient checkpointing: less memory, more time")
    parser.add_argument("--measure-answers", type=int, default=100, metavar="N", help="held-out questions to answer")
    add_run_flags(parser, max_steps=1000, batch_size=8, watch="recall@1")
    flags = parser.parse_args(arguments)
    if flags.sampled and flags.label_smoothing:
        parser.error("--label-smoothing wants every passage's gradient: not together with --sampled")
    if flags.refresh_every and not flags.data_dir:
        parser.error(
            "--refresh-every wants --data-dir: a running retriever loads only the encoders it was started with"
        )
    return flags


def main(arguments: list[str] | None = None) -> None:
    """Read collection and questions, load both models, train."""
    flags = parse_arguments(arguments)
    schedule = begin(flags)
    base = _knowledge_base(flags)
    options = _options(flags, base)
    model = _model(flags, base)
    training, held_out = _questions(flags, model.reader)
    logging.info("%d questions, %d held out, %d passages", len(training), len(held_out), len(base.passages))

    def rate(name: str) -> float:
        return float(flags.encoder_rate if name.startswith("encoder.") else flags.generator_rate)

    weights = MasterWeights(model, rate=rate, dtype=schedule.dtype, warmup_ratio=schedule.warmup_ratio)
    searches = _searches(flags, base, model, weights)
    with closing(searches):
        measuring = Measuring(model, held_out, flags.measure_answers, options)
        task = JointTask(
            model,
            QuestionStream(training, batch_size=flags.batch_size, seed=flags.seed, groups=flags.in_batch),
            searches,
            options,
            batch_size=flags.batch_size,
            accumulate=flags.accumulate,
            measure=lambda: measuring(searches.search),
        )
        run(task, weights, flags, schedule)


class _Unchanging:
    """The same search for every step."""

    def __init__(self, search: Search) -> None:
        self.search, self.close = search, search.close

    def __call__(self, step: int) -> Search:
        """The search."""
        return self.search


def _searches(
    flags: argparse.Namespace, base: KnowledgeBase, model: JointModel, weights: MasterWeights
) -> Refreshing | _Unchanging:
    mode = Mode(flags.search)
    if not flags.refresh_every:
        return _Unchanging(Search(base, mode))

    def save_encoder(folder: Path) -> None:
        with weights.float32():
            model.encoder.save(folder)

    return Refreshing(
        base,
        flags.data_dir,
        flags.collection,
        every=flags.refresh_every,
        folder=flags.out / _REFRESH,
        save_encoder=save_encoder,
        make_search=lambda renewed: Search(renewed, mode),
    )


def _model(flags: argparse.Namespace, base: KnowledgeBase) -> JointModel:
    reader = load_reader(flags.generator, flags.cache_dir.expanduser())
    if flags.generator_rate == 0:
        reader.requires_grad_(False)
    name = flags.encoder or base.encoder
    encoder = load_bi_encoder(
        name,
        flags.passage_encoder,
        trained="both" if flags.refresh_every else "query",
        trains_words=False,
        dropout=0.0,
        max_tokens=flags.max_passage_tokens,
    )
    is_whole = isinstance(reader.prompt, RagPrompt) and not flags.refresh_every
    if not encoder.query.source.is_dpr or flags.passage_encoder:
        _check_vectors(base, encoder, name)
    elif not is_whole:
        raise SystemExit("--passage-encoder: a DPR encoder embeds questions alone; name the one of the passages, too")
    return JointModel(encoder, reader, Marginal(flags.model))


def _check_vectors(base: KnowledgeBase, encoder: BiEncoder, name: str) -> None:
    """Refuses an encoder that did not make the collection's vectors: training would start from nonsense."""
    sample = [PassageText(each.text, each.title) for each in base.passages[:_NUM_CHECKED]]
    made = torch.from_numpy(encoder.passage.tower(dtype="float32").encode_passages(sample))
    if torch.cosine_similarity(made, base.vectors[:_NUM_CHECKED]).min() < _MIN_SIMILARITY:
        raise SystemExit(
            f"encoder {name!r} did not make this collection's vectors ({base.encoder!r} did): re-encode the collection "
            "with `rag reencode`, or name its encoder"
        )


def _knowledge_base(flags: argparse.Namespace) -> KnowledgeBase:
    if flags.address:
        return read_from_service(flags.address, flags.collection)
    began_with = first_generation(flags.out / _REFRESH) if flags.resume else 0
    return read_from_files(flags.data_dir, flags.collection, began_with)


def _options(flags: argparse.Namespace, base: KnowledgeBase) -> Options:
    return Options(
        marginal=Marginal(flags.model),
        num_passages=flags.passages,
        temperature=flags.temperature or base.scoring.temperature,
        max_passage_tokens=flags.max_passage_tokens,
        num_sampled=flags.sampled,
        label_smoothing=flags.label_smoothing,
        gold_steps=flags.include_gold,
        in_batch=flags.in_batch,
        abstain=flags.abstain,
        trains_passages=flags.refresh_every > 0,
        recomputes=flags.recompute,
        seed=flags.seed,
    )


def _questions(flags: argparse.Namespace, reader: Reader) -> tuple[list[Question], list[Question]]:
    """Those to train on, without very long answers, and those that measure."""
    training, held_out = (read(flags.questions), read(flags.dev)) if flags.dev else hold_out(read(flags.questions))
    return [each for each in training if len(reader.target(each.target)) <= _MAX_TARGET_TOKENS], held_out


if __name__ == "__main__":
    main()

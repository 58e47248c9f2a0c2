"""The index hot-swap experiment of Lewis et al. 2020 (arXiv 2005.11401, section 4.5), over a running `rag up`.

Who held an office depends on when one asks. The same generator answers from an index of January 2016 and from one of
December 2018: if its knowledge comes from the index, each index is right about its own year and wrong about the other.
"""

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path

from rag_client import Passage, RagClient, Source

LEADERS = Path(__file__).with_name("leaders.tsv")
MONTHS = {"2016": "January 2016", "2018": "December 2018"}
SOURCE = "leaders.tsv"

Leader = dict[str, str]
Table = dict[tuple[str, str], int]  # (index, answers of the year) → how many are right


def passages(leaders: Sequence[Leader], year: str) -> list[Passage]:
    """What an encyclopedia of that year says, one passage for each office."""
    return [
        Passage(
            f"{leader['country']}: {leader['position']}",
            f"{leader[year]} is the {leader['position']} of {leader['country']}.",
            title=f"{leader['position']} of {leader['country']}",
            source=SOURCE,
        )
        for leader in leaders
    ]


def freeze_years(client: RagClient, collection: str, leaders: Sequence[Leader]) -> dict[str, int]:
    """Index generations by year: each year's passages replace those before, and are frozen."""
    client.create_collection(collection)
    generations = {}
    for year in MONTHS:
        client.upsert(
            passages(leaders, year), collection=collection, sources=[Source(SOURCE, year)], replace_sources=True
        )
        generations[year] = client.create_snapshot(MONTHS[year], collection=collection).index_generation
    return generations


def count_right(client: RagClient, collection: str, leaders: Sequence[Leader], generations: dict[str, int]) -> Table:
    """Asks every index about every office, and counts the answers that name the leader of each year."""
    right = {(index, year): 0 for index in MONTHS for year in MONTHS}
    for leader in leaders:
        question = f"Who is the {leader['position']} of {leader['country']}?"
        answers = client.compare(question, list(generations.values()), collection=collection)
        for index, answer in zip(generations, answers, strict=True):
            for year in MONTHS:
                right[index, year] += leader[year].casefold() in answer.text.casefold()
    return right


def main(argv: Sequence[str] | None = None) -> Table:
    """Runs the experiment in a collection of its own, which is dropped at the end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", default="localhost:50050", help="the gateway")
    parser.add_argument("--limit", type=int, help="only so many offices")
    arguments = parser.parse_args(argv)
    with LEADERS.open(encoding="utf-8", newline="") as file:
        leaders = list(csv.DictReader(file, delimiter="\t"))[: arguments.limit]
    collection = "index-hot-swap"
    with RagClient(arguments.address, timeout=120.0) as client:
        generations = freeze_years(client, collection, leaders)
        try:
            right = count_right(client, collection, leaders, generations)
        finally:
            client.drop_collection(collection)
    print(f"right answers of {len(leaders)}   " + "   ".join(f"leaders of {year}" for year in MONTHS))
    for index in MONTHS:
        print(f"index of {MONTHS[index]:<14}" + "   ".join(f"{right[index, year]:>15}" for year in MONTHS))
    return right


if __name__ == "__main__":
    main()

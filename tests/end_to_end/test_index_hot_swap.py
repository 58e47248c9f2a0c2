"""The example `examples/index_hot_swap`: knowledge comes from the index that is asked."""

import importlib.util
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "index_hot_swap" / "hot_swap.py"


@pytest.mark.slow
def test_each_index_is_right_about_its_own_year(system):
    spec = importlib.util.spec_from_file_location("hot_swap", EXAMPLE)
    hot_swap = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hot_swap)
    right = hot_swap.main(["--address", system.gateway.address, "--limit", "6"])
    for year, other in (("2016", "2018"), ("2018", "2016")):
        assert right[year, year] >= 5
        assert right[year, other] == 0

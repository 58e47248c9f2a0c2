"""Flags over environment over file over defaults; nothing unknown passes."""

import pytest
import yaml
from pydantic import ValidationError

from serving.config import ConfigSection, PositiveInt, ServiceConfig, load_config, settings_config


class Batching(ConfigSection):
    max_batch_size: PositiveInt = 8
    """Items that go together."""


class Example(ServiceConfig):
    """An example service."""

    model_config = settings_config("RAG_EXAMPLE_")
    top_k: PositiveInt = 5
    """Passages returned."""
    batching: Batching = Batching()


def test_flags_beat_environment_beats_file_beats_defaults(tmp_path, monkeypatch):
    file = tmp_path / "c.yaml"
    file.write_text("top_k: 1\nport: 1\nhost: h\nbatching: {max_batch_size: 1}\n")
    monkeypatch.setenv("RAG_EXAMPLE_TOP_K", "2")
    monkeypatch.setenv("RAG_EXAMPLE_PORT", "2")
    monkeypatch.setenv("RAG_EXAMPLE_BATCHING__MAX_BATCH_SIZE", "2")
    config = load_config(Example, ["--config", str(file), "--top-k", "3", "--batching.max-batch-size=3"])
    assert (config.top_k, config.port, config.host, config.metrics_port) == (3, 2, "h", 0)
    assert config.batching.max_batch_size == 3


@pytest.mark.parametrize(
    ("argv", "environment", "text", "told"),
    [
        (["--topk", "3"], {}, "", "--topk"),
        (["--top", "3"], {}, "", "--top"),
        ([], {"RAG_EXAMPLE_TOPK": "3"}, "", "RAG_EXAMPLE_TOPK"),
        ([], {"RAG_EXAMPLE_BATCHING__SIZE": "3"}, "", "RAG_EXAMPLE_BATCHING__SIZE"),
        ([], {}, "topk: 3", "topk"),
        ([], {}, "batching: {size: 3}", "batching.size"),
        ([], {}, "[1]", "mapping"),
        (["--top-k", "0"], {}, "", "--top-k (RAG_EXAMPLE_TOP_K)"),
        (["--port", "70000"], {}, "", "65535"),
    ],
)
def test_what_is_unknown_or_wrong_ends_the_process_and_is_named(
    argv, environment, text, told, tmp_path, monkeypatch, capsys
):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    if text:
        (tmp_path / "c.yaml").write_text(text)
        argv = ["--config", str(tmp_path / "c.yaml"), *argv]
    with pytest.raises(SystemExit) as stopped:
        load_config(Example, argv)
    assert stopped.value.code == 2
    assert told in capsys.readouterr().err


def test_print_config_prints_what_would_run(capsys):
    with pytest.raises(SystemExit) as stopped:
        load_config(Example, ["--top-k", "7", "--print-config"])
    assert stopped.value.code == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["top_k"] == 7
    assert printed["batching"] == {"max_batch_size": 8}


def test_help_says_what_each_field_is_for(capsys):
    with pytest.raises(SystemExit):
        load_config(Example, ["--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert "Passages returned." in told
    assert "--batching.max-batch-size" in told
    assert "RAG_EXAMPLE_" in told


def test_a_config_is_frozen_and_ignores_the_environment_when_made_directly(monkeypatch):
    monkeypatch.setenv("RAG_EXAMPLE_TOP_K", "9")
    config = Example(port=1)
    assert config.top_k == 5
    with pytest.raises(ValidationError):
        config.top_k = 6

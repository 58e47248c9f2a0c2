import pytest

from gateway.config import GatewayConfig
from serving.config import load_config


def test_flags_go_before_the_environment(monkeypatch):
    monkeypatch.setenv("RAG_GATEWAY_RETRIEVER", "env:1")
    monkeypatch.setenv("RAG_GATEWAY_GENERATOR", "env:2")
    config = load_config(GatewayConfig, ["--retriever=flag:1", "--min-confidence=0.25"])
    assert (config.retriever, config.generator, config.min_confidence) == ("flag:1", "env:2", 0.25)


def test_a_threshold_beyond_a_probability_is_refused(capsys):
    with pytest.raises(SystemExit):
        load_config(GatewayConfig, ["--min-confidence=2"])
    assert "min-confidence" in capsys.readouterr().err

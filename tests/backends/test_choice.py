"""From configuration to backend; the engines' clients are needed by those alone who choose them."""

import importlib.util
import subprocess
import sys

import pytest

from retriever_service.backends.catalog import RemoteCatalog
from retriever_service.backends.choice import elasticsearch_catalog, milvus_catalog
from retriever_service.backends.config import ElasticsearchConfig, MilvusConfig
from retriever_service.config import RetrieverConfig
from serving.config import load_config
from serving.errors import FailedPrecondition

CLIENTS = {"elasticsearch": "elasticsearch", "milvus": "pymilvus"}


def test_flags_and_environment_choose_and_secrets_are_not_shown(monkeypatch):
    monkeypatch.setenv("RAG_RETRIEVER_ELASTICSEARCH__API_KEY", "hush-hush")
    config = load_config(RetrieverConfig, ["--backend", "elasticsearch", "--elasticsearch.index-type", "int8_hnsw"])
    assert (config.backend, config.elasticsearch.index_type) == ("elasticsearch", "int8_hnsw")
    assert config.elasticsearch.api_key.get_secret_value() == "hush-hush"
    assert "hush-hush" not in repr(config)


def test_replicas_are_for_the_local_backend():
    with pytest.raises(SystemExit):
        load_config(RetrieverConfig, ["--backend", "milvus", "--follow", "file:///shared"])


@pytest.mark.parametrize(
    ("client", "make"),
    [
        ("elasticsearch", lambda: elasticsearch_catalog(ElasticsearchConfig())),
        ("pymilvus", lambda: milvus_catalog(MilvusConfig())),
    ],
)
def test_a_backend_is_made_without_reaching_for_its_server(client, make):
    if importlib.util.find_spec(client) is None:
        pytest.skip(f"{client} is not installed")
    assert isinstance(make(), RemoteCatalog)


@pytest.mark.parametrize("backend", CLIENTS)
def test_a_missing_client_is_told_with_the_command_that_installs_it(monkeypatch, backend):
    for name in list(sys.modules):
        if name.startswith(f"retriever_service.backends.{backend}"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, CLIENTS[backend], None)
    make = {
        "elasticsearch": lambda: elasticsearch_catalog(ElasticsearchConfig()),
        "milvus": lambda: milvus_catalog(MilvusConfig()),
    }[backend]
    with pytest.raises(FailedPrecondition, match=rf"pip install 'rag-serving\[{backend}\]'"):
        make()


def test_the_local_backend_imports_no_client():
    program = (
        "import sys, retriever_service.retriever, retriever_service.catalog, retriever_service.backends.choice; "
        "print(sorted({'elasticsearch', 'elastic_transport', 'pymilvus'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

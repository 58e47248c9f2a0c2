"""The dashboard and the rules in front of a real Prometheus that scrapes real services under a little traffic."""

import json
import math
import re
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import grpc
import pytest
import yaml

from protos.rag.v1 import generator_pb2, generator_pb2_grpc
from rag_client import Passage, RagClient, RagError, field

DEPLOY = Path(__file__).parents[2] / "deploy"
QUESTION = "What is the capital of France?"
TINY_ADMISSION = {
    "gateway": ["--admission.max-items=2"],
    "retriever": ["--admission.max-items=2"],
    "generator": ["--admission.max-items=1"],
}
PATIENCE_SECONDS = 90.0
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(shutil.which("prometheus") is None, reason="prometheus is not installed"),
]


class Prometheus:
    """The API of a running Prometheus."""

    def __init__(self, port: int) -> None:
        self.base = f"http://127.0.0.1:{port}"

    def get(self, path: str, **parameters: str):
        with urllib.request.urlopen(f"{self.base}{path}?{urllib.parse.urlencode(parameters)}", timeout=10) as reply:
            return json.load(reply)["data"]

    def values(self, expression: str) -> list[float]:
        """One number for each series; NaN, where a ratio or quantile has nothing to say, left out."""
        result = self.get("/api/v1/query", query=expression)["result"]
        return [value for series in result if not math.isnan(value := float(series["value"][1]))]

    def missing(self, expressions: list[str]) -> list[str]:
        """Those that have no value, however long one waits for the next scrapes."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while (left := [each for each in expressions if not self.values(each)]) and time.monotonic() < deadline:
            time.sleep(1)
        return left


def start_prometheus(stack, folder, port, targets) -> Prometheus:
    jobs = [{"job_name": name, "static_configs": [{"targets": each}]} for name, each in targets.items()]
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(DEPLOY / "prometheus/rules.yaml")],
        "scrape_configs": jobs,
    }
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
    argv = ["prometheus", f"--config.file={folder / 'prometheus.yaml'}", f"--storage.tsdb.path={folder / 'tsdb'}"]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen([*argv, f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log)
    stack.callback(process.wait)
    stack.callback(process.terminate)
    return Prometheus(port)


def make_traffic(system, lonely_gateway, round_number: int) -> None:
    """Answers, searches, writes, mistakes, overload, a leaver and a dead backend: something for every panel."""
    with system.client() as client, RagClient(lonely_gateway.address) as lonely:
        client.upsert([Passage(f"traffic-{round_number}", f"Passage {round_number} is about the capital of France.")])
        client.answer(QUESTION)
        list(client.stream(QUESTION))
        client.retrieve("nothing", filter=field("source") == "no such source")
        for mistake in (
            lambda: client.answer(" "),
            lambda: client.retrieve("anything", collection="no-such-collection"),
            lambda: client.retrieve_batch(["one", "two", "three"]),
            lambda: lonely.answer(QUESTION, timeout=5),
        ):
            with pytest.raises(RagError):
                mistake()
        crowd(lambda: client.answer(QUESTION))
    with grpc.insecure_channel(system.generator.address) as channel:
        generate = generator_pb2_grpc.GeneratorServiceStub(channel).Generate
        with pytest.raises(grpc.RpcError):
            generate(generator_pb2.GenerateRequest(), timeout=30)
        passage = generator_pb2.GeneratorPassage(text="Paris is the capital of France.")
        request = generator_pb2.GenerateRequest(
            input=generator_pb2.GenerationInput(question=QUESTION, passages=[passage])
        )
        crowd(lambda: generate(request, timeout=30))
        request.decoding.min_new_tokens = request.decoding.max_new_tokens = 512
        leaving = generate.future(request)
        time.sleep(0.5)
        leaving.cancel()


def crowd(call) -> None:
    """Twelve callers at once; whoever is refused goes."""

    def attempt() -> None:
        with suppress(RagError, grpc.RpcError):
            call()

    with ThreadPoolExecutor(12) as pool:
        for _ in range(12):
            pool.submit(attempt)


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory, start_rag_system, start_service, free_port):
    folder = tmp_path_factory.mktemp("monitored")
    with ExitStack() as stack:
        system = stack.enter_context(start_rag_system(folder, TINY_ADMISSION))
        flags = ["--retriever=127.0.0.1:1", "--generator=127.0.0.1:1", "--backend-wait-seconds=0"]
        flags += [f"--feedback-path={folder / 'lonely.jsonl'}"]
        lonely = stack.enter_context(start_service("gateway", flags, folder / "lonely.log"))
        targets = {
            "gateway": [system.gateway.metrics_address, lonely.metrics_address],
            "retriever": [system.retriever.metrics_address],
            "generator": [system.generator.metrics_address],
        }
        prometheus = start_prometheus(stack, folder, free_port(), targets)
        make_traffic(system, lonely, 1)
        assert not prometheus.missing([f'up{{instance="{each}"}} == 1' for job in targets.values() for each in job])
        time.sleep(3)  # A counter has a rate from its second scrape on.
        make_traffic(system, lonely, 2)
        yield prometheus


def test_every_expression_and_each_of_its_selectors_returns_series(prometheus):
    panels = json.loads((DEPLOY / "grafana/rag-serving.json").read_text())["panels"]
    expressions = [
        target["expr"].replace("$__rate_interval", "2m") for panel in panels for target in panel.get("targets", ())
    ]
    assert len(expressions) > 30
    assert prometheus.missing(expressions + selectors(expressions)) == []


def test_every_rule_is_healthy_and_selects_what_the_services_export(prometheus):
    groups = yaml.safe_load((DEPLOY / "prometheus/rules.yaml").read_text())["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    recorded = [rule["record"] for rule in rules if "record" in rule]
    assert prometheus.missing(recorded + selectors([rule["expr"] for rule in rules])) == []
    loaded = [rule for group in prometheus.get("/api/v1/rules")["groups"] for rule in group["rules"]]
    assert len(loaded) == len(rules)
    assert {rule["health"] for rule in loaded} == {"ok"}


def selectors(expressions: list[str]) -> list[str]:
    """The series that expressions select, so that an `or` does not hide one that is misspelt."""
    return sorted({selector for each in expressions for selector in re.findall(r"(?<![\w:])rag_\w+(?:{[^}]*})?", each)})

"""Ad-hoc calls: buf, which learns the contract by reflection."""

import json


def test_buf_curl_gets_an_answer_by_reflection(buf_curl, rag_system):
    body = json.dumps({"question": "What is the capital of France?", "options": {"retrieval": {"topK": 3}}})
    done = buf_curl(rag_system.gateway.address, "rag.v1.GatewayService/Answer", body)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)["answer"]
    assert answer["text"] == "Paris"
    assert len(answer["citations"]) == 3


def test_buf_curl_searches_through_the_gateway(buf_curl, rag_system):
    body = json.dumps({"queries": [{"text": "baseball champions of 2020"}], "options": {"topK": 1}})
    done = buf_curl(rag_system.gateway.address, "rag.v1.RetrieverService/Retrieve", body)
    assert done.returncode == 0, done.stderr
    (result,) = json.loads(done.stdout)["results"]
    assert result["passages"][0]["passage"]["source"] == "world_series.md"


def test_buf_curl_is_told_which_field_is_wrong(buf_curl, rag_system):
    body = json.dumps({"question": "Why?", "options": {"retrieval": {"topK": 0}}})
    done = buf_curl(rag_system.gateway.address, "rag.v1.GatewayService/Answer", body)
    assert done.returncode != 0
    error = json.loads(done.stderr)
    assert error["code"] == "invalid_argument"
    assert "top_k" in error["message"]


def test_buf_curl_asks_each_service_for_its_health(buf_curl, rag_system):
    for endpoint in (rag_system.gateway, rag_system.retriever, rag_system.generator):
        for name in ("liveness", "readiness"):
            done = buf_curl(endpoint.address, "grpc.health.v1.Health/Check", json.dumps({"service": name}))
            assert json.loads(done.stdout) == {"status": "SERVING"}, done.stderr

"""One directory saved by transformers, and an encoder for its passages, are enough for the three services."""

from __future__ import annotations

from rag_client import Passage
from tests.rag_checkpoints import save_dpr, save_rag

PASSAGES = [
    Passage("paris", "Paris is the capital of France.", "France"),
    Passage("berlin", "Berlin is the capital of Germany.", "Germany"),
    Passage("question", "A question with punctuation.", ""),
    Passage("who", "Who wrote it?", ""),
]


def test_three_services_answer_from_one_rag_directory(tmp_path, start_rag_system):
    folder, passages = save_rag(tmp_path / "rag", n_docs=3), save_dpr(tmp_path / "passages")
    flags = {
        "retriever": [f"--encoder={folder}", f"--passage-encoder={passages}"],
        "generator": [f"--model={folder}"],
    }
    with start_rag_system(tmp_path, flags) as system, system.client() as client:
        client.upsert(PASSAGES)
        answer = client.answer("What is the capital of France?")
        info = client.info()
    assert answer.text
    assert len(answer.citations) == 3  # n_docs, of four passages.
    assert answer.provenance.generator == "rag"
    assert answer.provenance.encoder == str(folder)
    assert info.generator.prompt_format == "{title} / {passage} // {question} (max_combined_length=60, n_docs=3)"

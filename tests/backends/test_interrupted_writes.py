"""What is left of a write that an engine's failure interrupts, and that sending it again completes it."""

import pytest

from retriever_service.backends.catalog import RemoteCatalog
from retriever_service.batch import Outcome
from retriever_service.collection import Passage, Source
from serving.errors import NotReady

OLD = [Passage("a", "", "old text", "s"), Passage("b", "", "stays", "s")]
NEW = [Passage("a", "", "new text", "s"), Passage("b", "", "stays", "s"), Passage("c", "", "more", "s")]


async def test_an_interrupted_replacement_leaves_no_digest_and_is_completed_by_the_next(
    retriever, upsert, make_catalog, monkeypatch
):
    if not isinstance(make_catalog(), RemoteCatalog):
        pytest.skip("a local replacement is one transaction")
    await upsert(retriever, OLD, sources=[Source("s", "d1")], replaces_sources=True)
    async with retriever.library.using("default") as collection:
        put = collection.store.put

    def fail_after_one(documents):
        put(documents[:1])
        raise NotReady("the engine is gone")

    with monkeypatch.context() as patched:
        patched.setattr(collection.store, "put", fail_after_one)
        with pytest.raises(NotReady):
            await upsert(retriever, NEW, sources=[Source("s", "d2")], replaces_sources=True)
    (source,) = (await retriever.list_sources("default", "", "", 10)).items
    assert source.digest == ""
    result = await upsert(retriever, NEW, sources=[Source("s", "d2")], replaces_sources=True)
    assert [item.outcome.outcome for item in result.items].count(Outcome.INSERTED) == 1
    listed = await retriever.list_passages("default", None, "", 10)
    assert [(one.id, one.text) for one in listed.items] == [(one.id, one.text) for one in NEW]
    (source,) = (await retriever.list_sources("default", "", "", 10)).items
    assert source.digest == "d2"

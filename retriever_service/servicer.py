"""rag.v1.RetrieverService: converts, calls the retriever, converts back. No logic."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

from protos.rag.v1 import common_pb2 as common
from protos.rag.v1 import retriever_pb2 as wire
from retriever_service import convert
from retriever_service.collection import DEFAULT_COLLECTION
from retriever_service.convert_collection import (
    collection_to,
    encoder_to,
    metric_to,
    provenance_to,
    request_from,
    timings_to,
    upsert_to,
)
from retriever_service.convert_generations import selection_from
from retriever_service.encoder import PassageText, Query
from retriever_service.limits import LIMITS, check_text
from retriever_service.maintenance_servicer import MaintenanceServicer
from retriever_service.retriever import Retriever
from retriever_service.search import Hit
from retriever_service.upserting import UpsertMessage
from serving.admission import Admission
from serving.errors import InvalidRequest, RagError
from serving.status import item_status

_BYTES_PER_TOKEN = 4


class RetrieverServicer(MaintenanceServicer):
    """Serves a retriever."""

    def __init__(
        self,
        retriever: Retriever,
        *,
        admission: Admission,
        upsert_admission: Admission,
        build_version: str,
        max_message_bytes: int,
    ) -> None:
        """Takes what it serves.

        Args:
            retriever: Does the work.
            admission: Room for queries and texts.
            upsert_admission: Room for streams that write or read whole collections.
            build_version: For provenance and GetInfo.
            max_message_bytes: The transport's limit, for GetInfo.
        """
        super().__init__(retriever.maintenance, retriever.library, upsert_admission)
        self._retriever = retriever
        self._admission, self._upsert_admission = admission, upsert_admission
        self._build_version, self._max_message_bytes = build_version, max_message_bytes
        self._started_at = time.time()

    async def Retrieve(self, request: wire.RetrieveRequest, context: Any) -> wire.RetrieveResponse:
        """Finds passages for a batch of queries."""
        started = time.monotonic()
        options = convert.options_from(request.options)
        tokens = sum(len(query.text) for query in request.queries) // _BYTES_PER_TOKEN
        queries = [convert.query_from(query) for query in request.queries[: LIMITS.max_queries + 1]]
        with self._admission.admit(items=min(len(queries), LIMITS.max_queries), tokens=tokens):
            found = await self._retriever.retrieve(queries, options)
        return wire.RetrieveResponse(
            results=[_result_to(result) for result in found.results],
            provenance=provenance_to(found.origin, self._build_version),
            timings=timings_to({**found.seconds, "total": time.monotonic() - started}),
            temperature=found.temperature,
            metric=metric_to(found.metric),
        )

    async def Embed(self, request: wire.EmbedRequest, context: Any) -> wire.EmbedResponse:
        """Embeds texts."""
        started = time.monotonic()
        if request.role not in wire.TextRole.values():
            raise InvalidRequest(f"role has the unknown value {request.role}", field="role")
        make = PassageText if request.role == wire.TEXT_ROLE_PASSAGE else Query
        inputs = [make(text) for text in request.texts]
        tokens = sum(len(text) for text in request.texts) // _BYTES_PER_TOKEN
        with self._admission.admit(items=min(len(inputs), LIMITS.max_embed_texts), tokens=tokens):
            embedded = await self._retriever.embed(inputs, request.collection)
        return wire.EmbedResponse(
            vectors=[convert.vector_to(vector, request.dtype) for vector in embedded.vectors],
            encoder=encoder_to(embedded.encoder),
            timings=timings_to({**embedded.seconds, "total": time.monotonic() - started}),
        )

    async def Upsert(self, request_iterator: AsyncIterator[wire.UpsertRequest], context: Any) -> wire.UpsertResponse:
        """Writes a stream of passages."""

        async def messages() -> AsyncIterator[UpsertMessage]:
            async for request in request_iterator:
                yield convert.upsert_from(request)

        with self._upsert_admission.admit():
            return upsert_to(await self._retriever.upsert(messages()))

    async def Delete(self, request: wire.DeleteRequest, context: Any) -> wire.DeleteResponse:
        """Deletes passages."""
        name = request.collection or DEFAULT_COLLECTION
        written = await self._retriever.delete(name, selection_from(request))
        return wire.DeleteResponse(num_deleted=written.num_deleted, sequence=written.sequence)

    async def GetPassages(self, request: wire.GetPassagesRequest, context: Any) -> wire.GetPassagesResponse:
        """Reads passages by id."""
        name = request.collection or DEFAULT_COLLECTION
        found = await self._retriever.get_passages(name, request.ids, with_vectors=request.include_vectors)
        there = [found[id_] for id_ in request.ids if id_ in found]
        return wire.GetPassagesResponse(
            passages=[convert.passage_to(one.passage) for one in there],
            missing_ids=[id_ for id_ in request.ids if id_ not in found],
            vectors=[convert.vector_to(one.vector) for one in there if one.vector is not None],
        )

    async def ListPassages(self, request: wire.ListPassagesRequest, context: Any) -> wire.ListPassagesResponse:
        """Lists passages in id order."""
        page = await self._retriever.list_passages(
            request.collection or DEFAULT_COLLECTION,
            convert.filter_from(request.filter) if request.HasField("filter") else None,
            convert.page_token_from(request.page_token),
            convert.page_size_from(request.page_size),
        )
        return wire.ListPassagesResponse(
            passages=[convert.passage_to(passage) for passage in page.items],
            next_page_token=convert.page_token_to(page.next_after),
            num_total=page.num_total,
        )

    async def ListSources(self, request: wire.ListSourcesRequest, context: Any) -> wire.ListSourcesResponse:
        """Lists sources in name order."""
        page = await self._retriever.list_sources(
            request.collection or DEFAULT_COLLECTION,
            check_text(request.prefix, LIMITS.max_source_bytes, "prefix"),
            convert.page_token_from(request.page_token),
            convert.page_size_from(request.page_size),
        )
        return wire.ListSourcesResponse(
            sources=[convert.source_to(source) for source in page.items],
            next_page_token=convert.page_token_to(page.next_after),
            num_total=page.num_total,
        )

    async def CreateCollection(
        self, request: wire.CreateCollectionRequest, context: Any
    ) -> wire.CreateCollectionResponse:
        """Creates a collection."""
        settings = request_from(request.settings)
        created = await self._library.create(settings)
        info = await self._library.describe(settings.name)
        return wire.CreateCollectionResponse(collection=collection_to(info), created=created)

    async def ConfigureCollection(
        self, request: wire.ConfigureCollectionRequest, context: Any
    ) -> wire.ConfigureCollectionResponse:
        """Changes a collection's scoring."""
        name = request.collection or DEFAULT_COLLECTION
        temperature = request.temperature if request.HasField("temperature") else None
        await self._library.configure(name, temperature, convert.fusion_from(request.fusion))
        return wire.ConfigureCollectionResponse(collection=collection_to(await self._library.describe(name)))

    async def DescribeCollection(
        self, request: wire.DescribeCollectionRequest, context: Any
    ) -> wire.DescribeCollectionResponse:
        """Describes one collection."""
        info = await self._library.describe(request.collection or DEFAULT_COLLECTION)
        return wire.DescribeCollectionResponse(collection=collection_to(info))

    async def GetCollectionState(
        self, request: wire.GetCollectionStateRequest, context: Any
    ) -> wire.GetCollectionStateResponse:
        """Names the state that retrievals come from now."""
        name = request.collection or DEFAULT_COLLECTION
        state = await self._retriever.state_of(name, request.index_generation)
        return wire.GetCollectionStateResponse(collection_state=state)

    async def ListCollections(self, request: wire.ListCollectionsRequest, context: Any) -> wire.ListCollectionsResponse:
        """Lists the collections."""
        return wire.ListCollectionsResponse(
            collections=[collection_to(info) for info in await self._library.describe_all()]
        )

    async def DropCollection(self, request: wire.DropCollectionRequest, context: Any) -> wire.DropCollectionResponse:
        """Drops a collection; its name must be given."""
        return wire.DropCollectionResponse(num_dropped=await self._library.drop(request.collection))

    async def GetInfo(
        self, request: wire.RetrieverServiceGetInfoRequest, context: Any
    ) -> wire.RetrieverServiceGetInfoResponse:
        """Says what this retriever is, holds and allows."""
        rows = [
            *LIMITS.rows(),
            ("max_message_bytes", float(self._max_message_bytes), "bytes"),
            ("max_admitted_items", float(self._admission.max_items), "items"),
            ("max_admitted_tokens", float(self._admission.max_tokens), "tokens"),
            ("max_upsert_streams", float(self._upsert_admission.max_items), "items"),
        ]
        return wire.RetrieverServiceGetInfoResponse(
            service=common.ServiceInfo(
                service="retriever",
                build_version=self._build_version,
                started_at=convert.timestamp_to(self._started_at),
                limits=[common.Limit(name=name, value=value, unit=unit) for name, value, unit in rows],
            ),
            encoder=encoder_to(self._retriever.encoding.default.info),
            collections=[collection_to(info) for info in await self._library.describe_all()],
            role=wire.RetrieverServiceGetInfoResponse.ROLE_WRITER,
        )


def _result_to(result: tuple[Hit, ...] | RagError) -> wire.QueryResult:
    if isinstance(result, RagError):
        code, message, reason = item_status(result)
        return wire.QueryResult(status=common.Status(code=code, message=message, reason=reason))
    passages = [convert.hit_to(hit, rank) for rank, hit in enumerate(result, start=1)]
    return wire.QueryResult(status=common.Status(), passages=passages)

"""What Elasticsearch takes, as JSON schemas: the part of its published API that the backend uses, and nothing more.

Written from Elastic's API specification (types Knn, DenseVectorProperty, QueryContainer, IndexSettings,
PointInTimeReference; bulk, mget, msearch, update_aliases, clone, put_settings) for 8.18 to 9.x. A request with a field
that is not here fails, as a misspelt one would at a server.
"""

from typing import Any

Schema = dict[str, Any]


def closed(required: tuple[str, ...] = (), **properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


def one_key(value: Schema) -> Schema:
    """A mapping from one field's name."""
    return {"type": "object", "minProperties": 1, "maxProperties": 1, "additionalProperties": value}


def listed(items: Schema, **limits: int) -> Schema:
    return {"type": "array", "items": items, **limits}


STRING: Schema = {"type": "string"}
BOOLEAN: Schema = {"type": "boolean"}
COUNT: Schema = {"type": "integer", "minimum": 0}
SCALAR: Schema = {"type": ["string", "number", "boolean"]}
QUERY: Schema = {"$ref": "#/$defs/query"}
VECTOR: Schema = listed({"type": "number"}, minItems=1, maxItems=4096)

BOUNDS = closed(**{name: {"type": ["string", "number"]} for name in ("gt", "gte", "lt", "lte")}) | {"minProperties": 1}
QUERIES: dict[str, Schema] = {
    "match_all": closed(),
    "term": one_key(closed(("value",), value=SCALAR)),
    "terms": one_key(listed(SCALAR, maxItems=65_536)),
    "range": one_key(BOUNDS),
    "prefix": one_key(closed(("value",), value=STRING)),
    "match": one_key(closed(("query",), query={"type": "string", "minLength": 1})),
    "bool": closed(
        must=listed(QUERY),
        filter=listed(QUERY),
        should=listed(QUERY, minItems=1),
        must_not=listed(QUERY),
        minimum_should_match=COUNT,
    ),
}
DEFS: Schema = {
    "query": {"type": "object", "minProperties": 1, "maxProperties": 1, "properties": QUERIES}
    | {"additionalProperties": False}
}
KNN = closed(
    ("field", "query_vector", "k", "num_candidates"),
    field=STRING,
    query_vector=VECTOR,
    k={"type": "integer", "minimum": 1, "maximum": 10_000},
    num_candidates={"type": "integer", "minimum": 1, "maximum": 10_000},
    filter=listed(QUERY, minItems=1),
    rescore_vector=closed(("oversample",), oversample={"type": "number", "minimum": 1, "maximum": 10}),
)
SEARCH = closed(
    query=QUERY,
    knn=KNN,
    size={"type": "integer", "minimum": 0, "maximum": 10_000},
    sort=listed(one_key({"enum": ["asc", "desc"]})),
    search_after=listed(SCALAR, minItems=1),
    track_total_hits=BOOLEAN,
    pit=closed(("id",), id=STRING, keep_alive={"type": "string", "pattern": r"^\d+(d|h|m|s|ms|micros|nanos)$"}),
    _source=closed(includes=listed(STRING), excludes=listed(STRING)),
    aggs={"additionalProperties": closed(("terms",), terms=closed(("field", "size"), field=STRING, size=COUNT))},
)
INDEX_OPTIONS = closed(
    ("type",),
    type={"enum": ["hnsw", "flat", "int8_hnsw", "int8_flat", "int4_hnsw", "int4_flat", "bbq_hnsw", "bbq_flat"]},
    m=COUNT,
    ef_construction=COUNT,
)
PROPERTIES: Schema = {"type": "object", "additionalProperties": {"$ref": "#/$defs/property"}}
PROPERTY: Schema = {
    "oneOf": [
        closed(("type",), type={"enum": ["keyword", "long", "double", "boolean", "binary"]}),
        closed(("type",), type={"const": "text"}, index=BOOLEAN, copy_to=STRING, analyzer=STRING, similarity=STRING),
        closed(("type", "enabled"), type={"const": "object"}, enabled=BOOLEAN),
        closed(("properties",), properties=PROPERTIES),
        closed(
            # The server's default for index_options loses precision: they must be said.
            ("type", "dims", "similarity", "index_options"),
            type={"const": "dense_vector"},
            dims={"type": "integer", "minimum": 1, "maximum": 4096},
            index=BOOLEAN,
            similarity={"enum": ["cosine", "dot_product", "l2_norm", "max_inner_product"]},
            index_options=INDEX_OPTIONS,
        ),
    ]
}
ANALYSIS = closed(
    tokenizer={"additionalProperties": closed(("type", "pattern"), type={"const": "pattern"}, pattern=STRING)},
    filter={"additionalProperties": closed(("type", "language"), type={"const": "snowball"}, language=STRING)},
    analyzer={
        "additionalProperties": closed(
            ("type", "tokenizer"), type={"const": "custom"}, tokenizer=STRING, filter=listed(STRING)
        )
    },
)
SCRIPTED = closed(("type", "script"), type={"const": "scripted"}, script=closed(("source",), source=STRING))
CREATE = closed(
    ("mappings",),
    settings=closed(
        number_of_shards=COUNT,
        number_of_replicas=COUNT,
        merge=closed(policy=closed(expunge_deletes_allowed={"type": "number", "minimum": 0})),
        similarity={"additionalProperties": SCRIPTED},
        analysis=ANALYSIS,
    ),
    mappings=closed(
        dynamic={"enum": ["strict", "true", "false", "runtime"]},
        _meta={"type": "object"},
        _source=closed(includes=listed(STRING), excludes=listed(STRING)),
        properties=PROPERTIES,
    ),
    aliases={"additionalProperties": closed(is_write_index=BOOLEAN)},
)
ALIAS = {"index": STRING, "alias": STRING}
ALIASES = closed(
    ("actions",),
    actions=listed(
        {
            "type": "object",
            "minProperties": 1,
            "maxProperties": 1,
            "properties": {
                "add": closed(("index", "alias"), **ALIAS, is_write_index=BOOLEAN),
                "remove": closed(("index", "alias"), **ALIAS, must_exist=BOOLEAN),
                "remove_index": closed(("index",), index=STRING, must_exist=BOOLEAN),
            },
            "additionalProperties": False,
        },
        minItems=1,
    ),
)
CHANGED_SETTINGS = closed(**{"index.number_of_replicas": COUNT, "index.blocks.write": {"type": ["boolean", "null"]}})
ACTION = closed(index=closed(("_id",), _id={"type": "string", "minLength": 1, "maxLength": 512})) | {
    "oneOf": [{"required": ["index"]}, {"required": ["delete"]}]
}
ACTION["properties"]["delete"] = ACTION["properties"]["index"]

SCHEMAS: dict[str, Schema] = {
    name: schema | {"$defs": DEFS | {"property": PROPERTY}}
    for name, schema in {
        "create": CREATE,
        "search": SEARCH,
        "header": closed(index=STRING, routing=STRING, preference=STRING),
        "count": closed(("query",), query=QUERY),
        "mget": closed(("ids",), ids=listed(STRING, minItems=1)),
        "action": ACTION,
        "aliases": ALIASES,
        "clone": closed(settings=CHANGED_SETTINGS, aliases={"additionalProperties": closed()}),
        "settings": CHANGED_SETTINGS,
        "close_pit": closed(("id",), id=STRING),
        "document": {"type": "object"},
    }.items()
}

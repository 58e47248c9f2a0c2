"""An HTTP server that answers as Elasticsearch does, for what the backend asks, and refuses what the schemas refuse.

It is no Elasticsearch: it shows that requests have the published form and that the backend makes sense of such replies.
A search sees what was written before the last _refresh, so that whoever forgets to refresh is found out.
"""

import copy
import fnmatch
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import jsonschema

from tests.backends.elasticsearch_schema import SCHEMAS
from tests.backends.fake_search import Searchable

VALIDATORS = {name: jsonschema.Draft202012Validator(schema) for name, schema in SCHEMAS.items()}


class Refusal(Exception):
    def __init__(self, status, kind, reason=""):
        super().__init__(f"{kind}: {reason}")
        self.status, self.kind = status, kind


class Index:
    def __init__(self, body):
        self.body, self.documents, self.searchable, self.sequence = body, {}, Searchable({}, body), 0
        self.is_blocked, self.health = False, "green"

    def clone(self):
        """With what was written, refreshed or not."""
        made = Index(self.body)
        made.documents, made.sequence, made.is_blocked = copy.deepcopy(self.documents), self.sequence, True
        made.refresh()
        return made

    def write(self, id_, source):
        self.sequence += 1
        self.documents[id_] = (source, self.sequence)

    def visible_source(self, source):
        left_out = self.body["mappings"].get("_source", {}).get("excludes", ())
        return {name: value for name, value in source.items() if name not in left_out}

    def check(self, source):
        unknown = source.keys() - self.body["mappings"]["properties"].keys()
        if unknown:
            raise Refusal(400, "strict_dynamic_mapping_exception", str(unknown))

    def refresh(self):
        self.searchable = Searchable({id_: source for id_, (source, _) in self.documents.items()}, self.body)


class FakeElasticsearch:
    """Starts with `url`; `requests` keeps (method, path, bodies) of everything asked."""

    def __init__(self):
        self.indexes, self.aliases, self.requests = {}, {}, []
        self.views = {}  # Points in time.
        self.bulk_refusals = 0  # Items answered with 429 next.
        self.failures = []  # (status) of the next requests.
        self.lock = threading.Lock()
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def log_message(self, *_):
                pass

            def respond(self):
                size = int(self.headers.get("Content-Length") or 0)
                status, reply = fake.answer(self.command, self.path, self.rfile.read(size).decode())
                content = b"" if self.command == "HEAD" else json.dumps(reply).encode()
                self.send_response(status)
                self.send_header("X-Elastic-Product", "Elasticsearch")
                self.send_header("Content-Type", "application/vnd.elasticsearch+json;compatible-with=9")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = respond

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,))
        self.thread.start()

    def close(self):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    def bodies(self, operation):
        """The bodies of every request of this kind, in order."""
        return [body for _, path, bodies in self.requests if path.endswith(operation) for body in bodies]

    def answer(self, method, target, text):
        split = urlsplit(target)
        path = [unquote(part) for part in split.path.strip("/").split("/")]
        bodies = [json.loads(line) for line in text.splitlines() if line] if text else []
        with self.lock:
            self.requests.append((method, split.path, bodies))
            if self.failures:
                status = self.failures.pop(0)
                return status, {"error": {"type": "injected", "reason": "injected"}, "status": status}
            try:
                return 200, self.route(method, path, {k: v[0] for k, v in parse_qs(split.query).items()}, bodies)
            except Refusal as error:
                return error.status, {"error": {"type": error.kind, "reason": str(error)}, "status": error.status}
            except jsonschema.ValidationError as error:
                reason = f"{error.json_path}: {error.message}"
                return 400, {"error": {"type": "parsing_exception", "reason": reason}, "status": 400}

    def route(self, method, path, query, bodies):
        match (method, *path):
            case ("GET", ""):
                return {"version": {"number": "9.5.0"}, "tagline": "You Know, for Search"}
            case ("PUT", name):
                return self.create(name, bodies[0])
            case ("DELETE", "_pit"):
                VALIDATORS["close_pit"].validate(bodies[0])
                return {"succeeded": self.views.pop(bodies[0]["id"], None) is not None, "num_freed": 1}
            case ("DELETE", name):
                if "*" in name:
                    raise Refusal(400, "illegal_argument_exception", "Wildcard expressions are not allowed")
                self.indexes.pop(name, None)
                self.aliases = {alias: index for alias, index in self.aliases.items() if index != name}
                return {"acknowledged": True}
            case ("GET", pattern):
                return {name: {} for name in fnmatch.filter(self.indexes, pattern)}
            case ("POST", name, "_pit"):
                view = f"view{len(self.requests)}"
                self.views[view] = (self.index(name), self.index(name).searchable)  # A refresh makes a new one.
                return {"id": view}
            case ("POST", "_search"):
                return self.search_view(bodies[0])
            case ("GET", "_alias", alias):
                return {self.aliases[alias]: {"aliases": {alias: {}}}}
            case ("POST", "_aliases"):
                return self.update_aliases(bodies[0])
            case ("GET", "_cluster", "health", name):
                return {"status": self.index(name).health, "timed_out": False}
            case ("PUT", name, "_block", "write"):
                self.index(name).is_blocked = True
                return {"acknowledged": True, "shards_acknowledged": True}
            case ("PUT", name, "_settings"):
                VALIDATORS["settings"].validate(bodies[0])
                self.change_settings(self.index(name), bodies[0])
                return {"acknowledged": True}
            case ("PUT", name, "_clone", target):
                return self.clone(name, target, bodies[0])
            case ("POST", names, "_refresh"):
                for name in names.split(","):
                    self.index(name).refresh()
                return {"_shards": {"failed": 0}}
            case ("POST", name, "_forcemerge"):
                assert self.index(name) is not None
                return {"_shards": {"failed": 0}}
            case ("PUT", name, "_bulk"):
                return self.bulk(self.index(name), iter(bodies))
            case ("POST", name, "_mget"):
                VALIDATORS["mget"].validate(bodies[0])
                return {"docs": [self.get(self.index(name), id_) for id_ in bodies[0]["ids"]]}
            case ("GET", name, "_doc", id_):
                found = self.get(self.index(name), id_)
                if not found["found"]:
                    raise Refusal(404, "not_found")
                return found
            case ("PUT", name, "_doc", id_):
                return self.put(self.index(name), id_, query, bodies[0])
            case ("POST", name, "_search"):
                return self.search(self.index(name), self.index(name).searchable, bodies[0])
            case ("POST", name, "_count"):
                VALIDATORS["count"].validate(bodies[0])
                return {"count": self.index(name).searchable.count(bodies[0]["query"]), "_shards": {"failed": 0}}
            case ("PUT" | "POST", name, "_msearch"):
                return self.msearch(self.index(name), bodies)
        raise Refusal(400, "no_such_endpoint", f"{method} /{'/'.join(path)}")

    def index(self, name):
        found = self.indexes.get(self.aliases.get(name, name))
        if found is None:
            raise Refusal(404, "index_not_found_exception", f"no such index [{name}]")
        return found

    def create(self, name, body):
        VALIDATORS["create"].validate(body)
        if name in self.indexes:
            raise Refusal(400, "resource_already_exists_exception", name)
        self.indexes[name] = Index(body)
        self.aliases |= dict.fromkeys(body.get("aliases", {}), name)
        return {"acknowledged": True}

    def change_settings(self, index, settings):
        index.is_blocked = bool(settings.get("index.blocks.write", index.is_blocked))

    def clone(self, name, target, body):
        VALIDATORS["clone"].validate(body)
        if not self.index(name).is_blocked:
            raise Refusal(400, "illegal_state_exception", f"index {name} must be read-only to resize index")
        assert target not in self.indexes
        self.indexes[target] = self.index(name).clone()
        self.change_settings(self.indexes[target], body.get("settings", {}))
        return {"acknowledged": True, "shards_acknowledged": True, "index": target}

    def update_aliases(self, body):
        VALIDATORS["aliases"].validate(body)
        aliases = dict(self.aliases)
        for action in body["actions"]:
            ((kind, given),) = action.items()
            concerned = fnmatch.filter(self.indexes, given["index"])
            if kind == "add":
                if len(concerned) != 1 or aliases.get(given["alias"], concerned[0]) != concerned[0]:
                    raise Refusal(400, "illegal_argument_exception", "an alias of several indexes")
                aliases[given["alias"]] = concerned[0]
            elif aliases.get(given["alias"]) in concerned:
                del aliases[given["alias"]]
            else:
                assert not given.get("must_exist", True)
        self.aliases = aliases
        return {"acknowledged": True}

    def bulk(self, index, lines):
        items = []
        for action in lines:
            VALIDATORS["action"].validate(action)
            ((kind, meta),) = action.items()
            source = next(lines) if kind == "index" else None
            status = 200
            if index.is_blocked:
                reason = "index [x] blocked by: [FORBIDDEN/8/index write (api)];"
                error = {"type": "cluster_block_exception", "reason": reason}
                items.append({kind: {"_id": meta["_id"], "status": 403, "error": error}})
                continue
            if self.bulk_refusals > 0:
                self.bulk_refusals -= 1
                status = 429
            elif kind == "index":
                index.check(source)
                index.write(meta["_id"], copy.deepcopy(source))
            elif index.documents.pop(meta["_id"], None) is None:
                status = 404
            error = {"error": {"type": "es_rejected_execution_exception", "reason": "full"}} if status == 429 else {}
            items.append({kind: {"_id": meta["_id"], "status": status, **error}})
        return {"took": 1, "errors": any("error" in next(iter(item.values())) for item in items), "items": items}

    def get(self, index, id_):
        if id_ not in index.documents:
            return {"_id": id_, "found": False}
        source, sequence = index.documents[id_]
        return {
            "_id": id_,
            "found": True,
            "_source": index.visible_source(source),
            "_seq_no": sequence,
            "_primary_term": 1,
        }

    def put(self, index, id_, query, source):
        index.check(source)
        if "if_seq_no" in query and int(query["if_seq_no"]) != index.documents[id_][1]:
            raise Refusal(409, "version_conflict_engine_exception")
        index.write(id_, source)
        return {"_id": id_, "result": "updated"}

    def search_view(self, body):
        """A search of a point in time: its sort has one more value."""
        view = body["pit"]["id"]
        if view not in self.views:
            raise Refusal(404, "search_context_missing_exception", view)
        found = self.search(*self.views[view], body)
        for hit in found["hits"]["hits"]:
            hit["sort"].append(0)
        return found | {"pit_id": view}

    def search(self, index, searchable, body):
        VALIDATORS["search"].validate(body)
        found = searchable.search(body)
        left_out = body.get("_source", {}).get("excludes", ())
        hits = [
            {"_id": id_, "_score": score, "_source": index.visible_source(source)}
            | ({"sort": [source[field] for one in body["sort"] for field in one]} if "sort" in body else {})
            for id_, score, source in found["hits"]
        ]
        for hit in hits:
            hit["_source"] = {name: value for name, value in hit["_source"].items() if name not in left_out}
        return {"_shards": {"failed": 0}, "timed_out": False, "hits": {"hits": hits}, **found["aggregations"]}

    def msearch(self, index, lines):
        responses = []
        for header, body in zip(lines[::2], lines[1::2], strict=True):
            VALIDATORS["header"].validate(header)
            responses.append(self.search(index, index.searchable, body) | {"status": 200})
        return {"took": 1, "responses": responses}

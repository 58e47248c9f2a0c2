"""The panels of the dashboard: each answers a question that an operator asks."""

from collections.abc import Sequence
from dataclasses import dataclass

from deploy.grafana.promql import WINDOW, Query, each_service, mean, p95_by, quantile, quantiles, rate

ANSWER = 'method="/rag.v1.GatewayService/Answer"'
# Failures of ours: not the caller's mistakes, not its leaving. As in prometheus/rules.yaml.
FAILURE = 'code=~"INTERNAL|UNAVAILABLE|RESOURCE_EXHAUSTED|DEADLINE_EXCEEDED|UNKNOWN|DATA_LOSS"'
PROCESS = 'job=~"gateway|retriever|generator"'


@dataclass(frozen=True, slots=True)
class Panel:
    """A graph that answers one question. `unit` is Grafana's: "s", "reqps", "percentunit", "bytes", "short", ..."""

    title: str
    question: str
    unit: str
    queries: Sequence[Query]


OVERVIEW = (
    Panel("Calls", "How much is asked?", "reqps", [Query(rate("rag_gateway_rpcs_total", "method"), "{{method}}")]),
    Panel(
        "Failures",
        "Which share of the gateway's calls fails through our fault, refusals included?",
        "percentunit",
        [
            Query(
                f"({rate('rag_gateway_rpcs_total', where=FAILURE)} or vector(0)) / {rate('rag_gateway_rpcs_total')}",
                "failures",
            )
        ],
    ),
    Panel(
        "Calls that are not OK",
        "What goes wrong, and where first?",
        "reqps",
        each_service(rate("rag_SERVICE_rpcs_total", "code", 'code!="OK"'), "SERVICE {{code}}"),
    ),
    Panel("Answer", "How long do callers wait?", "s", quantiles("rag_gateway_rpc_duration_seconds", ANSWER)),
    Panel(
        "Time to first token",
        "How long does the reader of a stream look at nothing?",
        "s",
        quantiles("rag_gateway_time_to_first_token_seconds"),
    ),
    Panel("Ready", "Will every process answer?", "short", each_service("rag_SERVICE_ready", "SERVICE {{instance}}")),
)
ANSWERS = (
    Panel(
        "How answers end",
        "How many are given, abstained from, or had no passage to stand on?",
        "reqps",
        [Query(rate("rag_gateway_answers_total", "finish_reason, model"), "{{finish_reason}} {{model}}")],
    ),
    Panel(
        "Confidence",
        "How sure are the answers? A shift means other questions, another index or another model.",
        "percentunit",
        [Query(quantile(q, "rag_gateway_answer_confidence_ratio"), f"p{round(q * 100)}") for q in (0.1, 0.5, 0.9)],
    ),
    Panel(
        "Passages per answer",
        "On how much evidence do answers stand?",
        "short",
        [Query(mean("rag_gateway_answer_passages"), "mean")],
    ),
    Panel(
        "Answer cache",
        "How many questions need no answer made, and how many could not be remembered at all?",
        "reqps",
        [Query(rate("rag_gateway_answer_cache_lookups_total", "outcome"), "{{outcome}}")],
    ),
    Panel(
        "Answers forgotten",
        'Why do cached answers go? "changed" is a write or another model, "evicted" a cache that is too small.',
        "reqps",
        [Query(rate("rag_gateway_answer_cache_removals_total", "reason"), "{{reason}}")],
    ),
    Panel(
        "Answer cache size",
        "How full is it?",
        "bytes",
        [Query("sum by (instance) (rag_gateway_answer_cache_bytes)", "{{instance}}")],
    ),
)
STAGES = (
    Panel(
        "Stages of an answer, p95", "Where does its time go?", "s", p95_by("stage", "rag_gateway_answer_stage_seconds")
    ),
    Panel(
        "Stages of an answer, share of time",
        "Which stage is worth making faster?",
        "short",
        [Query(rate("rag_gateway_answer_stage_seconds_sum", "stage"), "{{stage}}")],
    ),
    Panel(
        "Backends that fail",
        "Which backend fails the gateway, and how?",
        "reqps",
        [Query(rate("rag_gateway_downstream_errors_total", "service, reason"), "{{service}} {{reason}}")],
    ),
)
RETRIEVER = (
    Panel("Stages, p95", "Where does its time go?", "s", p95_by("stage", "rag_retriever_stage_duration_seconds")),
    Panel(
        "Queries",
        "How many queries are answered, and how many of them find nothing?",
        "reqps",
        [
            Query(rate("rag_retriever_queries_total", "collection"), "{{collection}}"),
            Query(rate("rag_retriever_empty_queries_total", "collection"), "{{collection}}, nothing found"),
        ],
    ),
    Panel(
        "Encoder batches",
        "Do requests share the encoder's batches, and is work thrown away?",
        "short",
        [
            Query(mean("rag_retriever_encoder_batch_items"), "texts per batch"),
            Query(rate("rag_retriever_encoder_skipped_total"), "skipped per second"),
        ],
    ),
    Panel(
        "Encoder throughput",
        "How much text is encoded?",
        "short",
        [Query(rate("rag_retriever_encoder_tokens_total"), "tokens per second")],
    ),
    Panel(
        "Passages",
        "How large is the knowledge base, and what arrives?",
        "short",
        [
            Query("sum by (collection) (rag_retriever_passages)", "{{collection}}"),
            Query(rate("rag_retriever_upserted_passages_total", "outcome"), "{{outcome}} per second"),
        ],
    ),
    Panel(
        "Changes not yet searchable",
        "Are the indexes behind the store?",
        "short",
        [Query("max by (collection) (rag_retriever_index_lag_changes)", "{{collection}}")],
    ),
    Panel(
        "Index size",
        "What do the indexes cost, in memory (dense) and on disk (lexical)?",
        "bytes",
        [Query("sum by (collection, index) (rag_retriever_index_size_bytes)", "{{collection}} {{index}}")],
    ),
    Panel(
        "Index recall",
        "Does the dense index find what exact search would find, as measured when it was built?",
        "percentunit",
        [Query("min by (collection) (rag_retriever_index_recall_ratio)", "{{collection}}")],
    ),
    Panel(
        "Dense searches",
        "Do concurrent callers share the dense index's batches?",
        "short",
        [Query(mean("rag_retriever_dense_search_queries"), "queries per search")],
    ),
    Panel(
        "Replication lag",
        "How stale can a read replica's answers be?",
        "s",
        [Query("rag_retriever_replication_lag_seconds", "{{instance}}")],
    ),
    Panel(
        "Publications",
        "Do all read replicas serve what the writer published last?",
        "short",
        [Query("rag_retriever_publication_number", "{{instance}}")],
    ),
    Panel(
        "Publication age",
        "How long ago was what the writer published last, and what each replica serves, made?",
        "s",
        [Query("rag_retriever_publication_age_seconds", "{{instance}}")],
    ),
    Panel(
        "Replication failures",
        "Is the store that writer and replicas share reachable and whole?",
        "reqps",
        [Query(rate("rag_retriever_replication_failures_total", "action"), "{{action}}")],
    ),
)
GENERATOR = (
    Panel(
        "Engine, p95",
        "Do requests wait, and does reading new ones hold up the running ones?",
        "s",
        [
            Query(quantile(0.95, "rag_generator_queue_seconds"), "waiting to be read"),
            Query(quantile(0.95, "rag_generator_prefill_seconds"), "reading a batch (prefill)"),
            Query(quantile(0.95, "rag_generator_step_seconds"), "one decode step"),
            Query(quantile(0.95, "rag_generator_scoring_seconds"), "one slice of scoring"),
        ],
    ),
    Panel("First token", "How long until something can be read?", "s", quantiles("rag_generator_first_token_seconds")),
    Panel("Decoding", "How long does an answer take once it is read?", "s", quantiles("rag_generator_decode_seconds")),
    Panel("Time per token", "How fast does an answer grow?", "s", quantiles("rag_generator_time_per_token_seconds")),
    Panel(
        "Requests",
        "How many wait, how many run, and what do they hold?",
        "short",
        [
            Query("sum(rag_generator_waiting_requests)", "waiting"),
            Query("sum(rag_generator_running_requests)", "running"),
            Query("sum(rag_generator_running_rows)", "decoder rows held"),
        ],
    ),
    Panel(
        "Decode steps",
        "Do requests share the steps, and how large are these?",
        "short",
        [
            Query(mean("rag_generator_step_requests"), "requests per step"),
            Query(mean("rag_generator_step_rows"), "rows per step"),
        ],
    ),
    Panel(
        "Throughput",
        "How much is read and written?",
        "short",
        [
            Query(rate("rag_generator_input_tokens_total"), "tokens read per second"),
            Query(rate("rag_generator_encoder_rows_total"), "passages read per second"),
            Query(rate("rag_generator_output_tokens_total"), "tokens written per second"),
        ],
    ),
    Panel(
        "Reading again",
        "Which share of the passages need not be read again, and is there room to remember them?",
        "percentunit",
        [
            Query(
                f"{rate('rag_generator_encoder_cache_hits_total')} / ({rate('rag_generator_encoder_cache_hits_total')}"
                f" + {rate('rag_generator_encoder_cache_misses_total')})",
                "hits",
            ),
            Query(
                f"{rate('rag_generator_encoder_cache_evictions_total')}"
                f" / {rate('rag_generator_encoder_cache_misses_total')}",
                "forgotten for each new one",
            ),
        ],
    ),
    Panel(
        "Encoder cache",
        "What memory does remembering take?",
        "bytes",
        [Query("sum by (instance) (rag_generator_encoder_cache_bytes)", "{{instance}}")],
    ),
    Panel(
        "Padding",
        "How much of the encoder's work is for nothing?",
        "percentunit",
        [
            Query(
                f"{rate('rag_generator_padded_tokens_total')} / {rate('rag_generator_input_tokens_total')}",
                "padding for each token read",
            )
        ],
    ),
    Panel(
        "Answers and losses",
        "What is decoded, and what was given up because callers left, time ran out or something failed?",
        "reqps",
        [
            Query(rate("rag_generator_answers_total", "model"), "{{model}}"),
            Query(rate("rag_generator_dropped_requests_total", "reason"), "given up: {{reason}}"),
        ],
    ),
)
ADMISSION = (
    Panel(
        "Inside",
        "How much work is accepted and not yet done?",
        "short",
        each_service("rag_SERVICE_admitted_items", "SERVICE {{instance}}"),
    ),
    Panel(
        "Calls inside",
        "How many calls are inside right now?",
        "short",
        each_service("sum(rag_SERVICE_rpcs_in_flight)", "SERVICE"),
    ),
    Panel(
        "Refused",
        "What is refused at the door, and why?",
        "reqps",
        each_service(rate("rag_SERVICE_refused_total", "reason"), "SERVICE {{reason}}"),
    ),
    Panel(
        "Memory",
        "What does each process hold?",
        "bytes",
        [Query(f"process_resident_memory_bytes{{{PROCESS}}}", "{{job}} {{instance}}")],
    ),
    Panel(
        "CPU",
        "How many cores does each process use?",
        "short",
        [Query(f"rate(process_cpu_seconds_total{{{PROCESS}}}[{WINDOW}])", "{{job}} {{instance}}")],
    ),
    Panel(
        "Versions",
        "What runs?",
        "short",
        each_service("count by (version) (rag_SERVICE_build_info)", "SERVICE {{version}}"),
    ),
)
ROWS = (
    ("Overview", OVERVIEW),
    ("Answers", ANSWERS),
    ("Stages", STAGES),
    ("Retriever", RETRIEVER),
    ("Generator", GENERATOR),
    ("Admission and resources", ADMISSION),
)

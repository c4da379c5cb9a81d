"""The sentence and the range of every setting, by dotted key or by the name that several sections share.

Data only: types and defaults stand in config.py.
"""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.config.constraints import Rule
from pipeline.config.texts import is_filled, is_go_duration, is_header, is_header_text, is_http_url, is_proxy

YEAR_S = 31_536_000
"""No wait or time-out is longer: clocks of sockets and threads overflow not far beyond."""


def _seconds(doc: str, *, low: float | None = None, above: float | None = None) -> Rule:
    return Rule(doc, low=low, above=above, high=YEAR_S, unit="seconds")


RULES: Mapping[str, Rule] = {
    "provider": Rule("The provider that is asked first, by name; empty means ollama."),
    "fallback": Rule(
        "Providers to turn to, in order; null: ollama when anything of it is set, else none.",
        lone=True,
        need="a list of providers' names, or null",
    ),
    "agent": Rule(
        "The agent: a built-in one, or a file NAME.yaml in agents_dir.", need="an agent's name", fits=is_filled
    ),
    "variant": Rule("Pins a variant of the agent; null: by weight, else `default`."),
    "agents_dir": Rule("A folder of more agent files."),
    "input.uri": Rule(
        "Path, file, glob, s3://, gs:// or az:// address, or a list of them, each also {uri: …, name: …}.",
        lone=True,
        need="a path or address, or a list of them, each also {uri: …, name: …}",
    ),
    "input.include": Rule("Names that are read, as globs.", lone=True, need="a list of globs"),
    "input.exclude": Rule("Names that are passed over, as globs.", lone=True, need="a list of globs"),
    "input.text_field": Rule(
        "The field that holds the text in .json, .jsonl and .csv.", need="a field's name", fits=is_filled
    ),
    "input.id_field": Rule("The field that holds the id; null: the path and the line."),
    "input.unsupported": Rule("Files of an unknown kind: ignored and counted, or failed."),
    "input.min_documents": Rule("Fewer documents found in the whole input end the run with exit code 1.", low=0),
    "input.max_document_bytes": Rule("A larger document fails, after decompression too.", low=1, unit="bytes"),
    "input.limits": Rule(
        "What a document or an archive may cost: cpu_s, memory_mb, columns, members, unpacked_bytes, ratio.",
        need="a mapping of limits to numbers",
    ),
    "output.uri": Rule("Folder or object-store prefix for the records.", need="a path or address", fits=is_filled),
    "output.raw_chars": Rule("How much of a failed answer is kept in errors; 0 keeps none.", low=0, unit="characters"),
    "output.part_seconds": _seconds("Object store: the oldest record that is not yet in a written part.", above=0),
    "output.part_bytes": Rule("Object store: the size of a part.", low=1, unit="bytes"),
    "storage": Rule("Options of the object-store client, over the environment's.", secret=True),
    "base_url": Rule(
        "The server's address, or a list of replicas of one model; may carry a path prefix and end in /v1.",
        need="an address that begins with http:// or https://, with no port over 65535 and no query, or a list of them",
        fits=is_http_url,
    ),
    "ollama.model": Rule("The model's name.", need="a model's name", fits=is_filled),
    "model": Rule("The model's name; empty: the only model served."),
    "model_id": Rule(
        "The model's name in the fingerprint, where servers name one model differently; null: `model`.",
        need="a model's name, or null",
        fits=is_filled,
    ),
    "timeout": _seconds("From sending a request to having its whole answer; a hard ceiling.", above=0),
    "load_timeout": _seconds("How long loading a model may take.", above=0),
    "max_retries": Rule("Requests after the first one, for each provider and ask.", low=0, high=1000),
    "retry_base_delay": _seconds("The first back-off.", low=0),
    "retry_max_delay": _seconds("The longest back-off.", low=0),
    "retry_backoff_multiplier": Rule("How much each back-off is longer than the one before.", low=1, high=1000),
    "max_tokens": Rule("The longest answer.", low=1, unit="tokens"),
    "temperature": Rule("0 is the most repeatable answer.", low=0, high=100),
    "api_key": Rule(
        "The key that is sent as a bearer token.",
        secret=True,
        fits=is_header_text,
        need="a text without control characters",
    ),
    "api_key_file": Rule("A file that holds the key; read again after a 401 and at each refresh."),
    "type": Rule("The protocol the server speaks."),
    "num_ctx": Rule("The context that is asked for.", low=1, unit="tokens"),
    "context_length": Rule(
        "The server's context: longer prompts fail before they are sent; null: what the server reports or shows.",
        low=1,
        unit="tokens",
    ),
    "keep_alive": Rule(
        "How long the model stays loaded: 10m, or a number of seconds; -1 is for ever.",
        need="a duration such as 10m, or a whole number of seconds",
        fits=is_go_duration,
    ),
    "extra_body": Rule("Further fields of the request.", need="a mapping of texts to JSON values"),
    "stream": Rule("Ask for the answer in pieces, for gateways that cut silent connections."),
    "metrics_url": Rule(
        "Where the server's metrics are; null: /metrics beside the address.",
        fits=is_http_url,
        need="an address that begins with http:// or https://, or null",
    ),
    "headers": Rule("HTTP headers to add.", secret=True, fits=is_header, need="a mapping of header names to texts"),
    "ca_file": Rule("The certificates that the server's is checked against."),
    "client_cert": Rule("The client's certificate."),
    "client_key": Rule("The client's private key, when it is not in client_cert."),
    "proxy": Rule(
        "The proxy for requests: an address, env for the environment's, null for the environment's unless the server is"
        " on this machine or in the cluster.",
        fits=is_proxy,
        need="an address that begins with http:// or https://, env, or null",
    ),
    "max_connection_age_s": _seconds(
        "Connections are replaced after this time, so that new pods get their share.", above=0
    ),
    "preflight": Rule("What the check of a server does with what it finds."),
    "resolve_replicas": Rule("Each address of the host name is a replica."),
    "providers": Rule("More providers by name."),
    "think": Rule("Whether the model may think; auto: not where it can be turned off. Also low, medium, high."),
    "options": Rule("Further options of Ollama: seed, stop, top_p, …", need="a mapping of option names to JSON values"),
    "answers.from_reasoning": Rule("Take a whole answer that the server delivers as reasoning, with empty content."),
    "answers.repair": Rule("How far a model's text is mended before it is judged."),
    "runner.concurrency": Rule("Requests in flight for each replica, or a number for the whole run.", low=1, high=4096),
    "runner.max_concurrency": Rule("The most requests in flight that `auto` may reach.", low=1, high=4096),
    "runner.max_in_flight_bytes": Rule("The size of the documents in flight.", low=1, unit="bytes"),
    "runner.refresh": Rule("What of the configuration is looked at again during a run."),
    "runner.refresh_every": Rule("Documents between two looks at the configuration.", low=1),
    "max_reasks": Rule("Times an answer that breaks the schema is asked for again.", low=0, high=1000),
    "runner.retry_runs": Rule("Runs that try a failed document again while the question stays the same.", low=0),
    "runner.max_redo": Rule(
        "Share of the done documents that a changed question may do again; null: all.", low=0, high=1
    ),
    "runner.max_error_rate": Rule("Share of failed documents above which the exit code is 1.", low=0, high=1),
    "runner.fail_fast": Rule("Stop when the first N documents all failed for one reason; 0: off.", low=0),
    "runner.abort_error_rate": Rule("Stop when this share of the last 500 documents has failed.", low=0, high=1),
    "runner.startup_wait_s": _seconds("How long the first provider is waited for at the start.", low=0),
    "runner.max_outage_s": _seconds("How long the run waits for a provider to come back.", low=0),
    "runner.config_grace_s": _seconds("How long a configuration error may last in mid-run.", low=0),
    "runner.lock_wait_s": _seconds("How long another run on the same output is waited for.", low=0),
    "runner.grace_s": _seconds("From SIGTERM to the end of the requests in flight.", low=0),
    "cost.per_hour": Rule("What an hour of the servers costs, for the estimate of --dry-run.", low=0),
    "description": Rule("What the agent is for, in one line."),
    "system_prompt": Rule("Static text that comes first; `$$` is a dollar."),
    "user_prompt": Rule("Template with $document, $id, $uri and the document's metadata."),
    "schema": Rule(
        "The JSON Schema of the answer, or its path relative to this file.",
        need="a path, or a JSON Schema as a mapping",
    ),
    "request": Rule("Further fields of the request, for every provider.", need="a mapping of texts to JSON values"),
    "overflow": Rule("A document that does not fit the context: it fails, or is cut."),
    "variables": Rule(
        "Metadata of a document (columns, fields) that the prompt may name as $NAME.", lone=True, need="a list of names"
    ),
    "variants": Rule("Other ways to ask, by name."),
    "weight": Rule("The variant's share of the documents.", low=0, high=1_000_000),
}

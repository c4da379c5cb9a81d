"""The description and the range of every setting, by dotted key or by the name that several sections share.

Data only: types and defaults are in models.py.
"""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.config.constraints import Rule
from pipeline.config.limits import limit_error
from pipeline.config.members import codec_error
from pipeline.config.texts import (
    is_filled,
    is_go_duration,
    is_header,
    is_header_text,
    is_http_url,
    is_proxy,
    names_codec,
)

YEAR_S = 31_536_000
"""The longest wait or timeout: timers of sockets and threads overflow slightly above it."""


def _seconds(doc: str, *, low: float | None = None, above: float | None = None) -> Rule:
    return Rule(doc, low=low, above=above, high=YEAR_S, unit="seconds")


RULES: Mapping[str, Rule] = {
    "provider": Rule("Name of the first provider; empty means ollama."),
    "fallback": Rule(
        "Fallback providers, in order; null: ollama when any of its settings is set, else none.",
        lone=True,
        need="a list of providers' names, or null",
    ),
    "agent": Rule(
        "The agent: a built-in one, or a file NAME.yaml in agents_dir.", need="an agent's name", fits=is_filled
    ),
    "variant": Rule("Variant of the agent to use; null: chosen by weight, else `default`."),
    "agents_dir": Rule("Folder with additional agent files."),
    "input.uri": Rule(
        "Path, file, glob, s3://, gs:// or az:// address, or a list of them, each also {uri: …, name: …}.",
        lone=True,
        need="a path or address, or a list of them, each also {uri: …, name: …}",
    ),
    "input.include": Rule("Globs of the files to read.", lone=True, need="a list of globs"),
    "input.exclude": Rule("Globs of the files to skip.", lone=True, need="a list of globs"),
    "input.text_field": Rule(
        "The field, by its name or dotted path, that holds the text of a record: .json, .jsonl, .csv, .parquet.",
        need="a field's name",
        fits=is_filled,
    ),
    "input.id_field": Rule("The field that holds the id; null: the path and the line."),
    "input.unsupported": Rule("Files of an unknown kind: ignored and counted, or failed."),
    "input.min_documents": Rule(
        "Minimum number of documents in the whole input; a run that finds fewer exits with code 1.", low=0
    ),
    "input.max_document_bytes": Rule(
        "Maximum size of a document, also after decompression; a larger one fails.", low=1, unit="bytes"
    ),
    "input.csv": Rule(
        "How the cells of .csv files are written: quotechar, escapechar, delimiter; null: detected.",
        need="a mapping of quotechar, escapechar and delimiter to one character, or null",
    ),
    "input.records_field": Rule(
        "Dotted path of the list of documents in a .json file; null: the file is a document, or a list of them.",
        need="a field's name, or null",
        fits=is_filled,
    ),
    "input.encoding": Rule(
        "The encoding of text files that cannot be guessed: auto, a codec of Python, or globs with the codec of each.",
        need="auto, a codec of Python such as cp1250, or a mapping of globs to codecs",
        fits=names_codec,
        member_error=codec_error,
    ),
    "input.limits": Rule(
        "Resource limits of a document, a table or an archive.",
        need="a mapping of limits to numbers",
        member_error=limit_error,
    ),
    "output.uri": Rule("Folder or object-store prefix for the records.", need="a path or address", fits=is_filled),
    "output.raw_chars": Rule(
        "Length of the excerpt of a failed answer that is kept in errors; 0 keeps none.", low=0, unit="characters"
    ),
    "output.part_seconds": _seconds(
        "Object store: maximum age of a record that is not yet in a written part.", above=0
    ),
    "output.part_bytes": Rule("Object store: the size of a part.", low=1, unit="bytes"),
    "storage": Rule("Options of the object-store client; they override the environment.", secret=True),
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
    "timeout": _seconds("Hard limit of a request, from sending it to receiving the whole answer.", above=0),
    "load_timeout": _seconds("Maximum time for loading a model.", above=0),
    "max_retries": Rule("Maximum number of retries, for each provider and prompt.", low=0, high=1000),
    "retry_base_delay": _seconds("The first back-off.", low=0),
    "retry_max_delay": _seconds("The longest back-off.", low=0),
    "retry_backoff_multiplier": Rule("Factor between one back-off and the next.", low=1, high=1000),
    "max_tokens": Rule("Maximum length of an answer.", low=1, unit="tokens"),
    "temperature": Rule("Sampling temperature; 0 gives the most repeatable answers.", low=0, high=2),
    "api_key": Rule(
        "Key that is sent as a bearer token.",
        secret=True,
        fits=is_header_text,
        need="a text without control characters",
    ),
    "api_key_file": Rule("File that contains the key; read again after a 401 and at each refresh."),
    "type": Rule("The protocol the server speaks."),
    "num_ctx": Rule("Context length to request; auto: the loaded one if long enough, else 8192.", low=1, unit="tokens"),
    "context_length": Rule(
        "The server's context length: longer prompts fail before they are sent; null: the length the server reports.",
        low=1,
        unit="tokens",
    ),
    "keep_alive": Rule(
        "How long the model stays loaded: 10m, or a number of seconds; -1 means forever.",
        need="a duration such as 10m, or a whole number of seconds",
        fits=is_go_duration,
    ),
    "extra_body": Rule("Additional fields of the request.", need="a mapping of texts to JSON values"),
    "stream": Rule("Stream the answer, for gateways that close idle connections."),
    "metrics_url": Rule(
        "URL of the server's metrics; null: /metrics at the server's address.",
        fits=is_http_url,
        need="an address that begins with http:// or https://, or null",
    ),
    "headers": Rule(
        "Additional HTTP headers.",
        secret=True,
        fits=is_header,
        need="a mapping of header names to texts",
        member="a text without control characters or leading white space, under a name without white space",
    ),
    "ca_file": Rule("CA certificates to verify the server's certificate."),
    "client_cert": Rule("The client's certificate."),
    "client_key": Rule("The client's private key, if it is not in client_cert."),
    "proxy": Rule(
        "The proxy for requests: an address, env for the environment's, null for the environment's unless the server is"
        " on this machine or in the cluster.",
        fits=is_proxy,
        need="an address that begins with http:// or https://, env, or null",
    ),
    "max_connection_age_s": _seconds(
        "Connections are replaced after this time, so that new pods get their share.", above=0
    ),
    "preflight": Rule("Reaction to problems that the check of a server finds."),
    "resolve_replicas": Rule("Treat each address of the host name as a replica."),
    "providers": Rule("Additional providers, by name."),
    "think": Rule("Whether the model may think; auto: off where the model allows it. Also low, medium, high."),
    "options": Rule(
        "Additional options of Ollama: seed, stop, top_p, …", need="a mapping of option names to JSON values"
    ),
    "answers.from_reasoning": Rule(
        "Accept a complete answer that the server delivers as reasoning, with empty content."
    ),
    "answers.repair": Rule("How far a model's text is repaired before validation."),
    "runner.concurrency": Rule(
        "Requests in flight: `auto` adapts them for each replica, a number is for the whole run.", low=1, high=4096
    ),
    "runner.max_concurrency": Rule("Maximum requests in flight for each replica, with `auto`.", low=1, high=4096),
    "runner.processes": Rule(
        "Worker processes: 1 is this process alone; `auto` starts one for each core when one core is not enough.",
        low=1,
        high=64,
    ),
    "runner.max_in_flight_bytes": Rule("Maximum total size of the documents in flight.", low=1, unit="bytes"),
    "runner.duplicates": Rule("Documents with an identical prompt: `share` one answer, or `ask` for each of them."),
    "runner.refresh": Rule("Which part of the configuration is reloaded during a run."),
    "runner.refresh_every": Rule("Number of documents between two reloads of the configuration.", low=1),
    "max_reasks": Rule(
        "Maximum number of further requests after an answer that violates the schema.", low=0, high=1000
    ),
    "runner.retry_runs": Rule(
        "Number of runs that retry a failed document while prompt, schema and model stay the same.", low=0
    ),
    "runner.max_redo": Rule(
        "Maximum share of the completed documents that a changed agent may process again; null: all.", low=0, high=1
    ),
    "runner.max_drift": Rule(
        "How far a share of values may move against the previous run, by more than chance, before the exit code is 1; "
        "null: any.",
        low=0,
        high=1,
    ),
    "runner.max_error_rate": Rule("Share of failed documents above which the exit code is 1.", low=0, high=1),
    "runner.fail_fast": Rule("Stop when the first N documents all failed for one reason; 0: off.", low=0),
    "runner.abort_error_rate": Rule("Stop when this share of the last 500 documents has failed.", low=0, high=1),
    "runner.startup_wait_s": _seconds("Maximum wait for the first provider at the start.", low=0),
    "runner.max_outage_s": _seconds("Maximum wait for an unavailable provider.", low=0),
    "runner.config_grace_s": _seconds("How long a configuration error may last during a run.", low=0),
    "runner.lock_wait_s": _seconds("Maximum wait for another run on the same output.", low=0),
    "runner.grace_s": _seconds("Time after SIGTERM for the requests in flight to complete.", low=0),
    "cost.per_hour": Rule("Cost of the servers per hour, for the estimate of --dry-run.", low=0),
    "eval.gold": Rule("Gold file with judged documents; set: each run is graded, and its gates decide the exit code."),
    "eval.set": Rule("The part of the gold that is graded."),
    "eval.holdout": Rule("Share of the documents that `pipeline review` seals for a final check.", low=0, high=1),
    "eval.fields": Rule(
        "How fields are compared, by path: {compare: text, abs: 0, rel: 0, at_least: 0.5, key: name}.",
        need="a mapping of fields to mappings",
        member="a mapping such as {compare: text}",
    ),
    "eval.min_documents": Rule("Fewest documents behind a metric that a gate may pass on.", low=1),
    "eval.fail_under": Rule(
        "Gates: the least that the lower bound of a metric must reach, as in {overall.f1: 0.8}.",
        need="a mapping of FIELD.METRIC to numbers from 0 to 1",
        member="a number from 0 to 1",
    ),
    "eval.baseline": Rule("An eval.json of an earlier evaluation, to compare with."),
    "eval.max_drop": Rule("The most that a gated metric may fall against the baseline; null: any.", low=0, high=1),
    "eval.input": Rule("The documents of the gold, for `pipeline eval --ask`."),
    "eval.output": Rule("The output of `pipeline eval --ask`; null: output.uri + `-eval`."),
    "description": Rule("Purpose of the agent, in one line."),
    "system_prompt": Rule("Static text that comes first; `$$` is a dollar."),
    "user_prompt": Rule("Template with $document, $id, $uri and the document's metadata."),
    "schema": Rule(
        "The JSON Schema of the answer, or its path relative to this file.",
        need="a path, or a JSON Schema as a mapping",
    ),
    "request": Rule("Additional fields of the request, for every provider.", need="a mapping of texts to JSON values"),
    "examples": Rule(
        "Few-shot examples, sent as turns before the document: {document: …, output: …}.",
        need="a list of {document: a text, output: an object}",
    ),
    "overflow": Rule(
        "Handling of a document that does not fit the context: fail, truncate it, or split it into windows that are"
        " read one by one."
    ),
    "split": Rule("How documents are split, with overflow: split.", need="a mapping of settings"),
    "split.window_tokens": Rule(
        "Maximum size of a window, and of a document that is not split; null: only what does not fit is split.",
        low=256,
        high=1_000_000,
        unit="tokens",
    ),
    "split.overlap_tokens": Rule(
        "Length of the text that two windows share; null: a twentieth of the window, at most 200.",
        low=0,
        high=250_000,
        unit="tokens",
    ),
    "split.lead_chars": Rule(
        "Length of the document's beginning that is repeated before each later window; 0: none.",
        low=0,
        high=100_000,
        unit="characters",
    ),
    "variables": Rule(
        "Metadata of a document (columns, fields) that the prompt may name as $NAME.", lone=True, need="a list of names"
    ),
    "variants": Rule("Variants of the agent, by name."),
    "weight": Rule("The variant's share of the documents.", low=0, high=1_000_000),
}

"""Parse a chat request as vLLM 0.32.0 does, with the refusals of its recordings.

It must not create answers other than refusals.
"""

from __future__ import annotations

import functools
import json
import marshal
from collections.abc import Mapping
from typing import Any

from fake_llm.chat import JSON_MODE, Chat, Refusal, Settings, count_tokens, json_bytes, texts_of
from fake_llm.schema import resolve, schemas_in
from fake_llm.transport import REASONS, Reply

UNIMPLEMENTED = ("uniqueItems", "contains", "propertyNames")
TYPES = ("object", "array", "string", "integer", "number", "boolean", "null")
FORMATS = (
    "email",
    "date",
    "time",
    "date-time",
    "duration",
    "ipv4",
    "ipv6",
    "hostname",
    "uuid",
    "uri",
    "uri-reference",
    "uri-template",
    "json-pointer",
    "relative-json-pointer",
)
KINDS = {400: "BadRequestError", 404: "NotFoundError", 500: "InternalServerError"}
Headers = tuple[tuple[str, str], ...]


def error_reply(status: int, message: str, *, headers: Headers = (), param: str | None = None, kind: str = "") -> Reply:
    """Return an error in vLLM's shape."""
    if status == 401:
        return Reply(401, json_bytes({"error": "Unauthorized"}), headers=headers)
    kind = kind or KINDS.get(status, REASONS.get(status, "Error"))
    body = {"error": {"message": message, "type": kind, "param": param, "code": status}}
    return Reply(status, json_bytes(body), headers=headers)


def unknown_model(model: str, settings: Settings) -> Reply:
    """Return the 404 of a model that is not served."""
    aliases = ", ".join(settings.models)
    return error_reply(404, f"The model `{model}` does not exist. Valid aliases: {aliases}.", param="model")


def overflow(context: int) -> Reply:
    """Return the 400 of a prompt that is too long, without its true length."""
    least = context + 1
    message = (
        f"This model's maximum context length is {context} tokens. However, your prompt contains at least {least} "
        "input tokens, which exceeds this limit even without any output tokens. Please reduce the length of the "
        f"input prompt. (parameter=input_tokens, value={least})"
    )
    return error_reply(400, message, param="input_tokens")


def read_chat(body: object, settings: Settings, *, request_id: str) -> Chat:
    """Parse a chat request; raise Refusal."""
    fields = an_object(body)
    if "messages" not in fields:
        input_text = f"'input': '<dict of {len(fields)} items>'"
        missing = f"{{'type': 'missing', 'loc': 'body.messages', 'msg': 'Field required', {input_text}}}"
        raise invalid(missing, param="body.messages")
    served = model(fields, settings)
    schema, choices = constraint(fields)
    prompt, document = texts(fields["messages"])
    check(fields)
    tokens = count_tokens(prompt)
    return Chat(
        model=served,
        prompt=prompt,
        document_text=document,
        prompt_tokens=tokens,
        context=settings.context,
        max_tokens=room(fields, tokens, limit=settings.context),
        schema=schema,
        choices=choices,
        thinks=settings.thinking,
        stream=fields.get("stream") is True,
        include_usage=bool((fields.get("stream_options") or {}).get("include_usage")),
        request_id=request_id,
    )


def refuse(message: str, *, param: str | None = None) -> Refusal:
    """Return a 400 with a message of vLLM."""
    return Refusal(error_reply(400, message, param=param))


def invalid(violation: str, *, param: str) -> Refusal:
    """Return a 400 with a message of the request model's validation."""
    return Refusal(error_reply(400, f"1 validation error:\n  {violation}", param=param, kind="Bad Request"))


def an_object(body: object) -> dict[str, Any]:
    """Return the request's object; bytes are a body that was not JSON."""
    if isinstance(body, dict):
        return body
    if not isinstance(body, bytes):
        raise invalid("{'type': 'model_attributes_type', 'loc': 'body'}", param="body")
    try:
        json.loads(body)
    except json.JSONDecodeError as error:
        at = f"body.{error.pos}"
        context = f"{{'error': '{error.msg}'}}"
        detail = f"'msg': 'JSON decode error', 'input': '<dict of 0 items>', 'ctx': {context}"
        raise invalid(f"{{'type': 'json_invalid', 'loc': '{at}', {detail}}}", param=at) from error
    except ValueError:
        pass
    raise Refusal(Reply(400, json_bytes({"detail": "There was an error parsing the body"})))


def model(fields: Mapping[str, Any], settings: Settings) -> str:
    """Return the requested model: the first one if none is named."""
    name = str(fields.get("model") or settings.models[0])
    if name not in settings.models:
        raise Refusal(unknown_model(name, settings))
    return name


def texts(messages: Any) -> tuple[str, str]:
    """Return the whole prompt and the last user's text."""
    if not messages:
        raise refuse("Cannot apply chat template to an empty conversation. Provide at least one message.")
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise invalid("{'type': 'list_type', 'loc': 'body.messages'}", param="body.messages")
    for i, message in enumerate(messages):
        if message.get("role") == "user" and message.get("content") is None:
            at = f"body.messages.{i}.ChatCompletionDeveloperMessageParam.content"
            wrong = (
                f"{{'type': 'string_type', 'loc': '{at}', 'msg': 'Input should be a valid string', 'input': 'None'}}"
            )
            raise invalid(wrong, param=at)
    prompt, document = texts_of(messages)
    try:
        prompt.encode()
    except UnicodeEncodeError as error:
        message_text = "TextEncodeInput must be Union[TextInputSequence, Tuple[InputSequence, InputSequence]]"
        raise refuse(message_text) from error
    return prompt, document


def check(fields: Mapping[str, Any]) -> None:
    """Raise Refusal for a parameter out of bounds."""
    temperature = fields.get("temperature")
    if temperature is not None and not (isinstance(temperature, (int, float)) and 0 <= temperature <= 2):
        message = f"temperature must be in [0, 2], got {temperature}. (parameter=temperature, value={temperature})"
        raise refuse(message, param="temperature")
    if fields.get("stream_options") and not fields.get("stream"):
        raise refuse("Stream options can only be defined when `stream=True`.", param="stream_options")


def room(fields: Mapping[str, Any], tokens: int, *, limit: int) -> int:
    """Return the limit of the answer in tokens: the requested one, silently clamped to the rest of the context."""
    if tokens > limit:
        raise Refusal(overflow(limit))
    limits = [fields[key] for key in ("max_completion_tokens", "max_tokens") if fields.get(key) is not None]
    requested = int(limits[0]) if limits else limit
    if requested > limit:
        advice = f"Please request fewer output tokens. (parameter=max_tokens, value={requested})"
        message = f"max_tokens={requested} cannot be greater than max_model_len={limit}. {advice}"
        raise refuse(message, param="max_tokens")
    granted = min(requested, limit - tokens)
    if granted < 1:
        message = f"max_tokens must be at least 1, got {granted}. (parameter=max_tokens, value={granted})"
        raise refuse(message, param="max_tokens")
    return granted


def constraint(fields: Mapping[str, Any]) -> tuple[Mapping[str, Any] | None, tuple[str, ...]]:
    """Return the schema and the choices that constrain the answer."""
    response_format = fields.get("response_format") or {}
    outputs = fields.get("structured_outputs") or {}
    kind = response_format.get("type", "text")
    if kind not in ("text", "json_object", "json_schema"):
        wrong = "{'type': 'literal_error', 'msg': \"Input should be 'text', 'json_object' or 'json_schema'\"}"
        raise invalid(wrong, param="body.response_format")
    if kind != "text" and outputs:
        constraints = f"{{'json': {outputs.get('json')}}}"
        raise refuse(
            f"You can only use one kind of structured outputs constraint but multiple are specified: {constraints}"
        )
    if kind == "json_object":
        return JSON_MODE, ()
    schema = json_schema(response_format) if kind == "json_schema" else outputs.get("json")
    if schema:
        refused = refused_grammar(marshal.dumps(dict(schema), 2))
        if refused:
            raise refuse(refused)
    return schema, tuple(outputs.get("choice", ()))


def json_schema(response_format: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the schema inside a response_format."""
    named_schema = response_format.get("json_schema")
    if not named_schema:
        parameter = "(parameter=response_format)"
        message = f"When response_format type is 'json_schema', the 'json_schema' field must be provided. {parameter}"
        raise refuse(message, param="response_format")
    if "name" not in named_schema:
        at = "body.response_format.json_schema.name"
        raise invalid(f"{{'type': 'missing', 'loc': '{at}', 'msg': 'Field required'}}", param=at)
    if not isinstance(named_schema.get("schema"), dict):
        raise refuse("You must use one kind of structured outputs constraint but none are specified: {}")
    return named_schema["schema"]  # type: ignore[no-any-return]


@functools.lru_cache(maxsize=64)
def refused_grammar(packed: bytes) -> str:
    """Return the reason why a schema (marshalled, as a cheap cache key) has no grammar, or an empty string."""
    root = marshal.loads(packed)  # created by `constraint`, never bytes of a request
    return next((refusal for part in schemas_in(root) if (refusal := refused_keyword(part, root))), "")


def refused_keyword(part: Mapping[str, Any], root: Any) -> str:
    """Return the fault of one schema's keywords, or an empty string."""
    unknown = [key for key in UNIMPLEMENTED if part.get(key)]
    if unknown:
        return f"Grammar error: Unimplemented keys: {json.dumps(unknown)}"
    if isinstance(part.get("format"), str) and part["format"] not in FORMATS:
        return f"Grammar error: Unknown format: {part['format']}"
    if isinstance(part.get("type"), str) and part["type"] not in TYPES:
        return f"Grammar error: Invalid type: {part['type']}"
    pointer = part.get("$ref")
    if isinstance(pointer, str) and pointer.startswith("#"):
        try:
            resolve(pointer, root)
        except (KeyError, IndexError, TypeError):
            return f"Grammar error: Pointer '{pointer[1:]}' does not exist"
    return ""

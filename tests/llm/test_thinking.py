"""Settings of thinking models in requests: `think`, `options`, `extra_body` and an agent's `request`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from conftest import Place
from fake_llm import FakeLLM, Fault
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.agents import load_agent, resolve
from pipeline.config import AppConfig, OllamaConfig, ResolvedAgentConfig, VLLMConfig
from pipeline.config.request import OLLAMA_OPTIONS, RESERVED, merged, split_for_ollama
from pipeline.errors import ConfigError
from pipeline.llm.factory import build_llm_client
from pipeline.llm.ollama import OllamaClient
from pipeline.llm.preflight.preflight import PreflightSample, examine
from pipeline.llm.vllm import VLLMClient

AGENT = """
user_prompt: $document
schema: {type: object, properties: {a: {type: integer}}}
request: {seed: 7, chat_template_kwargs: {enable_thinking: false, x: 1}}
variants:
  thinks: {request: {think: high, chat_template_kwargs: {enable_thinking: true}}}
"""


def agent_file(folder: Path, text: str) -> Any:
    """Return the agent of this text."""
    (folder / "a.yaml").write_text(text, encoding="utf-8")
    return load_agent("a", agents_dir=folder)


@pytest.mark.parametrize("think", [True, False, "low", "medium", "high"])
def test_think_is_sent_as_configured(think: Any) -> None:
    """It is sent whatever the model's capabilities are, before and after the preflight."""
    with FakeLLM(thinking=True) as server:
        client = OllamaClient(OllamaConfig(base_url=server.url, think=think))
        client.call_llm({"user": "u"}, None, "u")
        preflight = examine(client, sample=PreflightSample({"user": "u"}), full=True, canary=False)
        client.call_llm({"user": "u"}, None, "u")
        assert preflight.think == think
        sent = [chat.body["think"] for chat in server.chats() if chat.body["messages"]]
    assert sent == [think] * 3


@pytest.mark.parametrize("think", ["never", 1, None, "true "])
def test_invalid_think_value_is_refused(think: Any) -> None:
    """The message lists the accepted values."""
    with pytest.raises(ConfigError, match="think: got"):
        OllamaConfig(think=think)


def test_options_and_extra_fields_reach_ollama() -> None:
    """These are options without a setting of their own, and fields beside the options."""
    config = OllamaConfig(options={"seed": 3, "stop": ["END"]}, extra_body={"shift": False, "logprobs": True})
    body = OllamaClient(config).payload({"user": "u"}, None)
    assert body["options"] == {"num_ctx": 8192, "num_predict": 1024, "temperature": 0.0, "seed": 3, "stop": ["END"]}
    assert (body["shift"], body["logprobs"], list(body)[-1]) == (False, True, "messages")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"options": {"num_ctx": 5}}, "options.num_ctx: got a field that may not be set here; set `ollama.num_ctx`"),
        ({"options": {"num_predict": 5}}, "options.num_predict"),
        ({"extra_body": {"format": {}}}, "extra_body.format"),
        ({"extra_body": {"truncate": True}}, "extra_body.truncate"),
        ({"extra_body": {"options": {}}}, "extra_body.options: got a field that may not be set here; set `options`"),
    ],
)
def test_field_with_its_own_setting_is_refused(settings: dict[str, Any], message: str) -> None:
    """Two places for one value could contradict each other."""
    with pytest.raises(ConfigError) as caught:
        OllamaConfig(**settings)
    assert str(caught.value).startswith(message)


def test_null_removes_a_field() -> None:
    """A server that refuses `max_tokens` gets only `max_completion_tokens`, also in small requests."""
    config = VLLMConfig(model="m", extra_body={"max_tokens": None, "max_completion_tokens": 500})
    client = VLLMClient(config)
    assert {"max_tokens", "max_completion_tokens"} & set(client.payload({"user": "u"}, None)) == {
        "max_completion_tokens"
    }
    small = client.short_client(max_tokens=8, timeout_s=1).payload({"user": "u"}, None)
    assert (small.get("max_tokens"), small["max_completion_tokens"]) == (None, 8)


def test_request_is_merged_from_agent_and_variant(tmp_path: Path) -> None:
    """The variant takes precedence, and nested mappings are merged."""
    agent = agent_file(tmp_path, AGENT)
    assert resolve(agent, AppConfig(), variant="default").request["seed"] == 7
    assert resolve(agent, AppConfig(), variant="thinks").request == {
        "seed": 7,
        "think": "high",
        "chat_template_kwargs": {"enable_thinking": True, "x": 1},
    }


def test_request_overrides_the_providers_fields() -> None:
    """For Ollama, names of its options go into `options`."""
    request = {"seed": 7, "think": False, "options": {"top_k": 3}, "chat_template_kwargs": {"a": 1}}
    own = {"seed": 1, "user": "x", "chat_template_kwargs": {"b": 2}}
    resolved = ResolvedAgentConfig("a", "default", "vllm", request=request)
    body = build_llm_client(resolved, vllm=VLLMConfig(extra_body=own)).payload({"user": "u"}, None)
    assert (body["seed"], body["user"], body["chat_template_kwargs"]) == (7, "x", {"a": 1, "b": 2})
    resolved = ResolvedAgentConfig("a", "default", "ollama", request=request)
    body = build_llm_client(resolved, OllamaConfig(options={"seed": 1, "top_p": 0.5}, think=True)).payload(
        {"user": "u"}, None
    )
    assert {"seed": 7, "top_k": 3, "top_p": 0.5}.items() <= body["options"].items()
    assert (body["think"], "seed" in body, body["chat_template_kwargs"]) == (False, False, {"a": 1})


@pytest.mark.parametrize("name", RESERVED)
@pytest.mark.parametrize(
    "place", ["request: {%s: 1}", "request: {options: {%s: 1}}", "variants: {v: {request: {%s: 1}}}"]
)
def test_request_may_not_set_checked_fields(tmp_path: Path, name: str, place: str) -> None:
    """It is refused when the agent is loaded, with the place and the setting to use."""
    with pytest.raises(ConfigError) as caught:
        agent_file(tmp_path, "user_prompt: $document\nschema: {type: object}\n" + place % name)
    assert f"request.{'options.' if 'options' in place else ''}{name}: got a field" in str(caught.value)
    assert str(tmp_path / "a.yaml") in str(caught.value)


VALUES = st.recursive(st.integers(), lambda inner: st.dictionaries(st.sampled_from("abc"), inner), max_leaves=9)
MAPPINGS = st.dictionaries(st.sampled_from("abc"), VALUES)


@given(MAPPINGS, MAPPINGS, MAPPINGS)
@settings(deadline=None)
def test_merging_is_associative_and_the_last_layer_wins(one: Any, two: Any, three: Any) -> None:
    """The order in which layers are combined does not matter."""
    assert merged(merged({}, one), {}) == one
    assert merged(one, one) == one
    assert {name: merged(one, two)[name] for name in two if not isinstance(two[name], dict)}.items() <= two.items()
    assert set(merged(merged(one, two), three)) == set(merged(one, merged(two, three)))


@given(st.dictionaries(st.sampled_from([*sorted(OLLAMA_OPTIONS), "think", "x"]), st.integers()))
@settings(deadline=None)
def test_each_request_field_reaches_ollama(request: dict[str, int]) -> None:
    """Each field is either in `options` or in the body beside them."""
    options, body = split_for_ollama(request)
    assert {**options, **body} == request
    assert set(options) <= OLLAMA_OPTIONS


@pytest.mark.parametrize(("setting", "requests"), [(True, 1), (False, 2)])
@pytest.mark.parametrize("provider", ["vllm", "ollama"])
def test_answers_from_reasoning_can_be_disabled(place: Place, provider: str, setting: bool, requests: int) -> None:
    """If enabled the answer is a result with a note; otherwise the document fails after one more request."""
    ollama = {"ollama.base_url": place.server.url, "ollama.model": "llama3.1", "ollama.retry_base_delay": 0.01}
    place.documents(1)
    place.server.faults = lambda request, _n: Fault("answer_in_reasoning") if request.document == "d000.txt" else None
    place.configure({"answers.from_reasoning": setting, "provider": provider, **ollama})
    place.run(code=0 if setting else 1)
    assert place.failed() == ({} if setting else {"d000.txt": "empty_model_response"})
    assert [record["notes"] for record in place.lines("results.jsonl")] == (
        [["answer_in_reasoning"]] if setting else []
    )
    assert len(place.sent_documents()) == requests


def test_request_fields_reach_the_server_in_a_run(place: Place) -> None:
    """The requests of a variant's documents have the variant's fields."""
    place.documents(2)
    place.configure(agent={"request": {"seed": 7}, "variants": {"b": {"request": {"seed": 8}, "weight": 1}}})
    place.run()
    assert {chat.body["seed"] for chat in place.server.chats() if chat.document.endswith(".txt")} == {8}


def test_reserved_field_is_exit_2(place: Place) -> None:
    """The message names its place, before any document is read."""
    place.documents(1)
    place.configure(agent={"request": {"max_tokens": 7}})
    for command in ("run", "check"):
        ran = place.call(command)
        assert (ran.code, "request.max_tokens: got a field that may not be set here" in ran.err) == (2, True)

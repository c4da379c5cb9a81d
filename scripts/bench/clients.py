"""Clients to compare the pipeline with: each sends documents and reads the answers, and nothing more.

They read no files, validate nothing, write nothing and never retry: the pipeline's overhead is measured against that.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from bench.server import MODEL, schema

SCHEMA = schema()
SYSTEM = "You read one news text for investors and answer with one JSON object that follows the given schema.\n" * 6


@dataclass(frozen=True, slots=True)
class Work:
    """The work of a client: `documents` of one text, `threads` (or tasks) at a time."""

    url: str
    dialect: str
    threads: int
    documents: int
    text: str

    @property
    def path(self) -> str:
        """The path of chats."""
        return "/v1/chat/completions" if self.dialect == "vllm" else "/api/chat"

    def messages(self, number: int) -> list[dict[str, str]]:
        """Return the messages of one document."""
        return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": f"{number} {self.text}"}]

    def body(self, number: int) -> bytes:
        """Return the request's body for one document."""
        request: dict[str, Any] = {"model": MODEL, "messages": self.messages(number), "stream": False}
        if self.dialect == "vllm":
            shape = {"name": "extraction", "schema": SCHEMA, "strict": True}
            request |= {"max_tokens": 1024, "response_format": {"type": "json_schema", "json_schema": shape}}
        else:
            request |= {"format": SCHEMA, "options": {"num_ctx": 8192, "num_predict": 1024}}
        return json.dumps(request).encode()

    def content(self, reply: bytes) -> Any:
        """Return the object in an answer."""
        parsed = json.loads(reply)
        message = parsed["choices"][0]["message"] if self.dialect == "vllm" else parsed["message"]
        return json.loads(message["content"])

    def in_threads(self, send_one: Callable[[int], object]) -> None:
        """Send all documents from a pool of threads."""
        with ThreadPoolExecutor(self.threads) as pool:
            for _ in pool.map(send_one, range(self.documents)):
                pass

    def in_tasks(self, send_one: Callable[[int], Any]) -> Any:
        """Send all documents from tasks of one event loop."""
        numbers = iter(range(self.documents))

        async def task() -> None:
            for number in numbers:
                await send_one(number)

        return asyncio.gather(*(task() for _ in range(self.threads)))


def plain_requests(work: Work) -> None:
    """Use `requests` as most programs do: one session, a pool as large as the number of threads."""
    import requests

    session = requests.Session()
    session.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=work.threads))

    def send_document(number: int) -> None:
        headers = {"Content-Type": "application/json"}
        work.content(session.post(work.url + work.path, data=work.body(number), headers=headers, timeout=60).content)

    work.in_threads(send_document)


def tuned_requests(work: Work) -> None:
    """Use `requests` below its session: one prepared request per thread, sent by the adapter."""
    import requests

    adapter = requests.adapters.HTTPAdapter(pool_maxsize=work.threads)
    local = threading.local()

    def send_document(number: int) -> None:
        if not hasattr(local, "request"):
            headers = {"Content-Type": "application/json"}
            local.request = requests.Request("POST", work.url + work.path, headers=headers).prepare()
        local.request.body = work.body(number)
        local.request.headers["Content-Length"] = str(len(local.request.body))
        response = adapter.send(local.request, stream=True, timeout=60)
        work.content(response.raw.read())
        response.close()

    work.in_threads(send_document)


def urllib3_alone(work: Work) -> None:
    """Use urllib3 alone."""
    import urllib3

    pool = urllib3.connectionpool.connection_from_url(work.url, maxsize=work.threads)

    def send_document(number: int) -> None:
        headers = {"Content-Type": "application/json"}
        work.content(pool.urlopen("POST", work.path, body=work.body(number), headers=headers, retries=False).data)

    work.in_threads(send_document)


def aiohttp_alone(work: Work) -> None:
    """Use aiohttp in one event loop."""
    import aiohttp

    async def everything() -> None:
        connector = aiohttp.TCPConnector(limit=work.threads)
        headers = {"Content-Type": "application/json"}
        async with aiohttp.ClientSession(connector=connector, headers=headers) as session:

            async def one(number: int) -> None:
                async with session.post(work.url + work.path, data=work.body(number)) as response:
                    work.content(await response.read())

            await work.in_tasks(one)

    asyncio.run(everything())


def openai_sdk(work: Work) -> None:
    """Use the openai package in a pool of threads, as in its documentation; both servers speak the OpenAI protocol."""
    import httpx
    import openai

    limits = httpx.Limits(max_connections=work.threads, max_keepalive_connections=work.threads)
    client = openai.OpenAI(
        base_url=f"{work.url}/v1", api_key="none", max_retries=0, http_client=httpx.Client(limits=limits, timeout=60)
    )
    shape: Any = {"type": "json_schema", "json_schema": {"name": "extraction", "schema": SCHEMA, "strict": True}}

    def send_document(number: int) -> None:
        messages: Any = work.messages(number)
        response = client.chat.completions.create(
            model=MODEL, messages=messages, max_tokens=1024, response_format=shape
        )
        json.loads(response.choices[0].message.content or "")

    work.in_threads(send_document)


def litellm_async(work: Work) -> None:
    """Use LiteLLM in one event loop."""
    import litellm

    shape = {"type": "json_schema", "json_schema": {"name": "extraction", "schema": SCHEMA, "strict": True}}
    endpoint = {"api_base": f"{work.url}/v1", "api_key": "none", "num_retries": 0}

    async def everything() -> None:
        async def one(number: int) -> None:
            response = await litellm.acompletion(
                model=f"openai/{MODEL}",
                messages=work.messages(number),
                max_tokens=1024,
                response_format=shape,
                **endpoint,
            )
            json.loads(response.choices[0].message.content)

        await work.in_tasks(one)

    asyncio.run(everything())


@dataclass(frozen=True, slots=True)
class Client:
    """A row of the table: its name, the required package, and the supported dialects."""

    title: str
    needs: str
    run: Callable[[Work], None]
    dialects: tuple[str, ...] = ("vllm", "ollama")

    @property
    def is_here(self) -> bool:
        """Whether the package is installed."""
        return find_spec(self.needs) is not None


CLIENTS: Mapping[str, Client] = {
    "requests": Client("plain requests in a thread pool", "requests", plain_requests),
    "tuned": Client("requests, tuned", "requests", tuned_requests),
    "urllib3": Client("urllib3 alone", "urllib3", urllib3_alone),
    "aiohttp": Client("aiohttp alone", "aiohttp", aiohttp_alone),
    "openai": Client("openai SDK in threads", "openai", openai_sdk, ("vllm",)),
    "litellm": Client("LiteLLM (async)", "litellm", litellm_async, ("vllm",)),
}


def main() -> int:
    """Run the client that the first argument names; return the exit code."""
    name, url, dialect, threads, documents, size = sys.argv[1:7]
    text = "".join(itertools.islice(itertools.cycle("Profits rose by a tenth in the third quarter. "), int(size)))
    CLIENTS[name].run(Work(url, dialect, int(threads), int(documents), text))
    return 0


if __name__ == "__main__":
    sys.exit(main())

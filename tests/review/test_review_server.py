"""The server of a review: which requests it accepts, and that it writes before it replies 200."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from review_place import ANSWER, SCHEMA, gold_lines, write_output

from pipeline.config.loading import load_config
from pipeline.config.models import OutputConfig
from pipeline.output import backend_of
from pipeline.review import choice
from pipeline.review.server import ReviewServer
from pipeline.review.session import ReviewOptions, ReviewSession
from pipeline.review.texts import read_texts

NOW = "2026-01-01T00:00:00.000Z"
JUDGEMENT = {"gold": {"company": "Acme"}, "unknown": ["score"], "partial": [], "note": ""}


class Serving:
    """A running server, and requests to it."""

    def __init__(self, server: ReviewServer, gold: Path) -> None:
        self.server = server
        self.gold = gold

    def ask(
        self, method: str, path: str, body: Any = None, *, token: bool = True, **headers: str
    ) -> tuple[int, dict[str, Any], http.client.HTTPMessage]:
        """Return status, JSON and headers of a reply; header names have _ for -, and "" omits a header."""
        own = {"Host": self.server.hosts[0], "Content-Type": "application/json"}
        own |= {"X-Review-Token": self.server.token} if token else {}
        own |= {name.replace("_", "-"): value for name, value in headers.items()}
        connection = http.client.HTTPConnection("127.0.0.1", self.server.server_port, timeout=60)
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in own.items():
            if value:
                connection.putheader(name, value)
        if method == "POST" and "Content_Length" not in headers:
            connection.putheader("Content-Length", str(len(data)))
        connection.endheaders(data)
        reply = connection.getresponse()
        text = reply.read()
        connection.close()
        kind = reply.headers.get_content_type()
        return reply.status, json.loads(text) if kind == "application/json" else {}, reply.headers


def session_of(folder: Path, **more: Any) -> ReviewSession:
    """Return a review of all documents of an output."""
    candidates = choice.sampled(backend_of(OutputConfig(str(folder / "out"))), 50, judged=())
    options = ReviewOptions(str(folder / "out"), folder / "gold.jsonl", "small", SCHEMA, "anna", **more)
    app = load_config(overrides={"input.uri": str(folder / "inbox"), "output.uri": str(folder / "out")}, environ={})
    return ReviewSession(options, candidates, read_texts(app, candidates), now=lambda: NOW)


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Serving]:
    """Yield a review of three documents, of which the last one failed."""
    write_output(tmp_path / "out", {"a.txt": ANSWER, "b.txt": ANSWER, "c.txt": None})
    server = ReviewServer(session_of(tmp_path), port=0)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield Serving(server, tmp_path / "gold.jsonl")
    server.shutdown()
    thread.join()
    server.server_close()


def test_server_listens_on_loopback_only(serving: Serving) -> None:
    """Its address has the token after #."""
    assert serving.server.server_address[0] == "127.0.0.1"
    assert serving.server.url == f"http://127.0.0.1:{serving.server.server_port}/#{serving.server.token}"
    assert len(serving.server.token) >= 43


@pytest.mark.parametrize(
    ("status", "method", "path", "headers"),
    [
        (421, "GET", "/", {"Host": "example.org"}),
        (421, "GET", "/", {"Host": ""}),
        (421, "GET", "/api/session", {"Host": "127.0.0.1"}),
        (421, "POST", "/api/documents/0/judgement", {"Host": "127.0.0.1.example.org:80"}),
        (421, "OPTIONS", "/api/session", {"Host": "example.org"}),
        (403, "GET", "/api/session", {"Origin": "http://example.org"}),
        (403, "POST", "/api/documents/0/judgement", {"Origin": "null"}),
        (403, "GET", "/", {"Sec_Fetch_Site": "cross-site"}),
        (403, "GET", "/api/session", {"Sec_Fetch_Site": "same-site"}),
        (403, "GET", "/api/session", {"X_Review_Token": ""}),
        (403, "GET", "/api/documents/0", {"X_Review_Token": "x"}),
        (403, "POST", "/api/documents/0/judgement", {"X_Review_Token": "é"}),
        (403, "POST", "/api/documents/0/judgement", {"Content_Type": "text/plain"}),
        (403, "POST", "/api/documents/0/judgement", {"Content_Type": ""}),
        (405, "OPTIONS", "/api/session", {}),
        (405, "DELETE", "/api/documents/0", {}),
        (405, "POST", "/", {}),
        (404, "GET", "/../../etc/passwd", {}),
        (404, "GET", "/api/documents/99", {}),
        (404, "GET", "/api/documents/-1", {}),
        (404, "GET", "/api/documents/1/judgement", {}),
        (411, "POST", "/api/documents/0/judgement", {"Transfer_Encoding": "chunked"}),
        (411, "POST", "/api/documents/0/judgement", {"Content_Length": "-1"}),
        (413, "POST", "/api/documents/0/judgement", {"Content_Length": str((1 << 20) + 1)}),
        (200, "GET", "/", {"Sec_Fetch_Site": "none"}),
        (200, "GET", "/api/session", {"Sec_Fetch_Site": "same-origin"}),
    ],
)
def test_foreign_requests_are_refused(
    serving: Serving, status: int, method: str, path: str, headers: dict[str, str]
) -> None:
    """A foreign host, origin, method, type or size writes no line; no reply allows another site."""
    code, reply, sent = serving.ask(method, path, b"" if method != "POST" else JUDGEMENT, **headers)
    assert code == status
    assert not any(name.lower().startswith("access-control") for name in sent)
    assert "default-src 'none'" in sent["Content-Security-Policy"]
    assert sent["Cache-Control"] == "no-store"
    assert status == 200 or "error" in reply or method == "HEAD"
    assert not serving.gold.exists()


def test_page_of_this_origin_may_save(serving: Serving) -> None:
    """It gets 200 only after the line is in the file, with the fields of the specification."""
    origin = f"http://{serving.server.hosts[1]}"
    status, reply, _ = serving.ask(
        "POST", "/api/documents/0/judgement", JUDGEMENT, Host=serving.server.hosts[1], Origin=origin
    )
    assert (status, reply["judged"]) == (200, 1)
    (line,) = gold_lines(serving.gold)
    first = serving.server.session.candidates[0]
    assert line == {
        "v": 1,
        "id": first.id,
        "sha256": first.sha256,
        "agent": "small",
        "gold": {"company": "Acme"},
        "unknown": ["score"],
        "partial": [],
        "set": "dev",
        "why": "sample",
        "how": {"company": "accepted" if first.answer else "typed"},
        "saw": first.fingerprint,
        "by": "anna",
        "at": NOW,
        "note": "",
    }


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (400, b"{", "not JSON"),
        (400, b"[]", "not a JSON object"),
        (400, b'{"gold":{"score":NaN}}', "not JSON"),
        (400, b'{"gold":{"score":1e999}}', "not JSON"),
        (400, b"[" * 100_000, "not JSON"),
        (422, {"gold": {}}, "no field has a decision"),
        (422, {"gold": []}, "need gold (an object)"),
        (422, {"gold": {"mood": "SECRET"}}, "mood: expected one of "),
        (422, {"gold": {"people": [{"name": 1}]}}, "people[0].name"),
        (422, {"gold": {"company": "x"}, "unknown": ["nobody"]}, "which the schema does not have"),
        (422, {"gold": {"company": "x"}, "note": "n" * 2001}, "at most 2000"),
    ],
)
def test_invalid_judgement_is_refused(serving: Serving, status: int, body: Any, message: str) -> None:
    """The message names the place and no value, and the file does not change."""
    code, reply, _ = serving.ask("POST", "/api/documents/0/judgement", body)
    assert code == status
    assert message in reply["error"]
    assert "SECRET" not in reply["error"]
    assert not serving.gold.exists()


def test_later_judgement_and_withdrawal(serving: Serving) -> None:
    """A judged field cannot be omitted silently, but it can be withdrawn."""
    path = "/api/documents/1/"
    assert serving.ask("POST", path + "judgement", JUDGEMENT)[0] == 200
    status, reply, _ = serving.ask("POST", path + "judgement", {"gold": {"mood": "bad"}})
    assert (status, "withdraw the judgement" in reply["error"]) == (422, True)
    assert serving.ask("GET", "/api/documents/1")[1]["judged_by"] == ["anna"]
    assert serving.ask("POST", path + "withdrawal", {})[1] == {"judged": 0}
    assert serving.ask("GET", "/api/documents/1")[1]["judged_by"] == []
    assert serving.ask("POST", path + "judgement", {"gold": {"mood": "bad"}})[0] == 200
    assert [line["gold"] for line in gold_lines(serving.gold)] == [{"company": "Acme"}, None, {"mood": "bad"}]


def test_full_disk_is_507(serving: Serving) -> None:
    """The page keeps the draft, no partial line is left, and earlier lines stay whole."""
    serving.gold.symlink_to("/dev/full")
    status, reply, _ = serving.ask("POST", "/api/documents/0/judgement", JUDGEMENT)
    assert status == 507
    assert "cannot be written" in reply["error"]
    assert serving.server.session.judged == 0


def test_holdout_and_blind_replies_have_no_answer(tmp_path: Path) -> None:
    """This covers values, marks and the answer of the other output."""
    answer = {**ANSWER, "company": "Zyxwv", "summary": "Zyxwv"}
    write_output(tmp_path / "out", {"a.txt": answer})
    for more in ({"holdout": 1.0}, {"blind": True}):
        session = session_of(tmp_path, **more)
        session.candidates = [replace(candidate, other=answer) for candidate in session.candidates]
        sent = json.dumps([session.overview(), session.document(0), session.save(0, {"gold": {"mood": "good"}})])
        assert "Zyxwv" not in sent
        assert session.document(0)["marks"] == {}
        assert gold_lines(tmp_path / "gold.jsonl")[-1]["how"] == {"mood": "typed"}


def test_failed_document_has_an_empty_form(serving: Serving) -> None:
    """The page says why it failed."""
    numbers = {candidate.id: number for number, candidate in enumerate(serving.server.session.candidates)}
    document = serving.ask("GET", f"/api/documents/{numbers['c.txt']}")[1]
    assert (document["answer"], document["reason"]) == (None, "schema_invalid")

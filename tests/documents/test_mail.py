"""The text of a mail message: a tree of parts in which only alternatives are a choice."""

from __future__ import annotations

import gzip
import itertools
from email import message_from_bytes, policy
from email.encoders import encode_base64
from email.message import EmailMessage, MIMEPart
from pathlib import Path

import pytest
from document_files import OUTLOOK, PROFIT, mail, page
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config import InputConfig, InputSource
from pipeline.documents import ListingCounts, decode, load_entries
from pipeline.documents.decode import Decoded
from pipeline.documents.mail.flowed import join_flowed
from pipeline.documents.mail.headers import POLICY
from pipeline.documents.mail.message import decode_mail
from pipeline.documents.mail.msg import decode_msg
from pipeline.errors import DocumentError

CASES = Path(__file__).parents[1] / "data" / "documents" / "mail"
HEADING = "Subject: Offer\nFrom: a@example.com\nDate: Mon, 3 Mar 2025 10:00:00 +0100\n\n"
BODY = "Acme Corp appoints Jane Doe as chief executive officer from 1 April.\nShe follows John Roe, who retires."


def case(name: str) -> Decoded:
    return decode_mail((CASES / name).read_bytes(), "text")


def text_of(data: bytes) -> str:
    return decode_mail(data, "text").text


def problem(data: bytes) -> tuple[str, str]:
    with pytest.raises(DocumentError) as error:
        decode_mail(data, "text")
    return error.value.reason, str(error.value)


def multipart(kind: str, *parts: str) -> str:
    inner = "".join(f"--b{kind}\r\n{part}\r\n" for part in parts)
    return f'Content-Type: multipart/{kind}; boundary="b{kind}"\r\n\r\n{inner}--b{kind}--\r\n'


def plain(text: str, more: str = "") -> str:
    return f"Content-Type: text/plain; charset=utf-8{more}\r\n\r\n{text}"


def html(text: str) -> str:
    return f"Content-Type: text/html; charset=utf-8\r\n\r\n<html><body>{text}</body></html>"


def message(part: str) -> bytes:
    return f"MIME-Version: 1.0\r\n{part}".encode()


def test_html_body_beside_a_plain_footer_is_read() -> None:
    """A mailing list adds its footer as a separate part."""
    text = case("01_html_body_plus_mailman_plain_footer.eml").text
    assert text.startswith(HEADING + BODY + "\n\n____")
    assert "News mailing list" in text


def test_forwarded_message_is_read_with_its_headers() -> None:
    """They name its author."""
    forwarded = "Subject: Results Q1\nFrom: ceo@acme.example\nDate: Sun, 2 Mar 2025 09:00:00 +0100\n\n"
    assert case("02_plain_fyi_forwarding_html_only_rfc822.eml").text == f"{HEADING}FYI, see below.\n\n{forwarded}{BODY}"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("04_boundary_parameter_folded_inside_quotes.eml", HEADING + "Acme Corp appoints Jane Doe as chief executive."),
        ("17_multipart_without_boundary_parameter.eml", HEADING + "Acme appoints Jane Doe."),
    ],
)
def test_unusual_boundary_is_found(name: str, text: str) -> None:
    """It may be folded, or appear only in the body."""
    assert case(name).text == text


def test_charset_labels_mean_their_mail_supersets() -> None:
    """GBK is read under the label gb2312, and Windows characters under shift_jis."""
    assert "朱镕基总理访问" in case("06_declared_gb2312_but_gbk_characters.eml").text
    assert "①㈱東京電力の髙橋社長は～10％増と発表した。" in case("07_declared_shift_jis_with_cp932_characters.eml").text


def test_raw_8_bit_headers_are_decoded() -> None:
    """UTF-8 and Latin-1 are decoded in the text and in the metadata."""
    decoded = case("15_raw_utf8_headers.eml")
    assert decoded.text.startswith("Subject: Größe der Übernahme\nFrom: Jürgen Müller <a@example.com>\n")
    assert decoded.metadata == {
        "subject": "Größe der Übernahme", "from": "Jürgen Müller <a@example.com>", "date": "2025-03-03T10:00:00+01:00",
    }  # fmt: skip
    latin = decode_mail("Subject: Größe der Übernahme\n\nx".encode("latin-1"), "text")
    assert latin.metadata == {"subject": "Größe der Übernahme"}


@pytest.mark.parametrize(
    ("header", "text"),
    [
        ("=?gb2312?B?1ezpRg==?=", b"\xd5\xec\xe9F".decode("gb18030")),
        ("=?utf-8?B?5pel?= =?utf-8?B?5pys?=", "日本"),
        ("=?utf-8?B?5pc=?=\r\n =?utf-8?B?pQ==?= x", "日 x"),
        ("Re: =?iso-2022-jp?B?GyRCLSEbKEI=?= ok", "Re: ① ok"),
        ("=?x-unknown?Q?Z=C3=BCrich?=", "Zürich"),
        ("a\r\n\tb  c", "a b c"),
        ("=?utf-8?B?????", "=?utf-8?B?????"),
    ],
)
def test_encoded_words_are_decoded(header: str, text: str) -> None:
    """Two words may share a character, and labels mean their supersets."""
    assert decode_mail(f"Subject: {header}\r\n\r\nx".encode(), "text").metadata["subject"] == text


def test_message_gives_all_its_text_parts() -> None:
    """Parts of a mixed message are in order; headers are metadata too; attachments are counted."""
    data = mail(
        ("text/html", page("no", PROFIT)),
        ("text/plain; charset=iso-8859-1\r\nContent-Transfer-Encoding: quoted-printable", "Gr=FC=DFe\r\nEnde"),
        ("text/plain\r\nContent-Disposition: attachment; filename=a.txt", "attached"),
        ("application/pdf; name=b.pdf", "x"),
    )
    decoded = decode_mail(data, "text")
    assert decoded.text.startswith("Subject: Zürich news\nFrom: A B <a@example.org>\nDate: Mon, 06 May 2024")
    assert decoded.text.index(PROFIT) < decoded.text.index("Grüße\nEnde")
    assert "attached" not in decoded.text
    assert decoded.notes == ("encoding:cp1252", "attachments_skipped:2")
    assert decoded.metadata == {
        "subject": "Zürich news", "from": "A B <a@example.org>", "date": "2024-05-06T07:08:09+02:00",
    }  # fmt: skip


def test_plain_alternative_is_preferred() -> None:
    """It has the same content as the HTML part."""
    assert text_of(message(multipart("alternative", plain("Rates rise by two."), html("<p>Rates rise by two.")))) == (
        "Rates rise by two."
    )


@pytest.mark.parametrize(
    "notice",
    [
        "Your mail program does not show HTML.",
        "Dies ist eine HTML-Nachricht. Bitte verwenden Sie ein anderes Programm.",
        "Read it here: https://news.example.org/a/b/c/d/e/f/g/h/i/j/k/l/m/n/o/p",
        "  \r\n",
    ],
)
def test_plain_notice_without_content_is_ignored(notice: str) -> None:
    """It only says where the text is, so the HTML part is read."""
    body = f"<p>{PROFIT}</p><p>{OUTLOOK}</p>"
    assert text_of(message(multipart("alternative", plain(notice), html(body)))) == f"{PROFIT}\n{OUTLOOK}"
    assert text_of(message(multipart("alternative", plain("Does not show HTML."), html("Rates rise")))) == "Rates rise"


def test_html_between_plain_parts_is_read_in_order() -> None:
    """Apple Mail writes such messages."""
    data = message(multipart("mixed", plain("Hello,"), html(f"<p>{PROFIT}"), plain("Regards")))
    assert text_of(data) == f"Hello,\n\n{PROFIT}\n\nRegards"
    inner = multipart(
        "mixed", html("Hello"), "Content-Type: message/rfc822\r\n\r\nSubject: s\r\n\r\nwords", html("Bye")
    )
    assert (
        text_of(message(multipart("alternative", plain("Hello\r\nBye"), inner)))
        == "Hello\n\nSubject: s\n\nwords\n\nBye"
    )


def test_seven_bit_japanese_message_is_read() -> None:
    """Old Japanese mail looks like ASCII."""
    head = b"Subject: x\r\nContent-Type: text/plain; charset=iso-2022-jp\r\n\r\n"
    assert text_of(head + "日本銀行".encode("iso2022_jp")) == "Subject: x\n\n日本銀行"


@pytest.mark.parametrize("charset", ["utf-16", "utf-16le", "utf-16-be"])
@pytest.mark.parametrize("text", ["Zürich – 5 €", "日本銀行"])
def test_utf16_part_is_read(charset: str, text: str) -> None:
    """It is in base64, with and without a mark."""
    part = MIMEPart(policy.default)
    part.set_payload(text.encode(charset))
    encode_base64(part)
    part.add_header("Content-Type", "text/plain", charset=charset)
    assert text_of(part.as_bytes()) == text


def test_flowed_lines_are_joined() -> None:
    """A trailing space continues a line and is removed with `delsp`; the signature's dashes are no such line."""
    text = "one \ntwo\n\n> q1 \n> q2\n>> deeper \n> q3\n  stuffed\n-- \nme"
    assert join_flowed(text) == "one two\n\n> q1 q2\n>> deeper \n> q3\n stuffed\n-- \nme"
    part = plain("日本 \r\n銀行", "; format=flowed; delsp=yes")
    assert text_of(message(part)) == "日本銀行"
    assert text_of(message(plain("a \r\nb", "; Format=Flowed"))) == "a b"


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("application/ms-tnef; name=winmail.dat", "winmail.dat (TNEF)"),
        ("application/octet-stream; name=winmail.dat", "winmail.dat (TNEF)"),
        ("application/octet-stream\r\nContent-Disposition: attachment; filename*0=win; filename*1=mail.dat", "winmail"),
        ("application/x-pkcs7-mime; smime-type=signed-data; name=smime.p7m", "an opaque S/MIME part (smime.p7m)"),
    ],
)
def test_encrypted_message_is_an_unsupported_format(header: str, name: str) -> None:
    """It is not empty: the message names the part that cannot be read."""
    reason, message = problem(f"Subject: x\r\nContent-Type: {header}\r\n\r\nx".encode())
    assert reason == "unsupported_format"
    assert name in message
    reason, message = problem((CASES / "12_winmail_dat_only.eml").read_bytes())
    assert (reason, "winmail.dat" in message) == ("unsupported_format", True)


def test_file_without_headers_is_no_message() -> None:
    """Without a header it is unreadable; without words it is empty."""
    assert problem(b"\n\njust words") == ("document_unreadable", "no message: it does not begin with a header")
    assert problem(b"Subject: x\r\n\r\n \r\n") == ("document_empty", "the message holds no text")
    reason, message = problem(b"Content-Type: application/pdf\r\n\r\nx")
    assert (reason, "1" in message) == ("document_empty", True)


def test_deeply_nested_message_is_bounded() -> None:
    """The nesting is deeper than in any real mail."""
    part = plain("x")
    for number in range(150):
        part = f"Content-Type: multipart/mixed; boundary=b{number}\r\n\r\n--b{number}\r\n{part}\r\n--b{number}--\r\n"
    assert problem(message(part))[0] == "document_unreadable"


@pytest.mark.parametrize(
    "header",
    [
        'multipart/mixed;\r\n\tboundary="a\r\n b"',
        "text/plain; charset*0=iso-; charset*1=8859-1",
        "text/plain; charset*=us-ascii'en'iso-8859-1",
        'Text/Plain;charset = "utf-8" ; name="a;b"',
        "text/html",
    ],
)
def test_headers_agree_with_the_standard_library(header: str) -> None:
    """The simple parser returns the values of `email.policy.default`."""
    data = f"Content-Type: {header}\r\n\r\nx".encode()
    own, standard = (message_from_bytes(data, policy=header_policy) for header_policy in (POLICY, policy.default))
    for name in ("get_content_type", "get_boundary", "get_content_charset", "get_filename", "get_content_disposition"):
        assert getattr(own, name)() == getattr(standard, name)(), name


# any tree of parts


_NUMBERS = itertools.count()


@st.composite
def _tree(draw: st.DrawFn, depth: int = 3) -> tuple[MIMEPart, list[str]]:
    """Return a part, and the words of its texts in order, without those of unused alternatives."""
    number = f"{next(_NUMBERS)}."
    kinds = ["plain", "html", "attachment"] + (["mixed", "related", "alternative", "rfc822"] if depth else [])
    kind = draw(st.sampled_from(kinds))
    part = EmailMessage(policy.default)
    if kind in ("plain", "html"):
        words = f"word{number} größe{number}"
        part.set_content(words if kind == "plain" else f"<div><p>{words}</p></div>", subtype=kind)
        return part, [f"word{number}"]
    if kind == "attachment":
        part.set_content(b"%PDF", maintype="application", subtype="pdf", filename="a.pdf")
        return part, []
    if kind == "alternative":
        words = f"word{number} größe{number}"
        part.make_alternative()
        part.add_alternative(words, subtype="plain")
        part.add_alternative(f"<p>lost{number} größe{number}</p>", subtype="html")
        return part, [f"word{number}"]
    children = draw(st.lists(_tree(depth - 1), min_size=1, max_size=3 if kind != "rfc822" else 1))
    if kind == "rfc822":
        inner, inner_words = children[0]
        if not inner["Subject"]:
            inner["Subject"] = f"subject{number}"
        outer = MIMEPart(policy.default)
        outer["Content-Type"] = "message/rfc822"
        outer.set_payload([inner])
        return outer, [f"subject{number}", *inner_words]
    part["Content-Type"] = f"multipart/{kind}"
    for child, _ in children:
        part.attach(child)
    return part, [word for _, words in children for word in words]


@settings(deadline=None, max_examples=60)
@given(_tree())
def test_all_texts_except_unused_alternatives_appear_in_order(tree: tuple[MIMEPart, list[str]]) -> None:
    """This holds for any nesting of mixed, related, alternative and forwarded parts."""
    part, words = tree
    whole = EmailMessage(policy.default)
    whole["Subject"] = "top"
    whole["Content-Type"] = "multipart/mixed"
    whole.attach(part)
    try:
        result = text_of(whole.as_bytes())
    except DocumentError as error:
        assert error.reason == "document_empty"
        assert not [word for word in words if word.startswith("word")]
        return
    places = [result.find(word) for word in words]
    assert -1 not in places
    assert places == sorted(places)
    assert "lost" not in result


# many messages in a file, and Outlook's


def messages(folder: Path, **more: object) -> list[tuple[str, str]]:
    """Return id and text, or reason, of each message of a folder."""
    config = InputConfig(uri=(InputSource(str(folder)),), **more)  # type: ignore[arg-type]
    collected = []
    for entry in load_entries(config, output=None, counts=ListingCounts()):
        try:
            collected.append((entry.id, decode(entry, entry.read(), text_field="text").text))
        except DocumentError as error:
            collected.append((entry.id, error.reason))
    return collected


MAILBOX = (
    b"From a@example.com Mon Mar  3 10:00:00 2025\nSubject: one\n\nfirst text\n\nFrom here on it is the same text.\n\n"
    b"From b@example.com Mon Mar  3 11:00:00 2025\nSubject: two\n\nsecond\n>From us\n\n"
    b"From c\nSubject: three\n\nthird\n"
)


@pytest.mark.parametrize("name", ["a.mbox", "a.eml", "a.mbox.gz"])
def test_mailbox_is_split_into_messages(tmp_path: Path, name: str) -> None:
    """It may have the suffix of a message; a text line that begins with From starts no message."""
    (tmp_path / name).write_bytes(gzip.compress(MAILBOX) if name.endswith(".gz") else MAILBOX)
    assert messages(tmp_path) == [
        (f"{name}#1", "Subject: one\n\nfirst text\n\nFrom here on it is the same text.\n\n"),
        (f"{name}#2", "Subject: two\n\nsecond\n>From us\n\n"),
        (f"{name}#3", "Subject: three\n\nthird\n"),
    ]


def test_mailbox_named_eml_in_an_archive(tmp_path: Path) -> None:
    """Its three messages are not one text, and a single message is not probed twice."""
    case_name = "11_mbox_of_three_messages_named_eml.eml"
    (tmp_path / "b.eml").write_bytes((CASES / case_name).read_bytes())
    (tmp_path / "c.eml").write_bytes(b"From: x\nSubject: y\n\nwords")
    assert messages(tmp_path) == [
        ("b.eml#1", "Subject: one\nFrom: a@example.com\n\nfirst text\n\n"),
        ("b.eml#2", "Subject: two\nFrom: b@example.com\n\nsecond text\n"),
        ("c.eml", "Subject: y\nFrom: x\n\nwords"),
    ]


def test_too_long_message_of_a_mailbox_fails_alone(tmp_path: Path) -> None:
    """No more than the limit is held in memory, even of an endless line."""
    data = MAILBOX.replace(b"second", b"x" * 300_000)
    (tmp_path / "a.mbox").write_bytes(data)
    assert [text[:12] for _, text in messages(tmp_path, max_document_bytes=1000)] == [
        "Subject: one", "document_too", "Subject: thr",
    ]  # fmt: skip


def test_outlook_message_is_read() -> None:
    """Its text follows its headers, as in other messages."""
    decoded = decode_msg((CASES / "outlook.msg").read_bytes(), "text")
    sender = '"peterpan@neverland.com" <peterpan@neverland.com>'
    assert decoded.text == f"Subject: This is the subject\nFrom: {sender}\n\nThis is a message"
    assert decoded.metadata == {"subject": "This is the subject", "from": sender}
    for data in (b"", b"no message", (CASES / "outlook.msg").read_bytes()[:4000]):
        with pytest.raises(DocumentError) as error:
            decode_msg(data, "text")
        assert error.value.reason == "document_unreadable"


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_any_damage_to_an_outlook_message_gives_document_error_or_text(data: st.DataObject) -> None:
    """No other exception is raised."""
    content = bytearray((CASES / "outlook.msg").read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at : at + 4] = data.draw(st.binary(min_size=4, max_size=4))
    try:
        decoded = decode_msg(bytes(content), "text")
    except DocumentError as error:
        assert error.reason in ("document_unreadable", "document_empty", "unsupported_format")
    else:
        assert decoded.text.strip()

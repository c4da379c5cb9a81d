"""Measure how often the encoding of a text is guessed right, for many languages in their legacy encodings.

    python scripts/bench_encodings.py [--detector ours|chardet|charset_normalizer] [--sizes 60,200,1000] [--verbose]

The texts are sentences of Django's translations (`pip install django`), in a random but repeatable order. A guess is
right if the decoded text is the original, wrong if it is another one, and refused if there is no text. The exit code
is 1 when more than MAX_WRONG of the texts of LONG_BYTES or more are wrong.
"""

from __future__ import annotations

import argparse
import gettext
import importlib
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

MAX_WRONG = 0.02
LONG_BYTES = 200

_WESTERN = ("cp1252", "iso8859_15", "cp850", "mac_roman")
_DOS = ("cp437",)
_CENTRAL = ("cp1250", "iso8859_2", "cp852")
_BALTIC = ("cp1257", "iso8859_13", "cp775")
_CYRILLIC = ("cp1251", "iso8859_5", "cp855", "mac_cyrillic")
_WIDE = ("utf_16_le", "utf_16_be")

ENCODINGS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("de", "fr", "es", "it", "sv", "fi", "nl"), _WESTERN + _DOS),
    **dict.fromkeys(("pt", "pt_BR", "da", "nb", "nn", "is", "ca", "gl", "eu", "ga", "af", "sq", "br"), _WESTERN),
    **dict.fromkeys(("pl", "cs", "sk", "hu", "sl", "hr", "ro", "dsb", "hsb"), _CENTRAL),
    **dict.fromkeys(("lt", "lv", "et"), _BALTIC),
    "ru": (*_CYRILLIC, "koi8_r", "cp866", *_WIDE),
    "uk": (*_CYRILLIC[:2], "koi8_u", "mac_cyrillic"),
    "bg": (*_CYRILLIC, "cp866"),
    "be": ("cp1251", "iso8859_5"),
    "mk": ("cp1251", "iso8859_5", "cp855"),
    "sr": ("cp1251", "iso8859_5", "cp855"),
    "el": ("cp1253", "iso8859_7", "cp737", "mac_greek"),
    "tr": ("cp1254", "iso8859_9", "cp857", "mac_turkish"),
    "az": ("cp1254",),
    "he": ("cp1255", "iso8859_8", "cp862"),
    "ar": ("cp1256", "iso8859_6", *_WIDE),
    "fa": ("cp1256",),
    "th": ("cp874", "tis_620"),
    "vi": ("cp1258",),
    "ja": ("cp932", "euc_jp", "iso2022_jp", *_WIDE),
    "zh_Hans": ("gb18030", "gb2312", "hz", *_WIDE),
    "zh_Hant": ("big5", "cp950", "utf_16_le"),
    "ko": ("cp949", "euc_kr", "iso2022_kr", "utf_16_le"),
    "en": _WIDE,
}
"""The encodings in which texts of a language were kept, by Django's code of the language."""

_FOLDED = str.maketrans({"“": '"', "”": '"', "„": '"', "’": "'", "‘": "'", "–": "-", "—": "-", "…": "...", "\xa0": " "})
_PLACEHOLDER = re.compile(r"%\(\w+\)\w|%\w|\{\w*\}|<[^>]*>|&\w+;")

Decoder = Callable[[bytes], str | None]


def sentences(language: str, *, root: Path) -> list[str]:
    """Return the distinct sentences of a language, without the places for names and numbers."""
    distinct: dict[str, None] = {}
    for path in sorted(root.rglob(f"locale/{language}/LC_MESSAGES/django.mo")):
        with path.open("rb") as file:
            catalog = gettext.GNUTranslations(file)._catalog  # type: ignore[attr-defined]
        for key, value in sorted(catalog.items(), key=str):
            text = " ".join(_PLACEHOLDER.sub("", value).split())
            if key and text and text != (key[0] if isinstance(key, tuple) else key):
                distinct[text] = None
    return list(distinct)


def samples(texts: list[str], encoding: str, *, size: int, count: int, seed: str) -> Iterator[tuple[str, bytes]]:
    """Yield texts of about this size in bytes with their bytes; each holds a character outside of ASCII."""
    fitting = [text for candidate in texts if (text := _fitted(candidate, encoding)) is not None]
    if not fitting:
        return
    rng = random.Random(seed)
    for _ in range(count):
        chosen = ""
        while len(chosen.encode(encoding)) < size:
            chosen += rng.choice(fitting) + rng.choice((" ", "\n"))
        if not chosen.isascii() or encoding.startswith("utf_16"):
            yield chosen, chosen.encode(encoding)


def _fitted(text: str, encoding: str) -> str | None:
    for variant in (text, text.translate(_FOLDED)):
        try:
            if variant.encode(encoding).decode(encoding) == variant:
                return variant
        except UnicodeError:
            continue
    return None


def _ours() -> Decoder:
    from pipeline.documents.encodings.decoding import to_text
    from pipeline.errors import DocumentError

    def decode(data: bytes) -> str | None:
        try:
            return to_text(data)[0]
        except DocumentError:
            return None

    return decode


def _library(name: str, guess: Callable[[bytes], str | None]) -> Decoder:
    importlib.import_module(name)

    def decode(data: bytes) -> str | None:
        encoding = guess(data)
        try:
            return data.decode(encoding) if encoding else None
        except (LookupError, UnicodeError):
            return None

    return decode


def _charset_normalizer(data: bytes) -> str | None:
    import charset_normalizer

    best = charset_normalizer.from_bytes(data).best()
    return best.encoding if best else None


def _detect(name: str) -> Callable[[bytes], str | None]:
    def guess(data: bytes) -> str | None:
        encoding: str | None = importlib.import_module(name).detect(data)["encoding"]
        return encoding

    return guess


DETECTORS: dict[str, Callable[[], Decoder]] = {
    "ours": _ours,
    "chardet": lambda: _library("chardet", _detect("chardet")),
    "cchardet": lambda: _library("cchardet", _detect("cchardet")),
    "charset_normalizer": lambda: _library("charset_normalizer", _charset_normalizer),
}


def measure(
    decode: Decoder, texts: dict[str, list[str]], *, sizes: list[int], count: int
) -> dict[tuple[str, str, int], Counter[str]]:
    """Return right, wrong and refused by language, encoding and size."""
    found: dict[tuple[str, str, int], Counter[str]] = {}
    for language, encodings in ENCODINGS.items():
        for encoding in encodings:
            for size in sizes:
                counts = found[language, encoding, size] = Counter()
                seed = f"{language} {encoding} {size}"
                for text, data in samples(texts[language], encoding, size=size, count=count, seed=seed):
                    decoded = decode(data)
                    counts["refused" if decoded is None else "right" if decoded == text else "wrong"] += 1
    return found


def main() -> int:
    """Print the table; return 1 when too many long texts are wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--detector", choices=DETECTORS, default="ours")
    parser.add_argument("--sizes", default="60,200,1000", help="sizes of the texts in bytes")
    parser.add_argument("--count", type=int, default=5, help="texts of each language, encoding and size")
    parser.add_argument("--verbose", action="store_true", help="print each language and encoding")
    options = parser.parse_args()
    import django

    root = Path(django.__file__).parent
    texts = {language: sentences(language, root=root) for language in ENCODINGS}
    sizes = [int(size) for size in options.sizes.split(",")]
    started = time.process_time()
    results = measure(DETECTORS[options.detector](), texts, sizes=sizes, count=options.count)
    seconds = time.process_time() - started
    if options.verbose:
        for (language, encoding, size), counts in results.items():
            if counts["wrong"] or counts["refused"]:
                print(f"{language:8}{encoding:14}{size:6}  {dict(counts)}")
    print(
        f"{options.detector}: {len(ENCODINGS)} languages, {len({(k[0], k[1]) for k in results})} pairs with an encoding"
    )
    print(f"{'bytes':>7}{'texts':>8}{'right':>9}{'wrong':>9}{'refused':>9}")
    for size in sizes:
        total = sum((counts for key, counts in results.items() if key[2] == size), Counter[str]())
        all_texts = sum(total.values())
        shares = "".join(f"{total[kind] / all_texts:9.2%}" for kind in ("right", "wrong", "refused"))
        print(f"{size:7}{all_texts:8}{shares}")
    number = sum(sum(counts.values()) for counts in results.values())
    print(f"{seconds / number * 1000:.2f} ms of CPU time for each text")
    long = sum((counts for key, counts in results.items() if key[2] >= LONG_BYTES), Counter[str]())
    return int(long["wrong"] > MAX_WRONG * sum(long.values()))


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    sys.exit(main())

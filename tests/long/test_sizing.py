"""Window sizes: the room in a request, and the bytes per token."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.long.sizing import Room, Sizer, WindowSize, size_text, too_small
from pipeline.long.windows import cut

ROOM = Room(context_length=8192, max_tokens=1024, prompt_tokens=610)
PROSE = "The first two were unloaded before noon. " * 4000


def counting(bytes_per_token: float, lengths: list[int] | None = None) -> Callable[[str], int]:
    """A tokenizer with this many bytes per token that records the lengths of the texts it has counted."""

    def count(text: str) -> int:
        if lengths is not None:
            lengths.append(len(text))
        return max(1, round(len(text.encode()) / bytes_per_token))

    return count


def test_room_is_the_rest_of_the_context() -> None:
    """Answer, prompt, re-ask and lead are subtracted; several copies of the text share the room."""
    assert (ROOM.tokens, ROOM.whole_tokens, ROOM.most_tokens) == (5808, 5808, 6558)
    assert Room(context_length=8192, max_tokens=1024, prompt_tokens=610, reasks=False).tokens == 6558
    assert Room(context_length=8192, max_tokens=1024, prompt_tokens=610, before_bytes=301).tokens == 5808 - 101
    assert Room(context_length=8192, max_tokens=1024, prompt_tokens=610, copies=2, before_bytes=300).tokens == 2804
    assert Room(context_length=None, max_tokens=1024, prompt_tokens=610).tokens is None


def test_window_size_is_the_smallest_of_three_bounds() -> None:
    """They are nine tenths of the room; eight times the answer, at least 1,000; and `window_tokens`."""
    assert Sizer().size(ROOM, 3.0) == WindowSize(5227, 200, 3.0)
    small = Room(context_length=32768, max_tokens=100, prompt_tokens=0)
    assert Sizer().size(small, 3.0) == WindowSize(1000, 50, 3.0)
    assert Sizer(window_tokens=2000, overlap_tokens=900).size(ROOM, 3.0) == WindowSize(2000, 500, 3.0)
    assert Sizer(window_tokens=20_000, overlap_tokens=0).size(ROOM, 3.0) == WindowSize(5227, 0, 3.0)
    unknown = Room(context_length=None, max_tokens=1024, prompt_tokens=0)
    assert Sizer().size(unknown, 3.0) == WindowSize(3000, 150, 3.0)


def test_densest_of_three_samples_decides() -> None:
    """A text with digits at its end therefore gets smaller windows throughout."""
    lengths: list[int] = []
    text = PROSE + "7 1 9 4 " * 1000

    def count(sample: str) -> int:
        lengths.append(len(sample))
        return len(sample) // (2 if "7" in sample else 4)

    assert Sizer().bytes_per_token(text, endpoint="a", count=count) == 2.0
    assert lengths == [4096, 4096, 4096]


def test_servers_own_counts_decide_without_a_tokenizer() -> None:
    """From five counts on it is the tenth percentile of the last 101 honest ones, per endpoint."""
    sizer = Sizer()
    for ratio in (4.0, 4.1, 4.2, 4.3, 100.0, 0.1):
        sizer.learn("a", 10_000, round(10_000 / ratio))
    sizer.learn("a", 10_000, None)
    assert sizer.bytes_per_token(PROSE, endpoint="a") == 3.0
    sizer.learn("a", 10_000, 5000)
    assert sizer.bytes_per_token(PROSE, endpoint="a") == 2.0
    for _ in range(101):
        sizer.learn("a", 10_000, 2500)
    assert sizer.bytes_per_token(PROSE, endpoint="a") == 4.0
    assert sizer.bytes_per_token(PROSE, endpoint="b") == 3.0


def test_server_without_a_tokenizer_gets_at_most_two_requests() -> None:
    """Each endpoint counts separately."""
    requests: list[str] = []

    def none(text: str) -> None:
        requests.append(text)

    sizer = Sizer()
    for endpoint in ("a", "a", "a", "b"):
        assert sizer.bytes_per_token(PROSE, endpoint=endpoint, count=none) == 3.0
    assert len(requests) == 3


def test_document_is_split_only_if_it_does_not_fit() -> None:
    """It is whole below 0.8 of the room and split from 1.25 on; in between the tokenizer counts all of it."""
    lengths: list[int] = []
    sizer = Sizer()
    count = counting(4.0, lengths)
    short = "a" * 4000
    assert not sizer.sizing(short, ROOM, endpoint="a", count=count).is_cut
    assert lengths == []  # it fits even if each byte is a token
    assert not sizer.sizing(PROSE[: 4 * 4000], ROOM, endpoint="a", count=count).is_cut
    assert len(lengths) == 3
    assert sizer.sizing(PROSE[: 4 * 7500], ROOM, endpoint="a", count=count).is_cut
    assert len(lengths) == 6
    assert not sizer.sizing(PROSE[: 4 * 6500], ROOM, endpoint="a", count=count).is_cut
    assert sizer.sizing(PROSE[: 4 * 6600], ROOM, endpoint="a", count=count).is_cut
    assert not sizer.sizing(PROSE[: 3 * 6600], ROOM, endpoint="c").is_cut  # no server counts: sent whole


def test_window_tokens_splits_documents_that_would_fit() -> None:
    """Recall falls with length."""
    sizing = Sizer(window_tokens=1000).sizing(PROSE[:8000], ROOM, endpoint="a", count=counting(4.0))
    assert sizing.is_cut
    assert sizing.size == WindowSize(1000, 50, 4.0)


def test_too_small_room_causes_a_warning() -> None:
    """Long documents then fail as with `overflow: fail`."""
    room = Room(context_length=2048, max_tokens=1024, prompt_tokens=154)
    assert too_small(room) == (
        "overflow: split: the prompt and max_tokens leave 120 tokens of the context of 2048 for a window, need 256"
    )
    sizing = Sizer().sizing(PROSE, room, endpoint="a")
    assert (sizing.is_cut, sizing.size) == (False, None)
    assert too_small(ROOM) is None


def test_refused_window_is_resized_by_the_refusals_numbers() -> None:
    """They are the needed tokens or the context length; None if neither makes the window smaller."""
    sizer = Sizer()
    size = sizer.size_after_refusal(ROOM, 15_681, needed_tokens=610 + 7840, bytes_per_token=3.0)
    assert size == WindowSize(5227, 200, 15_681 / 7840)
    halved = Room(context_length=4096, max_tokens=1024, prompt_tokens=610)
    size = sizer.size_after_refusal(halved, 15_681, needed_tokens=None, bytes_per_token=3.0)
    assert size is not None
    assert size.tokens == 1540
    assert sizer.size_after_refusal(ROOM, 15_000, needed_tokens=None, bytes_per_token=3.0) is None


def test_check_explains_the_window_size() -> None:
    """It prints the parts of the context, and the bound that decides."""
    size = Sizer().size(ROOM, 3.0)
    assert size is not None
    assert size_text(ROOM, size, lead_chars=300) == (
        "split: windows of about 5,227 tokens (context 8,192 \N{MINUS SIGN} answer 1,024 \N{MINUS SIGN} prompt 610 "
        "\N{MINUS SIGN} re-ask 750, nine tenths), overlap 200, lead 300 characters"
    )
    own = Sizer(window_tokens=1000).size(ROOM, 3.0)
    assert own is not None
    assert "re-ask 750, window_tokens), overlap 50, no lead" in size_text(ROOM, own, lead_chars=0)
    framed = replace(ROOM, before_bytes=150)
    assert "re-ask 750 \N{MINUS SIGN} lines before it 50, window_tokens), overlap 50, no lead" in size_text(
        framed, own, lead_chars=0
    )


@settings(max_examples=40, deadline=None)
@given(
    text=st.text(min_size=1, max_size=60).map(lambda text: text * 300),
    window=st.integers(256, 3000),
    overlap=st.none() | st.integers(0, 2000),
    ratio=st.floats(0.5, 12),
)
def test_any_computed_size_is_valid_for_windows(text: str, window: int, overlap: int | None, ratio: float) -> None:
    """This holds for any settings and token densities."""
    size = Sizer(window_tokens=window, overlap_tokens=overlap).size(ROOM, ratio)
    assert size is not None
    spans = cut(text, size.budget_bytes, size.overlap_bytes)
    assert all(len(text[span.start : span.end].encode("utf-8", "surrogatepass")) <= size.budget_bytes for span in spans)

"""Pure functions about places in long texts, such as the occurrences of a quote in a document.

It must not read configuration, files or a schema; everything but `errors`, `records` and `config` may import it.
"""

from pipeline.long.quotes import MatchKind as MatchKind
from pipeline.long.quotes import QuotePlace as QuotePlace
from pipeline.long.quotes import Span as Span
from pipeline.long.quotes import find_quotes as find_quotes
from pipeline.long.quotes import find_window_quotes as find_window_quotes
from pipeline.long.quotes import is_blank as is_blank
from pipeline.long.quotes import joined as joined

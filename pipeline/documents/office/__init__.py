"""Office files (.docx, .pptx, .xlsx and their kin): the text of every part that a reader sees, in reading order.

    package.py ──▶ xml_events.py ──▶ text_reader.py (+ word.py, slides.py) ──▶ flow.py ──▶ lines
    (parts)        (short names)     sheet_reader.py (+ cells.py, number_format.py)

Python's own zip and expat read them, as streams: the libraries for these formats build whole trees in memory and leave
out text boxes, content controls, notes, comments or charts. Only decode.py is used from outside.
Format: ECMA-376 5th edition, transitional and strict. It must not run macros or follow external links.
"""

from pipeline.documents.office.decode import decode_office

__all__ = ["decode_office"]

"""Office files (.docx, .pptx, .xlsx and their kin): the text of every part that a reader sees, in reading order.

    package.py ──▶ xml_events.py ──▶ text_reader.py (+ word.py, slides.py) ──▶ flow.py ──▶ lines
    (parts)        (short names)     sheet_reader.py (+ cells.py, number_format.py)

Python's own zip and expat read the files as streams, because libraries omit text silently: of about 260 documents, 174
presentations and 303 workbooks of the tests of Apache POI and pandoc, words were missing in 62 (python-docx 1.2), 64
(mammoth 1.13), 18 and 7 refused (docx2python 3.7), 54 (python-pptx 1.0) and 82 (openpyxl 3.1, read-only): text boxes,
content controls, notes, diagrams, charts, comments. Only decode.py is used from outside.
Format: ECMA-376 5th edition, transitional and strict. It must not run macros or follow external links.
"""

from pipeline.documents.office.decode import decode_office

__all__ = ["decode_office"]

"""The texts of a PDF page that are not in its content: values of form fields, and free-text annotations.

Interface: fpdf_annot.h of PDFium, by pypdfium2's raw bindings.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pypdfium2 import PdfDocument, PdfPage

MAX_ANNOTATIONS = 100_000
_MAX_BYTES = 1 << 24


def field_texts(document: PdfDocument, page: PdfPage) -> list[str]:
    """Return a line with name and value for each form field of the page that is filled in."""
    from pypdfium2 import raw

    form = document.formenv
    if form is None:
        return []
    typed = {raw.FPDF_FORMFIELD_TEXTFIELD, raw.FPDF_FORMFIELD_COMBOBOX, raw.FPDF_FORMFIELD_LISTBOX}
    ticked = {raw.FPDF_FORMFIELD_CHECKBOX, raw.FPDF_FORMFIELD_RADIOBUTTON}
    lines = []
    for annotation in _annotations(page, raw.FPDF_ANNOT_WIDGET):
        kind = raw.FPDFAnnot_GetFormFieldType(form, annotation)
        function: Any = None
        if kind in typed:
            function = raw.FPDFAnnot_GetFormFieldValue
        elif kind in ticked and raw.FPDFAnnot_IsChecked(form, annotation):
            function = raw.FPDFAnnot_GetFormFieldExportValue
        value = _text(partial(function, form, annotation)) if function else ""
        name = _text(partial(raw.FPDFAnnot_GetFormFieldName, form, annotation))
        if value.strip():
            lines.append(f"{name}: {value.strip()}" if name else value.strip())
    return lines


def annotation_texts(page: PdfPage) -> list[str]:
    """Return the texts of the page's free-text annotations."""
    from pypdfium2 import raw

    texts = [
        _text(partial(raw.FPDFAnnot_GetStringValue, annotation, b"Contents"))
        for annotation in _annotations(page, raw.FPDF_ANNOT_FREETEXT)
    ]
    return [text.replace("\r\n", "\n").replace("\r", "\n").strip() for text in texts if text.strip()]


def _annotations(page: PdfPage, subtype: int) -> Iterator[Any]:
    from pypdfium2 import raw

    for number in range(min(raw.FPDFPage_GetAnnotCount(page), MAX_ANNOTATIONS)):
        with _annotation(page, number) as annotation:
            if annotation and raw.FPDFAnnot_GetSubtype(annotation) == subtype:
                yield annotation


@contextmanager
def _annotation(page: PdfPage, number: int) -> Iterator[Any]:
    from pypdfium2 import raw

    annotation = raw.FPDFPage_GetAnnot(page, number)
    try:
        yield annotation
    finally:
        if annotation:
            raw.FPDFPage_CloseAnnot(annotation)


def _text(write_text: Callable[[Any, int], int]) -> str:
    """Return the UTF-16 text that a function writes into a buffer of bytes; it returns the size that it needs."""
    from pypdfium2 import raw

    size = write_text(None, 0)
    if not 2 < size <= _MAX_BYTES:
        return ""
    buffer = ctypes.create_string_buffer(size)
    write_text(ctypes.cast(buffer, ctypes.POINTER(raw.FPDF_WCHAR)), size)
    return buffer.raw[: size - 2].decode("utf-16-le", "replace")

"""The header of a submission to EDGAR: the filer, the form and the date.

Two spellings: `CENTRAL INDEX KEY: 0000320193` in the files of sec.gov, `<CIK>0000320193` in those of the dissemination
service. It must not read the documents.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_LINE = re.compile(r"^[ \t]*([A-Z][A-Z0-9 /.&-]{0,60}):[ \t]*([^\r\n]*)|<([A-Z][A-Z-]{0,60})>([^<\r\n]*)", re.MULTILINE)

_FIELDS: Mapping[str, str] = {
    "ACCESSION NUMBER": "accession_number",
    "CONFORMED SUBMISSION TYPE": "form_type",
    "TYPE": "form_type",
    "CONFORMED PERIOD OF REPORT": "period",
    "PERIOD": "period",
    "FILED AS OF DATE": "filing_date",
    "FILING DATE": "filing_date",
    "COMPANY CONFORMED NAME": "company",
    "CONFORMED NAME": "company",
    "CENTRAL INDEX KEY": "cik",
    "CIK": "cik",
    "STANDARD INDUSTRIAL CLASSIFICATION": "industry",
    "ASSIGNED SIC": "industry",
}
_FILERS = frozenset({"FILED BY", "REPORTING OWNER", "REPORTING-OWNER"})
_COMPANIES = frozenset(
    {"FILER", "ISSUER", "SUBJECT COMPANY", "SERIAL COMPANY", "DEPOSITOR", "SECURITIZER", "FILED FOR"}
)
_OF_PARTY = frozenset({"company", "cik", "industry"})
_DATES = frozenset({"period", "filing_date"})


def header_metadata(header: str) -> dict[str, str]:
    """Return company, CIK, form type, dates and so on; several companies are separated by `; `.

    `filed_by`: the filers about another company, such as the owners of its shares.
    """
    fields: dict[str, list[str]] = {}
    by_others = False
    for match in _LINE.finditer(header):
        key = (match[1] or match[3].replace("-", " ")).strip()
        value = (match[2] or match[4] or "").strip()
        if key in _FILERS or key in _COMPANIES:
            by_others = key in _FILERS
        name = _FIELDS.get(key)
        if name is None or not value.strip("[] "):
            continue
        if name in _OF_PARTY and by_others:
            name = "filed_by" if name == "company" else ""
        if name in _DATES and re.fullmatch(r"\d{8}", value):
            value = f"{value[:4]}-{value[4:6]}-{value[6:]}"
        listed = fields.setdefault(name, [])
        if value not in listed and (name in _OF_PARTY or name == "filed_by" or not listed):
            listed.append(value)
    if "company" not in fields and "filed_by" in fields:
        fields["company"] = fields.pop("filed_by")
    return {name: "; ".join(values) for name, values in fields.items() if name}

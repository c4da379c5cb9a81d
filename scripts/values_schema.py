"""Generate parts of the chart's values.schema.json: the pipeline's config, and the objects of Kubernetes.

Only `pipelineConfig` and the definitions named `io.k8s…` are generated; all other parts must not change.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

from pipeline.config.json_schema import config_schema

SCHEMA = Path(__file__).parent.parent / "config" / "helm" / "extraction-pipeline" / "values.schema.json"
KUBERNETES = "kubernetes-json-schema/v1.37.0-local-strict/_definitions.json"
_PREFIX = "io.k8s."


def _one_of(**properties: list[str]) -> dict[str, Any]:
    return {"properties": {name: {"enum": [*accepted, None]} for name, accepted in properties.items()}}


_TEXT = {"type": "string", "minLength": 1}
_TOLERATION = [
    _one_of(operator=["", "Exists", "Equal", "Lt", "Gt"], effect=["", "NoSchedule", "PreferNoSchedule", "NoExecute"]),
    {"properties": {"key": {"$ref": "#/definitions/labelName"}, "value": {"$ref": "#/definitions/labelValue"}}},
    {
        "if": {"required": ["operator"], "properties": {"operator": {"const": "Exists"}}},
        "then": {"properties": {"value": {"enum": ["", None]}}},
        "else": {"required": ["key"], "properties": {"key": _TEXT}},
    },
    {
        "if": {"required": ["tolerationSeconds"]},
        "then": {"required": ["effect"], "properties": {"effect": {"const": "NoExecute"}}},
    },
]
_DNS_LABEL = {"maxLength": 63, "pattern": "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"}
_ADDRESS = {"pattern": "^([0-9]{1,3}([.][0-9]{1,3}){3}|[0-9a-fA-F:.]*:[0-9a-fA-F:.]*)$"}
_NOT_NEGATIVE = {"minimum": 0}
_SELECTED = ["In", "NotIn", "Exists", "DoesNotExist"]
_STRICTER: dict[str, list[dict[str, Any]]] = {
    "io.k8s.api.core.v1.Toleration": _TOLERATION,
    "io.k8s.api.core.v1.NodeSelectorRequirement": [_one_of(operator=[*_SELECTED, "Gt", "Lt"])],
    "io.k8s.apimachinery.pkg.apis.meta.v1.LabelSelectorRequirement": [_one_of(operator=_SELECTED)],
    "io.k8s.api.core.v1.TopologySpreadConstraint": [
        _one_of(whenUnsatisfiable=["DoNotSchedule", "ScheduleAnyway"]),
        {"properties": {"maxSkew": {"minimum": 1}}},
    ],
    "io.k8s.api.core.v1.VolumeMount": [{"properties": {"mountPath": {"pattern": "^/[^:]*$"}}}],
    "io.k8s.api.core.v1.SeccompProfile": [_one_of(type=["RuntimeDefault", "Unconfined", "Localhost"])],
    "io.k8s.api.core.v1.PodSecurityContext": [
        _one_of(fsGroupChangePolicy=["OnRootMismatch", "Always"]),
        {"properties": dict.fromkeys(("runAsUser", "runAsGroup", "fsGroup"), _NOT_NEGATIVE)},
    ],
    "io.k8s.api.core.v1.SecurityContext": [{"properties": dict.fromkeys(("runAsUser", "runAsGroup"), _NOT_NEGATIVE)}],
    # a name, and one source
    "io.k8s.api.core.v1.Volume": [{"minProperties": 2, "maxProperties": 2, "properties": {"name": _DNS_LABEL}}],
    "io.k8s.api.core.v1.EnvFromSource": [
        {"oneOf": [{"required": [name]} for name in ("configMapRef", "secretRef")]},
    ],
    "io.k8s.api.core.v1.EnvVar": [
        {"properties": {"name": {"pattern": "^[ -<>-~]+$"}}, "not": {"required": ["value", "valueFrom"]}},
    ],
    "io.k8s.api.core.v1.Container": [{"required": ["image"], "properties": {"name": _DNS_LABEL, "image": _TEXT}}],
    "io.k8s.api.core.v1.HostAlias": [{"required": ["ip"], "properties": {"ip": _ADDRESS}}],
    "io.k8s.api.core.v1.PodDNSConfig": [
        {"properties": {"nameservers": {"maxItems": 3, "items": _ADDRESS}, "searches": {"maxItems": 32}}},
    ],
}
"""Rules of the API server beyond the published schemas, for the objects in the values."""


def completed(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of the values with `pipelineConfig`, and each definition that it refers to."""
    definitions = json.loads((files("kubernetes_validate") / KUBERNETES).read_text(encoding="utf-8"))["$defs"]
    own_definitions = {
        name: definition for name, definition in schema["definitions"].items() if not name.startswith(_PREFIX)
    }
    config = {
        key: value for key, value in config_schema().items() if key in ("type", "additionalProperties", "properties")
    }
    properties = {**schema["properties"], "pipelineConfig": config}
    kubernetes_definitions: dict[str, Any] = {}
    queue = sorted(_named([own_definitions, properties]))
    while queue:
        name = queue.pop()
        if name not in kubernetes_definitions:
            rules = {"allOf": _STRICTER[name]} if name in _STRICTER else {}
            kubernetes_definitions[name] = {**_closed(definitions[name]), **rules}
            queue += _named(kubernetes_definitions[name])
    return {
        **schema,
        "properties": properties,
        "definitions": {**own_definitions, **dict(sorted(kubernetes_definitions.items()))},
    }


def _named(node: Any) -> Iterator[str]:
    """Yield the names of the referenced definitions of Kubernetes."""
    if isinstance(node, list):
        for value in node:
            yield from _named(value)
    elif isinstance(node, dict):
        name = str(node.get("$ref", "")).rpartition("/")[2]
        if name.startswith(_PREFIX):
            yield name
        for value in node.values():
            yield from _named(value)


def _closed(node: Any) -> Any:
    """Return a definition without descriptions, with references into this schema."""
    if isinstance(node, list):
        return [_closed(item) for item in node]
    if not isinstance(node, dict):
        return node.replace("#/$defs/", "#/definitions/") if isinstance(node, str) else node
    prose = {
        key
        for key, value in node.items()
        if key.startswith("x-kubernetes") or (key, type(value)) == ("description", str)
    }
    return {key: _closed(value) for key, value in node.items() if key not in prose}


def as_text(schema: dict[str, Any]) -> str:
    """Return the file's text: generated parts on one line each, all others indented."""
    entries = {**schema["definitions"], "pipelineConfig": schema["properties"]["pipelineConfig"]}
    lines = {name: value for name, value in entries.items() if name == "pipelineConfig" or name.startswith(_PREFIX)}
    short = {
        **schema,
        "properties": {**schema["properties"], "pipelineConfig": "@pipelineConfig"},
        "definitions": {
            name: f"@{name}" if name in lines else definition for name, definition in schema["definitions"].items()
        },
    }
    text = json.dumps(short, indent=2) + "\n"
    for name, line in lines.items():
        text = text.replace(f'"@{name}"', json.dumps(line, ensure_ascii=False))
    return text


def main() -> int:
    """Generate the file and return 0."""
    SCHEMA.write_text(as_text(completed(json.loads(SCHEMA.read_text(encoding="utf-8")))), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

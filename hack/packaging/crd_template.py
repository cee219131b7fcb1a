"""The custom resource definition as a template of the chart.

It is a template and no file of `crds/`, because Helm never upgrades what lies there.
"""

from __future__ import annotations

import json


def crd_template(definition: str) -> str:
    """The template for the YAML text of one CustomResourceDefinition, which is changed in nothing but its metadata.

    Raises:
        ValueError: the text does not start as a generated definition does.
    """
    lines = definition.splitlines(keepends=True)
    if "metadata:\n" not in lines or "spec:\n" not in lines:
        raise ValueError("manifests/crd.yaml has no lines `metadata:` and `spec:`; generate it with `empg crd`")
    at = lines.index("metadata:\n") + 1
    if "  annotations:\n" in lines[at : lines.index("spec:\n")]:
        raise ValueError("manifests/crd.yaml has annotations of its own; merge them in hack/packaging/crd_template.py")
    head, tail = "".join(lines[:at]), "".join(lines[at:])
    return (
        "{{- if .Values.crds.enabled }}\n"
        + _escape(head)
        + '  labels:\n    {{- include "empg.labels" . | nindent 4 }}\n'
        + "  {{- if .Values.crds.keep }}\n  annotations:\n    helm.sh/resource-policy: keep\n  {{- end }}\n"
        + _escape(tail)
        + "{{- end }}\n"
    )


def _escape(text: str) -> str:
    """Keep Helm from reading templates in descriptions, such as those of prompts."""
    return text.replace("{{", "{{ " + json.dumps("{{") + " }}")

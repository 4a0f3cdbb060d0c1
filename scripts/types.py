"""Writes the TypeScript types of everything that crosses between kernel and page, from the Python models.

`python scripts/types.py FILE` writes; with `--check` it says whether the file is as it would be written.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from pydantic.json_schema import models_json_schema

from workbench.jupyter import messages
from workbench.jupyter.messages import METHODS


def schema() -> dict[str, object]:
    """One JSON schema with every message, and a root that names the methods and the events."""
    models = {model for pair in METHODS.values() for model in pair}
    events = messages.Event.__args__
    modes = [(model, "serialization") for model in sorted({*models, *events}, key=lambda model: model.__name__)]
    _, definitions = models_json_schema(modes, ref_template="#/definitions/{model}")  # type: ignore[arg-type]
    methods = {
        name: {
            "type": "object",
            "properties": {"params": reference(params), "reply": reference(reply)},
            "required": ["params", "reply"],
            "additionalProperties": False,
        }
        for name, (params, reply) in METHODS.items()
    }
    return {
        "title": "Protocol",
        "type": "object",
        "description": "Method name → what is asked and what is answered, and what the kernel pushes.",
        "properties": {
            "methods": {
                "type": "object",
                "title": "Methods",
                "properties": methods,
                "required": list(methods),
                "additionalProperties": False,
            },
            "event": {"title": "Event", "anyOf": [reference(event) for event in events]},
        },
        "required": ["methods", "event"],
        "additionalProperties": False,
        "definitions": without_titles(definitions["$defs"]),
    }


def reference(model: type) -> dict[str, str]:
    return {"$ref": f"#/definitions/{model.__name__}"}


def without_titles(definitions: dict[str, dict[str, object]]) -> dict[str, dict[str, object]]:
    """Field titles would each become a type of their own, and tuples of any length need no bounds."""
    for definition in definitions.values():
        fields = definition.get("properties", {})
        assert isinstance(fields, dict)
        for field in fields.values():
            field.pop("title", None)
    return definitions


def typescript() -> str:
    """The types, as json-schema-to-typescript writes them."""
    program = """
      const { compile } = require('json-schema-to-typescript');
      const schema = JSON.parse(require('fs').readFileSync(0, 'utf8'));
      const options = {
        bannerComment: '/* Written by scripts/types.py from the Python models. Do not edit. */',
        additionalProperties: false, unreachableDefinitions: true, ignoreMinAndMaxItems: true,
        style: { singleQuote: true, printWidth: 100 },
      };
      compile(schema, 'Protocol', options).then(text => process.stdout.write(text));
    """
    text = json.dumps(schema())
    return subprocess.run(["node", "-e", program], input=text, capture_output=True, text=True, check=True).stdout


def main(arguments: list[str]) -> None:
    target = Path(arguments[-1])
    text = typescript()
    if "--check" not in arguments:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    elif not target.exists() or target.read_text() != text:
        sys.exit(f"{target} is not what the Python models say; run `make types` and commit it")


if __name__ == "__main__":
    main(sys.argv[1:])

"""Schema: what the JSON of a request looks like, as JSON Schema, for those who read or write it without this package.

It says the form alone; which operations there are, and what each may be given, stands in `allowed`.
"""

from __future__ import annotations

from typing import Any

from workbench.graph import package, wire

_VALUE: dict[str, Any] = {
    "description": "JSON's own values as they are; any other as an object with one key that says what it is: "
    "`ref` a node's value, `tensor` a tensor beside the graph, `data` one inside a container, `site`, `tuple`, `dict` "
    "as a list of pairs, `slice`, `dtype`, …",
    "anyOf": [
        {"type": ["null", "boolean", "number", "string"]},
        {"type": "array", "items": {"$ref": "#/$defs/value"}},
        {"type": "object", "minProperties": 1, "maxProperties": 1},
    ],
}

_NODE: dict[str, Any] = {
    "description": "One statement. Its number is its place in the list, and it reads those before it.",
    "type": "object",
    "required": ["op", "args"],
    "additionalProperties": False,
    "properties": {
        "op": {"type": "string", "description": "An operation's name in the table."},
        "args": {"type": "array", "items": {"$ref": "#/$defs/value"}},
        "kwargs": {"type": "object", "additionalProperties": {"$ref": "#/$defs/value"}},
        "invoke": {"type": "integer", "minimum": 0, "description": "Of which invoke's rows it is."},
        "block": {"type": "integer", "minimum": 0, "description": "In which block it stands; the first unless given."},
        "guard": {"type": "integer", "minimum": 0, "description": "The node on whose truth it depends."},
        "modes": {"type": "array", "items": {"type": "array"}, "description": "torch's modes that it runs under."},
        "line": {"type": "string", "description": "Where its person wrote it, for messages."},
    },
}

GRAPH: dict[str, Any] = {
    "type": "object",
    "required": ["version", "blocks", "nodes", "saved"],
    "additionalProperties": False,
    "properties": {
        "version": {"enum": list(wire.READS)},
        "blocks": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "array",
                "prefixItems": [
                    {"enum": ["trace", "generate", "steps", "session", "loop"]},
                    {"type": ["integer", "null"], "description": "The block that it stands in."},
                ],
                "minItems": 2,
                "maxItems": 2,
            },
        },
        "nodes": {"type": "array", "items": {"$ref": "#/$defs/node"}},
        "saved": {"type": "array", "items": {"type": "integer", "minimum": 0}},
        "values": {"type": "object", "additionalProperties": {"$ref": "#/$defs/value"}},
    },
}

REQUEST: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "The head of a request",
    "description": 'After the bytes "wbench1\\n" and the head\'s length (8 bytes, little endian) comes this, then the '
    "tensors as safetensors. All of it may be packed with zstd.",
    "type": "object",
    "required": ["schema", "version", "models", "graph", "inputs", "options"],
    "additionalProperties": False,
    "properties": {
        "schema": {"const": "workbench request"},
        "version": {"const": package.VERSION},
        "writer": {"type": "string", "description": "The release that wrote it."},
        "models": {"type": "array", "minItems": 1, "items": {"type": "string"}},
        "graph": GRAPH,
        "inputs": {
            "description": "For each invoke its arguments and named arguments; none for a session.",
            "type": "array",
            "items": {"type": "array", "items": {"$ref": "#/$defs/value"}, "minItems": 2, "maxItems": 2},
        },
        "options": {"$ref": "#/$defs/value"},
        "names": {"type": "object", "additionalProperties": {"type": "string"}},
        "compressed": {"type": "boolean", "description": "Whether the answer is to be packed with zstd as well."},
    },
    "$defs": {"value": _VALUE, "node": _NODE},
}

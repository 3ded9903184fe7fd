"""Holds payloads against the JSON Schemas of models/schema by the Python package jsonschema (draft 2020-12, formats too).

Usage: schema.py FOLDER < LINES      each line {"schema": "report", "strict": false, "payload": …}; a schema within a file
                                     is named like "command#bundle/install". Prints for each line a JSON list of what is
                                     wrong, empty where it fits. Strict: fields that the schema does not name are wrong too.
       schema.py FOLDER --check      exits 1 unless every schema is one itself.
"""

import json
import pathlib
import sys

from jsonschema import Draft202012Validator, FormatChecker
from referencing import Registry, Resource


def closed(schema):
    """The schema without room for fields that it does not name."""
    if isinstance(schema, list):
        return [closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {key: closed(value) for key, value in schema.items()}
    if schema.get("type") == "object" and "properties" in schema:
        schema.setdefault("additionalProperties", False)
    return schema


def validators(schemas):
    registry = Registry().with_resources((one["$id"], Resource.from_contents(one)) for one in schemas.values())

    def validator(name):
        name, _, inside = name.partition("#")
        schema = {"$ref": schemas[name]["$id"]}
        if inside:
            escaped = inside.replace("~", "~0").replace("/", "~1")
            schema["$ref"] += f"#/$defs/{escaped}"
        return Draft202012Validator(schema, registry=registry, format_checker=FormatChecker())

    return validator


def main():
    files = sorted(pathlib.Path(sys.argv[1]).glob("*.json"))
    schemas = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in files}
    if not schemas or "date-time" not in FormatChecker.checkers:
        sys.exit("no schemas, or jsonschema cannot check dates: install rfc3339-validator")
    for schema in schemas.values():
        Draft202012Validator.check_schema(schema)
    if "--check" in sys.argv:
        return
    ways = {False: validators(schemas), True: validators({name: closed(one) for name, one in schemas.items()})}
    for line in sys.stdin:
        line = json.loads(line)
        errors = ways[line["strict"]](line["schema"]).iter_errors(line["payload"])
        print(json.dumps([f"{error.json_path}: {error.message}"[:300] for error in errors]), flush=True)


if __name__ == "__main__":
    main()

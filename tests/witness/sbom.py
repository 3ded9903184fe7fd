"""Holds a software bill of materials against CycloneDX's own JSON schema, version 1.5, as cyclonedx-python-lib ships it.

Usage: sbom.py BOM.json          exits 1 and says what is wrong where it does not fit.
Without arguments: exits 0 if the library and its validator can be imported.
"""

import pathlib
import sys

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator


def main():
    validator = JsonStrictValidator(SchemaVersion.V1_5)
    text = pathlib.Path(sys.argv[1]).read_text(encoding="utf-8") if sys.argv[1:] else '{"specVersion": "1.5"}'
    error = validator.validate_str(text)
    if sys.argv[1:] and error:
        sys.exit(str(getattr(error.data, "message", error)))


if __name__ == "__main__":
    main()

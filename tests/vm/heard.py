"""Waits until every image has its report, and holds the reports to what a power cut must not change.

Usage: heard.py FOLDER OF IMAGES  FILE OF REPORTS, one a line  SECONDS. Ends with 0 when every image is reported at least
once, nothing else is, and an image that is reported again has the same report_id.
"""

import collections
import hashlib
import json
import pathlib
import sys
import time


def main():
    folder, heard, patience = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), float(sys.argv[3])
    expected = {hashlib.sha256(path.read_bytes()).hexdigest(): path.name for path in folder.iterdir()}
    deadline = time.monotonic() + patience
    while True:
        # The last line may not be written to its end.
        lines = heard.read_text().split("\n")[:-1]
        ids = collections.defaultdict(list)
        for line in lines:
            report = json.loads(line)
            ids[report["origin"]["content_sha256"]].append(report["report_id"])
        missing = [name for digest, name in expected.items() if digest not in ids]
        if not missing or time.monotonic() > deadline:
            break
        time.sleep(0.5)
    again = sum(len(found) - 1 for found in ids.values())
    print(f"{len(lines)} reports of {len(ids)} images; {len(missing)} missing of {len(expected)}; {again} came again")
    wrong = [digest for digest, found in ids.items() if len(set(found)) != 1]
    unknown = [digest for digest in ids if digest not in expected]
    for what, which in (("missing", missing), ("reported under several ids", wrong), ("never dropped", unknown)):
        if which:
            print(f"FAILED: {what}: {', '.join(which[:5])}")
    return 1 if missing or wrong or unknown else 0


if __name__ == "__main__":
    sys.exit(main())

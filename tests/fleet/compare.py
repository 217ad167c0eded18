"""Asks the ten questions of docs/fleet.md with DuckDB and Polars, and compares the answers with `trapline replay`.

Usage: compare.py TRAPLINE ROOT FOLDER; FOLDER holds fleet/*.trapline.
"""

import json
import os
import re
import subprocess
import sys
from collections import Counter

import duckdb
import polars as pl

trapline, root, folder = (os.path.abspath(path) for path in sys.argv[1:])
page = open(f"{root}/docs/fleet.md").read()
os.chdir(folder)
sql = re.findall(r"```sql\n(.*?)```", page, re.S)
views, questions = sql[0], [question.strip().rstrip(";") for question in sql[1:]]
assert len(questions) == 10, len(questions)

duck = duckdb.connect()
duck.execute(views)
scope = {}
exec(re.search(r"```python\n(.*?)```", page, re.S).group(1), scope)  # noqa: S102: a page of this project



def plain(value):
    """Quotients may differ in their last digits."""
    return round(value, 6) if isinstance(value, float) else value


def rounded(rows):
    return [tuple(map(plain, row)) for row in rows]


answers = []
for number, question in enumerate(questions, 1):
    ours = [tuple(row) for row in duck.execute(question).fetchall()]
    theirs = scope["fleet"].execute(question).collect().rows()
    assert rounded(ours) == rounded(theirs), f"question {number}: DuckDB {ours}, Polars {theirs}"
    assert ours, f"question {number} has no answer"
    answers.append(rounded(ours))


def replayed(name):
    lines = subprocess.run([trapline, "replay", f"fleet/{name}", "--format", "jsonl"], check=True, capture_output=True)
    return [json.loads(line) for line in lines.stdout.splitlines()]


recordings = {name: replayed(name) for name in sorted(os.listdir("fleet"))}
of = lambda name, kind: [line for line in recordings[name] if line["type"] == kind]
expected = [
    (name, of(name, "header")[0]["host"], *(of(name, "end")[0][field] for field in ("duration_ns", "events", "lost_events")))
    for name in recordings
]
assert answers[0] == expected, (answers[0], expected)

files = {name: [row for row in of(name, "total") if row["table"] == "faults.file"] for name in recordings}
files = {name: rows for name, rows in files.items() if rows}
by_recording = {name: (sum(r["major"] for r in rows), sum(r["minor"] for r in rows)) for name, rows in files.items()}
assert {row[0]: row[1:] for row in answers[1]} == by_recording, (answers[1], by_recording)
times = Counter()
for rows in files.values():
    for row in rows:
        times[row["file"]] += row["total_ns"] or 0
assert dict((row[0], row[1]) for row in answers[2]) == dict(times.most_common(10)), (answers[2], times)
seconds = {name: of(name, "end")[0]["duration_ns"] / 1e9 for name in files}
per_second = [(name, round(by_recording[name][0] / seconds[name], 6)) for name in sorted(files)]
assert answers[5] == per_second, (answers[5], per_second)

events = [line for name in recordings for line in of(name, "event")]
kinds = sorted(Counter(line["kind"] for line in events).items())
assert [row[:2] for row in answers[7]] == kinds, (answers[7], kinds)
slowest = sorted((e["latency_ns"] for e in events if (e["file"] or "").startswith("/") and e["latency_ns"]), reverse=True)
assert [row[4] for row in answers[9]] == slowest[:10], (answers[9], slowest[:10])
print(f"fleet: 10 questions, DuckDB {duckdb.__version__} and Polars {pl.__version__}: the answers are those of replay")

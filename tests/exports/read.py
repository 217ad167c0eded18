"""Reads files of trapline with parsers that are not ours: for each a line of JSON with all texts in it and what is wrong with it.

Perfetto's own trace processor is not to be had from a package registry: its Python package downloads the executable when it is first used.
So a trace is read with the messages that the package has (`perfetto_trace_pb2`, generated from the published definition), and held to what that
definition says of it.
"""

import csv
import gzip
import json
import re
import sys
import xml.etree.ElementTree as xml
import zlib

CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def lines(path, read):
    """The lines of a text, which ends in one; in none is a character that moves a cursor."""
    with open(path, encoding="utf-8", newline="") as file:
        text = file.read()
    if CONTROL.search(text) or "\t" in text:
        read["wrong"].append("a control character")
    if not text.endswith("\n"):
        read["wrong"].append("the last line is cut off")
    return text.split("\n")[:-1]


def txt(path, read):
    read["texts"] = lines(path, read)


def jsonl(path, read):
    for line in lines(path, read):
        item = json.loads(line)
        if item["type"] in ("event", "row", "total"):
            read["rows"] += 1
            read["texts"] += [value for value in item.values() if isinstance(value, str)]


def table(path, read):
    with open(path, encoding="utf-8", newline="") as file:
        text = file.read()
    if CONTROL.search(text):
        read["wrong"].append("a control character")
    header, *rows = csv.reader(text.splitlines(keepends=True), strict=True)
    if not rows.pop()[0].startswith("# end "):
        read["wrong"].append("no end")
    for row in rows:
        read["rows"] += 1
        if len(row) != len(header):
            read["wrong"].append(f"a row of {len(row)} cells below {len(header)} names")
        read["texts"] += row


def parquet(path, read):
    import duckdb

    for row in duckdb.sql("SELECT * FROM read_parquet($path)", params={"path": path}).fetchall():
        read["rows"] += 1
        read["texts"] += [value for value in row if isinstance(value, str)]


def folded(path, read):
    for line in lines(path, read):
        stack, weight = line.rsplit(" ", 1)
        read["rows"] += 1
        read["sum"] = read.get("sum", 0) + int(weight)
        read["texts"] += stack.split(";")


def svg(path, read):
    tags = {"svg", "style", "defs", "linearGradient", "stop", "script", "rect", "text", "g", "title", "a"}
    scripts = 0
    for element in xml.parse(path).iter():
        tag = element.tag.rsplit("}", 1)[-1]
        scripts += tag == "script"
        if tag not in tags or any(name.startswith("on") for name in element.keys() if tag != "svg"):
            read["wrong"].append(f"an element that no picture has: {tag}")
        if tag == "title":
            read["rows"] += 1
            # A frame, and in parentheses its weight.
            read["texts"].append(element.text.rsplit(" (", 1)[0])
    if scripts != 1:
        read["wrong"].append(f"{scripts} scripts")


def strings(value):
    if isinstance(value, dict):
        value = [*value.keys(), *value.values()]
    if isinstance(value, list):
        for one in value:
            yield from strings(one)
    if isinstance(value, str):
        yield value


def firefox(path, read):
    with gzip.open(path) as file:
        profile = json.loads(file.read().decode("utf-8"))
    read["texts"] = list(strings(profile))
    read["rows"] = sum(thread["samples"]["length"] for thread in profile["threads"])


def damo(path, read):
    with open(path, "rb") as file:
        records = json.loads(zlib.decompress(file.read()).decode("utf-8"))
    read["rows"] = len(records)
    read["texts"] = list(strings(records))


def unknown(message):
    """Whether there is a field in a message that its definition does not have."""
    from google.protobuf.unknown_fields import UnknownFieldSet

    values = [value for field, value in message.ListFields() if field.message_type]
    inner = [one for value in values for one in ([value] if hasattr(value, "ListFields") else value)]
    return len(UnknownFieldSet(message)) > 0 or any(map(unknown, inner))


def perfetto(path, read):
    from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as messages

    with open(path, "rb") as file:
        trace = messages.Trace.FromString(file.read())
    wrong, kinds = read["wrong"], messages.TrackEvent
    if unknown(trace):
        wrong.append("a field that the definition does not have")
    names, events, clocks = {0: ""}, [], set()
    for packet in trace.packet:
        if packet.trusted_packet_sequence_id == 0:
            wrong.append("a packet of no sequence")
        if packet.HasField("clock_snapshot"):
            clocks |= {clock.clock_id for clock in packet.clock_snapshot.clocks}
        if packet.HasField("track_descriptor"):
            track = packet.track_descriptor
            if track.parent_uuid not in names:
                wrong.append("a track below one that is not described yet")
            names[track.uuid] = track.thread.thread_name or track.name or track.process.process_name
        if packet.HasField("track_event"):
            events.append((packet.timestamp, packet.track_event))
            if packet.track_event.track_uuid not in names or packet.timestamp_clock_id not in clocks:
                wrong.append("an event on a track or a clock that is not described yet")
    # As the trace processor sorts them: those of one time stay in their order.
    events.sort(key=lambda event: event[0])
    open_slices, counters = {}, {}
    for time, event in events:
        track = event.track_uuid
        read["texts"] += [event.name, *event.categories]
        read["texts"] += [text for note in event.debug_annotations for text in (note.name, note.string_value)]
        if event.type == kinds.TYPE_SLICE_BEGIN:
            open_slices.setdefault(track, []).append((time, event.name))
        elif event.type == kinds.TYPE_SLICE_END:
            if not open_slices.get(track):
                wrong.append("an end without a beginning")
                continue
            began, name = open_slices[track].pop()
            read["slices"].append([names[track], name, began, time])
        elif event.type == kinds.TYPE_INSTANT:
            read["instants"] += 1
        elif event.type == kinds.TYPE_COUNTER:
            value, last = event.double_counter_value, counters.get(track, (-1, 0))
            if not (event.HasField("double_counter_value") and 0 <= value < float("inf")) or time <= last[0]:
                wrong.append("a counter goes back in time, or is no number")
            counters[track] = (time, value)
            read["counters"].setdefault(names[track], []).append([time, value])
        else:
            wrong.append(f"an event of type {event.type}")
    if any(open_slices.values()):
        wrong.append("a beginning without an end")
    read["texts"] += names.values()
    read["rows"] = len(read["slices"]) + read["instants"]


READERS = {
    ".txt": txt,
    ".jsonl": jsonl,
    ".csv": table,
    ".parquet": parquet,
    ".folded": folded,
    ".svg": svg,
    ".json.gz": firefox,
    ".damo": damo,
    ".perfetto-trace": perfetto,
}

for path in sys.argv[1:]:
    read = {"texts": [], "rows": 0, "wrong": [], "slices": [], "instants": 0, "counters": {}}
    next(reader for end, reader in READERS.items() if path.endswith(end))(path, read)
    print(json.dumps(read))

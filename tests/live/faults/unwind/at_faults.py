# In gdb: runs the program, stops at each of the instructions given, and prints `bt` as file+offset wherever executing the
# instruction faults: the kernel's count of the thread's faults is one more after it than before.
# Of each instruction it prints where it is, too, and whether it was given up: it was stopped at too often.

import gdb
import os

wanted = {int(line, 16) for line in open(os.environ["TRAPLINE_INSTRUCTIONS"])}
patience = int(os.environ["TRAPLINE_PATIENCE"])
out = open(os.environ["TRAPLINE_FRAMES"], "w")
placed, hits = {}, {}


def faults():
    process = gdb.selected_inferior().pid
    text = open(f"/proc/{process}/task/{gdb.selected_thread().ptid[1]}/stat").read()
    fields = text[text.rindex(")") + 2 :].split()
    return int(fields[7]) + int(fields[9])


def mapped():
    found = []
    for line in open(f"/proc/{gdb.selected_inferior().pid}/maps"):
        fields = line.split(maxsplit=5)
        start, end = (int(number, 16) for number in fields[0].split("-"))
        name = fields[5].strip() if len(fields) > 5 else ""
        found.append((start, end, int(fields[2], 16), name, "x" in fields[1]))
    return found


def place():
    areas = mapped()
    for at in wanted - placed.keys():
        if any(start <= at < end and executable for start, end, _, _, executable in areas):
            placed[at] = gdb.Breakpoint(f"*{at:#x}", internal=True)
            print(f"is {at:x} {place_of(at, areas)}", file=out)


def place_of(at, areas):
    area = next((area for area in areas if area[0] <= at < area[1]), None)
    return f"{os.path.basename(area[3])}+{at - area[0] + area[2]:#x}" if area else f"{at:#x}"


def chain():
    areas, frames = mapped(), []
    frame, called = gdb.newest_frame(), False
    while frame is not None:
        # Those are not on the stack: the debugger has them of the debug information.
        if frame.type() not in (gdb.INLINE_FRAME, gdb.TAILCALL_FRAME):
            # What called is the instruction before the one that is returned to; a signal returns to the one that it interrupted.
            frames.append(place_of(frame.pc() - called, areas))
            called = frame.type() != gdb.SIGTRAMP_FRAME
        older = frame.older()
        why = frame.unwind_stop_reason()
        if older is None and why not in (gdb.FRAME_UNWIND_NO_REASON, gdb.FRAME_UNWIND_OUTERMOST):
            frames.append(f"[{gdb.frame_stop_reason_string(why)}]")
        frame = older
    return ";".join(reversed(frames))


def pc():
    return gdb.newest_frame().pc()


for setting in [
    "confirm off",
    "pagination off",
    "debuginfod enabled off",
    "startup-with-shell off",
    "backtrace past-main on",
    "backtrace limit unlimited",
    "stop-on-solib-events 1",
]:
    gdb.execute(f"set {setting}")
for variable in ["LINES", "COLUMNS", "TRAPLINE_INSTRUCTIONS", "TRAPLINE_PATIENCE", "TRAPLINE_FRAMES"]:
    gdb.execute(f"unset environment {variable}")
for event in ["SIGCHLD", "SIGUSR1", "SIGALRM", "SIGURG"]:
    gdb.execute(f"handle {event} nostop noprint pass")
# Before, the debugger does not know yet what the dynamic linker has mapped.
gdb.execute("starti", to_string=True)
entry = next(line.split()[-1] for line in gdb.execute("info auxv", to_string=True).splitlines() if "AT_ENTRY" in line)
first = gdb.Breakpoint(f"*{entry}", internal=True, temporary=True)
while pc() != int(entry, 0):
    gdb.execute("continue", to_string=True)
while gdb.selected_inferior().pid != 0:
    place()
    # A step may end at another of them, where continuing would not stop.
    while gdb.selected_inferior().pid != 0 and pc() in placed:
        at = pc()
        hits[at] = hits.get(at, 0) + 1
        if hits[at] > patience:
            placed[at].enabled = False
            break
        before, frames = faults(), chain()
        gdb.execute("stepi", to_string=True)
        if gdb.selected_inferior().pid != 0 and faults() != before:
            print(f"fault {at:x} {frames}", file=out)
    if gdb.selected_inferior().pid != 0:
        gdb.execute("continue", to_string=True)
for at in hits:
    if hits[at] > patience:
        print(f"given-up {at:x}", file=out)
out.close()

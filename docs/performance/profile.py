#!/usr/bin/env python3
"""Where the processor time of a payment goes, by thread and program, from profiles of `cargo load` at full load.

    cargo load -- --variants sluice --rounds 1 --seconds 1     # everything is built now
    cargo load -- --variants sluice --rounds 1 --seconds 15 --json look.json &
    sleep 6; perf record -a -F 1999 -o perf.data -- sleep 8; wait
    docs/performance/profile.py sluice=perf.data:look.json [another=...]

Prints a table in Markdown: microseconds a payment, one column for each variant. Samples of `perf` are counted, divided by
their rate and by the payments that the whole round answered a second.
"""

import json
import subprocess
import sys

ENVOY, KERNEL, LIBC = "envoy", "[kernel.kallsyms]", "libc.so.6"
MODULE = ("libsluice_filter_native.so", "[JIT]")
# A row, the threads whose samples it has, and what is sampled in them; the first that fits takes a sample.
ROWS = [
    ("Envoy's worker: the filter's own code", ("wrk:worker_0",), MODULE),
    ("Envoy's worker: Envoy, V8 included", ("wrk:worker_0",), (ENVOY,)),
    ("Envoy's worker: C library", ("wrk:worker_0",), (LIBC, "[vdso]")),
    ("Envoy's worker: kernel", ("wrk:worker_0",), (KERNEL,)),
    ("the module's thread: own code, C library", ("sluice",), MODULE + (ENVOY, LIBC, "[vdso]")),
    ("the module's thread: kernel", ("sluice",), (KERNEL,)),
    ("server, decisions: own code, C library", ("authz-server",), ("authz-server", LIBC, "[vdso]")),
    ("server, decisions: kernel", ("authz-server",), (KERNEL,)),
    ("server, journal and log", ("journal", "log"), None),
    ("Redis: own code, libraries", ("redis-server", "valkey-server"), ("redis", "valkey", "libjemalloc", LIBC, "[vdso]")),
    ("Redis: kernel", ("redis-server", "valkey-server"), (KERNEL,)),
    ("Postgres", ("postgres",), None),
    ("generator and gateway", ("generator", "load"), None),
]
OTHER = "everything else"
NAMES = [name for name, _, _ in ROWS] + [OTHER]


def samples(data):
    """Numbers of samples by thread and program, with their rate and the seconds."""
    header = subprocess.run(["perf", "script", "-i", data, "-F", "time"], capture_output=True, text=True, check=True)
    times = [float(line.strip().rstrip(":")) for line in header.stdout.split("\n") if line.strip()]
    options = ["--stdio", "-n", "-g", "none", "--sort", "comm,dso", "-t", ";"]
    report = subprocess.run(["perf", "report", "-i", data, *options], capture_output=True, text=True, check=True)
    counts = {}
    for line in report.stdout.split("\n"):
        cells = [cell.strip() for cell in line.split(";")]
        if len(cells) == 4 and cells[1].isdigit():
            counts[cells[2], cells[3]] = int(cells[1])
    return counts, max(times) - min(times)


def column(variant, data, look, rate=1999):
    per_second = json.load(open(look))["closer_look"]["figures"][variant]["rps"]["median"]
    counts, seconds = samples(data)
    us = {name: 0.0 for name in NAMES}
    for (comm, dso), count in counts.items():
        fits = (
            name
            for name, threads, programs in ROWS
            if comm in threads and (programs is None or dso.startswith(programs))
        )
        name = next(fits, OTHER)
        if comm != "swapper":
            us[name] += count / rate / (per_second * seconds) * 1e6
    return us


def main():
    columns = {}
    for argument in sys.argv[1:]:
        variant, files = argument.split("=")
        columns[variant] = column(variant, *files.split(":"))
    print("| µs per payment | " + " | ".join(columns) + " |")
    print("| --- |" + " --- |" * len(columns))
    for name in NAMES:
        print(f"| {name} | " + " | ".join(f"{us[name]:.1f}" if us[name] >= 0.05 else "–" for us in columns.values()) + " |")


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Makes the plots and the tables of docs/performance.md from two runs of the load rig: docs/performance/run.json has the comparison,
the growth of merchants, the peers, the counts and the journal, docs/performance/studies.json how cost grows along the other axes.

    python3 docs/performance/plot.py            writes them
    python3 docs/performance/plot.py --check    tells what is not as the run says, and changes nothing

Python's standard library only.
"""

import json
import re
import sys
from pathlib import Path

import svg

HERE = Path(__file__).resolve().parent
DOCUMENT = HERE.parent / "performance.md"
RUN = HERE / "run.json"
STUDIES = HERE / "studies.json"

VARIANTS = {
    "envoy": "Envoy alone",
    "parse_only": "filter, parse-only",
    "parse_only_native_host": "filter, parse-only, native host",
    "native_allow": "native ext_authz, always allows",
    "sluice": "**Sluice**",
    "sluice_native_host": "**Sluice, native host**",
    "sluice_unbatched": "Sluice, a call each",
    "trusted": "Sluice, trusted",
    "trusted_native_host": "Sluice, trusted, native host",
}
SHORT = {
    "envoy": "Envoy alone",
    "parse_only": "filter",
    "parse_only_native_host": "filter, native host",
    "native_allow": "native ext_authz",
    "sluice": "Sluice",
    "sluice_native_host": "Sluice, native host",
    "sluice_unbatched": "a call each",
    "trusted": "trusted",
    "trusted_native_host": "trusted, native host",
}
SEGMENTS = [
    ("envoy", "Envoy", "c0"),
    ("decisions", "server: decisions", "c2"),
    ("journal", "server: journal", "c4"),
    ("log", "server: log, other", "c5"),
    ("redis", "Redis", "c3"),
    ("postgres", "Postgres", "c1"),
    ("gateway", "gateway", "c6"),
    ("generator", "generator", "c7"),
]
AXES = {
    "merchants": ("Merchants that exist", "merchants"),
    "limits": ("Limits in the policy", "limits"),
    "hot": ("Merchants that share the load", "merchants"),
    "denials": ("All payments refused", ""),
    "thresholds": ("Usage past a threshold", ""),
    "credit": ("Limits and credit lines", ""),
    "replays": ("The same orders again", ""),
    "bodies": ("Size of a body", "bytes"),
    "connections": ("Connections", "connections"),
    "workers": ("Envoy workers", "workers"),
}


def number(value, digits=0):
    return f"{value:,.{digits}f}"


def spread(figure, digits=0):
    return f"{number(figure['median'], digits)} ({number(figure['min'], digits)}–{number(figure['max'], digits)})"


def table(head, rows):
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def targets(run):
    def row(target):
        digits = 0 if target["bound"] == 0 or target["bound"] >= 100 else 2
        bound = ("≥ " if target["at_least"] else "≤ ") + number(target["bound"], digits)
        return [target["name"], bound, number(target["figure"], digits), "met" if target["met"] else "**missed**"]

    return table(["target", "bound", "measured", ""], [row(target) for target in run["targets"]])


def machine(run):
    of = run["machine"]
    lines = [
        f"`{of['command']}`: {of['processor']}, {of['cores']} cores, Linux {of['kernel']}; Envoy {of['envoy']}; {of['redis']};",
        f"{of['postgres']}; commit {of['commit']}. {run['rounds']} rounds of {run['seconds']:g} s,",
        f"{run['connections']} connections, one Envoy worker; {number(run['requests'])} answers checked,",
        f"{number(run['verdict']['orders'])} orders compared.",
    ]
    return "\n".join(lines)


def measured(variants):
    """Names and labels of the variants that a run has, in the report's order."""
    return [(name, label) for name, label in VARIANTS.items() if name in variants]


def comparison(run):
    variants = run["comparison"]["stretches"]["full_load"]
    to_parse = variants["parse_only"]["rps"]["median"]
    rows = []
    for name, label in measured(variants):
        figures = variants[name]
        ratio = number(figures["rps"]["median"] / to_parse, 2)
        latency = [spread(figures["p50_ms"], 2), spread(figures["p99_ms"], 1)]
        rows.append([label, spread(figures["rps"]), ratio, *latency])
    return table(["", "payments/s", "to parse-only", "p50 ms", "p99 ms"], rows)


def microseconds(run):
    variants = run["comparison"]["stretches"]["full_load"]
    names = [name for name, _, _ in SEGMENTS]
    rows = []
    for name, label in measured(variants):
        parts = shares(variants[name])
        cells = [number(parts[part], 1) if part in parts else "–" for part in names]
        rows.append([label, *cells, number(sum(parts.values()))])
    return table(["µs per payment", *(label for _, label, _ in SEGMENTS), "sum"], rows)


def shares(figures):
    """Microseconds by segment. A server that is not Sluice's has no parts: all of it decides."""
    parts = {name: of["median"] for name, of in figures["cpu_us"].items() if name != "server"}
    server = {name: of["median"] for name, of in figures.get("server_us", {}).items()}
    if server:
        server["log"] = server.get("log", 0.0) + server.pop("other", 0.0)
    elif "server" in figures["cpu_us"]:
        server = {"decisions": figures["cpu_us"]["server"]["median"]}
    return parts | server


STRETCHES = {
    "one_connection": "one connection",
    "load_25": "25 % of the peak",
    "load_50": "50 % of the peak",
    "load_75": "75 % of the peak",
}


def stretches(run):
    of = run["comparison"]["stretches"]
    rows = []
    for stretch, label in STRETCHES.items():
        for name, figures in of.get(stretch, {}).items():
            latency = [spread(figures["p50_ms"], 3), spread(figures["p99_ms"], 2)]
            rows.append([label, VARIANTS[name], spread(figures["rps"]), *latency])
    return table(["", "", "payments/s", "p50 ms", "p99 ms"], rows)


def point_name(axis, point):
    if point.get("name"):
        return point["name"]
    return f"{point['at'] // 1024} KB" if axis == "bodies" else number(point["at"])


def study(run, axis):
    points = next(study["points"] for study in run["studies"] if study["axis"] == axis)
    rows = []
    for point in points:
        sluice, cpu = point["sluice"], point["sluice"]["cpu_us"]
        micros = [number(cpu[process]["median"], 0) for process in ("envoy", "server", "redis", "postgres")]
        ratio = spread(point["ratio"], 2)
        latency = [number(sluice["p50_ms"]["median"], 2), number(sluice["p99_ms"]["median"], 1)]
        rows.append([point_name(axis, point), spread(sluice["rps"]), ratio, *latency, *micros])
    head = [AXES[axis][0].lower(), "payments/s", "to parse-only", "p50 ms", "p99 ms"]
    return table([*head, "Envoy µs", "server µs", "Redis µs", "Postgres µs"], rows)


def slices(run):
    of = run["comparison"]["slices"]
    rows = []
    for name, label in measured(of["envoy_us"]):
        us, to_parse = of["envoy_us"][name], of["to_parse_only"][name]["median"]
        rows.append([label, number(us["median"], 1), number(us["median"] - of["envoy_us"]["envoy"]["median"], 1), number(to_parse, 2)])
    return table(["Envoy, µs per payment", "median", "more than Envoy alone", "to parse-only"], rows)


def counts(run):
    of = run["counts"]
    rows = [
        ["instructions of the filter's module (wasm)", number(of["module_instructions"]), "30,000"],
        ["calls of the module into Envoy", number(of["host_calls"], 1), "11"],
        ["instructions of the server's decision thread", number(of["server_instructions"]), "–"],
        ["the same for a payment that goes alone", number(of["server_instructions_alone"]), "–"],
        ["instructions of Redis in the script's call", number(of["redis_instructions"]), "–"],
        ["the same for a payment that goes alone", number(of["redis_instructions_alone"]), "–"],
        ["bytes of the event in Redis", number(of["journal_event_bytes"]), "–"],
        ["bytes of the row that Postgres is sent", number(of["journal_row_bytes"]), "–"],
    ]
    return table(["one payment, of a batch of eleven", "counted", "target"], rows)


def peers(run):
    def row(peer):
        race = peer.get("race") or next(race for race in run["races"] if race["who"] == peer["name"])
        figures = peer["figures"]
        latency = [number(figures["p50_ms"]["median"], 2), number(figures["p99_ms"]["median"], 1)]
        micros = [number(figures["cpu_us"][name]["median"]) if name in figures["cpu_us"] else "–" for name in ("envoy", "server", "redis")]
        ratios = peer.get("sluice_to_peer", {})
        of = [number(ratios[name]["median"], 2) if name in ratios else "–" for name in ("sluice", "sluice_native_host")]
        return [peer["name"], spread(figures["rps"]), *latency, *micros, *of, race["over_admissions"]]

    head = ["", "payments/s", "p50 ms", "p99 ms", "Envoy µs", "server µs", "Redis µs", "Sluice to it", "native host to it"]
    return table([*head, "over-admissions"], map(row, run["peers"]))


def journal(run):
    drained = run["journal"]["drained"]
    rows = [["events that waited", number(drained["events_per_second"]), *journal_cpu(drained["cpu_us"]), "–", "–"]]
    for steady in run["journal"]["steady"]:
        lag = f"{number(steady['lag_ms_p50'])} ({number(steady['lag_ms_max'])})"
        cells = [*journal_cpu(steady["cpu_us"]), lag, number(steady["rows_per_transaction"])]
        rows.append([f"{number(steady['rate'])} a second come", number(steady["events_per_second"]), *cells])
    head = ["", "events/s", "journal thread µs", "Redis µs", "Postgres µs", "lag ms, median (longest)", "rows a transaction"]
    return table(head, rows)


def journal_cpu(cpu):
    return [number(cpu[name], 1) for name in ("journal", "redis", "postgres")]


def share(run):
    largest = run["journal"]["drained"]["server_rss_bytes_max"] / 1e6
    return (
        f"At full load the journal's thread and Postgres take {run['journal_share_of_cpu']:.0%} of the processor time that Sluice's\n"
        f"processes take together. Draining as fast as it can, the server's memory stayed below {largest:.0f} MB."
    )


def races(run):
    rows = [[race["who"], number(race["requests"]), race["room"], race["admitted"], race["over_admissions"]] for race in run["races"]]
    return table(["race", "payments", "room", "admitted", "over-admissions"], rows)


def tables(run):
    made = {"machine": machine(run), "studies_machine": run["studies_machine"], "races": races(run)}
    if "comparison" in run:
        made |= {"targets": targets(run), "comparison": comparison(run)}
        made |= {"microseconds": microseconds(run), "stretches": stretches(run)}
        if "slices" in run["comparison"]:
            made["slices"] = slices(run)
    if "counts" in run:
        made["counts"] = counts(run)
    made |= {study_of["axis"]: study(run, study_of["axis"]) for study_of in run.get("studies", [])}
    if "journal" in run and "comparison" in run:
        made |= {"journal": journal(run), "share": share(run)}
    if "peers" in run:
        made["peers"] = peers(run)
    return made


def plots(run):
    made = {}
    if "comparison" in run:
        variants = run["comparison"]["stretches"]["full_load"]
        rows = [(SHORT[name], shares(variants[name])) for name, _ in measured(variants)]
        made["microseconds.svg"] = svg.stacks("Processor time of one payment, µs", rows, SEGMENTS, "µs")
    for study_of in run.get("studies", []):
        axis, points = study_of["axis"], study_of["points"]
        names = [point_name(axis, point) if axis == "bodies" or point.get("name") else svg.short(point["at"]) for point in points]
        title = AXES[axis][0]
        parts = svg.lines(0, f"{title}: payments/s", names, series(points, "rps", 1))
        parts += svg.lines(410, f"{title}: p99, ms", names, series(points, "p99_ms", 1))
        made[f"{axis}.svg"] = svg.document(820, 220, parts)
    return made


def series(points, figure, factor):
    def of(way):
        each = [point[way][figure] for point in points]
        return tuple([value[part] * factor for value in each] for part in ("median", "min", "max"))

    return [("Sluice", "c0", *of("sluice")), ("parse-only", "c1", *of("parse_only"))]


def filled(document, made):
    """The document with each table between its marks exchanged."""
    def exchange(match):
        name = match[1]
        if name not in made:
            raise SystemExit(f"{DOCUMENT.name} has a place for {name!r}, which the run does not have")
        return f"<!-- run: {name} -->\n{made[name]}\n<!-- end -->"

    return re.sub(r"<!-- run: (\w+) -->\n.*?<!-- end -->", exchange, document, flags=re.S)


def main(arguments):
    run, studies = (json.loads(path.read_text(encoding="utf-8")) for path in (RUN, STUDIES))
    present = {study_of["axis"] for study_of in run.get("studies", [])}
    run["studies"] = run.get("studies", []) + [study_of for study_of in studies["studies"] if study_of["axis"] not in present]
    run["studies_machine"] = machine(studies)
    wanted = {HERE / name: text for name, text in plots(run).items()}
    wanted[DOCUMENT] = filled(DOCUMENT.read_text(encoding="utf-8"), tables(run))
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    if arguments == ["--check"]:
        for path in stale:
            print(f"{path.relative_to(HERE.parent)} is not what {RUN.name} and {STUDIES.name} say: run docs/performance/plot.py")
        return 1 if stale else 0
    if arguments:
        raise SystemExit(__doc__)
    for path in stale:
        path.write_text(wanted[path], encoding="utf-8")
        print(f"written: {path.relative_to(HERE.parent)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

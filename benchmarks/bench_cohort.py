"""A cohort that is killed again and again: `python benchmarks/bench_cohort.py --help`.

Real brains of ../shared/data (2 mm), each with a planted lesion, make a list of cases; some are
spoilt, each in a way of its own. `neuromend batch` fills them with two workers. The run is killed (SIGKILL, SIGTERM,
Ctrl-C) again and again and started again; in the last run a worker is killed. Then the outputs are counted: done,
failed with which code, lost, twice, half-written.

Then throughput: one worker and two against `neuromend fill` case by case; and the memory of the driver with 200 and
with 2,000 simulated cases, whose files are missing: each goes all the way through driver, scheduler, worker and
tables, and fails there. Nothing asserts; the numbers are for people, and go to standard output and RESULT.md.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from glob import glob
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import psutil

from neuromend.data.lesions import random_blob
from neuromend.provenance import hash_file, read_sidecar, version_string

SHARED = Path(__file__).resolve().parents[2] / "shared"
NEUROMEND = [sys.executable, "-m", "neuromend"]
MODEL = ["--model", "harmonic"]
KILLS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGKILL, signal.SIGKILL)


def make_cases(folder: Path, count: int, bad: int) -> tuple[Path, dict[str, str]]:
    """Write the scans, the masks and the list; return the list, and the bad ids with what is wrong with them."""
    folder.mkdir(parents=True, exist_ok=True)
    brains = sorted((SHARED / "data/healthy/ixi-2mm").glob("*_T1w.nii.gz"))
    rng = np.random.default_rng(0)
    lines, spoilt = ["id\timage\tmask"], {}
    for number in range(count):
        source = nib.load(brains[number % len(brains)])
        values = np.asarray(source.dataobj).astype(np.int16)
        inside = np.argwhere(values > np.percentile(values, 80))
        centre = tuple(inside[rng.integers(len(inside))])
        mask = random_blob(rng, values.shape, centre, float(rng.uniform(4, 30)), 2.0)
        name = f"case-{number:04d}"
        scan_path, mask_path = folder / f"{name}.nii.gz", folder / f"{name}_mask.nii.gz"
        nib.save(nib.Nifti1Image(values, source.affine), scan_path)
        nib.save(nib.Nifti1Image(mask.astype(np.uint8), source.affine), mask_path)
        if bad and number % (count // bad) == count // bad // 2:
            spoil, what = SPOILERS[len(spoilt) % len(SPOILERS)]
            spoil(scan_path, mask_path)
            spoilt[name] = what
        lines.append(f"{name}\t{scan_path.name}\t{mask_path.name}")
    table = folder / "list.tsv"
    table.write_text("\n".join(lines) + "\n")
    return table, spoilt


def _rewrite(path: Path, change: Callable[[Any], Any]) -> None:
    image = nib.load(path)
    nib.save(nib.Nifti1Image(change(np.asarray(image.dataobj)), image.affine), path)


SPOILERS: list[tuple[Callable[[Path, Path], object], str]] = [
    (lambda scan, mask: scan.unlink(), "no scan"),
    (lambda scan, mask: mask.unlink(), "no mask"),
    (lambda scan, mask: scan.write_bytes(scan.read_bytes()[:5000]), "scan cut off"),
    (lambda scan, mask: mask.write_bytes(mask.read_bytes()[:200]), "mask cut off"),
    (lambda scan, mask: _rewrite(mask, np.zeros_like), "empty mask"),
    (lambda scan, mask: _rewrite(mask, lambda values: values[1:]), "mask of another shape"),
    (lambda scan, mask: scan.write_text("no image"), "scan is a text"),
    (lambda scan, mask: _rewrite(mask, lambda values: values * np.int16(-3)), "mask is negative"),
    (lambda scan, mask: mask.write_bytes(scan.read_bytes()), "mask is the scan"),
    (lambda scan, mask: _rewrite(scan, lambda values: np.stack([values] * 3, -1)), "scan is 4-D"),
]


def start(table: Path, out: Path, workers: int) -> subprocess.Popen[str]:
    """The command, in a process group of its own."""
    command = [*NEUROMEND, "batch", str(table), "-o", str(out), *MODEL, "--workers", str(workers), "--json"]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True
    )


def killed_run(table: Path, out: Path, count: int, kills: int) -> dict[str, Any]:
    """Run to the end, killing as often as asked at even distances, and one worker in the last run."""
    endings = []
    for attempt in range(kills):
        process = start(table, out, 2)
        goal = (attempt + 1) * count // (kills + 2)
        _wait(process, lambda goal=goal: _finished(out) >= goal)
        os.killpg(process.pid, KILLS[attempt % len(KILLS)])
        process.communicate()
        endings.append(
            f"{KILLS[attempt % len(KILLS)].name} at {_finished(out)} sidecars: {process.returncode}"
        )
        print(endings[-1], flush=True)
    process = start(table, out, 2)
    _wait(process, lambda: _finished(out) >= (kills + 1) * count // (kills + 2))
    victim = next(
        child for child in psutil.Process(process.pid).children() if "spawn_main" in " ".join(child.cmdline())
    )
    victim.kill()
    print(f"killed worker {victim.pid} at {_finished(out)} sidecars", flush=True)
    said, _ = process.communicate()
    return {"endings": endings, "exit_status": process.returncode, "last_run": json.loads(said)}


def _finished(out: Path) -> int:
    return len(glob(str(out / "*" / "*_inpainted.json")))  # passes over folders that vanish meanwhile


def _wait(process: subprocess.Popen[str], reached: Callable[[], bool]) -> None:
    while process.poll() is None and not reached():
        time.sleep(0.2)


def count_outputs(table: Path, out: Path, spoilt: dict[str, str]) -> dict[str, Any]:
    """What stands in the output folder, counted from the files themselves."""
    ids = [line.split("\t")[0] for line in table.read_text().splitlines()[1:]]
    rows = _rows(out / "cohort.tsv")
    failures = {row["id"]: row["code"] for row in _rows(out / "failures.tsv")}
    whole = 0
    for row in rows:
        if row["status"] == "failed":
            continue
        record = out / row["record"]
        whole += all(
            hash_file(record.parent / output.file) == output.sha256 for output in read_sidecar(record).outputs
        )
    return {
        "rows": len(rows),
        "statuses": dict(Counter(row["status"] for row in rows)),
        "lost": len(set(ids) - {row["id"] for row in rows}),
        "twice": len(rows) - len({row["id"] for row in rows}),
        "whole": whole,
        "failed as planted": sum(name in failures for name in spoilt),
        "failed otherwise": len(set(failures) - set(spoilt)),
        "codes": {spoilt[name]: code for name, code in failures.items() if name in spoilt},
        "locks left": len(list(out.rglob("*.neuromend-lock"))),
        "hidden files left by SIGKILL": len(list(out.rglob(".neuromend-*.tmp"))),
    }


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def timed(commands: list[list[str]]) -> tuple[float, float]:
    """Wall and CPU seconds of commands, one after the other, all their processes included."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    for command in commands:
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - began, cpu


def throughput(table: Path, work: Path, count: int, singly: int) -> list[str]:
    """Cases a minute, one by one and with one and two workers."""
    lines = table.read_text().splitlines()
    part = table.with_name("part.tsv")
    part.write_text("\n".join(lines[: count + 1]) + "\n")
    rows = [line.split("\t") for line in lines[1 : singly + 1]]
    single = [
        [*NEUROMEND, "fill", "-i", str(table.parent / image), "-m", str(table.parent / mask), "-o",
         str(work / "single" / f"{name}.nii.gz"), *MODEL, "--threads", "1"]
        for name, image, mask in rows
    ]  # fmt: skip
    told = []
    for title, cases, commands in (
        ("`neuromend fill`, one by one", singly, single),
        *(
            (
                f"`neuromend batch`, {n} worker{'s' if n > 1 else ''}", count,
                [[*NEUROMEND, "batch", str(part), "-o", str(work / f"workers-{n}"), *MODEL, "--threads", "1",
                  "--workers", str(n)]],
            )
            for n in (1, 2)
        ),
    ):  # fmt: skip
        wall, cpu = timed(commands)
        told.append(
            f"| {title} | {cases} | {wall:.1f} | {cpu:.1f} | {wall / cases:.2f} | {cpu / cases:.2f} |"
        )
        print(told[-1], flush=True)
    return told


DRIVER = """
import resource, sys
from pathlib import Path
from neuromend.cohort.cases import Case, Settings
from neuromend.cohort.clusters import EngineOptions
from neuromend.cohort.engine import run_cases
if __name__ == "__main__":
    count, out = int(sys.argv[1]), Path(sys.argv[2])
    cases = (Case(str(n), Path("no.nii.gz"), Path("no.nii.gz"), out / str(n) / "x.nii.gz") for n in range(count))
    done = run_cases(cases, Settings(model="harmonic"), EngineOptions(workers=2), out)
    print(done.failed, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def driver_memory(work: Path, sizes: tuple[int, ...]) -> list[str]:
    """Peak memory of the driver for cohorts of these sizes."""
    script = work / "driver.py"
    script.write_text(DRIVER)
    told = []
    for size in sizes:
        command = [sys.executable, str(script), str(size), str(work / f"simulated-{size}")]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        told.append(f"| {size} | {said[0]} | {float(said[1]):.0f} |")
        print(told[-1], flush=True)
    return told


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--work", type=Path, required=True, help="an empty folder for scans, outputs and RESULT.md"
    )
    parser.add_argument("--cases", type=int, default=200)
    parser.add_argument("--bad", type=int, default=10)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--timed", type=int, default=60, help="cases to measure the throughput on")
    parser.add_argument("--singly", type=int, default=6, help="cases to fill one by one")
    parser.add_argument("--simulated", type=int, nargs="*", default=[200, 2000])
    options = parser.parse_args()
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # children of a background job would ignore Ctrl-C
    began, work = time.perf_counter(), options.work.absolute()
    table, spoilt = make_cases(work / "scans", options.cases, options.bad)
    facts = killed_run(table, work / "out", options.cases, options.kills)
    facts |= count_outputs(table, work / "out", spoilt)
    print(json.dumps(facts, indent=1), flush=True)
    good, _ = make_cases(work / "good", options.timed, 0)
    pace = throughput(good, work, options.timed, options.singly)
    memory = driver_memory(work, tuple(options.simulated))
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    spent = (time.perf_counter() - began) / 60
    text = [
        f"neuromend {version_string()}, {os.cpu_count()} cores, load average {load}, {spent:.0f} minutes in all", "",
        "```json", json.dumps(facts, indent=1), "```", "",
        "| | cases | wall s | CPU s | wall s a case | CPU s a case |", "|---|---|---|---|---|---|", *pace, "",
        "| simulated cases | failed | peak memory of the driver, MiB |", "|---|---|---|", *memory,
    ]  # fmt: skip
    (work / "RESULT.md").write_text("\n".join(text) + "\n")


if __name__ == "__main__":
    main()

"""Runs what is missing, each in a process of its own."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed

from nrt_lightning.tools.comparison.experiment import Comparison, Run

log = logging.getLogger(__name__)


def run_all(comparison: Comparison, jobs: int = 1) -> list[Run]:
    """Run what has not finished, and give back the runs that failed.

    A finished run is kept; what a killed one left is removed, and the run begins anew.

    Args:
        comparison: which runs.
        jobs: how many at a time, each on its share of the cores.

    Raises:
        InputError: a directory holds a run of other configs; nothing is run then.
    """
    missing = [run for run in comparison.runs if not run.finished]
    print(f"{len(comparison.runs)} runs, {len(comparison.runs) - len(missing)} of them finished", flush=True)
    threads = str(max(1, (os.cpu_count() or 1) // jobs))
    environment = {"OMP_NUM_THREADS": threads} | os.environ  # what is set by hand wins
    failed = []
    children: list[subprocess.Popen[bytes]] = []
    with ThreadPoolExecutor(jobs) as pool:
        waiting = {pool.submit(run_one, comparison, run, environment, children): run for run in missing}
        try:
            for done, future in enumerate(as_completed(waiting), start=1):
                run, code = waiting[future], future.result()
                print(f"[{done}/{len(missing)}] {run.name}: {verdict(run, code)}", flush=True)
                failed += [run] if code else []
        except BaseException:  # interrupted: end what runs, so that nothing goes on behind the user's back
            pool.shutdown(wait=False, cancel_futures=True)
            stop(children)
            raise
    return failed


def run_one(
    comparison: Comparison, run: Run, environment: dict[str, str], children: list[subprocess.Popen[bytes]]
) -> int:
    """One run, its output in `log.txt` of its directory; gives its exit code."""
    if run.directory.exists():
        shutil.rmtree(run.directory)  # of a run that was killed: a finished one is not run again
    run.directory.mkdir(parents=True)
    run.config.write_text(comparison.config_of(run))
    (run.directory / "fingerprint").write_text(run.fingerprint)
    with (run.directory / "log.txt").open("wb") as output:
        child = subprocess.Popen(run.command, stdout=output, stderr=subprocess.STDOUT, env=environment)
        children.append(child)
        return child.wait()


def verdict(run: Run, code: int) -> str:
    """What a run came to, in a line."""
    if code == 0:
        return "finished"
    lines = (run.directory / "log.txt").read_text(errors="replace").strip().splitlines()
    return f"failed ({lines[-1] if lines else f'exit code {code}'}); see {run.directory / 'log.txt'}"


def stop(children: Sequence[subprocess.Popen[bytes]]) -> None:
    """End the processes that still run."""
    for child in children:
        if child.poll() is None:
            child.terminate()

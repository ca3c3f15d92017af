"""Runs the missing runs of a comparison, each in a separate process."""

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
    """Run all runs that have not finished, and return those that failed.

    The files of an interrupted run are removed, and the run starts again.

    Args:
        comparison: the comparison.
        jobs: number of concurrent runs, which divide the cores among them.

    Raises:
        InputError: before anything is run: a directory holds a run of other configs.
    """
    missing = [run for run in comparison.runs if not run.finished]
    print(f"{len(comparison.runs)} runs, {len(comparison.runs) - len(missing)} of them finished", flush=True)
    threads = str(max(1, (os.cpu_count() or 1) // jobs))
    environment = {"OMP_NUM_THREADS": threads} | os.environ  # the user's settings take precedence
    failed = []
    children: list[subprocess.Popen[bytes]] = []
    with ThreadPoolExecutor(jobs) as pool:
        waiting = {pool.submit(run_one, comparison, run, environment, children): run for run in missing}
        try:
            for done, future in enumerate(as_completed(waiting), start=1):
                run, code = waiting[future], future.result()
                print(f"[{done}/{len(missing)}] {run.name}: {status(run, code)}", flush=True)
                failed += [run] if code else []
        except BaseException:  # interrupted: leave no processes behind
            pool.shutdown(wait=False, cancel_futures=True)
            stop(children)
            raise
    return failed


def run_one(
    comparison: Comparison, run: Run, environment: dict[str, str], children: list[subprocess.Popen[bytes]]
) -> int:
    """Run one run, with its output in `log.txt` of its directory, and return its exit code."""
    if run.directory.exists():
        shutil.rmtree(run.directory)  # of an interrupted run
    run.directory.mkdir(parents=True)
    run.config.write_text(comparison.config_of(run))
    (run.directory / "fingerprint").write_text(run.fingerprint)
    with (run.directory / "log.txt").open("wb") as output:
        child = subprocess.Popen(run.command, stdout=output, stderr=subprocess.STDOUT, env=environment)
        children.append(child)
        return child.wait()


def status(run: Run, code: int) -> str:
    """The status of a run in one line."""
    if code == 0:
        return "finished"
    lines = (run.directory / "log.txt").read_text(errors="replace").strip().splitlines()
    return f"failed ({lines[-1] if lines else f'exit code {code}'}); see {run.directory / 'log.txt'}"


def stop(children: Sequence[subprocess.Popen[bytes]]) -> None:
    """Terminate the running processes."""
    for child in children:
        if child.poll() is None:
            child.terminate()

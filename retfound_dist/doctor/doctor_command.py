"""`retfound doctor CONFIG.toml`: checks the machines of a run in some five minutes, before the run.

Alone, under torchrun, or under srun: every rank takes part, and rank 0 prints.
"""

from __future__ import annotations

import json
import os
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import resources

import torch
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from rich.console import Console
from rich.text import Text

from retfound_dist.config.loading import load
from retfound_dist.config.schema import PretrainConfig
from retfound_dist.doctor import measured_file
from retfound_dist.doctor.check_result import STATUSES, CheckResult
from retfound_dist.doctor.checkup import Checkup
from retfound_dist.doctor.link_checks import link_check, rate_checks
from retfound_dist.doctor.loader_check import loader_check
from retfound_dist.doctor.machine_checks import machine_checks
from retfound_dist.doctor.numeric_check import numeric_checks
from retfound_dist.doctor.store_checks import store_checks
from retfound_dist.doctor.trial_checks import measured_rate_of, trial_checks
from retfound_dist.doctor.trial_run import run_trial, trial_size
from retfound_dist.errors import ConfigError, RetfoundError, StorageError
from retfound_dist.estimate.model_shapes import check_model
from retfound_dist.formats.shard_set import read_manifest
from retfound_dist.io import output_files, storage
from retfound_dist.runtime.humanize import duration, plural
from retfound_dist.runtime.world import World, read_world
from retfound_dist.train.ranks.process_group import (
    join_ranks,
    leave_ranks,
    prints_error,
    with_worker_count,
)

COLOURS = {"ok": "green", "warning": "yellow", "failed": "bold red", "skipped": "dim"}


@dataclass(frozen=True)
class DoctorOptions:
    """The arguments of the command."""

    config: str
    overrides: Sequence[str]
    as_json: bool = False
    html: str = ""
    """File of the page; empty: none."""
    minutes: float = 5.0
    """About how long the checks take; the starts of the trial run come on top."""
    force: bool = False
    quiet: bool = False


def doctor_command(options: DoctorOptions) -> int:
    """Run all checks; returns 1 if one has failed, else 0. Every rank calls it."""
    world = read_world(os.environ)
    try:
        return _run_checks(options, world)
    except RetfoundError as error:
        if prints_error(error, world):
            raise
        return error.exit_code


def _run_checks(options: DoctorOptions, world: World) -> int:
    """Join the ranks, run all checks, and print them on rank 0; returns the exit code."""
    config, _ = load(PretrainConfig, options.config, options.overrides)
    check_model(config.model)
    manifest = read_manifest(config.data.shards, config.data.first_shards)
    manifest.part(config.data.split)
    _check_page(options)
    if not options.minutes > 0:
        raise ConfigError(f"--minutes {options.minutes:g}: give a number above 0")
    group = join_ranks(world, config.train.threads, config.train.device)
    config = with_worker_count(config, group)
    mark = group.broadcast(uuid.uuid4().hex[:8])
    trial_url = f"{config.run.url.rstrip('/')}-doctor-{mark}"
    checkup = Checkup(config, options.config, options.overrides, manifest, group, trial_url, options.minutes)
    began, shown = time.monotonic(), _Output(options, world)
    try:
        rate = shown.all_checks(checkup)
    finally:
        if world.is_main:
            with suppress(RetfoundError):
                storage.delete(trial_url)
    if world.is_main:
        shown.finish(checkup, rate, time.monotonic() - began)
    leave_ranks()
    return 1 if any(check.status == "failed" for check in shown.checks) else 0


def _check_page(options: DoctorOptions) -> None:
    """ConfigError where the page cannot be written."""
    if options.html and not options.html.endswith(".html"):
        raise ConfigError(f"--html {options.html}: give a name that ends in .html")
    if options.html:
        output_files.check_may_write(options.html, "doctor", options.force, "--html")


class _Output:
    """Collects the checks of all ranks, and prints them on rank 0."""

    def __init__(self, options: DoctorOptions, world: World) -> None:
        self._options, self._is_main = options, world.is_main
        self._console = Console(highlight=False, soft_wrap=True)
        self.checks: list[CheckResult] = []

    def all_checks(self, checkup: Checkup) -> float | None:
        """Run all checks in order; returns the images/s of the trial run, None where it failed."""
        self._add("host", lambda: machine_checks(checkup))
        self._add("links", lambda: [link_check(checkup)])
        self._add("matrix_rate", lambda: rate_checks(checkup))
        self._add("store", lambda: store_checks(checkup))
        self._add("numerics", lambda: numeric_checks(checkup))
        rate: float | None = None

        def trial() -> Iterator[CheckResult]:
            nonlocal rate
            ran = run_trial(checkup, trial_size(checkup, self._rank_flops()))
            rate = measured_rate_of(ran)
            yield from trial_checks(ran, checkup, _device_bytes(checkup))

        self._add("step", trial)
        needed = None if rate is None else rate / checkup.group.world.size
        self._add("loader", lambda: [loader_check(checkup, needed)])
        return rate

    def _rank_flops(self) -> float:
        """Operations per second of one rank, as measured; of a slow core where the check has failed."""
        check = next((check for check in self.checks if check.name == "matrix_rate"), None)
        return 1e12 * check.value if check and check.value else 1e10

    def _add(self, name: str, run: Callable[[], Iterable[CheckResult]]) -> None:
        """Run some checks; an error that a user can fix is a failed check."""
        if self._is_main and not self._options.quiet and sys.stderr.isatty():
            print(f"checking: {name} ...", end="\r", file=sys.stderr, flush=True)
        try:
            for check in run():
                self.checks.append(check)
                self._print(check)
        except RetfoundError as error:
            check = CheckResult(name, "failed", str(error), what_to_do="the line says it")
            self.checks.append(check)
            self._print(check)

    def _print(self, check: CheckResult) -> None:
        if not self._is_main or self._options.as_json:
            return
        line = Text(f"{check.name:<15}")
        line.append(f"{check.status:<8}", style=COLOURS[check.status])
        line.append(check.text)
        self._console.print(line)
        if check.what_to_do:
            self._console.print(Text(f"{'':<23}to do: {check.what_to_do}", style="bold"))

    def finish(self, checkup: Checkup, rate: float | None, seconds: float) -> None:
        """Record the measurements, and print the end."""
        try:
            where = measured_file.record(checkup, self.checks, rate)
        except StorageError as error:
            where = ""
            print(f"the measurements could not be recorded: {error}", file=sys.stderr)
        if self._options.html:
            page = doctor_page(checkup, self.checks)
            storage.write_text(self._options.html, page)
        if self._options.as_json:
            print(json.dumps({"checks": [check.to_json() for check in self.checks]}, indent=1))
            return
        self._console.print(f"{verdict(self.checks)} ({duration(seconds)})")
        if where:
            self._console.print(f"recorded for `retfound plan`: {where}")
        if self._options.html:
            self._console.print(f"page: {self._options.html}")


def _device_bytes(checkup: Checkup) -> float:
    """Memory of this rank's GPU; 0 on a CPU."""
    if not checkup.on_gpu:
        return 0.0
    return float(torch.cuda.get_device_properties(checkup.group.device).total_memory)


def verdict(checks: Sequence[CheckResult]) -> str:
    """One sentence on all checks."""
    counts = {status: sum(check.status == status for check in checks) for status in STATUSES}
    by_status = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
    summary = f"{plural(len(checks), 'check')}: {by_status}"
    if counts["failed"]:
        names = ", ".join(check.name for check in checks if check.status == "failed")
        return f"{summary}. Do not start the run before {names} is mended"
    return summary


def doctor_page(checkup: Checkup, checks: Sequence[CheckResult]) -> str:
    """The page: the worst checks first."""
    world = checkup.group.world
    order = sorted(checks, key=lambda check: STATUSES.index(check.status))
    loader = PackageLoader("retfound_dist.doctor", ".")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return environment.get_template("doctor_page.html.j2").render(
        title=checkup.config_path,
        subtitle=(
            f"{plural(world.size, 'rank')} on {plural(checkup.hosts, 'host')}, {checkup.config.model.name}, "
            f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
        ),
        verdict=verdict(checks),
        checks=order,
        style=Markup((resources.files("retfound_dist.runs") / "style.css").read_text()),
        mark=output_files.mark("doctor"),
    )

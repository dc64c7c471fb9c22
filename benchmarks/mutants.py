"""Faults that the tests would not notice: mutants of the core modules, each against its own quick tests.

    make mutants                                          all modules, one mutant a core at a time
    python -m benchmarks.mutants plan bootstrap --jobs 1  modules whose path holds one of these words

`[tool.mutants.modules]` in pyproject.toml names the modules and their tests. A mutant is killed when a test
fails or takes far longer than it should. mutants_survivors.toml has the reason why a survivor may live. The
exit code is 1 where a survivor has no reason, and where one mutant in ten or more survives.

No file changes: each mutant is tried in a fork of this process, which has imported torch already, and only
the fork takes the faulty source for the module's. This process computes nothing, so no threads are lost.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib
import os
import resource
import signal
import sys
import time
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from types import CodeType
from typing import Any

from benchmarks.mutation import Mutant, mutants_of
from benchmarks.report import Row, finish

ROOT = Path(__file__).resolve().parent.parent
SURVIVORS = Path(__file__).with_name("mutants_survivors.toml")
MOST_SURVIVORS = 0.1
BEFOREHAND = (
    "_hypothesis_pytestplugin", "anyio.pytest_plugin", "deepspeed", "hypothesis", "PIL.Image", "pydantic",
    "pytest", "pytest_timeout", "rich.progress", "s3fs", "scipy.stats", "simplejpeg", "sklearn.linear_model",
    "sklearn.metrics", "tenacity", "timm.data", "timm.models.vision_transformer", "timm.optim",
    "xdist.plugin", "xxhash",
)  # fmt: skip
"""Imported once before all forks: other packages that are slow to import."""
MEMORY = 8 << 30
"""Memory limit of a fork, in bytes: a mutant may request a huge array."""
Children = dict[int, tuple[Mutant | None, float]]
"""Running forks: by process id, the mutant and the time of its start."""
KILLED, SURVIVED, TIMEOUT = "killed", "survived", "timeout"


@dataclass(frozen=True)
class MutantResult:
    """A mutant and its outcome."""

    mutant: Mutant
    outcome: str


class MutantFinder(MetaPathFinder):
    """Imports one module from a mutant's source."""

    def __init__(self, mutant: Mutant) -> None:
        self._mutant = mutant
        self._name = mutant.module.removesuffix(".py").replace("/", ".")

    def find_spec(self, name: str, path: Any, target: Any = None) -> ModuleSpec | None:
        """The module itself, by a loader that compiles the mutant."""
        if name != self._name:
            return None
        file, source = str(ROOT / self._mutant.module), self._mutant.source

        class Loader(SourceFileLoader):
            def get_code(self, fullname: str) -> CodeType:
                return compile(source, file, "exec")

        return spec_from_file_location(name, file, loader=Loader(name, file))


def fork_tests(tests: Sequence[str], mutant: Mutant | None) -> int:
    """Fork: the child runs the tests on the mutant (or the sound module) and ends with pytest's exit code."""
    if child := os.fork():
        return child
    try:
        os.setsid()
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
        silent = os.open(os.devnull, os.O_RDWR)
        for number in (0, 1, 2) if mutant else (0,):
            os.dup2(silent, number)
        if mutant:
            sys.meta_path.insert(0, MutantFinder(mutant))
        code = run_tests(tests)
    except BaseException:
        code = 1
    os._exit(int(code))


def run_tests(tests: Sequence[str]) -> int:
    """pytest's exit code; every mutant gets the same generated examples, and none is made smaller."""
    import hypothesis
    import pytest

    phases = (hypothesis.Phase.explicit, hypothesis.Phase.generate)
    hypothesis.settings.register_profile("mutants", phases=phases, database=None, derandomize=True)
    hypothesis.settings.load_profile("mutants")
    quick = ["-x", "-q", "-W", "ignore", "-m", "not slow and not cluster", "-p", "no:cacheprovider"]
    return pytest.main([*quick, *tests])


def wait(children: Children, limit: float) -> Iterator[tuple[Mutant | None, str]]:
    """At least one child that has ended, or was killed after the limit."""
    while True:
        ended, status = os.waitpid(-1, os.WNOHANG)
        if ended in children:
            mutant, _ = children.pop(ended)
            yield mutant, SURVIVED if status == 0 else KILLED
            return
        for child, (mutant, begun) in list(children.items()):
            if time.monotonic() - begun > limit:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child, signal.SIGKILL)
                os.waitpid(child, 0)
                del children[child]
                yield mutant, TIMEOUT
                return
        time.sleep(0.01)


def run_mutants(module: str, tests: Sequence[str], jobs: int) -> list[MutantResult]:
    """Test every mutant of a module. The unchanged module must pass first; its time sets the limit."""
    mutants = mutants_of(module, (ROOT / module).read_text())
    started = time.monotonic()
    ((_, outcome),) = wait({fork_tests(tests, None): (None, started)}, 600)
    if outcome != SURVIVED:
        raise SystemExit(f"{', '.join(tests)}: fail without any fault in {module}; correct them first")
    sound = time.monotonic() - started
    limit = 10 + 5 * sound
    results: list[MutantResult] = []
    children: Children = {}
    for place, mutant in enumerate([*mutants, *[None] * jobs]):
        while len(children) >= jobs or (mutant is None and children):
            for ended, outcome in wait(children, limit):
                assert ended is not None
                results.append(MutantResult(ended, outcome))
                if outcome == SURVIVED:
                    print(f"  line {ended.line}: {ended.before}  ->  {ended.after}", flush=True)
        if mutant:
            children[fork_tests(tests, mutant)] = mutant, time.monotonic()
        if place and place % 50 == 0:
            print(f"  {module}: {len(results)} of {len(mutants)}", flush=True)
    print(f"{module}: {len(mutants)} mutants; the sound tests take {sound:.1f} s", flush=True)
    return results


def reasons(path: Path = SURVIVORS) -> dict[tuple[str, str, str], str]:
    """Why each known survivor is allowed, by module, original line and mutated line."""
    results = {}
    for module, groups in tomllib.loads(path.read_text()).items():
        for group in groups:
            for before, after in group["lines"]:
                results[module, before, after] = group["reason"]
    return results


def report(name: str, results: dict[str, list[MutantResult]], minutes: dict[str, float]) -> int:
    """Print the table and the survivors, and write the results; returns the exit code."""
    known, rows, ratios, unexplained = reasons(), [], {}, 0
    for module, mutants in results.items():
        alive = [result.mutant for result in mutants if result.outcome == SURVIVED]
        late = sum(result.outcome == TIMEOUT for result in mutants)
        killed = f"{len(mutants) - len(alive) - late} killed, {late} timeouts, {len(alive)} survived"
        rows.append(Row(module, len(mutants), "mutants", f"{killed}, {minutes[module]:.1f} minutes"))
        ratios[f"survivors of {module}"] = round(len(alive) / len(mutants), 4)
        for mutant in alive:
            reason = known.get((module, mutant.before, mutant.after))
            unexplained += reason is None
            print(f"{module}:{mutant.line}: {mutant.before}  ->  {mutant.after}")
            print(f"    {reason or 'NO REASON GIVEN'}")
        here = {(module, mutant.before, mutant.after) for mutant in alive}
        for _, before, after in (key for key in known if key[0] == module and key not in here):
            print(f"{SURVIVORS.name}: {before}  ->  {after}\n    is killed now, or no longer made: remove it")
    total = sum(len(mutants) for mutants in results.values())
    alive_share = (
        sum(result.outcome == SURVIVED for mutants in results.values() for result in mutants) / total
    )
    ratios["survivors of all"] = round(alive_share, 4)
    finish(name, "Mutants of the core modules", rows, ratios, ("cosmic-ray", "pytest", "torch"),
           columns=("count", "unit", "what became of them"))  # fmt: skip
    if unexplained:
        print(f"{unexplained} survivors have no reason: write a test that kills each, or give its reason")
    if alive_share >= MOST_SURVIVORS:
        print(f"{alive_share:.1%} of all mutants survive, {MOST_SURVIVORS:.0%} are too many")
    return int(bool(unexplained) or alive_share >= MOST_SURVIVORS)


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description="Mutants of the core modules")
    parser.add_argument("words", nargs="*", help="modules whose path holds one of these (all)")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="mutants at a time")
    args = parser.parse_args()
    os.chdir(ROOT)
    os.environ |= {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}
    modules = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mutants"]["modules"]
    chosen = {m: tests for m, tests in modules.items() if any(word in m for word in args.words or [""])}
    if missing := [path for m, tests in chosen.items() for path in (m, *tests) if not Path(path).is_file()]:
        raise SystemExit(f"[tool.mutants.modules] in pyproject.toml names no file: {', '.join(missing)}")
    for name in BEFOREHAND:
        importlib.import_module(name)
    gc.freeze()  # no fork looks through what is imported here
    results, minutes = {}, {}
    for module, tests in chosen.items():
        begun = time.monotonic()
        results[module] = run_mutants(module, tests, args.jobs)
        minutes[module] = (time.monotonic() - begun) / 60
    name = "-".join(["mutants", *(word.replace("/", "-") for word in args.words)])
    return report(name, results, minutes)


if __name__ == "__main__":
    sys.exit(main())

"""`retfound suite`: several starting weights on several labelled sets, one page.

OUT/<set>/ is the comparison of all rows on one set, and OUT/<set>/<row>/ is a cell: one evaluation. A cell
that is complete for the same settings, data and weights is not made again. Several calls can share the cells
(`cells=2/8`): each makes its own, and a call that sees all cells complete writes the pages. A call looks
after its own cells are written, so the last one sees all of them. Each file is written whole, and suite.json
last: if two calls end together, both write the same files.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from retfound_dist.config.loading import load, to_dict
from retfound_dist.config.schema import SuiteConfig
from retfound_dist.config.schema.suite_settings import ALL_CELLS
from retfound_dist.errors import DataError
from retfound_dist.evaluate.commands.compare import (
    COMPARE,
    check_names,
    configs_by_size,
    open_rows,
    show_rows,
    write_comparison,
)
from retfound_dist.evaluate.commands.evaluate import set_threads
from retfound_dist.evaluate.commands.suite_cells import (
    Starts,
    cell_config,
    check_cells,
    make_cells,
    set_comparison,
)
from retfound_dist.evaluate.data.starting_weights import WEIGHTS_CACHE
from retfound_dist.evaluate.results import evaluation_files
from retfound_dist.evaluate.results.evaluation import Evaluation
from retfound_dist.evaluate.results.existing_results import check_out_url, check_rows, check_sets
from retfound_dist.evaluate.suite.cell_shares import SuiteCell, list_suite_cells, share_of_cells
from retfound_dist.evaluate.suite.suite_page import suite_markdown, suite_page, suite_tree, suite_warnings
from retfound_dist.evaluate.suite.suite_tables import set_table, terminal_lines
from retfound_dist.formats import url_kinds
from retfound_dist.formats.content_identity import IdentityCache
from retfound_dist.io import output_files, storage
from retfound_dist.runtime.progress import ProgressDisplay

SUITE, TABLE = "suite.json", "suite.md"


def suite_command(
    config_path: str, overrides: Sequence[str], quiet: bool = False, force: bool = False
) -> int:
    """Run `retfound suite`; RetfoundError for anything that a user can fix."""
    config, _ = load(SuiteConfig, config_path, overrides)
    set_threads(config.threads)
    check_names("weights", config.weights)
    check_names("sets", config.sets)
    for one in configs_by_size(config):
        _run_suite(one, quiet, force)
    return 0


def sets_left_out(config: SuiteConfig) -> dict[str, str]:
    """Set -> why it is left out: its path does not exist. DataError where no set is there."""
    left_out = {
        name: f"sets.{name}.path={one.path} does not exist"
        for name, one in config.sets.items()
        if not (storage.exists(one.path) or storage.is_folder(one.path))
    }
    if len(left_out) == len(config.sets):
        raise DataError(f"no labelled set is there: {'; '.join(left_out.values())}. Give the path of one set")
    return left_out


def _run_suite(config: SuiteConfig, quiet: bool, force: bool) -> None:
    """All sets and rows at one setting of the input size."""
    left_out = sets_left_out(config)
    _check_outputs(config, force)
    # The shares are those of all sets, also of those that are left out here.
    own = share_of_cells(list_suite_cells(config.sets, list(config.weights)), config.cells)
    own = [cell for cell in own if cell.set_name not in left_out]
    cells = list_suite_cells([name for name in config.sets if name not in left_out], list(config.weights))
    cache = IdentityCache(storage.join(config.out.url, WEIGHTS_CACHE))
    starts = open_rows(config.weights, config.model, config.finetune, cache)
    with ProgressDisplay(quiet) as show:
        for name, reason in left_out.items():
            show.say(f"warning: the set {name} is left out: {reason}")
        warning = show_rows(starts, show)
        done = make_cells(config, own, starts, show, force)
        others = [cell for cell in cells if cell not in done]
        complete, missing = _cells_of_other_calls(config, others, starts, show, force)
        if missing:
            show.say(_waiting_message(config, missing))
            return
        everything = {**done, **complete}
        # In the order of the settings, so that every call would write the same files.
        _write_suite(config, {cell: everything[cell] for cell in cells}, left_out, warning, show)


def _cells_of_other_calls(
    config: SuiteConfig, cells: Sequence[SuiteCell], starts: Starts, show: ProgressDisplay, force: bool
) -> tuple[dict[SuiteCell, Evaluation], list[SuiteCell]]:
    """Cells that other calls have completed, and cells that they have not. None is made here."""
    # First by their files alone, because checking them decodes the images of their sets.
    missing = [cell for cell in cells if not _has_metrics(config, cell)]
    return ({}, missing) if missing else check_cells(config, cells, starts, show, force)


def _check_outputs(config: SuiteConfig, force: bool) -> None:
    """Errors of OUT before images are decoded."""
    check_out_url(config.out.url, force, url_kinds.SUITE)
    check_sets(storage.join(config.out.url, SUITE), config.weights, config.sets, force)
    output_files.check_may_write(report_url(config), "suite", force, "out.report")
    for name in config.sets:
        url = storage.join(config.out.url, name)
        check_out_url(url, force, url_kinds.COMPARISON)
        check_rows(storage.join(url, COMPARE), config.weights, force)


def _has_metrics(config: SuiteConfig, cell: SuiteCell) -> bool:
    url = cell_config(config, cell).out.url
    return storage.exists(storage.join(url, evaluation_files.METRICS))


def _waiting_message(config: SuiteConfig, missing: Sequence[SuiteCell]) -> str:
    return (
        f"{len(missing)} cells of other calls are not complete, such as {missing[0].title}. The last of "
        f"these calls writes {report_url(config)}. The same command without cells= writes it too"
    )


def _write_suite(
    config: SuiteConfig,
    cells: Mapping[SuiteCell, Evaluation],
    left_out: Mapping[str, str],
    warning: str,
    show: ProgressDisplay,
) -> None:
    """Write the comparison of each set, then the page, suite.md and suite.json."""
    show.begin("comparing")
    trees: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(cell.set_name for cell in cells):
        comparison = set_comparison(config, name)
        rows = {row: cells[SuiteCell(name, row)] for row in config.weights}
        trees[name] = write_comparison(comparison, {comparison.data.label_share: rows}, warning)
    tree = suite_tree(trees, left_out, warning)
    paths = {name: config.sets[name].path for name in trees}
    storage.write_text(report_url(config), suite_page(tree, paths, _links(config, trees)))
    storage.write_text(storage.join(config.out.url, TABLE), suite_markdown(tree))
    # Without the share: the suite is the same, whichever call writes it.
    tree["config"] = to_dict(replace(config, cells=ALL_CELLS))
    # Last, because suite.json means that the suite is complete.
    storage.write_json(storage.join(config.out.url, SUITE), tree)
    for summary in tree["ranks"]:
        for line in terminal_lines(set_table(summary, trees, {})):
            show.say(line)
    # The sets that are left out were named at the beginning.
    warnings = [f"warning: {text}" for text in suite_warnings({**tree, "left_out": {}})]
    for line in [*warnings, *tree["sentences"]]:
        show.say(line)
    show.say(f"report: {report_url(config)}")


def _links(config: SuiteConfig, names: Sequence[str] | Mapping[str, Any]) -> dict[str, str]:
    """Set -> its page, relative to the page of the suite where both are on this machine's disks."""
    pages = {name: storage.join(config.out.url, f"{name}/{evaluation_files.REPORT}") for name in names}
    report = report_url(config)
    if not (storage.is_local(report) and storage.is_local(config.out.url)):
        return (
            {name: f"{name}/{evaluation_files.REPORT}" for name in names} if not config.out.report else pages
        )
    folder = os.path.dirname(os.path.abspath(storage.local_path(report)))
    return {
        name: os.path.relpath(os.path.abspath(storage.local_path(page)), folder)
        for name, page in pages.items()
    }


def report_url(config: SuiteConfig) -> str:
    """The URL of the page."""
    return config.out.report or storage.join(config.out.url, evaluation_files.REPORT)

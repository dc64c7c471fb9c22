"""The `retfound` command: runs one command, and prints each error as one line.

Exit codes: 0 done; 1 a check found faults; 2 bad input; 70 an unexpected error; 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import traceback
from collections.abc import Callable, Sequence

from retfound_dist.config.command_line import parse_arguments
from retfound_dist.config.missing_config import check_config
from retfound_dist.errors import ConfigError, RetfoundError
from retfound_dist.runtime.optional_packages import requires_extra
from retfound_dist.runtime.terminal import filtered_output
from retfound_dist.runtime.unexpected_error import report_unexpected

Command = Callable[[argparse.Namespace], int]


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code; secrets are removed from everything that is printed."""
    with filtered_output():
        return _run_command(argv)


def _run_command(argv: Sequence[str] | None) -> int:
    """Run one command and return its exit code; an error becomes one line on stderr."""
    args = parse_arguments(argv)
    try:
        check_config(args)
        return int(COMMANDS[args.name](args))
    except RetfoundError as error:
        if args.debug:
            traceback.print_exc()
        print(f"retfound: {' '.join(str(error).split())}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("retfound: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:  # a bug: exit code 1 would mean that a check found faults
        return report_unexpected(error, args.debug)


def _pack(args: argparse.Namespace) -> int:
    from shards.commands import pack_command

    return pack_command(
        args.config,
        args.overrides,
        force=args.force,
        dry_run=args.dry_run,
        add=args.append,
        quiet=args.quiet,
    )


def _verify(args: argparse.Namespace) -> int:
    from shards.commands import verify_command

    return verify_command(args.url, repair_with=args.repair[0], overrides=args.repair[1:], quiet=args.quiet)


def _show(args: argparse.Namespace) -> int:
    """Print each setting with its value and its origin; returns the exit code."""
    from retfound_dist.config.loading import flatten, load_any, to_dict

    if args.keys:
        return _show_keys(args)
    if not args.config:
        raise ConfigError("show: give a CONFIG.toml, or --keys to list every key")
    config, origins = load_any(args.config, args.overrides)
    values = dict(flatten(to_dict(config)))
    if args.json:
        print(
            json.dumps(
                {key: {"value": value, "origin": origins[key]} for key, value in values.items()}, indent=1
            )
        )
        return 0
    width = max(len(key) for key in values)
    for key, value in values.items():
        print(f"{key:<{width}}  {json.dumps(value):<24}  {origins[key]}")
    return 0


def _show_keys(args: argparse.Namespace) -> int:
    from retfound_dist.config.reference import commands_for, key_lines, keys_tree

    commands = commands_for(args.config)
    if args.json:
        print(json.dumps(keys_tree(commands), indent=1))
    else:
        print("\n".join(key_lines(commands)))
    return 0


def _plan(args: argparse.Namespace) -> int:
    from retfound_dist.plan.cluster import ClusterFlags
    from retfound_dist.plan.plan_command import plan_command

    flags = ClusterFlags(args.nodes, args.gpus_per_node, args.gpu_memory_gb, args.device, args.node_link_gbit)
    return plan_command(
        args.config,
        args.overrides,
        flags,
        samples=args.samples,
        image_kb=args.image_kb,
        within_hours=args.within_hours,
        strict=args.strict,
        as_json=args.json,
    )


def _doctor(args: argparse.Namespace) -> int:
    from retfound_dist.doctor.doctor_command import DoctorOptions, doctor_command

    options = DoctorOptions(
        args.config, args.overrides, args.json, args.html, args.minutes, args.force, args.quiet
    )
    return doctor_command(options)


def _pretrain(args: argparse.Namespace) -> int:
    """Check config and data on all ranks, show the plan's lines on rank 0, and train."""
    from retfound_dist.train.ranks.preemption import StopRequest

    stop_request = StopRequest()
    stop_request.listen()  # before the slow imports: until then a signal would end the process
    from retfound_dist.config.loading import load
    from retfound_dist.config.schema import PretrainConfig
    from retfound_dist.estimate.model_shapes import check_model
    from retfound_dist.formats.shard_set import read_manifest
    from retfound_dist.runtime.world import read_world
    from retfound_dist.stream.held_out_part import held_out_part
    from retfound_dist.train.ranks.watchdog import record_restart, would_fail_again

    world = read_world(os.environ)
    try:
        config, _ = load(PretrainConfig, args.config, args.overrides)
        check_model(config.model)
        manifest = read_manifest(config.data.shards, config.data.first_shards)
        manifest.part(config.data.split)
        held_out_part(config.data, manifest)
    except RetfoundError as error:
        record_restart(would_fail_again(error))
        if world.is_main:
            raise
        return error.exit_code
    if world.is_main and not args.quiet:
        from retfound_dist.plan.plan_command import recipe_lines

        for line in recipe_lines(config, manifest, world.size):
            print(line, file=sys.stderr)
    from retfound_dist.train.pretrain import pretrain_command

    return pretrain_command(config, manifest, world, args.quiet, stop_request, args.debug)


def _batch(args: argparse.Namespace) -> int:
    from retfound_dist.stream.batch_sheet import batch_command

    return batch_command(args.config, args.overrides, args.step, args.out, args.force)


def _overrides_with_flags(args: argparse.Namespace) -> list[str]:
    """The overrides, and the flags that are short for an override."""
    return [*args.overrides, *(["data.allow_leak=true"] if args.allow_leak else [])]


def _evaluate(args: argparse.Namespace) -> int:
    from retfound_dist.evaluate.commands.evaluate import evaluate_command

    return evaluate_command(args.config, _overrides_with_flags(args), quiet=args.quiet, force=args.force)


def _watch(args: argparse.Namespace) -> int:
    from retfound_dist.evaluate.commands.watch import watch_command

    return watch_command(args.config, _overrides_with_flags(args), quiet=args.quiet)


def _compare(args: argparse.Namespace) -> int:
    from retfound_dist.evaluate.commands.compare import compare_command

    return compare_command(args.config, _overrides_with_flags(args), quiet=args.quiet, force=args.force)


def _suite(args: argparse.Namespace) -> int:
    from retfound_dist.evaluate.commands.suite import suite_command

    return suite_command(args.config, args.overrides, quiet=args.quiet, force=args.force)


def _reconstruct(args: argparse.Namespace) -> int:
    from retfound_dist.evaluate.probe.reconstruct import reconstruct_command

    return reconstruct_command(args.checkpoint, args.images, args.out, seed=args.seed, force=args.force)


def _embed(args: argparse.Namespace) -> int:
    from retfound_dist.evaluate.commands.embed import embed_command

    return embed_command(
        args.checkpoint,
        args.images,
        args.out,
        args.quiet,
        links="anywhere" if args.follow_links else "inside",
        force=args.force,
        image_size=args.image_size,
    )


def _predict(args: argparse.Namespace) -> int:
    from retfound_dist.prediction.predict_command import PredictOptions, predict_command
    from retfound_dist.prediction.prediction_pictures import PictureOptions

    options = PredictOptions(
        classifier=args.classifier,
        images=args.images,
        out=args.out,
        calibrated=not args.uncalibrated,
        workers=args.workers,
        unit=args.unit,
        shard=args.shard,
        bad_sample_budget=args.bad_sample_budget,
        links="anywhere" if args.follow_links else "inside",
        pictures=PictureOptions(heatmaps=args.heatmaps, html=args.html, page_images=args.html_images),
        force=args.force,
        quiet=args.quiet,
    )
    return predict_command(options)


def _export(args: argparse.Namespace) -> int:
    from retfound_dist.export.export_command import export_command

    return export_command(args.checkpoint, args.format, args.out, args.force, args.seed, args.quiet)


def _runs(args: argparse.Namespace) -> int:
    from retfound_dist.runs.run_list import runs_command

    return runs_command(args.url, args.json)


def _report(args: argparse.Namespace) -> int:
    from retfound_dist.runs.report_command import report_command

    pictures, price = not args.no_pictures, args.price_per_gpu_hour
    return report_command(
        args.run, args.out, pictures=pictures, price=price, quiet=args.quiet, force=args.force
    )


def _dashboard(args: argparse.Namespace) -> int:
    with requires_extra("retfound dashboard", "dashboard"):
        from retfound_dist.runs.dashboard import dashboard_command

    return dashboard_command(args.url, args.host, args.port, args.quiet)


def _completion(args: argparse.Namespace) -> int:
    from retfound_dist.config.completion import shell_code

    print(shell_code(args.shell))
    return 0


COMMANDS: dict[str, Command] = {
    "pack": _pack,
    "verify": _verify,
    "show": _show,
    "pretrain": _pretrain,
    "plan": _plan,
    "doctor": _doctor,
    "batch": _batch,
    "evaluate": _evaluate,
    "watch": _watch,
    "compare": _compare,
    "suite": _suite,
    "reconstruct": _reconstruct,
    "export": _export,
    "embed": _embed,
    "predict": _predict,
    "runs": _runs,
    "report": _report,
    "dashboard": _dashboard,
    "completion": _completion,
}
"""Each command by its name in `retfound_dist/config/command_line.py`."""


if __name__ == "__main__":
    sys.exit(main())

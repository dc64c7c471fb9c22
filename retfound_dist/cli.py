"""The `retfound` command: one subcommand for each job, one clear line for each mistake.

Exit codes: 0 done; 1 a check found faults; 2 bad input; 70 an error that nobody foresaw; 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import traceback
from collections.abc import Callable, Sequence

from retfound_dist.config.missing_config import check_config
from retfound_dist.errors import ConfigError, RetfoundError
from retfound_dist.runtime.optional_packages import requires_extra
from retfound_dist.runtime.terminal import guarded
from retfound_dist.runtime.unexpected_error import report_unexpected

Command = Callable[[argparse.Namespace], int]


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, run, and turn trouble into a line and an exit code; nothing printed holds a secret."""
    with guarded():
        return _run(argv)


def _run(argv: Sequence[str] | None) -> int:
    args = _parse(argv)
    try:
        check_config(args)
        return int(args.command(args))
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
    except Exception as error:  # a fault of ours: 1 would say that a check found something
        return report_unexpected(error, args.debug)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Arguments; `key=value` may stand behind options too, which argparse alone does not take."""
    parser = _parser()
    if "_ARGCOMPLETE" in os.environ:
        from retfound_dist.config.completion import answer

        answer(parser)
    args, more = parser.parse_known_args(argv)
    overrides = getattr(args, "overrides", None)
    strange = [text for text in more if overrides is None or text.startswith("-") or "=" not in text]
    if strange:
        parser.error(f"unrecognized arguments: {' '.join(strange)}")
    if more:
        args.overrides = [*args.overrides, *more]
    return args


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="retfound", description="Pretrain and judge retinal OCT foundation models."
    )
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--debug", action="store_true", help="show the traceback of an error")
    common.add_argument("--quiet", action="store_true", help="show no progress")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, command: Command, text: str, config: bool = False) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, parents=[common], help=text, description=text)
        sub.set_defaults(command=command, name=name)
        if config:
            sub.add_argument("config", metavar="CONFIG.toml", help="config file")
            sub.add_argument(
                "overrides", nargs="*", metavar="key=value", help="values that replace the file's"
            )
        return sub

    def leaky(sub: argparse.ArgumentParser) -> None:
        sub.add_argument(
            "--allow-leak", action="store_true", help="go on though a patient is in two parts of the set"
        )

    def forcible(sub: argparse.ArgumentParser) -> None:
        sub.add_argument("--force", action="store_true", help="replace what stands there already")

    pack = add("pack", _pack, "images -> tar shards and a manifest", config=True)
    pack.add_argument("--force", action="store_true", help="replace a shard set that is there already")
    pack.add_argument("--append", action="store_true", help="add the source to the set that is there")
    pack.add_argument("--dry-run", action="store_true", help="list what would be packed, write nothing")
    verify = add("verify", _verify, "every shard against its manifest; exit 1 names what is wrong")
    verify.add_argument("url", metavar="URL", help="the shard set")
    verify.add_argument(
        "--repair",
        nargs="+",
        default=[""],
        metavar=("CONFIG.toml", "key=value"),
        help="rebuild bad shards from the sources, with the config the set was packed with",
    )
    show = add("show", _show, "the resolved config, each value with where it came from")
    show.add_argument("config", nargs="?", default="", metavar="CONFIG.toml", help="config file")
    show.add_argument("overrides", nargs="*", metavar="key=value", help="values that replace the file's")
    show.add_argument(
        "--keys", action="store_true", help="every key of all commands, or of one: type, unit, meaning"
    )
    show.add_argument("--json", action="store_true", help="as JSON")
    add("pretrain", _pretrain, "shards -> committed checkpoints; also under torchrun and srun", config=True)
    plan = add("plan", _plan, "what a pretraining run will do and cost, and its recipe's risks", config=True)
    plan.add_argument("--nodes", type=int, default=0, help="else: the Slurm allocation around, this host, 1")
    plan.add_argument("--gpus-per-node", type=int, default=0, metavar="G")
    plan.add_argument("--gpu-memory-gb", type=float, default=0.0, metavar="M", help="10^9 bytes")
    plan.add_argument("--device", default="", help="e.g. H100; else guessed from the memory")
    plan.add_argument("--node-link-gbit", type=float, default=0.0, metavar="L", help="a node's network (400)")
    plan.add_argument("--samples", type=int, default=0, help="images, where there is no shard set yet")
    plan.add_argument("--image-kb", type=float, default=0.0, metavar="K", help="kB of a stored image")
    plan.add_argument("--within-hours", type=float, default=168.0, metavar="H", help="time there is (168)")
    plan.add_argument("--strict", action="store_true", help="exit 1 on any serious risk")
    plan.add_argument("--json", action="store_true", help="as JSON")
    batch = add("batch", _batch, "the keys of a pretraining step's batch, and its picture", config=True)
    batch.add_argument("--step", type=int, required=True, help="counted from 1, as in metrics.jsonl")
    batch.add_argument("--out", default="", metavar="F.png", help="contact sheet to write")
    forcible(batch)
    one = add("evaluate", _evaluate, "fine-tune one checkpoint on a labelled set and score it", config=True)
    leaky(one)
    forcible(one)
    leaky(add("watch", _watch, "evaluate every new checkpoint of a run, as they land", config=True))
    several = add("compare", _compare, "several starting weights, several seeds, one table", config=True)
    leaky(several)
    forcible(several)
    picture = add("reconstruct", _reconstruct, "original | masked | reconstruction, as a PNG")
    picture.add_argument(
        "checkpoint", metavar="CHECKPOINT", help="a checkpoint or weights file with a decoder"
    )
    picture.add_argument("images", nargs="+", metavar="IMAGE", help="image files")
    picture.add_argument("--out", required=True, metavar="F.png", help="file to write")
    picture.add_argument("--seed", type=int, default=0, help="draws the masks")
    forcible(picture)
    export = add("export", _export, "a checkpoint's weights for others to read")
    export.add_argument("checkpoint", metavar="CHECKPOINT", help="a checkpoint or weights file")
    export.add_argument("--format", required=True, choices=("mae", "timm", "safetensors", "hf"))
    export.add_argument("--out", required=True, metavar="FILE", help="file to write; for hf a folder")
    forcible(export)
    embed = add("embed", _embed, "features of a folder of images or a shard set")
    embed.add_argument("checkpoint", metavar="CHECKPOINT", help="a run, a checkpoint or a weights file")
    embed.add_argument("images", metavar="IMAGES", help="a folder of images, or a shard set's URL")
    embed.add_argument("--out", required=True, metavar="F.npz", help="file to write: .npz or .parquet")
    forcible(embed)
    embed.add_argument(
        "--follow-links", action="store_true", help="also links that lead out of the folder (one you trust)"
    )
    runs = add("runs", _runs, "the runs below a URL: state, step, loss, speed, checkpoint, best score")
    runs.add_argument("url", metavar="URL", help="a folder or prefix with runs below it")
    runs.add_argument("--json", action="store_true", help="as JSON")
    report = add("report", _report, "one self-contained page of a run, at any time")
    report.add_argument("run", metavar="RUN", help="the run's path or URL")
    report.add_argument("--out", default="", metavar="F.html", help="else: report.html in the run's folder")
    report.add_argument("--no-pictures", action="store_true", help="draw no new reconstructions")
    forcible(report)
    report.add_argument("--price-per-gpu-hour", type=float, default=0.0, metavar="P", help="for its cost")
    dashboard = add("dashboard", _dashboard, "the runs below a URL as live pages, on this machine")
    dashboard.add_argument("url", metavar="URL", help="a folder or prefix with runs below it")
    dashboard.add_argument("--host", default="127.0.0.1", help="default: this machine alone")
    dashboard.add_argument("--port", type=int, default=8700, help="0: any that is free")
    completion = add("completion", _completion, 'completion in the shell: eval "$(retfound completion bash)"')
    completion.add_argument("shell", choices=("bash", "zsh", "fish"))
    return parser


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
    from retfound_dist.config.loading import flatten, load_any, to_dict

    if args.keys:
        return _show_keys(args)
    if not args.config:
        raise ConfigError("show: give a CONFIG.toml, or --keys for every key there is")
    config, origins = load_any(args.config, args.overrides)
    values = dict(flatten(to_dict(config)))
    if args.json:
        print(
            json.dumps(
                {key: {"value": value, "origin": origins[key]} for key, value in values.items()}, indent=1
            )
        )
        return 0
    wide = max(len(key) for key in values)
    for key, value in values.items():
        print(f"{key:<{wide}}  {json.dumps(value):<24}  {origins[key]}")
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


def _pretrain(args: argparse.Namespace) -> int:
    from retfound_dist.train.ranks.preemption import StopRequest

    asked = StopRequest()
    asked.listen()  # before anything slow: a signal meanwhile would be lost, or end the process anyhow
    from retfound_dist.config.loading import load
    from retfound_dist.config.schema import PretrainConfig
    from retfound_dist.estimate.model_shapes import check_model
    from retfound_dist.formats.shard_set import read_manifest
    from retfound_dist.runtime.world import read_world
    from retfound_dist.stream.held_out_part import held_out_part
    from retfound_dist.train.ranks.watchdog import record_restart_wish, would_fail_again

    world = read_world(os.environ)
    try:
        config, _ = load(PretrainConfig, args.config, args.overrides)
        check_model(config.model)
        manifest = read_manifest(config.data.shards, config.data.first_shards)
        manifest.part(config.data.split)
        held_out_part(config.data, manifest)
    except RetfoundError as error:
        record_restart_wish(would_fail_again(error))
        if world.is_main:
            raise
        return error.exit_code
    if world.is_main and not args.quiet:
        from retfound_dist.plan.plan_command import recipe_lines

        for line in recipe_lines(config, manifest, world.size):
            print(line, file=sys.stderr)
    from retfound_dist.train.pretrain import guarded

    return guarded(config, manifest, world, args.quiet, asked, args.debug)


def _batch(args: argparse.Namespace) -> int:
    from retfound_dist.stream.batch_sheet import batch_command

    return batch_command(args.config, args.overrides, args.step, args.out, args.force)


def _with_flags(args: argparse.Namespace) -> list[str]:
    """The overrides, flags that stand for one included."""
    return [*args.overrides, *(["data.allow_leak=true"] if args.allow_leak else [])]


def _evaluate(args: argparse.Namespace) -> int:
    from retfound_dist.evaluate.commands.evaluate import evaluate_command

    return evaluate_command(args.config, _with_flags(args), quiet=args.quiet, force=args.force)


def _watch(args: argparse.Namespace) -> int:
    from retfound_dist.evaluate.commands.watch import watch_command

    return watch_command(args.config, _with_flags(args), quiet=args.quiet)


def _compare(args: argparse.Namespace) -> int:
    from retfound_dist.evaluate.commands.compare import compare_command

    return compare_command(args.config, _with_flags(args), quiet=args.quiet, force=args.force)


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
    )


def _export(args: argparse.Namespace) -> int:
    from retfound_dist.runs.model_card import export_command

    return export_command(args.checkpoint, args.format, args.out, args.force)


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


if __name__ == "__main__":
    sys.exit(main())

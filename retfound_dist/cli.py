"""The `retfound` command: one subcommand for each job, one clear line for each mistake.

Exit codes: 0 done; 1 a check found faults; 2 bad input; 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import traceback
from collections.abc import Callable, Sequence

from retfound_dist.errors import RetfoundError

Command = Callable[[argparse.Namespace], int]


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, run, and turn trouble into a line and an exit code."""
    args = _parse(argv)
    try:
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


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Arguments; `key=value` may stand behind options too, which argparse alone does not take."""
    parser = _parser()
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
        sub.set_defaults(command=command)
        if config:
            sub.add_argument("config", metavar="CONFIG.toml", help="config file")
            sub.add_argument(
                "overrides", nargs="*", metavar="key=value", help="values that replace the file's"
            )
        return sub

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
    show = add("show", _show, "the resolved config, each value with where it came from", config=True)
    show.add_argument("--json", action="store_true", help="as JSON")
    add("pretrain", _pretrain, "shards -> committed checkpoints; also under torchrun and srun", config=True)
    batch = add("batch", _batch, "the keys of a pretraining step's batch, and its picture", config=True)
    batch.add_argument("--step", type=int, required=True, help="counted from 1, as in metrics.jsonl")
    batch.add_argument("--out", default="", metavar="F.png", help="contact sheet to write")
    add("evaluate", _evaluate, "fine-tune one checkpoint on a labelled set and score it", config=True)
    add("watch", _watch, "evaluate every new checkpoint of a run, as they land", config=True)
    add("compare", _compare, "several starting weights, several seeds, one table", config=True)
    picture = add("reconstruct", _reconstruct, "original | masked | reconstruction, as a PNG")
    picture.add_argument(
        "checkpoint", metavar="CHECKPOINT", help="a checkpoint or weights file with a decoder"
    )
    picture.add_argument("images", nargs="+", metavar="IMAGE", help="image files")
    picture.add_argument("--out", required=True, metavar="F.png", help="file to write")
    picture.add_argument("--seed", type=int, default=0, help="draws the masks")
    export = add("export", _export, "a checkpoint's weights for others to read")
    export.add_argument("checkpoint", metavar="CHECKPOINT", help="a checkpoint or weights file")
    export.add_argument("--format", required=True, choices=("mae", "timm", "safetensors", "hf"))
    export.add_argument("--out", required=True, metavar="FILE", help="file to write; for hf a folder")
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
    from retfound_dist.config import flatten, load_any, to_dict

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


def _pretrain(args: argparse.Namespace) -> int:
    from retfound_dist.config import load
    from retfound_dist.schema import PretrainConfig
    from retfound_dist.shardset import read_manifest
    from retfound_dist.world import read_world

    world = read_world(os.environ)
    try:
        config, _ = load(PretrainConfig, args.config, args.overrides)
        manifest = read_manifest(config.data.shards)
        manifest.part(config.data.split)
    except RetfoundError as error:
        if world.is_main:
            raise
        return error.exit_code
    from retfound_dist.train.pretrain import guarded

    return guarded(config, manifest, world, quiet=args.quiet)


def _batch(args: argparse.Namespace) -> int:
    from retfound_dist.stream.sheet import batch_command

    return batch_command(args.config, args.overrides, args.step, args.out)


def _evaluate(args: argparse.Namespace) -> int:
    from retfound_dist.evaluate.evaluate import evaluate_command

    return evaluate_command(args.config, args.overrides, quiet=args.quiet)


def _watch(args: argparse.Namespace) -> int:
    from retfound_dist.evaluate.watch import watch_command

    return watch_command(args.config, args.overrides, quiet=args.quiet)


def _compare(args: argparse.Namespace) -> int:
    from retfound_dist.evaluate.compare import compare_command

    return compare_command(args.config, args.overrides, quiet=args.quiet)


def _reconstruct(args: argparse.Namespace) -> int:
    from retfound_dist.evaluate.reconstruct import reconstruct_command

    return reconstruct_command(args.checkpoint, args.images, args.out, seed=args.seed)


def _export(args: argparse.Namespace) -> int:
    from retfound_dist.model.export import export
    from retfound_dist.model.weights import read_weights

    weights = read_weights(args.checkpoint)
    export(weights, args.format, args.out)
    print(f"{len(weights.state)} tensors of {args.checkpoint} written to {args.out} ({args.format})")
    return 0


if __name__ == "__main__":
    sys.exit(main())

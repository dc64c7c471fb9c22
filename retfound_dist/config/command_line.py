"""The arguments of `retfound COMMAND`: its options and their help texts."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

_REPLACE_ROWS = "replace results that differ; rows with the same settings stay"


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The parsed arguments; `name` is the command's. Exits with 2 on a wrong argument."""
    parser = build_parser()
    if "_ARGCOMPLETE" in os.environ:
        from retfound_dist.config.completion import complete_request

        complete_request(parser)
    # argparse alone does not accept `key=value` after options.
    args, remaining = parser.parse_known_args(argv)
    overrides = getattr(args, "overrides", None)
    unknown = [text for text in remaining if overrides is None or text.startswith("-") or "=" not in text]
    if unknown:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    if remaining:
        args.overrides = [*args.overrides, *remaining]
    return args


class CommandParsers:
    """Adds commands to the parser, and options that several of them share."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self._common = argparse.ArgumentParser(add_help=False)
        self._common.add_argument("--debug", action="store_true", help="show the traceback of an error")
        self._common.add_argument("--quiet", action="store_true", help="show no progress")
        self._commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(self, name: str, text: str, config: bool = False, leak: bool = False) -> argparse.ArgumentParser:
        """A command; `config`: it reads a config file; `leak`: it checks the parts of a labelled set."""
        command = self._commands.add_parser(name, parents=[self._common], help=text, description=text)
        command.set_defaults(name=name)
        if config:
            command.add_argument("config", metavar="CONFIG.toml", help="config file")
            _add_overrides(command)
        if leak:
            command.add_argument(
                "--allow-leak", action="store_true", help="continue although a patient is in two parts"
            )
        return command


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands, in the order of the help."""
    parser = argparse.ArgumentParser(
        prog="retfound", description="Pretrain and evaluate retinal OCT foundation models."
    )
    commands = CommandParsers(parser)
    _add_shard_commands(commands)
    _add_training_commands(commands)
    _add_evaluation_commands(commands)
    _add_weight_commands(commands)
    _add_predict_command(commands)
    _add_run_commands(commands)
    completion = commands.add("completion", 'completion in the shell: eval "$(retfound completion bash)"')
    completion.add_argument("shell", choices=("bash", "zsh", "fish"))
    return parser


def _add_shard_commands(commands: CommandParsers) -> None:
    pack = commands.add("pack", "pack images into tar shards with a manifest", config=True)
    pack.add_argument("--force", action="store_true", help="replace an existing shard set")
    pack.add_argument("--append", action="store_true", help="add the source to the existing shard set")
    pack.add_argument("--dry-run", action="store_true", help="list what would be packed, and write nothing")
    verify = commands.add("verify", "check every shard against the manifest; exit 1 if any is damaged")
    verify.add_argument("url", metavar="URL", help="path or URL of the shard set")
    verify.add_argument(
        "--repair",
        nargs="+",
        default=[""],
        metavar=("CONFIG.toml", "key=value"),
        help="rebuild damaged shards from the sources, with the config that packed the set",
    )


def _add_training_commands(commands: CommandParsers) -> None:
    show = commands.add("show", "show every setting of a config, and where its value comes from")
    show.add_argument("config", nargs="?", default="", metavar="CONFIG.toml", help="config file")
    _add_overrides(show)
    show.add_argument(
        "--keys",
        action="store_true",
        help="show type, unit and meaning of every key, of all commands or of one",
    )
    _add_json(show)
    commands.add(
        "pretrain", "pretrain on a shard set and save checkpoints; also under torchrun and srun", config=True
    )
    plan = commands.add("plan", "predict time, memory and cost of a run, and check its recipe", config=True)
    plan.add_argument(
        "--nodes", type=int, default=0, help="number of nodes; default: of the Slurm job or this host, else 1"
    )
    plan.add_argument("--gpus-per-node", type=int, default=0, metavar="G", help="GPUs of each node")
    plan.add_argument(
        "--gpu-memory-gb", type=float, default=0.0, metavar="M", help="memory of each GPU, in 10^9 bytes"
    )
    plan.add_argument("--device", default="", help="GPU model, such as H100; default: chosen by its memory")
    plan.add_argument(
        "--node-link-gbit", type=float, default=0.0, metavar="L", help="network of a node, in Gbit/s (400)"
    )
    plan.add_argument("--samples", type=int, default=0, help="number of images, if there is no shard set yet")
    plan.add_argument("--image-kb", type=float, default=0.0, metavar="K", help="mean size of an image, in kB")
    plan.add_argument(
        "--within-hours", type=float, default=168.0, metavar="H", help="hours that the run may take (168)"
    )
    plan.add_argument("--strict", action="store_true", help="exit 1 if there is a serious risk")
    _add_json(plan)
    doctor = commands.add(
        "doctor", "check the machines of a run before it; also under torchrun and srun", config=True
    )
    doctor.add_argument("--html", default="", metavar="F.html", help="also write a page")
    doctor.add_argument(
        "--minutes", type=float, default=5.0, metavar="M", help="about how long the checks take (5)"
    )
    _add_json(doctor)
    _add_force(doctor)
    batch = commands.add("batch", "list the images of one training step, or draw them", config=True)
    batch.add_argument("--step", type=int, required=True, help="counted from 1, as in metrics.jsonl")
    batch.add_argument("--out", default="", metavar="F.png", help="contact sheet to write")
    _add_force(batch)


def _add_evaluation_commands(commands: CommandParsers) -> None:
    text = "fine-tune one checkpoint on a labelled set and score it"
    _add_force(commands.add("evaluate", text, config=True, leak=True))
    commands.add("watch", "evaluate every new checkpoint of a run", config=True, leak=True)
    text = "compare several starting weights, over several seeds, in one table"
    _add_force(commands.add("compare", text, config=True, leak=True), _REPLACE_ROWS)
    text = "compare several starting weights on several labelled sets, in one page"
    _add_force(commands.add("suite", text, config=True), _REPLACE_ROWS)


def _add_weight_commands(commands: CommandParsers) -> None:
    reconstruct = commands.add("reconstruct", "draw original, masked and reconstructed images as a PNG")
    reconstruct.add_argument(
        "checkpoint", metavar="CHECKPOINT", help="a checkpoint or weights file with a decoder"
    )
    reconstruct.add_argument("images", nargs="+", metavar="IMAGE", help="image files")
    reconstruct.add_argument("--out", required=True, metavar="F.png", help="file to write")
    reconstruct.add_argument("--seed", type=int, default=0, help="seed of the masks")
    _add_force(reconstruct)
    export = commands.add("export", "write a checkpoint or a classifier in a format of other programs")
    export.add_argument(
        "checkpoint", metavar="SOURCE", help="a checkpoint, a weights file, or a classifier of an evaluation"
    )
    export.add_argument(
        "--format",
        required=True,
        choices=("mae", "timm", "safetensors", "hf", "onnx", "torchscript"),
        help="checkpoint: mae, timm, safetensors or hf; classifier: onnx, torchscript, timm or hf",
    )
    export.add_argument("--out", required=True, metavar="FILE", help="file to write; for hf a folder")
    export.add_argument(
        "--seed", type=int, help="which network of a classifier (timm, hf: the first; onnx, torchscript: all)"
    )
    _add_force(export)
    embed = commands.add("embed", "compute the features of a folder of images or a shard set")
    embed.add_argument(
        "checkpoint",
        metavar="CHECKPOINT",
        help="a run, a checkpoint, a weights file, timm:NAME[@FILE] or hf:OWNER/REPO",
    )
    embed.add_argument("images", metavar="IMAGES", help="a folder of images, or the URL of a shard set")
    embed.add_argument("--out", required=True, metavar="F.npz", help="file to write: .npz or .parquet")
    embed.add_argument(
        "--image-size", type=int, metavar="S", help="side of the input in pixels (default: the weights' own)"
    )
    _add_force(embed)
    embed.add_argument(
        "--follow-links",
        action="store_true",
        help="also follow links that lead out of the folder; only for folders that you trust",
    )


def _add_predict_command(commands: CommandParsers) -> None:
    predict = commands.add("predict", "predict new images with a classifier that an evaluation has kept")
    predict.add_argument(
        "classifier", metavar="CLASSIFIER", help="the folder classifier/ of an evaluation, or the evaluation"
    )
    predict.add_argument(
        "images",
        nargs="+",
        metavar="IMAGES",
        help="a folder, image or device files, a list (.csv, .tsv, .xlsx), or the URL of a shard set",
    )
    predict.add_argument("--out", required=True, metavar="F.csv", help="file to write: .csv or .parquet")
    predict.add_argument(
        "--uncalibrated", action="store_true", help="probabilities as in predictions.csv of the evaluation"
    )
    predict.add_argument(
        "--unit",
        choices=("image", "volume", "eye", "patient"),
        default="image",
        help="what a row is (default: image); a volume, eye or patient is predicted from all its images",
    )
    predict.add_argument(
        "--workers", type=int, default=0, metavar="N", help="processes that read images (default: chosen)"
    )
    predict.add_argument(
        "--shard", default="", metavar="I/N", help="only the I-th of N parts of the images, for several GPUs"
    )
    predict.add_argument(
        "--bad-sample-budget",
        type=int,
        default=10,
        metavar="B",
        help="most images that may be unreadable (10)",
    )
    predict.add_argument(
        "--heatmaps", default="", metavar="FOLDER", help="also write a picture with a heat map of each image"
    )
    predict.add_argument(
        "--html", default="", metavar="F.html", help="also write a page of the least certain images"
    )
    predict.add_argument(
        "--html-images", type=int, default=200, metavar="N", help="most images on the page (200)"
    )
    _add_force(predict)
    predict.add_argument(
        "--follow-links",
        action="store_true",
        help="also follow links that lead out of the folder; only for folders that you trust",
    )


def _add_run_commands(commands: CommandParsers) -> None:
    runs = commands.add("runs", "list the runs below a URL, with state, loss, speed and best score")
    runs.add_argument("url", metavar="URL", help="a folder or prefix with runs below it")
    _add_json(runs)
    report = commands.add("report", "write the page of a run as one self-contained file")
    report.add_argument("run", metavar="RUN", help="path or URL of the run")
    report.add_argument(
        "--out", default="", metavar="F.html", help="file to write; default: report.html in the run's folder"
    )
    report.add_argument("--no-pictures", action="store_true", help="draw no new reconstructions")
    _add_force(report)
    report.add_argument(
        "--price-per-gpu-hour", type=float, default=0.0, metavar="P", help="price, for the run's cost"
    )
    dashboard = commands.add("dashboard", "show the runs below a URL as live web pages")
    dashboard.add_argument("url", metavar="URL", help="a folder or prefix with runs below it")
    dashboard.add_argument(
        "--host", default="127.0.0.1", help="address to listen on; default: only for this machine"
    )
    dashboard.add_argument("--port", type=int, default=8700, help="default: 8700; 0: any free port")


def _add_overrides(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "overrides", nargs="*", metavar="key=value", help="settings that replace those of the file"
    )


def _add_force(command: argparse.ArgumentParser, text: str = "replace existing results") -> None:
    command.add_argument("--force", action="store_true", help=text)


def _add_json(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="print JSON")

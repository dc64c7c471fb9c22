"""Commands that pages show without a block that is run: each parses, its settings exist, its example works."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from retfound_dist.config import schema
from retfound_dist.config.command_line import parse_arguments
from retfound_dist.config.loading import load
from tests.docs.pages import DOCS, ROOT
from tests.stream.stream_inputs import make_set

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md"))]
KINDS = {
    "pack": schema.PackConfig, "pretrain": schema.PretrainConfig, "plan": schema.PretrainConfig,
    "batch": schema.PretrainConfig, "evaluate": schema.EvaluateConfig, "watch": schema.WatchConfig,
    "compare": schema.CompareConfig, "suite": schema.SuiteConfig,
}  # fmt: skip


def shown(page: Path) -> Iterator[list[str]]:
    """The words of each command of ours in a page: indented, in a block, or in a table."""
    text = re.sub(r"\\\n\s*", " ", page.read_text())
    lines = re.findall(r"^(?: {4}|\$ |)((?:retfound|torchrun|sbatch|srun) .*)$", text, re.M)
    lines += re.findall(r"`((?:retfound|torchrun) [^`]*)`", text)
    for line in lines:
        plain = re.split(r" {2,}(?=[^\s-])|\s*\|\|", line)[0].replace("--step N", "--step 1")
        yield shlex.split(re.sub(r"\[pretrain\]|\[(--out \S+)\]|\|timm\S*", r"\1", plain))


def arguments(words: list[str]) -> list[str]:
    """What `retfound` is given by a command, by torchrun's or by a batch script's."""
    script = next((word for word in words if word.endswith(".sbatch")), "")
    if script:
        assert (ROOT / script).exists(), script
        return [Path(script).stem, *words[words.index(script) + 1 :]]
    at = words.index("retfound") if "retfound" in words else words.index("retfound_dist")
    return words[at + 1 :]


def complete(given: list[str]) -> bool:
    """Whether it is a whole command, not the name of one."""
    return len(given) > 1 and not {"...", "URL", "RUN", "CONFIG"} & set(given)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_that_is_shown_parses_and_its_settings_exist(page: Path) -> None:
    for words in shown(page):
        if not {"retfound", "retfound_dist"} & set(words) and not any(w.endswith(".sbatch") for w in words):
            continue
        given = arguments(words)
        if not complete(given):
            continue
        args = parse_arguments(given)
        config = getattr(args, "config", "")
        if given[0] in KINDS and (ROOT / config).is_file():
            values = [text for text in args.overrides if "$" not in text and text != "key=value"]
            load(KINDS[given[0]], str(ROOT / config), values)


def test_the_readme_leads_to_every_page() -> None:
    linked = set(re.findall(r"\]\(docs/(\w+\.md)\)", (ROOT / "README.md").read_text()))
    assert linked == {page.name for page in DOCS.glob("*.md")}


@pytest.mark.parametrize("page", [ROOT / "README.md", DOCS / "stream.md"], ids=lambda page: page.name)
def test_the_loop_in_python_runs(page: Path, tmp_path: Path) -> None:
    block = re.search(r"```python\n(.*?)```", page.read_text(), re.S)
    assert block is not None
    url = make_set(tmp_path).url
    code = block[1].replace("s3://bucket/oct", url).replace("workers=8", "workers=0").replace("=256", "=4")
    seen: list[int] = []

    def train_on(images: object, weight: object) -> None:
        seen.append(len(weight))  # type: ignore[arg-type]
        if len(seen) == 3:
            raise StopIteration

    with pytest.raises(StopIteration):
        exec(code, {"train_on": train_on})
    assert seen == [4, 4, 4]

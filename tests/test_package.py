"""Ready to publish: the wheel works where nothing of the repository is; the recipes for clusters do."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.version import Version

from tests import ROOT


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, made through the source distribution as `python -m build` does."""
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    shutil.rmtree(ROOT / "build", ignore_errors=True)
    return next(out.glob("*.whl"))


def empty_environment(folder: Path) -> Path:
    """An environment with the libraries of this one, and nothing of this repository."""
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    libraries = Path(sysconfig.get_path("purelib"))
    # a path in a .pth file brings modules, not that folder's own .pth files: no editable install
    (folder / "lib" / version / "site-packages" / "libraries.pth").write_text(f"{libraries}\n")
    return python


@pytest.mark.slow
def test_the_wheel_holds_types_presets_templates_and_licences(built: Path) -> None:
    names = set(zipfile.ZipFile(built).namelist())
    assert {
        "retfound_dist/py.typed",
        "shards/py.typed",
        "retfound_dist/evaluate/report/report.html.j2",
    } <= names
    for preset in ROOT.glob("configs/**/*.toml"):
        assert f"retfound_dist/presets/{preset.relative_to(ROOT / 'configs')}" in names
    assert {Path(name).name for name in names if "/licenses/" in name} == {"LICENSE", "NOTICE"}
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/"))]


@pytest.mark.slow
def test_the_wheel_works_in_an_environment_without_the_repository(built: Path, tmp_path: Path) -> None:
    python = empty_environment(tmp_path / "venv")
    where = (
        tmp_path
        / "venv"
        / "lib"
        / f"python{sys.version_info.major}.{sys.version_info.minor}"
        / "site-packages"
    )
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(where), str(built)]
    subprocess.run(command, check=True)
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}

    def run(*words: str) -> str:
        done = subprocess.run([str(python), *words], cwd=tmp_path, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert str(where) in run("-c", "import retfound_dist; print(retfound_dist.__file__)")
    run("-m", "retfound_dist", "pack", "configs/demo/pack.toml", "phantom.patients=5", "phantom.slices=1",
        "out.url=shards", "--quiet")  # fmt: skip
    run("-m", "retfound_dist", "verify", "shards")
    found = json.loads(run("-m", "retfound_dist", "plan", "configs/pretrain_vitl_oct.toml", "--json"))
    assert found["batch"]["global_batch"] == 1792


NOT_IMPORTED = {
    "s3fs": "fsspec opens s3:// with it",
    "tensorboard": "torch.utils.tensorboard imports it",
}
"""What is declared, needed, and named in no import of the product."""
TOOLS = {"dev", "bench"}
"""Extras of this repository's tests and benchmarks, not of the product."""


def declared() -> dict[str, set[str]]:
    """Distributions by extra, in small letters; the plain install under the empty name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lists = {"": project["dependencies"], **project["optional-dependencies"]}
    return {extra: {distribution(text) for text in texts} for extra, texts in lists.items()}


def distribution(text: str) -> str:
    return re.split(r"[\[<>=~! ;]", text)[0].lower().replace("_", "-")


def imported() -> dict[str, set[str]]:
    """Files of the product by the distributions that they import from."""
    providers = metadata.packages_distributions()
    own = {"retfound_dist", "shards"} | set(sys.stdlib_module_names)
    files: dict[str, set[str]] = {}
    for path in [*ROOT.glob("retfound_dist/**/*.py"), *ROOT.glob("shards/**/*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for top in {name.split(".")[0] for name in names} - own:
                for name in providers.get(top, [top]):
                    files.setdefault(distribution(name), set()).add(str(path.relative_to(ROOT)))
    return files


def test_the_product_declares_what_it_imports_and_nothing_else() -> None:
    product = {name for extra, names in declared().items() if extra not in TOOLS for name in names}
    assert {name: files for name, files in imported().items() if name not in product} == {}
    assert product - set(imported()) == set(NOT_IMPORTED)


def test_a_package_is_declared_once() -> None:
    """An extra names nothing that the plain install has, nor that another extra has."""
    names = [name for extra, names in declared().items() if extra not in TOOLS for name in names]
    assert sorted(names) == sorted(set(names))


def test_packages_of_extras_are_imported_only_where_a_missing_one_is_explained() -> None:
    """All commands but the one that needs an extra work without it."""
    extras = {name for extra, names in declared().items() if extra and extra not in TOOLS for name in names}
    behind_a_check = {"retfound_dist/runs/dashboard.py"}  # cli.py imports it inside requires_extra
    for name, files in imported().items():
        for file in files - behind_a_check if name in extras else ():
            top_level = ast.parse((ROOT / file).read_text()).body
            names = {a.name for node in top_level if isinstance(node, ast.Import) for a in node.names}
            names |= {node.module or "" for node in top_level if isinstance(node, ast.ImportFrom)}
            tops = {top.split(".")[0] for top in names}
            providers = metadata.packages_distributions()
            assert not {top for top in tops if name in map(distribution, providers.get(top, []))}, file


def test_what_is_declared_has_a_tested_version() -> None:
    pinned = {distribution(line) for line in (ROOT / "constraints.txt").read_text().splitlines()}
    needed = {name for extra, names in declared().items() if extra != "bench" for name in names}
    assert needed - pinned == {"retfound-dist"}


def test_the_lowest_tested_versions_are_those_that_are_declared() -> None:
    """`make test-lowest` installs what pyproject.toml allows at the least, so no declared version is untried."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lists = [project["dependencies"]]
    lists += [texts for extra, texts in project["optional-dependencies"].items() if extra not in TOOLS]
    floors = {}
    for text in (text for texts in lists for text in texts):
        declaration = re.fullmatch(r"([\w-]+)(?:>=|==)([\d.]+)", text)
        assert declaration, f"{text}: no lowest version"
        floors[distribution(text)] = Version(declaration[2])
    first_part = (ROOT / "constraints-lowest.txt").read_text().split("\n\n")[0]
    lowest = dict(line.split("==") for line in first_part.splitlines() if not line.startswith("#"))
    assert {distribution(name): Version(version) for name, version in lowest.items()} == floors


def test_another_torch_replaces_the_tested_one_and_its_torchvision() -> None:
    def constraints(torch: str) -> list[str]:
        env = os.environ | {"TORCH": torch}
        script = str(ROOT / "launch/constraints.sh")
        return subprocess.run(
            [script], env=env, capture_output=True, text=True, check=True
        ).stdout.splitlines()

    tested, other = constraints(""), constraints("2.10.0")
    assert tested == (ROOT / "constraints.txt").read_text().splitlines()
    assert [line for line in other if line.startswith("torch")] == ["torch==2.10.0"]
    assert set(tested) - set(other) == {line for line in tested if re.match(r"torch(vision)?==", line)}


def test_the_version_is_in_the_changelog() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text()


def test_the_notice_names_the_non_commercial_weights() -> None:
    notice = (ROOT / "NOTICE").read_text()
    assert all(word in notice for word in ("MAE", "RETFound", "CC BY-NC 4.0"))
    assert "Apache License" in (ROOT / "LICENSE").read_text()


@pytest.mark.slow
def test_the_cluster_recipe_installs_and_tries_what_it_installed(tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    shutil.copytree(
        ROOT, clone, symlinks=True, ignore=shutil.ignore_patterns(".git", ".venv*", "runs", "build")
    )
    folder = tmp_path / "venv"
    python = empty_environment(folder)
    subprocess.run([str(python), "-m", "ensurepip"], check=True, capture_output=True)
    env = os.environ | {
        "PIP_NO_DEPS": "1",
        "PIP_NO_BUILD_ISOLATION": "0",
        "SCRATCH": str(tmp_path / "scratch"),
    }
    env |= {"PYTHON": sys.executable}
    done = subprocess.run(
        [str(clone / "launch/cluster_setup.sh"), str(folder)], env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert f"VENV={folder} sbatch" in done.stdout
    assert (folder / "bin" / "retfound").exists()


def test_the_cluster_recipe_refuses_an_interpreter_that_is_not_there(tmp_path: Path) -> None:
    env = os.environ | {"PYTHON": "python9.9"}
    done = subprocess.run(
        [str(ROOT / "launch/cluster_setup.sh"), str(tmp_path)], env=env, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "python9.9" in done.stderr


def test_the_container_recipe_copies_what_is_there_and_installs_what_is_tested() -> None:
    """Every COPY names a file or folder of the repository; pip installs the tested versions."""
    text = (ROOT / "launch/Containerfile").read_text()
    copied = [word for line in re.findall(r"^COPY (.*)$", text, re.M) for word in line.split()[:-1]]
    assert copied
    assert all((ROOT / word).exists() for word in copied), copied
    base = re.search(r"^ARG BASE=(.*)$", text, re.M)
    assert base is not None
    assert base[1].startswith("python:")  # CUDA comes with torch's wheel, and nothing needs nvcc
    installs = [line for line in text.splitlines() if "pip install" in line]
    assert installs
    assert all("-c /tmp/constraints.txt" in line for line in installs)
    assert "launch/constraints.sh >/tmp/constraints.txt" in text
    entry = re.search(r'ENTRYPOINT \["/opt/retfound/(.*)"\]', text)
    assert entry is not None
    assert os.access(ROOT / entry[1], os.X_OK)


def test_the_containers_entry_point_tells_commands_from_programs() -> None:
    entry = str(ROOT / "launch/container.sh")
    env = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }
    ours = subprocess.run([entry, "plan", "--help"], env=env, capture_output=True, text=True, check=True)
    assert "--nodes" in ours.stdout or "usage" in ours.stdout
    other = subprocess.run(
        [entry, "bash", "-c", "echo shell"], env=env, capture_output=True, text=True, check=True
    )
    assert other.stdout == "shell\n"

"""The pages on S3 and on Slurm, run on real ones."""

import shutil
from pathlib import Path

from tests.cluster import real_s3
from tests.cluster.real_parts import INFRA
from tests.cluster.real_s3 import S3
from tests.cluster.real_slurm import Slurm
from tests.docs.pages import make_inputs, run_page


def test_the_page_on_s3(rclone_server: S3, tmp_path: Path) -> None:
    s3 = real_s3.with_new_bucket(rclone_server)
    inputs = make_inputs(tmp_path)
    said = run_page("s3.md", tmp_path, s3.environment() | {"BUCKET": s3.bucket, "IMAGES": inputs["IMAGES"]})
    assert "finished" in said
    assert "requests an epoch" in said
    assert (tmp_path / "clone" / "vitl.html").stat().st_size > 10_000
    assert s3.secret not in said


def test_the_page_on_slurm(slurm: Slurm, tmp_path: Path) -> None:
    inputs = make_inputs(tmp_path)
    pack = ["pack", "configs/pack_folder.toml", f"source.path={inputs['IMAGES']}", f"out.url={tmp_path}/set"]
    slurm.control("python", "-m", "retfound_dist", *pack, "split.fractions=[0.8, 0.2, 0.0]")
    sbatch = shutil.which("sbatch")
    assert sbatch
    env = slurm.environment(
        {"SHARDS": f"{tmp_path}/set", "OUT": str(tmp_path / "runs"), "REAL_SBATCH": sbatch}
    )
    said = run_page("slurm.md", tmp_path, env, (str(INFRA / "slurm.sh"), "ctl", str(slurm.folder)))
    assert "Slurm job" in said
    assert "finished" in said
    assert (tmp_path / "runs" / "vitl.html").stat().st_size > 10_000

"""Which benchmark results a plan may count with."""

from retfound_dist.plan.measured_rates import measured_rate


def test_a_benchmark_counts_for_its_own_device_and_model() -> None:
    rows = [
        {"label": "usual loop", "value": 1900, "unit": "images/s"},
        {"label": "ours, bf16, ZeRO 1", "value": 3800, "unit": "images/s"},
        {"label": "+ weights in bf16, plain loop", "value": 9000, "unit": "images/s"},
        {"label": "ours, bf16, ZeRO 1: step", "value": 99999, "unit": "s"},
    ]
    command = "python -m benchmarks.train_speed"
    tree = {"name": "train", "machine": "NVIDIA H200, 16 cores", "command": command, "rows": rows}
    best = measured_rate([("train.json", tree)], "H200-141GB", "vit_large_patch16")
    assert best is not None
    assert best.images_per_s == 3800
    assert "train.json" in best.source
    assert measured_rate([("train.json", tree)], "A100-40GB", "vit_large_patch16") is None
    assert measured_rate([("train.json", tree)], "H200-141GB", "vit_huge_patch14") is None
    other = tree | {"command": command + " --model vit_huge_patch14"}
    assert measured_rate([("train.json", other)], "H200-141GB", "vit_large_patch16") is None

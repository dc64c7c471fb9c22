import pytest

from retfound_dist.errors import ConfigError
from retfound_dist.runtime.world import World, launched_by_srun, read_world


def test_alone_a_process_is_rank_0_of_1() -> None:
    assert read_world({}) == World(0, 1, 0)
    assert read_world({}).is_main


def test_torchruns_variables_win_over_slurms() -> None:
    env = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "SLURM_NTASKS": "2", "SLURM_STEP_ID": "0"}
    assert read_world(env) == World(3, 4, 1, local_size=4)
    assert read_world(env | {"LOCAL_WORLD_SIZE": "2"}) == World(3, 4, 1, local_size=2)
    assert not launched_by_srun(env)


def test_srun_alone_gives_the_place_too_but_a_batch_script_does_not() -> None:
    step = {"SLURM_PROCID": "1", "SLURM_NTASKS": "2", "SLURM_LOCALID": "1", "SLURM_STEP_ID": "0"}
    assert read_world(step) == World(1, 2, 1, local_size=2)
    assert read_world(step | {"SLURM_STEP_TASKS_PER_NODE": "1(x2)"}) == World(1, 2, 1, local_size=1)
    assert launched_by_srun(step)
    del step["SLURM_STEP_ID"]
    assert read_world(step) == World(0, 1, 0)


def test_a_rank_outside_the_world_is_refused() -> None:
    with pytest.raises(ConfigError, match="RANK=2"):
        read_world({"RANK": "2", "WORLD_SIZE": "2"})


@pytest.mark.parametrize(
    "key", ["RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "SLURM_NTASKS", "SLURM_STEP_ID"]
)
@pytest.mark.parametrize("empty", ["", " "])
def test_an_empty_variable_counts_as_not_set(key: str, empty: str) -> None:
    assert read_world({key: empty}) == World(0, 1, 0)
    assert not launched_by_srun({key: empty})


def test_an_empty_rank_does_not_hide_sruns() -> None:
    step = {
        "RANK": "",
        "WORLD_SIZE": "",
        "SLURM_PROCID": "1",
        "SLURM_NTASKS": "2",
        "SLURM_LOCALID": "1",
        "SLURM_STEP_ID": "0",
    }
    assert read_world(step) == World(1, 2, 1, local_size=2)
    assert launched_by_srun(step)


@pytest.mark.parametrize("text", ["one", "1.5", "${RANK}", "0x1"])
def test_what_is_no_number_is_named_with_its_variable(text: str) -> None:
    for key in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        with pytest.raises(ConfigError, match=f"environment variable {key}="):
            read_world({"RANK": "0", "WORLD_SIZE": "1", key: text})
    with pytest.raises(ConfigError, match="SLURM_NTASKS="):
        read_world({"SLURM_STEP_ID": "0", "SLURM_NTASKS": text})


def test_negative_places_are_refused() -> None:
    for key in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        with pytest.raises(ConfigError, match=f"{key}=-1"):
            read_world({"RANK": "0", "WORLD_SIZE": "1", key: "-1"})

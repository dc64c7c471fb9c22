"""A test that pretrains in its own process leaves signals, threads and environment as they were.

The tests run in this order.
"""

from __future__ import annotations

import os
import signal
import subprocess

import torch

from retfound_dist.cli import main
from retfound_dist.train.engine.deepspeed_config import prepare_import

THREADS, ENVIRONMENT = torch.get_num_threads(), dict(os.environ)


def test_a_pretraining_in_this_process_blocks_signals() -> None:
    assert main(["pretrain", "none.toml"]) == 2
    assert signal.SIGTERM in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_a_process_that_the_next_test_starts_ends_at_sigterm() -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        process.terminate()
        assert process.wait(10) == -signal.SIGTERM


def test_a_test_sets_the_threads_of_its_process() -> None:
    torch.set_num_threads(THREADS + 1)


def test_the_next_test_has_the_threads_of_before() -> None:
    assert torch.get_num_threads() == THREADS


def test_a_test_sets_and_deletes_variables() -> None:
    prepare_import()
    os.environ["PATH"] = "/nowhere"
    del os.environ["HOME"]
    assert "DEEPSPEED_LOG_LEVEL" in os.environ


def test_the_next_test_has_the_variables_of_before() -> None:
    names = ("DS_ACCELERATOR", "DEEPSPEED_LOG_LEVEL", "PATH", "HOME")
    assert [os.environ.get(name) for name in names] == [ENVIRONMENT.get(name) for name in names]

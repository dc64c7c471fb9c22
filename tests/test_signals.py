"""A test that pretrains in its own process leaves signals as they were: the two tests run in this order."""

from __future__ import annotations

import signal
import subprocess

from retfound_dist.cli import main


def test_a_pretraining_in_this_process_blocks_signals() -> None:
    assert main(["pretrain", "none.toml"]) == 2
    assert signal.SIGTERM in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_a_process_that_the_next_test_starts_ends_at_sigterm() -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        process.terminate()
        assert process.wait(10) == -signal.SIGTERM

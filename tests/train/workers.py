"""Two workers of torchrun, and what each of them ends with."""

import os
import subprocess
import sys
from pathlib import Path

import torch

SCRIPT = """
import sys, torch
from train import {script}, loop
whole_run = loop.Loop.run
def run(self, step, evaluate, state):
    whole_run(self, step, evaluate, state)
    torch.save(state(), sys.argv[-1] + str(self.rank))
loop.Loop.run = run
{script}.main(sys.argv[1:-1])
"""


def assert_two_workers_train_one_network(script: str, arguments: list[str], folder: Path) -> None:
    """train/`script`.py under torchrun: in the end both workers have the same weights, to the bit. (Running statistics
    of a batch norm are each worker's own, and the first one's are saved.)"""
    (folder / "worker.py").write_text(SCRIPT.format(script=script))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launcher, str(folder / "worker.py"), *arguments, str(folder / "end")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    environment["PYTHONPATH"] = str(Path(__file__).parents[2])
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    one, two = (torch.load(folder / f"end{rank}", weights_only=True)["network"] for rank in (0, 1))
    assert all(torch.equal(one[name], two[name]) for name in one if "running_" not in name)

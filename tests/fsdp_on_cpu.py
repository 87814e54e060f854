"""Runs scripts/train.py with models sharded by FSDP on the CPU, which accelerate offers on accelerators only."""

import runpy

from accelerate.state import PartialState
from accelerate.utils import DistributedType
from repository import ROOT

if __name__ == "__main__":
    PartialState(cpu=True)
    PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
    runpy.run_path(str(ROOT / "scripts" / "train.py"), run_name="__main__")

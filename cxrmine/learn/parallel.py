"""Which device, and how many processes."""

import atexit
import os

import torch
from accelerate import Accelerator
from torch import Tensor

from cxrmine.cores import keep_freed_memory
from cxrmine.errors import UsageError

DEVICES = ("auto", "cpu", "cuda", "mps")


def accelerator(device: str) -> Accelerator:
    """`auto` takes a GPU where there is one: bf16 there, float32 on the CPU."""
    if device not in DEVICES and not device.startswith("cuda:"):
        raise UsageError(f"--device {device} is not known.", f"It is one of {', '.join(DEVICES)}.")
    if device.startswith("cuda:"):
        os.environ["CUDA_VISIBLE_DEVICES"] = device.removeprefix("cuda:")  # before CUDA is first asked for
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise UsageError(f"--device {device}: no such CUDA device is to be seen.", "Say --device cpu, or leave it out.")
    if device == "mps" and not torch.backends.mps.is_available():
        raise UsageError("--device mps: there is no Apple GPU here.", "Say --device cpu, or leave it out.")
    has_gpu = torch.cuda.is_available() or torch.backends.mps.is_available()
    on_cpu = device == "cpu" or (device == "auto" and not has_gpu)
    if on_cpu:
        keep_freed_memory()
    bf16 = not on_cpu and torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    world = Accelerator(cpu=on_cpu, mixed_precision="bf16" if bf16 else "no")
    if world.num_processes > 1:
        atexit.unregister(_leave)
        atexit.register(_leave)
    return world


def _leave() -> None:
    """The threads that talk to other processes end here; where the interpreter ends with them running, it may crash."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def mean_over_processes(count: Tensor) -> Tensor:
    """A count of each process → their mean: a sum over it is then, averaged over the processes, a mean over all."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return count
    total = count.clone()
    torch.distributed.all_reduce(total)
    return total / torch.distributed.get_world_size()


def any_process(flag: bool, world: Accelerator) -> bool:
    """True in every process when it is true in one."""
    if world.num_processes == 1:
        return flag
    mark: Tensor = world.reduce(torch.tensor([float(flag)], device=world.device), reduction="sum")
    return bool(mark.item() > 0)

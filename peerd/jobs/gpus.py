"""Which GPUs a job gets that reserved some. Pure.

They are numbered from 0 in the order in which the peer's hardware lists them, NVIDIA's first, as ``nvidia-smi`` numbers
them. The numbers are stored with the attempt, so that no two jobs that run share one, over restarts, too.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

VARIABLES = ("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES")
"""CUDA shows a program only these (CUDA C programming guide, environment variables); NVIDIA's container runtime gives
a container only these."""


def assign(count: int, total: int, taken: Collection[int]) -> tuple[int, ...]:
    """The lowest that are free, at most ``count`` of them; how many may be reserved is decided elsewhere."""
    return tuple([index for index in range(total) if index not in taken][:count])


def variables(indices: Collection[int]) -> Mapping[str, str]:
    """What the job's process finds in its environment; nothing for one that reserved none."""
    return dict.fromkeys(VARIABLES, ",".join(map(str, indices))) if indices else {}


def to_text(indices: Collection[int]) -> str:
    """As stored."""
    return ",".join(map(str, indices))


def from_text(text: str) -> tuple[int, ...]:
    """What :func:`to_text` made."""
    return tuple(map(int, text.split(","))) if text else ()

"""Noise processes by name. Adding one is one file and one line here."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from dd.processes.base import Process
from dd.processes.d3pm import D3PM
from dd.processes.dirichlet import Dirichlet
from dd.processes.gaussian import Gaussian
from dd.processes.multinomial import Multinomial
from dd.processes.pixels import Pixels

REGISTRY: dict[str, Callable[..., Process]] = {
    "dirichlet": Dirichlet,
    "d3pm-absorbing": lambda K, cells: D3PM(K, "absorbing"),
    "d3pm-uniform": lambda K, cells: D3PM(K, "uniform"),
    "d3pm-gaussian": lambda K, cells: D3PM(K, "gaussian"),
    "multinomial": lambda K, cells: Multinomial(K),
    "gaussian": Gaussian,
}


OWN_NETWORK: dict[str, Callable[..., Process]] = {"ddpm": Pixels}  # not answered by the evidence network
EVERY = REGISTRY | OWN_NETWORK
NO_ORDER = "{} needs categories in an order, and codes have none; choose another process"


def suits(name: str, data: dict[str, Any]) -> bool:
    """Whether the process means something for these data (of a configuration): the codes of a VQ-VAE have no order."""
    return "vqvae" not in data or not traits(name).ordered


def make_process(name: str, K: int, cells: int) -> Process:
    """The process of that name for K categories and images of that many cells: one object, shared by all who ask."""
    if not isinstance(name, str) or name not in EVERY:
        raise ValueError(f"unknown process {name!r}; choose one of {', '.join(EVERY)}")
    return _built(name, K, cells)


def traits(name: str) -> Process:
    """A process for what is the same whatever K and the number of cells are: methods, options, losses, architecture."""
    return make_process(name, 2, 784)


@lru_cache(maxsize=32)
def _built(name: str, K: int, cells: int) -> Process:
    return EVERY[name](K, cells)


__all__ = ["EVERY", "NO_ORDER", "OWN_NETWORK", "REGISTRY", "Process", "make_process", "suits", "traits"]

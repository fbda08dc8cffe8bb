"""Random options for a random model: what is on the TPU, what is batched and how, which numbers, which shapes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from hypothesis import strategies as st

from tests.properties.random_models import ModelSpec, RandomModel, signature_names

REQUEST_ROWS = 4
"""Every batching serves a request of so many rows."""


@dataclass(frozen=True)
class Batching:
    """One entry of batch_options; without a component it batches all TPU functions."""

    component: str | None
    allowed: tuple[int, ...]
    threads: int
    wait_micros: int
    splitting: bool

    def text(self) -> str:
        largest = max((*self.allowed, REQUEST_ROWS)) if self.splitting or not self.allowed else self.allowed[-1]
        parts = [
            f"num_batch_threads: {self.threads} max_batch_size: {largest} batch_timeout_micros: {self.wait_micros}",
            "max_enqueued_batches: 100",
            *(f"allowed_batch_sizes: {size}" for size in self.allowed),
        ]
        if not self.splitting:
            parts.append("disable_large_batch_splitting: true")
        if self.component is not None:
            parts.append(f"experimental {{ {_reference(self.component)} }}")
        return f"batch_options {{ {' '.join(parts)} }}"


@dataclass(frozen=True)
class Options:
    """The options of one conversion. `tpu` and components are names of functions (f0) and of signatures."""

    tpu: tuple[str, ...]
    batching: tuple[Batching, ...] = ()
    bfloat16: str | None = None
    """Its scope; None is off."""
    filterlist: tuple[str, ...] = ()
    io_shape: bool = False

    def text(self) -> str:
        parts = [f"tpu_functions {{ {_reference(name)} }}" for name in self.tpu]
        parts += [each.text() for each in self.batching]
        parts.append(f"bfloat16_optimization: {'DISABLED' if self.bfloat16 is None else 'ENABLED'}")
        if self.bfloat16 is not None:
            filtered = "".join(f' filterlist: "{op}"' for op in self.filterlist)
            parts.append(f"bfloat16_optimization_options {{ scope: {self.bfloat16}{filtered} }}")
        parts.append(f"io_shape_optimization: {'ENABLED' if self.io_shape else 'DISABLED'}")
        return " ".join(parts)


def _reference(name: str) -> str:
    return f'function_alias: "{name}"' if name.startswith("f") else f'signature_name: "{name}"'


@st.composite
def options(draw: st.DrawFn, model: RandomModel, batched: bool, bfloat16: bool) -> Options:
    """Options that the converter has to accept for this model; with `bfloat16`, perhaps in bfloat16."""
    functions = [f"f{i}" for i in range(len(model.spec.functions))]
    tpu = draw_placement(draw, model, functions)
    return Options(
        tpu,
        draw_batching(draw, model, functions, tpu) if batched else (),
        draw(st.sampled_from((None, "TPU", "ALL"))) if bfloat16 else None,
        draw(st.sampled_from(((), (), ("MatMul",), ("Softmax", "AddV2")))),
        draw(st.booleans()),
    )


def draw_placement(draw: st.DrawFn, model: RandomModel, functions: list[str]) -> tuple[str, ...]:
    """At least one TPU function. No TPU function calls another by way of one that is not on the TPU."""
    wholes = [name for name in signature_names(model.spec) if not _has_strings(model.spec, name)]
    order = draw(st.permutations(functions))[: draw(st.integers(1, 3))]
    if wholes and draw(st.integers(0, 4)) == 0:
        order = [draw(st.sampled_from(wholes)), *order[1:]]
    chosen: list[str] = []
    for name in order:
        if _can_be_placed(model, [*chosen, name]):
            chosen.append(name)
    return tuple(chosen)


def _has_strings(spec: ModelSpec, signature: str) -> bool:
    function = spec.signatures[signature_names(spec).index(signature)]
    return any(each.dtype == "string" for each in function.inputs)


def _can_be_placed(model: RandomModel, placed: list[str]) -> bool:
    """Whether all that these call of each other they call themselves, and not from a loop or a branch.

    A signature calls its function, so what it calls it calls indirectly.
    """
    others = set(placed)
    for name in placed:
        directly = model.calls[name] & others if name.startswith("f") else set()
        between = _reached(model.calls, model.calls[name] - directly, stop=directly)
        if (between | model.indirect_calls[name]) & others:
            return False
    return True


def _reached(calls: dict[str, set[str]], roots: Iterable[str], stop: Iterable[str] = ()) -> set[str]:
    """`roots` and what they call, and so on; not through `stop`."""
    found: set[str] = set()
    waiting = list(roots)
    while waiting:
        name = waiting.pop()
        if name not in found and name not in stop:
            found.add(name)
            waiting += calls[name]
    return found


def draw_batching(
    draw: st.DrawFn, model: RandomModel, functions: list[str], tpu: tuple[str, ...]
) -> tuple[Batching, ...]:
    """All TPU functions, or one component on the CPU's side of the TPU calls, or both."""
    on_tpu = _reached(model.calls, {callee for name in tpu for callee in model.calls[name]})
    components = [name for name in (*functions, *signature_names(model.spec)) if name not in on_tpu]
    component = draw(st.one_of(st.none(), st.sampled_from(components)))
    names = [component, *([None] if component is not None and draw(st.booleans()) else [])]
    found = []
    for name in names:
        allowed = draw(st.sampled_from(((4,), (8,), (2, 4), (3, 8), (2,), (1, 3), ())))
        # Threads of its own poll for as long as the process lives; 0 shares those of the adaptive scheduler.
        threads = draw(st.sampled_from((0, 0, 0, 1)))
        splitting = allowed[-1:] in ((2,), (3,)) or threads == 0 or draw(st.booleans())
        found.append(Batching(name, allowed, threads, draw(st.sampled_from((1000, 0))), splitting))
    return tuple(found)

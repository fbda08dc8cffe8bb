"""Random models: a frozen spec that Hypothesis draws and shrinks, and the tf.Module that is built from it.

A spec holds small numbers only. Which tensor an op takes, along which axis, with which weights: that follows from the
numbers and from what there is to choose from when the model is built, so a spec with any step left out is a spec, too.

A failing test prints the spec and a command that builds the model:

    python -m tests.properties.random_models DIRECTORY 'ModelSpec(...)'
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tensorflow as tf
from hypothesis import strategies as st

from tests.oracle import Values
from tests.properties import row_op
from tests.properties.row_op import LARGEST, Op, fit
from tests.properties.row_ops import OPS, apply, draw_weight

# ------------------------------------------------------------------------------------------------------------ specs


@dataclass(frozen=True)
class Step:
    """One op: its name, which of the tensors that it takes (0 is the latest), another such, and how it is applied."""

    op: str
    source: int = 0
    other: int = 0
    n: int = 0


@dataclass(frozen=True)
class Input:
    """An argument of a function, or an input of a signature: its dtype, and its shape without the batch."""

    dtype: str
    row: tuple[int, ...]


@dataclass(frozen=True)
class FunctionSpec:
    """A function; it returns the last tensors that it makes."""

    inputs: tuple[Input, ...]
    steps: tuple[Step, ...]
    results: int = 1


@dataclass(frozen=True)
class ModelSpec:
    """A model: functions, each of which may call those before it, and signatures, which may call all of them.

    `exact`: all values are small integers (see row_ops).
    """

    exact: bool
    functions: tuple[FunctionSpec, ...]
    signatures: tuple[FunctionSpec, ...]

    @property
    def ops(self) -> frozenset[str]:
        return frozenset(step.op for each in (*self.functions, *self.signatures) for step in each.steps)


def signature_names(spec: ModelSpec) -> tuple[str, ...]:
    return ("serving_default", "second")[: len(spec.signatures)]


_ROWS = st.sampled_from(
    ((4,), (), (1,), (3, 2), (2, 5), (1, 4), (5, 3), (2, 2, 3), (4, 3, 2), (3, 4, 1), (2, 1, 3, 2), (2, 2, 2, 2))
)


_OFTEN = ("positions", "affine", "matmul", "while", "cond")
"""What meets constants and variables is where most goes wrong."""


def steps(names: Sequence[str], most: int, least: int = 0) -> st.SearchStrategy[tuple[Step, ...]]:
    small = st.integers(0, 3)
    step = st.builds(Step, st.sampled_from(names), small, small, st.integers(0, 11))
    return st.lists(step, min_size=least, max_size=most).map(tuple)


def inputs(dtypes: Sequence[str], least: int = 1) -> st.SearchStrategy[tuple[Input, ...]]:
    wide = st.builds(Input, st.sampled_from(dtypes), _ROWS)
    # One string for each row, as most models with strings have it.
    each = wide.map(lambda given: Input("string", ()) if given.dtype == "string" else given)
    return st.lists(each, min_size=least, max_size=3).map(tuple)


@st.composite
def models(draw: st.DrawFn, exact: bool | None = None, ops: dict[str, Op] = OPS) -> ModelSpec:
    """Models of up to four functions and two signatures."""
    is_exact = draw(st.booleans()) if exact is None else exact
    when = row_op.EXACT if is_exact else row_op.SMOOTH
    names = [name for name, op in ops.items() if op.when in (row_op.BOTH, when)]
    leaves = [name for name in names if not ops[name].calls and ops[name].takes != "string"]
    leaves += [name for name in leaves if name in _OFTEN] * 4
    calling = [name for name in names if ops[name].calls]
    inside = ("float32", "float32", "float32", "int32", "int64", "bool", "float64")
    functions: list[FunctionSpec] = []
    for i in range(draw(st.integers(1, 4))):
        made = draw(steps(leaves, 8, 1))
        if i:
            made += draw(steps(calling, 1)) + draw(steps(leaves, 3))
        functions.append(FunctionSpec(draw(inputs(inside)), made, draw(st.integers(1, 3))))
    signatures = [
        FunctionSpec(
            draw(inputs((*inside, "string"))),
            draw(steps(["hash", "length"], 1))
            + draw(steps(leaves, 3))
            + draw(steps(calling, 2, 1))
            + draw(steps(leaves, 3)),
            draw(st.integers(1, 3)),
        )
        for _ in range(draw(st.sampled_from((1, 1, 2))))
    ]
    return ModelSpec(is_exact, tuple(functions), tuple(signatures))


# --------------------------------------------------------------------------------------------------------- building


class RandomModel(tf.Module):
    """The model of a spec. Function i is its attribute f<i>, and that is its alias, too.

    Attributes:
      spec: what it was built from.
      calls: name of a function or signature -> names of the functions that it calls.
      indirect_calls: those among them that it calls from within a loop or a branch.
      listing: the program that the spec became, a line for each op, for messages.
    """

    def __init__(self, spec: ModelSpec, ops: dict[str, Op] = OPS) -> None:
        super().__init__()
        self._ops = ops
        # Wrapped in lists, since an attribute of a tf.Module that is a tuple or a dict becomes a part of the model.
        self._hidden = [spec]
        self._records = _Records()
        for i, function in enumerate(spec.functions):
            name, before = f"f{i}", [f"f{j}" for j in range(i)]
            setattr(self, name, self._function(name, function, before, [f"a{k}" for k in range(len(function.inputs))]))
            getattr(self, name).get_concrete_function()
        everything = [f"f{i}" for i in range(len(spec.functions))]
        for name, signature in zip(signature_names(spec), spec.signatures, strict=True):
            keys = [f"x{k}" for k in range(len(signature.inputs))]
            setattr(self, f"serve_{name}", self._function(name, signature, everything, keys, signature=True))

    @property
    def spec(self) -> ModelSpec:
        return self._hidden[0]

    @property
    def calls(self) -> dict[str, set[str]]:
        return self._records.calls

    @property
    def indirect_calls(self) -> dict[str, set[str]]:
        return self._records.indirect_calls

    @property
    def listing(self) -> list[str]:
        return self._records.listing

    def save(self, directory: Path) -> None:
        tf.saved_model.save(
            self,
            str(directory),
            {name: getattr(self, f"serve_{name}") for name in signature_names(self.spec)},
            tf.saved_model.SaveOptions(
                function_aliases={f"f{i}": getattr(self, f"f{i}") for i in range(len(self.spec.functions))}
            ),
        )

    def _function(
        self, name: str, spec: FunctionSpec, callees: list[str], keys: list[str], signature: bool = False
    ) -> tf.types.experimental.PolymorphicFunction:
        def run(*given: tf.Tensor) -> object:
            self._records.listing.append(f"{name}({', '.join(_text(x) for x in given)})")
            self._records.calls[name] = set()
            self._records.indirect_calls[name] = set()
            context = _Context(self, name, self.spec.exact, callees, tf.compat.v1.get_default_graph())
            found = _run(context, spec, list(given), self._ops, self._records.listing)
            if signature or spec.results == 2:
                return {f"y{i}": value for i, value in enumerate(found)}
            return found[0] if len(found) == 1 else tuple(found)

        signature_ = [tf.TensorSpec([None, *i.row], i.dtype, key) for i, key in zip(spec.inputs, keys, strict=True)]
        return tf.function(run, input_signature=signature_, autograph=False)


@dataclass
class _Records:
    """Plain attributes of a tf.Module become parts of the model; these do not."""

    calls: dict[str, set[str]] = field(default_factory=dict)
    indirect_calls: dict[str, set[str]] = field(default_factory=dict)
    listing: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Context:
    """row_op.Context for one function of a model."""

    model: RandomModel
    function: str
    exact: bool
    callees: list[str]
    graph: tf.Graph

    def weight(self, shape: Sequence[int], n: int, dtype: tf.DType = tf.float32) -> tf.Tensor:
        value = draw_weight(shape, n // 3, self.exact)
        if n % 3 == 0:
            return tf.cast(tf.constant(value), dtype)
        name = f"{'variable' if n % 3 == 1 else 'constant'}_{n // 3}_{'x'.join(map(str, shape))}"
        return tf.cast(self._shared(name, value, n % 3 == 1), dtype)

    def flag(self, n: int, x: tf.Tensor) -> tf.Tensor:
        if n % 4 == 3:
            return tf.shape(x)[0] > 0
        if n % 4 == 2:
            return tf.shape(x)[-1] > 2 if x.shape.rank > 1 else tf.shape(x)[0] < 1000
        return self._shared(f"flag_{n % 4}_{n % 5}", np.asarray(n % 5 < 3), n % 4 == 1)

    def call(self, n: int, x: tf.Tensor) -> list[tf.Tensor]:
        name = self.callees[-1 - n % len(self.callees)]
        self.model.calls[self.function].add(name)
        if tf.compat.v1.get_default_graph() is not self.graph:
            self.model.indirect_calls[self.function].add(name)
        spec = self.model.spec.functions[int(name[1:])]
        arguments = [fit(x, each.row, tf.as_dtype(each.dtype), self.exact) for each in spec.inputs]
        return list(tf.nest.flatten(getattr(self.model, name)(*arguments)))

    def _shared(self, name: str, value: np.ndarray, variable: bool) -> tf.Tensor:
        """A tensor of the model, made when it is first asked for, that every function may capture."""
        if not hasattr(self.model, name):
            with tf.init_scope():
                made = tf.Variable(value, name=name, trainable=False) if variable else tf.constant(value)
            setattr(self.model, name, made)
        return tf.convert_to_tensor(getattr(self.model, name))


def _run(
    context: _Context, spec: FunctionSpec, values: list[tf.Tensor], ops: dict[str, Op], listing: list[str]
) -> list[tf.Tensor]:
    """All steps that find something to take; the last results, none of them a string."""
    for step in spec.steps:
        op = ops[step.op]
        fitting = [x for x in reversed(values) if op.accepts(x, context.exact)]
        if not fitting or (op.calls and not context.callees):
            continue
        operands = [fitting[step.source % len(fitting)]]
        if op.binary:
            alike = [x for x in fitting if x.shape == operands[0].shape and x.dtype == operands[0].dtype]
            operands.append(alike[step.other % len(alike)])
        values.append(apply(context, op, step.n, operands))
        _check(step, operands, values[-1])
        taken = ", ".join(f"v{next(i for i, v in enumerate(values) if v is x)}" for x in operands)
        listing.append(f"  v{len(values) - 1} = {step.op}({taken}) {step.n} -> {_text(values[-1])}")
    results = [x for x in values if x.dtype != tf.string] or [tf.strings.length(x) for x in values]
    return results[-spec.results :]


def _check(step: Step, operands: list[tf.Tensor], result: tf.Tensor) -> None:
    """The table keeps its promise: a batch first, and all else known."""
    if result.shape.rank == 0 or None in result.shape[1:] or math.prod(result.shape[1:]) > row_op.MAX_SIZE:
        raise AssertionError(f"{step} makes {result.shape} of {[x.shape for x in operands]}")


def _text(x: tf.Tensor) -> str:
    return f"{x.dtype.name}[b{''.join(f',{size}' for size in x.shape[1:])}]"


def build(spec: ModelSpec, directory: Path, ops: dict[str, Op] = OPS) -> RandomModel:
    """Builds the model and saves it."""
    model = RandomModel(spec, ops)
    model.save(directory)
    return model


# ----------------------------------------------------------------------------------------------------------- inputs


def make_inputs(spec: ModelSpec, signature: str, rows: int) -> Values:
    """Inputs of so many different rows."""
    rng = np.random.default_rng(rows)
    function = spec.signatures[signature_names(spec).index(signature)]
    return {f"x{k}": _values(rng, each, rows, spec.exact) for k, each in enumerate(function.inputs)}


def _values(rng: np.random.Generator, given: Input, rows: int, exact: bool) -> np.ndarray:
    shape = (rows, *given.row)
    if given.dtype == "string":
        return np.asarray([f"word {i}" for i in rng.integers(0, 20, shape)], object)
    if given.dtype == "bool":
        return rng.integers(0, 2, shape).astype(bool)
    integers = rng.integers(-LARGEST, LARGEST + 1, shape)
    values = integers if exact or "int" in given.dtype else rng.uniform(-1, 1, shape)
    return np.asarray(values, given.dtype)


def command(spec: ModelSpec) -> str:
    """What to type to have the model of a failing test."""
    return f"python -m tests.properties.random_models /tmp/model '{spec!r}'"


def main(parse: Callable[[str], ModelSpec]) -> None:
    directory, text = sys.argv[1:]
    print("\n".join(build(parse(text), Path(directory)).listing))


if __name__ == "__main__":
    main(lambda text: eval(text, {c.__name__: c for c in (ModelSpec, FunctionSpec, Input, Step)}))

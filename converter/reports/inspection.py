"""What a SavedModel offers: its signatures and functions, their cost and what keeps them off the TPU."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from converter import printing
from converter.analysis import compatibility, cost, tpu, workload
from converter.analysis.op_work import Work
from converter.graph import calls, outside, tensors
from converter.graph.model import Model
from converter.graph.op_libraries import import_op_libraries
from converter.graph.protos import DT_RESOURCE, FunctionDef
from converter.passes.pass_result import Json
from converter.printing import Folded
from converter.saved_model.reader import blaming_input, read_model


@dataclass(frozen=True)
class FunctionInfo:
    """One function that signatures reach.

    Attributes:
      alias, signatures: names by which the options can refer to it, besides `name`.
      arguments: "name: dtype" of each tensor argument.
      resources: number of resource arguments, which are variables or tables.
      cost: by the heuristic of `converter.analysis.cost`, calls included.
      flops, bytes: of one call with one row, calls included; see `converter.analysis.workload`.
      on_tpu: whether it runs on the TPU already.
      problems: why it cannot be put on the TPU as it is.
    """

    name: str
    alias: str
    signatures: tuple[str, ...]
    arguments: tuple[str, ...]
    resources: int
    cost: int
    flops: int
    bytes: int
    on_tpu: bool
    problems: tuple[str, ...]

    def __rich__(self) -> Group:
        """By all its names, as the options would write them; then what it takes, and what stands in the way."""
        names = [f'function_alias: "{self.alias}"'] if self.alias else []
        names += [f'signature_name: "{s}"' for s in self.signatures]
        names.append(f'concrete_function_name: "{self.name}"')
        return Group(
            *(Folded(name, indent=2) for name in names),
            _indented(Folded(f"({', '.join([*self.arguments, *_count(self.resources)])})", indent=1)),
            *([_indented(Folded("on the TPU already", style="green"))] if self.on_tpu else []),
            *(
                _indented(Folded(f"not for the TPU as it is: {problem}", indent=2, style="yellow"))
                for problem in self.problems
            ),
        )


@dataclass(frozen=True)
class Inspection:
    """A model's signatures, and the functions that they reach, the costliest first."""

    signatures: dict[str, str]
    functions: tuple[FunctionInfo, ...]

    def to_json(self) -> Json:
        return {"signatures": self.signatures, "functions": [dataclasses.asdict(f) for f in self.functions]}

    def text(self, width: int = printing.WIDTH) -> str:
        """The same as a terminal of that width shows, without colours."""
        return printing.plain(self, width)

    def __rich__(self) -> Group:
        by_nodes = "nodes of the main graph, which no option can name"
        signatures = [f"{key} -> {function or by_nodes}" for key, function in self.signatures.items()] or ["none"]
        functions = printing.table(("Cost", 8), ("FLOPs", 6), ("Bytes", 6), ("Function", 0))
        for f in self.functions:
            functions.add_row(str(f.cost), magnitude(f.flops), magnitude(f.bytes), f)
        return Group(
            Text("Signatures", "bold"),
            *(_indented(Folded(line, indent=2)) for line in signatures),
            "",
            Text("Functions that the signatures reach, costliest first", "bold"),
            _indented(functions),
        )


def _indented(shown: RenderableType) -> Padding:
    return Padding(shown, (0, 0, 0, 2))


def magnitude(count: int) -> str:
    """Three digits and a prefix: 1234567 is 1.23M."""
    value, prefixes = float(count), ["", "k", "M", "G", "T", "P"]
    while value >= 999.5 and len(prefixes) > 1:
        value /= 1000
        del prefixes[0]
    return f"{value:.3g}{prefixes[0]}"


def _count(resources: int) -> list[str]:
    return [f"{resources} resource{'s' if resources > 1 else ''}"] if resources else []


def inspect_model(model_dir: Path | str, *, import_modules: Sequence[str] = ()) -> Inspection:
    """Reads the SavedModel in `model_dir` and lists what its options could name.

    Args:
      model_dir: directory of the SavedModel.
      import_modules: modules to import first, for the ops that they register.

    Raises:
      OptionsError: a module cannot be imported.
      ModelReadError: it is no SavedModel that could be converted.
    """
    import_op_libraries(import_modules)
    path = Path(model_dir)
    with blaming_input(path):
        model = read_model(path, "MODEL")
        with model.unchanged():
            return _inspected(model)


def _inspected(model: Model) -> Inspection:
    signatures = {key: outside.signature_function(model, key) or "" for key in sorted(model.signatures)}
    served = calls.call_graph(model).reachable([f for f in signatures.values() if f in model.functions])
    on_tpu = set(tpu.tpu_scopes(model))
    costs = cost.function_costs(model, served)
    works = workload.function_workloads(model, served)
    infos = [_function_info(model, model.functions[n], signatures, costs[n], works[n], n in on_tpu) for n in served]
    return Inspection(signatures, tuple(sorted(infos, key=lambda f: (-f.cost, f.name))))


def _function_info(
    model: Model,
    function: FunctionDef,
    signatures: dict[str, str],
    own_cost: int,
    work: Work,
    on_tpu: bool,
) -> FunctionInfo:
    name = function.signature.name
    aliases = model.meta_graph.meta_info_def.function_aliases
    problems = compatibility.boundary_problems(model, function)
    missing = compatibility.ops_without_tpu_kernel(model, name)
    if missing:
        problems.append(f"ops without a TPU kernel: {', '.join(missing)}")
    already = on_tpu or tpu.is_tpu_stub(model, name)
    return FunctionInfo(
        name=name,
        alias=aliases.get(name, ""),
        signatures=tuple(key for key, of in signatures.items() if of == name),
        arguments=tuple(
            f"{a.name}: {tensors.dtype_name(a.type)}" for a in function.signature.input_arg if a.type != DT_RESOURCE
        ),
        resources=sum(a.type == DT_RESOURCE for a in function.signature.input_arg),
        cost=own_cost,
        flops=work.flops,
        bytes=work.bytes,
        on_tpu=already,
        problems=() if already else tuple(problems),
    )

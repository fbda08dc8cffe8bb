"""Puts functions on the TPU."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from converter.analysis import compatibility, tpu
from converter.analysis.resolve import ResolvedFunction, resolve_all, same_signatures
from converter.errors import ConversionError
from converter.graph import calls, edit
from converter.graph.edit import make_node, type_attr
from converter.graph.model import Model, Scope
from converter.graph.protos import DT_RESOURCE, FunctionDef, NodeDef
from converter.options.parse import FunctionRef, XlaShardingOptions
from converter.passes.pass_result import PassResult, RawDetails
from converter.passes.place_on_tpu.sharding import check_sharding

_MARKER = tpu.CLUSTER_ATTR


@dataclass(frozen=True)
class PlaceOnTpu:
    """Makes every named function F a stub that runs its old body on the TPU.

    before:  F(x, v) { body }
    after:   F(x, v)         { selector = TPUOrdinalSelector()
                               TPUPartitionedCall[f=F_on_tpu](x, v, selector) }
             F_on_tpu(x, v)  { x -> TPUReplicatedInput -> Identity -> call[f=F_body] -> Identity
                               -> TPUReplicatedOutput -> Identity; v -> call; all in one cluster }
             F_body(x, v)    { body }

    1. F keeps its name, arguments and callers; two OUTLINEs make F_body and F_on_tpu.
    2. Tensor arguments enter the cluster through TPUReplicatedInput; resources go straight to the call, since the
       runtime mirrors only those in HBM.
    3. A TPU function that another one calls directly is called there by its body, which is already on the TPU.
    4. F, its calls and its callers are no longer jit_compile'd: XLA for the CPU cannot compile a TPU call.
    5. Calls on the way to F become stateful ops.
    6. With a signature go all signatures that are the same function, as `serve` and `serving_default` of a Keras 3
       export are: on the CPU they would read the same variables, and so keep these from becoming bfloat16.
    """

    functions: tuple[FunctionRef, ...]
    sharding: XlaShardingOptions | None = None
    allow_incompatible: bool = False

    name = "place_on_tpu"

    def apply(self, model: Model) -> PassResult:
        result = PassResult()
        if self.sharding is not None:
            check_sharding(self.sharding)
        placed = []
        named = resolve_all(model, self.functions, "tpu_functions")
        for resolved in [*named, *_same_signatures(model, named, result)]:
            if tpu.is_tpu_stub(model, resolved.function):
                result.skipped(resolved.function, "is on the TPU already")
            else:
                placed.append(resolved)
        self._check(model, placed, result)
        bodies = {resolved.function: self._place(model, resolved, result) for resolved in placed}
        for body in bodies.values():
            for node in model.functions[body].node_def:
                calls.rename_callees(node, bodies)
        if bodies:
            calls.drop_jit_compile(model, bodies)
            calls.make_callers_stateful(model, bodies)
        return result

    def _check(self, model: Model, placed: list[ResolvedFunction], result: PassResult) -> None:
        graph = calls.call_graph(model)
        names = [p.function for p in placed]
        _refuse_indirect_calls(graph, names)
        existing = {c.scope.name for c in tpu.tpu_computations(model)}
        for resolved in placed:
            function = model.functions[resolved.function]
            reached = calls.reachable(graph, [resolved.function])
            inner = next((name for name in reached if name in existing), None)
            if inner is not None:
                raise ConversionError(
                    f'{resolved} cannot be put on the TPU: it reaches "{inner}", which '
                    "calls the TPU already, and a TPU function cannot call the TPU. Name functions that do not "
                    "contain TPU computation."
                )
            if not function.signature.output_arg:
                raise ConversionError(
                    f"{resolved} cannot be put on the TPU: it has no results. Found 0 "
                    "output tensors, expected at least 1; let the function return what it computes."
                )
            self._refuse_incompatible(model, resolved, graph, result)

    def _refuse_incompatible(
        self, model: Model, resolved: ResolvedFunction, graph: dict[str, list[str]], result: PassResult
    ) -> None:
        problems = compatibility.boundary_problems(model, model.functions[resolved.function])
        if problems:
            message = (
                f"{resolved} cannot be put on the TPU: {'; '.join(problems)}. The TPU "
                "takes no strings, variants or tables: keep the part of the model that needs them on the CPU, in the "
                "caller, and let the TPU function take and return plain numeric tensors"
            )
            if not self.allow_incompatible:
                raise ConversionError(f"{message}. (--allow_incompatible converts all the same.)")
            result.warnings.append(f"{message}.")
        missing = compatibility.ops_without_tpu_kernel(model, resolved.function, graph)
        if missing:
            result.warnings.append(
                f"{resolved} holds ops that have no TPU kernel: {', '.join(missing)}. "
                "Unless they are optimized away, the TPU will refuse the function when it is first served; move them "
                "to the CPU."
            )

    def _place(self, model: Model, resolved: ResolvedFunction, result: PassResult) -> str:
        """Rules 1 and 2 for one function; returns the name of its body."""
        body, _ = edit.outline(model, resolved.function, "body")
        on_tpu, call = edit.outline(model, resolved.function, "on_tpu")
        on_tpu.attr.pop(calls.JIT_ATTR, None)
        _build_cluster(on_tpu, self.sharding)
        _build_call_site(model.functions[resolved.function], call, resolved.given, self.sharding)
        result.changed(resolved.function, f"runs on the TPU as {on_tpu.signature.name}")
        return str(body.signature.name)


def _same_signatures(model: Model, named: list[ResolvedFunction], result: PassResult) -> list[ResolvedFunction]:
    """Rule 6."""
    same: dict[str, str] = {}
    found: dict[str, ResolvedFunction] = {}
    known = {resolved.function for resolved in named}
    for resolved in named:
        for other in same_signatures(model, resolved):
            if other.function not in known and not tpu.is_tpu_stub(model, resolved.function):
                found.setdefault(other.function, other)
                same[other.given] = resolved.given
    if same:
        lines = [f"Also on the TPU: signature {k}, which is the same function as {v}" for k, v in same.items()]
        result.details = RawDetails({"same_signatures": same}, tuple(lines))
    return list(found.values())


def _refuse_indirect_calls(graph: dict[str, list[str]], placed: list[str]) -> None:
    for caller in placed:
        helpers = [f for f in graph[caller] if f not in placed]
        indirect = set(calls.reachable(graph, helpers))
        for callee in placed:
            if callee in indirect:
                raise ConversionError(
                    f'Unable to place both "{caller}" and "{callee}" on the TPU because "{caller}" indirectly calls '
                    f'"{callee}". This behavior is unsupported because it can cause invalid graphs to be generated.'
                )


def _build_cluster(function: FunctionDef, sharding: XlaShardingOptions | None) -> None:
    """Turns a function whose body is one call into a TPU cluster around that call (the runtime's contract)."""
    name = function.signature.name
    # The name of a node: a function made from a lambda has characters that nodes must not have.
    cluster = "cluster_" + re.sub(r"[^A-Za-z0-9_.\\/-]", "_", name)
    marker = {_MARKER: cluster}
    inner = function.node_def[0]
    outer_shapes = inner.attr["_output_shapes"].list.shape
    taken = edit.UniqueNames(Scope.of(function))
    pivot = make_node(taken(f"{cluster}/pivot"), "NoOp", _pivot_for_cluster=cluster)
    metadata = make_node(
        taken("TPUReplicateMetadata"), "TPUReplicateMetadata", [f"^{pivot.name}"], **_metadata_attrs(sharding), **marker
    )
    compilation = make_node(
        taken("TPUCompilationResult"),
        "TPUCompilationResult",
        [f"^{metadata.name}"],
        _tpu_compilation_status=cluster,
    )
    nodes = [pivot, metadata, compilation]
    inputs = []
    for i, argument in enumerate(function.signature.input_arg):
        if argument.type == DT_RESOURCE:
            inputs.append(argument.name)
            continue
        dtype = type_attr(argument.type)
        replicated = make_node(taken(f"input{i}"), "TPUReplicatedInput", [argument.name], N=1, T=dtype)
        identity = make_node(
            taken(f"replicated_input_{i}"),
            "Identity",
            [f"{replicated.name}:output:0", f"^{metadata.name}"],
            T=dtype,
            _tpu_input_identity=True,
            **marker,
        )
        nodes += [replicated, identity]
        inputs.append(f"{identity.name}:output:0")
    call = make_node(taken("tpu_call"), inner.op, [*inputs, f"^{metadata.name}"], **dict(inner.attr), **marker)
    nodes.append(call)
    results = {}
    for i, output in enumerate(function.signature.output_arg):
        dtype = type_attr(output.type)
        shape = edit.shape_list_attr(outer_shapes[i : i + 1])
        identity = make_node(
            taken(f"out_id_{i}"), "Identity", [f"{call.name}:output:{i}"], T=dtype, _tpu_output_identity=True, **marker
        )
        replicated = make_node(
            taken(f"output{i}"), "TPUReplicatedOutput", [f"{identity.name}:output:0"], num_replicas=1, T=dtype
        )
        # TPUReplicatedOutput needs a data consumer.
        shard = make_node(
            taken(f"output_{i}_shard_0"), "Identity", [f"{replicated.name}:outputs:0"], T=dtype, _output_shapes=shape
        )
        nodes += [identity, replicated, shard]
        results[output.name] = f"{shard.name}:output:0"
    edit.replace_body(function, nodes, results, control=[])


def _metadata_attrs(sharding: XlaShardingOptions | None) -> dict[str, edit.PlainAttr]:
    # use_tpu, step_marker_location and one core are the op's defaults; older runtimes reject what they don't know.
    attrs: dict[str, edit.PlainAttr] = {"num_replicas": 1}
    if sharding is not None:
        attrs["use_spmd_for_xla_partitioning"] = True
        if sharding.num_cores_per_replica != 1:
            attrs["num_cores_per_replica"] = sharding.num_cores_per_replica
        if sharding.topology:
            attrs["topology"] = sharding.topology
        if sharding.device_assignment:
            attrs["device_assignment"] = edit.int_list_attr(sharding.device_assignment)
    return attrs


def _build_call_site(stub: FunctionDef, call: NodeDef, given: str, sharding: XlaShardingOptions | None) -> None:
    """Turns F's single call into a TPU ordinal and a TPUPartitionedCall."""
    taken = edit.UniqueNames(Scope.of(stub))
    attrs: dict[str, edit.PlainAttr] = {**call.attr, tpu.NAME_ATTR: given}
    if sharding is not None and sharding.device_assignment:
        # The runtime takes a manual device assignment with ordinal 0 only.
        ordinal = edit.const_node(taken("device_ordinal"), np.int32(0))
        ordinal_ref = f"{ordinal.name}:output:0"
    else:
        ordinal = make_node(taken("TPUOrdinalSelector"), "TPUOrdinalSelector")
        ordinal_ref = f"{ordinal.name}:device_ordinals:0"
    tpu_call = make_node(taken(tpu.TPU_CALL), tpu.TPU_CALL, [*call.input, ordinal_ref], **attrs)
    results = {r.name: f"{tpu_call.name}:output:{i}" for i, r in enumerate(stub.signature.output_arg)}
    edit.replace_body(stub, [ordinal, tpu_call], results)

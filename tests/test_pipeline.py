"""Options -> ordered passes, and how they are run."""

from dataclasses import dataclass
from types import SimpleNamespace

import pytest

from converter.errors import ConversionError, InternalError, OptionsError
from converter.graph.model import Model
from converter.options.parse import parse_options
from converter.options.settings import ConvertSettings
from converter.options.slices import ConversionScope, FunctionKind, FunctionRef, XlaShardingOptions
from converter.passes.batching.batch import Batch
from converter.passes.bfloat16.convert import BFloat16
from converter.passes.io_shape.reshape import IoShape
from converter.passes.pass_result import PassResult
from converter.passes.place_on_tpu.place import PlaceOnTpu
from converter.pipeline import StructureCheck, build_passes, run_passes
from tests.harness import parse_model

ALIAS = 'tpu_functions { function_alias: "f" } disable_default_optimizations: true '


def test_tpu_functions_give_the_pass_that_places_them() -> None:
    reference = FunctionRef(FunctionKind.FUNCTION_ALIAS, "f")
    assert build_passes(parse_options(ALIAS), ConvertSettings()) == [PlaceOnTpu((reference,))]
    assert build_passes(parse_options(ALIAS), ConvertSettings(allow_incompatible=True)) == [
        PlaceOnTpu((reference,), None, allow_incompatible=True)
    ]
    sharded = parse_options(ALIAS + "xla_sharding_options { num_cores_per_replica: 1 }")
    assert build_passes(sharded, ConvertSettings()) == [PlaceOnTpu((reference,), XlaShardingOptions(1))]


def test_all_passes_run_in_the_order_in_which_each_finds_what_it_needs() -> None:
    options = parse_options('tpu_functions { function_alias: "f" } batch_options { max_batch_size: 8 }')
    names = [p.name for p in build_passes(options, ConvertSettings())]
    assert names == ["place_on_tpu", "batch", "bfloat16", "io_shape"]


def test_each_pass_is_made_with_its_own_options_and_permission() -> None:
    batching = parse_options("batch_options { max_batch_size: 8 } disable_default_optimizations: true")
    how = batching.batch_options
    assert build_passes(batching, ConvertSettings()) == [Batch(how, False)]
    assert build_passes(batching, ConvertSettings(allow_incompatible=True)) == [Batch(how, False)]
    assert build_passes(batching, ConvertSettings(allow_batching_violations=True)) == [Batch(how, True)]
    both = parse_options(
        ALIAS + 'bfloat16_optimization: ENABLED bfloat16_optimization_options { filterlist: "Softmax" scope: ALL '
        "skip_safety_checks: true }"
    )
    assert both.bfloat16 is not None
    assert build_passes(both, ConvertSettings(allow_batching_violations=True)) == [
        PlaceOnTpu((FunctionRef(FunctionKind.FUNCTION_ALIAS, "f"),)),
        BFloat16(both.bfloat16.scope, True, both.bfloat16.filterlist),
    ]
    assert (both.bfloat16.scope, set(both.bfloat16.filterlist)) == (ConversionScope.ALL, {"Softmax"})
    reshaping = parse_options("disable_default_optimizations: true io_shape_optimization: ENABLED")
    assert build_passes(reshaping, ConvertSettings()) == [IoShape()]


@dataclass(frozen=True)
class Rename:
    """Renames the function F step by step, so that the order of runs shows."""

    name: str

    def apply(self, model: Model) -> PassResult:
        result = PassResult()
        function = next(iter(model.functions.values()))
        function.signature.name += self.name
        result.changed(function.signature.name, "renamed")
        return result


@dataclass(frozen=True)
class Fail:
    error: Exception
    name = "fail"

    def apply(self, model: Model) -> PassResult:
        raise self.error


def test_passes_run_in_order_and_are_timed(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr("converter.pipeline.time", SimpleNamespace(monotonic=iter([1.0, 1.25, 5.0, 7.0]).__next__))
    model = parse_model("@F() -> () { return }")
    seen = []
    with caplog.at_level("INFO", logger="absl"):
        reports = run_passes(
            model,
            [Rename("_a"), Rename("_b")],
            [lambda m, step: seen.append((step, m.graph_def.library.function[0].signature.name))],
        )
    assert [r.name for r in reports] == ["_a", "_b"]
    assert [c.where for r in reports for c in r.result.changes] == ["F_a", "F_a_b"]
    assert [r.seconds for r in reports] == [0.25, 2.0]
    assert seen == [("input", "F"), ("_a", "F_a"), ("_b", "F_a_b")]
    assert [r.getMessage() for r in caplog.records] == ["_a: 1 changes, 0 skips", "_b: 1 changes, 0 skips"]


@pytest.mark.parametrize("error", [ConversionError("mend it"), OptionsError("rewrite it"), InternalError("our fault")])
def test_errors_that_say_what_they_mean_pass_through(error: Exception) -> None:
    with pytest.raises(type(error)) as caught:
        run_passes(parse_model("@F() -> () { return }"), [Fail(error)])
    assert caught.value is error


def test_any_other_error_is_a_defect_that_names_the_pass_and_those_before_it() -> None:
    passes = [Rename("first"), Rename("second"), Fail(KeyError("x"))]
    message = r"""^The pass "fail" failed with KeyError: 'x' \(passes before it: first, second\)\.$"""
    with pytest.raises(InternalError, match=message) as caught:
        run_passes(parse_model("@F() -> () { return }"), passes)
    assert isinstance(caught.value.__cause__, KeyError)


@dataclass(frozen=True)
class Break:
    """Adds a node whose input does not exist to the function."""

    name: str

    def apply(self, model: Model) -> PassResult:
        next(iter(model.functions.values())).node_def.add(name=self.name, op="NoOp", input=["^gone"])
        return PassResult()


def test_the_check_between_passes_names_the_pass_that_broke_the_model() -> None:
    ran = []
    passes = [Rename("a"), Break("b"), Rename("c")]
    with pytest.raises(
        InternalError, match=r'^The pass "b" left an inconsistent graph: Fa: input "\^gone" of node "b"'
    ):
        run_passes(parse_model("@F() -> () { return }"), passes, [lambda m, step: ran.append(step), StructureCheck()])
    assert ran == ["input", "a", "b"]


def test_a_model_that_was_inconsistent_before_is_not_checked() -> None:
    odd = parse_model("@F() -> () { n = NoOp(^gone); return }")
    assert len(run_passes(odd, [Break("b"), Rename("c")], [StructureCheck()])) == 2

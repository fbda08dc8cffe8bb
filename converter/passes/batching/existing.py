"""The batching ops that the model has already: which get new options, and which keep theirs."""

from __future__ import annotations

from collections.abc import Sequence

from converter.analysis import tpu
from converter.errors import ConversionError
from converter.graph.model import Scope
from converter.graph.protos import NodeDef
from converter.options.slices import BatchOptions
from converter.passes.batching.attributes import read_attributes
from converter.passes.batching.survey import Survey, batched_function
from converter.passes.batching.targets import Place, Update
from converter.passes.pass_result import Skip


def update_of(name: str, scope: Scope, node: NodeDef, options: BatchOptions) -> Update:
    before = read_attributes(node)
    return Update(
        name=name,
        place=Place(scope.name, str(node.name)),
        function=batched_function(node),
        inputs=tuple(range(len(node.attr["Tin"].list.type))),
        before=before,
        after=before.with_options(options),
    )


def other_batching_ops(
    survey: Survey, default: BatchOptions | None, named: Sequence[Update]
) -> tuple[list[Update], list[Skip]]:
    """The batching ops that no component named: all get the options of the default entry, if there is one."""
    updates: list[Update] = []
    skips: list[Skip] = []
    taken = {update.place for update in named}
    for scope, node in survey.batching:
        if Place(scope.name, node.name) in taken:
            continue
        name = _name(survey, scope, node)
        if default is not None:
            updates.append(update_of(name, scope, node, default))
        else:
            reason = f'keeps the options of its batching op "{node.name}": batch_options name other components'
            skips.append(Skip(name, reason))
    return updates, skips


def _name(survey: Survey, scope: Scope, node: NodeDef) -> str:
    """What a user calls it: by alias, by the one TPU function in it, or by the scope that holds it."""
    aliases = survey.model.meta_graph.meta_info_def.function_aliases
    if scope.name in aliases:
        return str(aliases[scope.name])
    inside = survey.reached([batched_function(node)])
    on_tpu = [tpu.display_name(survey.model, c) for c in survey.computations if c.scope.name in inside]
    return on_tpu[0] if len(on_tpu) == 1 else scope.name


def check_kept_sizes(update: Update) -> None:
    """
    Raises:
      ConversionError: what options leave unset does not fit what they set, and the op would refuse both together.
    """
    sizes, largest, splits = (
        update.after.allowed_batch_sizes,
        update.after.max_batch_size,
        update.after.enable_large_batch_splitting,
    )
    if sizes and (sizes[-1] > largest or (not splits and sizes[-1] != largest)):
        relation = "be at most" if splits else "equal"
        raise ConversionError(
            f'The batching op "{update.place.node}" of "{update.name}" keeps its allowed_batch_sizes '
            f"{list(sizes)}, whose last must {relation} max_batch_size: {largest}. Give allowed_batch_sizes that fit, "
            f"or `max_batch_size: {sizes[-1]}`."
        )

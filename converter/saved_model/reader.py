"""Disk -> Model. Nothing in the input directory is modified."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from google.protobuf.message import DecodeError

from converter.errors import ConversionError, ModelReadError
from converter.graph import invariants, op_libraries
from converter.graph.model import VARIABLES_PREFIX, Model
from converter.graph.protos import SavedModel

SAVED_MODEL_FILE = "saved_model.pb"
FINGERPRINT_FILE = "fingerprint.pb"
_SHARD = re.compile(r"^variables\.data-(\d{5})-of-(\d{5})$")


def read_model(path: Path, named_by: str = "--input_model_dir") -> Model:
    """Reads the SavedModel in directory `path`, which the user gave as the argument `named_by`.

    Raises:
      ModelReadError: not a SavedModel, damaged, several meta graphs, a TF1 model, or variables missing.
    """
    saved_model = _parse(_find_proto(path, named_by))
    tags = [sorted(m.meta_info_def.tags) for m in saved_model.meta_graphs]
    if not tags:
        raise ModelReadError(
            f'"{path / SAVED_MODEL_FILE}" holds no meta graph, expected exactly one: the file is empty or was cut '
            "off. Export or copy the model again."
        )
    if len(tags) > 1:
        raise ModelReadError(
            f'"{path}" holds {len(tags)} meta graphs with the tags {", ".join(map(str, tags))}; expected exactly one, '
            "as tf.saved_model.save writes. Export the graph to serve alone."
        )
    model = Model(saved_model, path)
    if not model.object_graph.nodes:
        raise ModelReadError(
            f'"{path}" is a TensorFlow 1 SavedModel (its meta graph has no object graph); only TensorFlow 2 models can '
            "be converted. Migrate it to TensorFlow 2 and save it with tf.saved_model.save or model.export."
        )
    _check_variables(model)
    return model


@contextmanager
def blaming_input(path: Path) -> Iterator[None]:
    """What fails inside for no reason of its own is the fault of the model in `path`, if its graph is inconsistent.

    Raises:
      ModelReadError: instead of an error that is no ConversionError.
    """
    try:
        yield
    except ConversionError:
        raise
    except Exception as error:
        model = read_model(path)
        if "not registered" in str(error):
            op_libraries.expect_registered_ops(model)
        odd = invariants.problems(model)
        if odd:
            raise ModelReadError(
                f'"{path}" holds an inconsistent graph, which TensorFlow could not load either: '
                f"{invariants.summary(odd)}. Export or copy the model again."
            ) from error
        raise


def _find_proto(path: Path, named_by: str) -> Path:
    if not path.exists():
        what = f'input directory "{path}"' if named_by.startswith("--") else f'directory "{path}", given as {named_by},'
        raise ModelReadError(f"The {what} does not exist. Check {named_by}.")
    if not path.is_dir():
        raise ModelReadError(f'"{path}" is a file; expected the directory of a SavedModel, which holds saved_model.pb.')
    proto = path / SAVED_MODEL_FILE
    if proto.is_file():
        return proto
    if (path / "saved_model.cpb").exists():
        raise ModelReadError(
            f'"{path}" is a SavedModel in chunks (saved_model.cpb, a graph of over 2 GiB), which is not supported. '
            "Keep large constants in variables, so that the graph fits saved_model.pb, and export again."
        )
    if (path / "saved_model.pbtxt").exists():
        raise ModelReadError(
            f'"{path}" holds a SavedModel as text (saved_model.pbtxt); expected the binary saved_model.pb. Load and '
            "save the model again with TensorFlow."
        )
    found = ", ".join(sorted(p.name for p in path.iterdir())[:10]) or "nothing"
    hint = ""
    nested = sorted(p.parent.name for p in path.glob(f"*/{SAVED_MODEL_FILE}"))
    if nested:
        hint = f' Did you mean "{path / nested[-1]}"?'
    raise ModelReadError(f'"{path}" is not a SavedModel: it has no {SAVED_MODEL_FILE}, but {found}.{hint}')


def _parse(proto: Path) -> SavedModel:
    try:
        return SavedModel.FromString(proto.read_bytes())
    except DecodeError as error:
        raise ModelReadError(
            f'"{proto}" ({proto.stat().st_size} bytes) cannot be parsed as a SavedModel: the file is damaged or was '
            "cut off. Export or copy the model again."
        ) from error


def _check_variables(model: Model) -> None:
    variables = [n.variable.name for n in model.object_graph.nodes if n.WhichOneof("kind") == "variable"]
    index = model.path / VARIABLES_PREFIX.with_suffix(".index")
    if not index.is_file():
        if variables:
            raise ModelReadError(
                f'"{model.path}" has {len(variables)} variables ("{variables[0]}" is one), but the file '
                f'"{index.relative_to(model.path)}" is missing. Copy the whole directory, with its variables.'
            )
        return
    shards = [m for p in index.parent.iterdir() if (m := _SHARD.match(p.name))]
    expected = int(shards[0][2]) if shards else 1
    missing = set(range(expected)) - {int(m[1]) for m in shards}
    if missing:
        raise ModelReadError(
            f'"{index.parent}" holds {len(shards)} of {expected} data files of the variables; '
            f'"variables.data-{min(missing):05d}-of-{expected:05d}" is missing. Copy the whole directory again.'
        )

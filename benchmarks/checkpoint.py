"""How long recasting a checkpoint takes, as a multiple of `cp` and beside TensorFlow's own ops, and how much memory.

    python benchmarks/checkpoint.py [--megabytes 2048] [--tensor_megabytes 100] [--runs 3] [--ops] [--directory DIR]

Each run is a process of its own; the best one counts. Times are without importing tensorflow, memory is what comes
on top of the process after that import. On a busy machine compare CPU times. Needs Linux, and twice the checkpoint's
size on disk.

Measured on 2 cores of an AMD EPYC shared with other work, files in the page cache, TensorFlow 2.21 (--ops --runs 4):

    2048 MB in tensors of 100 MB    cp 1.17 s   recast 1.63 times cp, 3 MB   TensorFlow's ops 5.33 times cp, 159 MB
    1024 MB in tensors of 512 MB    cp 0.47 s   recast 2.07 times cp, 3 MB   TensorFlow's ops 5.40 times cp, 768 MB
"""

from __future__ import annotations

import argparse
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

MEGABYTE = 1 << 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=int, default=2048, help="size of the checkpoint")
    parser.add_argument("--tensor_megabytes", type=int, default=100, help="size of each of its tensors")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--ops", action="store_true", help="measure restore, cast, SaveV2 and MergeV2Checkpoints too")
    parser.add_argument("--directory", type=Path, help="where to write; the default is the system's")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        how, source, target = arguments.one
        measure({"recast": recast, "ops": with_ops}[how], Path(source), Path(target))
        return
    with tempfile.TemporaryDirectory(dir=arguments.directory) as directory:
        source = Path(directory) / "source" / "variables"
        command = "from benchmarks.checkpoint import make; import sys; make(*map(int, sys.argv[2:]), sys.argv[1])"
        run("-c", command, str(source), str(arguments.megabytes), str(arguments.tensor_megabytes))
        methods = ["recast", "ops"] if arguments.ops else ["recast"]
        figures: dict[str, list[tuple[float, ...]]] = {method: [] for method in ["cp", *methods]}
        for _ in range(arguments.runs):
            target = Path(directory) / "target"
            figures["cp"].append(copy(source.parent, target))
            shutil.rmtree(target)
            for method in methods:
                output = run(__file__, "--one", method, str(source), str(target / "variables"))
                figures[method].append(tuple(map(float, output.split())))
                shutil.rmtree(target)
        print(f"{arguments.megabytes} MB in tensors of {arguments.tensor_megabytes} MB")
        best_copy = [min(column) for column in zip(*figures["cp"], strict=True)]
        for method, results in figures.items():
            wall, cpu = (min(column) for column in list(zip(*results, strict=True))[:2])
            print(
                f"{method:8} {wall:6.2f} s ({wall / best_copy[0]:.2f} times cp), "
                f"CPU {cpu:6.2f} s ({cpu / best_copy[1]:.2f} times cp)"
                + (f", {max(r[2] for r in results):.0f} MB more memory at the peak" if method != "cp" else "")
            )


def copy(source: Path, target: Path) -> tuple[float, float]:
    """Seconds and CPU seconds of `cp`."""
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(["cp", "-r", str(source), str(target)], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - start, cpu


def run(*arguments: str) -> str:
    """The output of another Python process, so that neither memory nor caches carry over."""
    root = Path(__file__).resolve().parent.parent
    return subprocess.run(
        [sys.executable, *arguments], check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=root
    ).stdout


def make(megabytes: int, tensor_megabytes: int, prefix: str) -> None:
    """Writes a checkpoint of random float32 tensors."""
    import numpy as np
    import tensorflow as tf

    random = np.random.default_rng(0)
    names = [f"layer_{i}/kernel" for i in range(max(1, megabytes // tensor_megabytes))]
    tensors = [random.standard_normal((tensor_megabytes * 1024, 256), dtype=np.float32) for _ in names]
    tf.raw_ops.SaveV2(prefix=prefix, tensor_names=names, shape_and_slices=[""] * len(names), tensors=tensors)


def recast(source: Path, target: Path, keys: list[str]) -> None:
    from converter.checkpoint.recast import recast

    recast(source, target, keys)


def with_ops(source: Path, target: Path, keys: list[str]) -> None:
    """The same with TensorFlow's public ops, a tensor at a time."""
    import tensorflow as tf

    parts = []
    for key in keys:
        (tensor,) = tf.raw_ops.RestoreV2(
            prefix=str(source), tensor_names=[key], shape_and_slices=[""], dtypes=[tf.float32]
        )
        cast = tf.cast(tensor, tf.bfloat16)
        del tensor
        parts.append(f"{target}_part_{len(parts)}")
        tf.raw_ops.SaveV2(prefix=parts[-1], tensor_names=[key], shape_and_slices=[""], tensors=[cast])
        del cast
    tf.raw_ops.MergeV2Checkpoints(checkpoint_prefixes=parts, destination_prefix=str(target))


def measure(method: Callable[[Path, Path, list[str]], None], source: Path, target: Path) -> None:
    """Prints seconds, CPU seconds and megabytes of one call."""
    import tensorflow as tf

    from converter.checkpoint.read import list_tensors

    tf.cast(tf.constant([1.0]), tf.bfloat16)  # starts TensorFlow's runtime
    keys = list(list_tensors(source))
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far, that of importing
    before = memory("VmRSS")
    start, cpu = time.perf_counter(), time.process_time()
    method(source, target, keys)
    print(time.perf_counter() - start, time.process_time() - cpu, memory("VmHWM") - before)


def memory(field: str) -> float:
    """Memory of this process now ("VmRSS") or at its peak ("VmHWM"), in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


if __name__ == "__main__":
    main()

"""How a conversion is run, next to the options, which say what it does to the model."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class ConvertSettings:
    """What the command's flags say; every default is that of the flag."""

    overwrite: bool = False
    """Replace what the output directory holds."""
    dry_run: bool = False
    """Do everything but write the model."""
    allow_incompatible: bool = False
    """String, variant and table arguments of TPU functions are warnings, not errors."""
    allow_batching_violations: bool = False
    """Violations of the batching op's shape rules are warnings, not errors."""
    count_flops: bool = False
    """Add FLOPs and bytes to the report, which takes shape inference through the whole model."""
    import_modules: tuple[str, ...] = ()
    """Modules to import first, for the ops that they register, and for the shapes of what these make."""
    dump_dir: Path | None = None
    """Where to write the model as text, before the first pass and after each; implies `check_each_pass`."""
    check_each_pass: bool = False
    """Check the structure of the graph after each pass, so that an error names the pass; not only after the last."""

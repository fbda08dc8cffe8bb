"""What the command line prints where: plain text of a stable width in a pipe, the width and colours of a terminal."""

import fcntl
import os
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from click.testing import CliRunner

import cli
import converter
from tests.harness import write_model_text

ROOT = Path(__file__).parents[1]
TEXT = """
signature "serving_default" x=x:0 -> y=y:0
main {{
  x = Placeholder() {{dtype: float32, shape: <?,4>}}
  y = PartitionedCall(x) {{f: @{0}, Tin: [float32], Tout: [float32]}}
}}
@{0}(x: float32) -> (y: float32) {{ m = Neg(x) {{T: float32}}; return m:y:0 }}
"""


def test_tables_are_80_columns_wide_in_a_pipe_unless_columns_says_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "__inference_a_function_with_a_long_name_" + "that_goes_on_" * 8 + "1"
    model = write_model_text(TEXT.format(name), tmp_path / "in")
    monkeypatch.delenv("COLUMNS", raising=False)
    for columns, width in ((None, 80), ("120", 120), ("40", 40), ("0", 80), ("wide", 80)):
        if columns is not None:
            monkeypatch.setenv("COLUMNS", columns)
        shown = CliRunner().invoke(cli.main, ["inspect", str(model)]).stdout
        lines = shown.splitlines()
        assert shown.isascii() and "\x1b" not in shown
        assert width - 15 < max(map(len, lines)) <= width
        assert all(line == line.rstrip() for line in lines)
        assert name in re.sub(r"\s", "", shown)
        assert all(line.endswith("_") for line in lines if "that_goes" in line and "_1" not in line)


def test_a_terminal_gets_its_own_width_and_colours(tmp_path: Path) -> None:
    model = write_model_text(TEXT.format("F"), tmp_path / "in")
    leader, follower = os.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 64, 0, 0))
    script = f"import cli; cli.main(['inspect', {str(model)!r}])"
    environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "NO_COLOR")} | {"TERM": "xterm-256color"}
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, stdout=follower, env=environment, check=False)
    os.close(follower)
    shown = os.read(leader, 1 << 16).decode()
    os.close(leader)
    assert done.returncode == 0
    assert "\x1b[1mSignatures\x1b[0m" in shown
    plain = re.sub(r"\x1b\[[0-9;]*m", "", shown).replace("\r\n", "\n")
    assert [line.rstrip() for line in plain.splitlines()] == converter.inspect_model(model).text(64).splitlines()

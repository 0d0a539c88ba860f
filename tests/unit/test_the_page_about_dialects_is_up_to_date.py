"""docs/dialects.md says what the modules say."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_it_is_what_the_modules_say():
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "dialects.py", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr

"""Tiles from a cluster of two nodes are bit for bit those of one process."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")
def test_a_cluster_of_two_nodes(tmp_path: Path) -> None:
    script = Path(__file__).with_name("ray_cluster.py")
    ended = subprocess.run([sys.executable, str(script), str(tmp_path)], capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    result = json.loads(ended.stdout.splitlines()[-1])
    assert result == {
        "nodes": 2,
        "dense": True,
        "rectangle": True,
        "conv": True,
        "mixed": [4, 4, True],
        "error": "these inputs have no kernel; give others.",
    }

"""Lets these tests import `openai_server`, the real HTTP server with scripted answers, from the folder above."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

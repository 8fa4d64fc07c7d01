"""Estimators need evotorch; without it what imports it at once is not collected."""

import importlib.util

collect_ignore = [] if importlib.util.find_spec("evotorch") else ["test_waits.py"]

"""crewai's tests run in an environment of their own: it pins versions that the other frameworks do not take."""

import os
import warnings
from importlib.util import find_spec

from tests.adapters.conftest import in_a_new_process, namespace, server_url, url

__all__ = ["in_a_new_process", "namespace", "server_url", "url"]

collect_ignore_glob = [] if find_spec("crewai") else ["test_*.py"]

if find_spec("crewai"):
    # CrewAI reads these when it is imported: no test calls home.
    os.environ |= {"CREWAI_DISABLE_TELEMETRY": "true", "CREWAI_TRACING_ENABLED": "false", "OTEL_SDK_DISABLED": "true"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its import warns, whatever one does
        import crewai  # noqa: F401  # so that the tests' own import is quiet

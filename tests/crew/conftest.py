"""crewai's tests run in an environment of their own: it pins versions that the other frameworks do not take."""

from importlib.util import find_spec

from tests.adapters.conftest import in_a_new_process, namespace, server_url, url

__all__ = ["in_a_new_process", "namespace", "server_url", "url"]

collect_ignore_glob = [] if find_spec("crewai") else ["test_*.py"]

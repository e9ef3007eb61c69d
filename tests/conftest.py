"""What holds for every test, and the Kubernetes API that all of them share."""

import logging
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import settings

from equabot_broker.telemetry.log import OURS
from tests.kubernetes.api import Api
from tests.kubernetes.cluster import Cluster
from tests.tiers import absent, cluster_programs, require

# A busy machine is no failure: how long an example may take is nobody's promise.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")


_LONGEST_TEMPORARY: Final = 20
"""Bytes of the temporary directory's path that leave room for a socket below it (107 bytes in all)."""


def pytest_configure() -> None:
    """Makes the session independent of how it was started: processes inherit ignored signals and the temporary directory."""
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTERM):
        if signal.getsignal(number) is signal.SIG_IGN:  # `nohup`, or `&` in a shell without job control
            signal.signal(number, signal.default_int_handler if number is signal.SIGINT else signal.SIG_DFL)
    if len(os.fsencode(tempfile.gettempdir())) > _LONGEST_TEMPORARY and os.access("/tmp", os.W_OK | os.X_OK):
        tempfile.tempdir = os.environ["TMPDIR"] = "/tmp"


_SLOW: Final = (
    "kubelet", "containers", "kubernetes", "recipes", "gateway", "languages", "browser", "prometheus", "journeys", "deploy",
    "docs", "helm",
)  # fmt: skip
"""Directories of tests that start processes, the longest first: what begins last should not be what takes longest."""
_TOGETHER: Final = {"containers": "engine", "kubelet": "engine", "kubernetes": "cluster", "helm": "cluster"}
"""Those that share what is dear: images and containers of one Docker Engine, one API server."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """The fast tests need no more than Python; the slow ones are all others."""
    parser.addoption("--only", choices=("fast", "slow"), help="the tests that start no programs, or all others")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """A whole directory is fast or slow; a file next to this one is fast."""
    only = config.getoption("--only")
    if only is None or collection_path.parent != Path(__file__).parent:
        return None
    return (collection_path.name in _SLOW) is (only == "fast") or None


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object:
    """The tests of a file stay in one process, which share its fixtures, and those of a dear tier too."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return _TOGETHER.get(Path(file).parts[1], file)

    return ByFile(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest come first."""
    items.sort(key=lambda item: _place(_directory(item)))


def _directory(item: pytest.Item) -> str:
    return item.path.relative_to(Path(__file__).parent).parts[0]


def _place(directory: str) -> int:
    return _SLOW.index(directory) if directory in _SLOW else len(_SLOW)


@pytest.fixture
def as_nobody() -> Iterator[Path]:
    """A directory of one's own, and nobody's rights: root may do what it likes."""
    with tempfile.TemporaryDirectory() as made:
        path = Path(made)
        root = os.geteuid() == 0
        if root:
            os.chown(path, 65534, 65534)
            os.seteuid(65534)
        try:
            yield path
        finally:
            if root:
                os.seteuid(0)
            path.chmod(0o700)


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that every user may enter and only this one may write, unlike `tmp_path`, which others cannot enter."""
    made = Path(tempfile.mkdtemp())
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.fixture(autouse=True)
def _log_levels() -> Iterator[None]:
    """A command that a test runs in this process sets the levels of the log; the next test has its own."""
    loggers = [logging.getLogger(name) for name in ("", *OURS)]
    before = [logger.level for logger in loggers]
    yield
    for logger, level in zip(loggers, before, strict=True):
        logger.setLevel(level)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Api]:
    """A Kubernetes API for the whole session, with an administrator's rights. It is shared: nobody stops it."""
    require("kubernetes")
    if given := os.environ.get("EQUABOT_TEST_KUBECONFIG"):
        with Api.of(Path(given)) as api:
            yield api
    else:
        with ExitStack() as ending:
            yield _started(ending)


@pytest.fixture
def namespace(cluster: Api) -> Iterator[str]:
    """A fresh namespace of the shared cluster."""
    name = cluster.namespace()
    yield name
    # No controller may be there who would empty it.
    for kind, version in (("Secret", "v1"), ("Lease", "coordination.k8s.io/v1")):
        cluster.clear(kind, namespace=name, version=version)
    cluster.delete("Namespace", name)


@pytest.fixture
def start_cluster() -> Iterator[Callable[[], Cluster]]:
    """Starts an API server for this test alone, which the test may stop, kill, pause and restart."""
    require("kubernetes")
    with ExitStack() as ending:
        yield lambda: _started(ending)


def _started(ending: ExitStack) -> Cluster:
    assets = cluster_programs()
    if assets is None:
        absent("kubernetes", "a server that a test may stop needs kube-apiserver and etcd; deploy/ci/kubernetes builds them")
    # Not pytest's own: those are kept, and etcd's are large.
    directory = ending.enter_context(tempfile.TemporaryDirectory(prefix="equabot-cluster-"))
    return ending.enter_context(Cluster(assets, Path(directory)))

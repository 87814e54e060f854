"""Fixtures that several test modules share. Heavy imports stay inside them, so that light tests start fast."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from modeling_metaqap import MetaQAPModel


#: Files of tests that take long begin first, so that at the end no process has to wait for the others.
_FIRST = (
    "test_train.py test_shipped_checkpoint.py test_hub.py test_load.py test_browser.py test_loop.py test_scorer.py "
    "test_onnx_export.py test_scripts.py test_heartbeat.py test_adapting.py test_evaluating.py test_package.py "
    "test_compare_heads.py test_paper_recipe.py test_documents.py test_cli.py"
).split()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort the files of tests; within a file nothing changes."""
    items.sort(key=lambda item: _FIRST.index(item.path.name) if item.path.name in _FIRST else len(_FIRST))


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is computed once is kept apart from the user's own, in the programs that tests start too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("METAQAP_CACHE", str(tmp_path_factory.mktemp("metaqap-cache")))
        yield


@pytest.fixture(autouse=True)
def empty_memory_storage() -> Iterator[None]:
    """What a test puts into fsspec's storage in memory, which a whole process shares, is gone after it."""
    yield
    if (module := sys.modules.get("fsspec.implementations.memory")) is not None:
        module.MemoryFileSystem.store.clear()
        module.MemoryFileSystem.pseudo_dirs[:] = [""]


@pytest.fixture(scope="session")
def make_model() -> Callable[..., MetaQAPModel]:
    """Makes small models with random weights, in evaluation mode.

    Every parameter and buffer that a score depends on differs from its neutral value, so that a part of the model
    that is skipped or lost changes the score.
    """
    import torch

    from modeling_metaqap import MetaQAPConfig, MetaQAPModel

    def make(*backbones: str | dict[str, Any], seed: int = 0, **config: Any) -> MetaQAPModel:
        torch.manual_seed(seed)
        model = MetaQAPModel(MetaQAPConfig(base_learners=list(backbones or ["test_resnet"]), **config))
        with torch.no_grad():
            for learner in model.base_learners:
                learner.quality_head.weight.normal_(std=0.02)
                learner.feature_mean.normal_(std=0.1)
                learner.feature_std.uniform_(0.5, 1.5)
                for head in learner.kernel_heads():
                    torch.nn.init.orthogonal_(head.components)
                    head.centers.normal_()
                    head.coefficients.normal_()
                    head.gamma.fill_(0.1)
                for module in learner.backbone.modules():
                    if isinstance(module, torch.nn.BatchNorm2d):
                        module.running_mean.normal_(std=0.1)
                        module.running_var.uniform_(0.8, 1.2)
                        module.weight.uniform_(0.8, 1.2)
            if len(model.base_learners) > 1:
                model.meta_learner.weight.copy_(torch.linspace(0.2, 0.9, len(model.base_learners)))
                model.meta_learner.intercept.fill_(0.05)
        return model.eval()

    return make


@pytest.fixture
def rated_sources(tmp_path: Path) -> Path:
    """A folder of 30 rated images, more noise for worse ones, of the two sources `a*` and `b*`; 20 to train on."""
    from kill_training import make_images

    make_images(tmp_path)
    return tmp_path


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """Address of a web server of this machine that gives the files of `tmp_path`."""
    from functools import partial
    from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
    from threading import Thread

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(tmp_path))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuses connections to other machines: the tests have to pass without them."""
    connect = socket.socket.connect

    def connect_locally(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise ConnectionError(f"tests run without a network, and something tried to reach {address}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect_locally)

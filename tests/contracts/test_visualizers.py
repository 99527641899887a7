"""The built-in visualizers keep the contract."""

from __future__ import annotations

import pytest

from apportion.testing import VisualizerContract
from apportion_plugins.visualizers.bar import Bar
from apportion_plugins.visualizers.heatmap import Heatmap
from apportion_plugins.visualizers.html import Html
from apportion_plugins.visualizers.image import Image
from apportion_plugins.visualizers.layers import Layers
from apportion_plugins.visualizers.matrix import Matrix
from apportion_plugins.visualizers.network import Network
from apportion_plugins.visualizers.terminal import Terminal
from apportion_plugins.visualizers.tree import Tree


class TestHeatmap(VisualizerContract):
    name = "heatmap"

    @pytest.fixture
    def visualizer(self) -> Heatmap:
        return Heatmap()


class TestBar(VisualizerContract):
    name = "bar"

    @pytest.fixture
    def visualizer(self) -> Bar:
        return Bar()


class TestTerminal(VisualizerContract):
    name = "terminal"

    @pytest.fixture
    def visualizer(self) -> Terminal:
        return Terminal()


class TestHtml(VisualizerContract):
    name = "html"

    @pytest.fixture
    def visualizer(self) -> Html:
        return Html()


class TestHtmlSorted(TestHtml):
    options = {"sort": True}


class TestBarOfAColumn(TestBar):
    options = {"size": (3.3, None), "title": None, "labels": "short", "dpi": 300}


class TestImage(VisualizerContract):
    name = "image"
    of_pictures = True

    @pytest.fixture
    def visualizer(self) -> Image:
        return Image()


class TestImageOfOneToken(TestImage):
    options = {"token": 0, "overlay": "heat_only", "labels": "scores", "size": (5.5, None)}


class TestHtmlOfPictures(TestHtml):
    of_pictures = True


class TestMatrix(VisualizerContract):
    name = "matrix"

    @pytest.fixture
    def visualizer(self) -> Matrix:
        return Matrix()


class TestMatrixOfOneToken(TestMatrix):
    options = {"token": 0}


class TestNetwork(VisualizerContract):
    name = "network"

    @pytest.fixture
    def visualizer(self) -> Network:
        return Network()


class TestNetworkOfOneToken(TestNetwork):
    options = {"token": 0, "edges": None}


class TestTerminalSorted(TestTerminal):
    options = {"sort": True}


class TestLayers(VisualizerContract):
    name = "layers"

    @pytest.fixture
    def visualizer(self) -> Layers:
        return Layers()


class TestLayersOfOneToken(TestLayers):
    options = {"token": 0, "scale": "shared"}


class TestTree(VisualizerContract):
    name = "tree"

    @pytest.fixture
    def visualizer(self) -> Tree:
        return Tree()


class TestTreeOfOneToken(TestTree):
    options = {"token": 0, "depth": 1, "max_rows": 5}

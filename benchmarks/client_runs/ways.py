"""The lines of code that run a bundle in a client or runtime: through this package, and without it."""

from __future__ import annotations

from dataclasses import dataclass

from cos_export.clients import CLIENTS

__all__ = ["WAYS", "Line", "Way"]


@dataclass(frozen=True)
class Line:
    """Two lines of code, which the process executes as they stand.

    Attributes:
        imports: What is imported before.
        first: The line that loads.
        second: The line that runs.
        each_step: Whether the second runs one step, and is run once for each.
        each_image: Whether the second runs one image.
    """

    imports: str
    first: str
    second: str
    each_step: bool = False
    each_image: bool = False


@dataclass(frozen=True)
class Way:
    """A client or runtime.

    Attributes:
        name: As in the table.
        package: Whose version is told.
        where: "here", "clients" (their environment) or "spyx" (where that is installed).
        through: With this package.
        own: With what it has of its own, or with its defaults; None if it has nothing.
        numerics: What it runs through this package.
        alone: What is said in the place of `own` where it has nothing.
    """

    name: str
    package: str
    where: str
    through: Line
    own: Line | None = None
    numerics: tuple[str, ...] = ("float32", "int8")
    alone: str = ""


_LOAD = "from cos_export.clients import load"
_TARGET = "import cos_export; from targets import get"
_OWN = {
    "sinabs": Line(
        "import nir, sinabs, sinabs.nir",
        'network = sinabs.nir.from_nir(nir.read("out/digits/model.nir"), batch_size=len(images))',
        "outputs, state = network(images.repeat_interleave(steps, 0))",
    ),
    "snntorch": Line(
        "import nir; from snntorch.import_nir import import_from_nir",
        'network = import_from_nir(nir.read("out/digits/model.nir"))',
        "outputs, state = network(images, state)",
        each_step=True,
    ),
    "norse": Line(
        "import nir, norse.torch",
        'network = norse.torch.from_nir(nir.read("out/digits/model.nir"))',
        "outputs, state = network(images, state)",
        each_step=True,
    ),
    "spikingjelly": Line(
        "from spikingjelly.activation_based.nir_exchange import import_from_nir",
        'network = import_from_nir("out/digits/model.nir", dt=1.0)',
        "outputs, state = network(images, state)",
        each_step=True,
    ),
}

_SESSION = Line(
    "import onnxruntime",
    'session = onnxruntime.InferenceSession("out/digits/model.onnx")',
    'outputs = session.run(None, {"images": images})',
)

WAYS: tuple[Way, ...] = (
    Way(
        "pytorch",
        "torch",
        "here",
        Line(
            "import cos_export",
            'network = cos_export.read_nir("out/digits/model.nir")',
            "trace = cos_export.simulate(network, images, steps)",
        ),
    ),
    Way("onnxruntime", "onnxruntime", "here", _SESSION, alone="the same lines"),
    Way(
        "openvino",
        "openvino",
        "here",
        Line(
            "import openvino",
            'model = openvino.Core().compile_model("out/digits/model.onnx", "CPU", {"INFERENCE_PRECISION_HINT": "f32", '
            '"EXECUTION_MODE_HINT": "ACCURACY"})',
            "outputs = list(model([images]).values())",
        ),
        Line(
            "import openvino",
            'model = openvino.Core().compile_model("out/digits/model.onnx", "CPU")',
            "outputs = list(model([images]).values())",
        ),
    ),
    Way(
        "lava",
        "lava-nc",
        "here",
        Line(
            _TARGET,
            'bundle = cos_export.load("out/digits")',
            'trace = get("lava").run(bundle, images, steps)',
        ),
        alone="no importer",
    ),
    Way(
        "c",
        "",
        "here",
        Line(_TARGET, 'bundle = cos_export.load("out/digits")', 'trace = get("c").run(bundle, images, steps)'),
        numerics=("int8",),
    ),
    *(
        Way(
            client,
            client,
            "clients",
            Line(_LOAD, f'network = load("out/digits/model.nir", client="{client}")', "logits = network(images)"),
            _OWN[client],
        )
        for client in CLIENTS
    ),
    Way(
        "nengo",
        "nengo",
        "clients",
        Line(
            "from cos_export.clients.nir_graph import read_graph; from nengo_model import run",
            'graph = read_graph("out/digits/model.nir")',
            "spikes, outputs = run(graph, image, steps)",
            each_image=True,
        ),
        alone="no importer",
    ),
    Way(
        "spyx",
        "spyx",
        "spyx",
        Line(
            "from cos_export.clients.nir_graph import read_graph; from spyx_model import run",
            'graph = read_graph("out/digits/model.nir")',
            "spikes, logits = run(graph, images, steps)",
        ),
        Line(
            "import jax.numpy, nir, spyx.nir",
            'graph = nir.read("out/digits/model.nir")',
            "network, outputs = spyx.nir.from_nir(graph, jax.numpy.stack([images.transpose(0, 2, 3, 1)] * steps))",
        ),
    ),
)

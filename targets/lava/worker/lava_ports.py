"""Lava processes whose ports are known only when a network is built.

Lava wants a model to declare exactly the ports that its process has, with their type, and finds it in the
process's module. So each number of ports has classes of its own, made when they are first needed.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from lava.magma.core.model.py.model import PyLoihiProcessModel

Process = TypeVar("Process")

__all__ = ["with_ports"]


def with_ports(
    process: type[Process],
    model: type[PyLoihiProcessModel],
    inputs: Sequence[str],
    outputs: Sequence[str],
    dtype: Any,
) -> type[Process]:
    """A subclass of `process`, implemented by a subclass of `model` that declares its ports.

    Args:
        process: A process that makes these ports when it is made.
        model: Its model, which implements no process itself.
        inputs: The InPorts; one more or less makes another class.
        outputs: The OutPorts.
        dtype: Of what all of them carry.
    """
    from lava.magma.core.decorator import implements, requires, tag
    from lava.magma.core.model.py.ports import PyInPort, PyOutPort
    from lava.magma.core.model.py.type import LavaPyType
    from lava.magma.core.resources import CPU
    from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol

    module = vars(sys.modules[process.__module__])
    name = f"{process.__name__}With{len(inputs)}Ports"
    if name not in module:
        place = {"__module__": process.__module__}
        made = type(name, (process,), dict(place))
        ports = {port: LavaPyType(PyInPort.VEC_DENSE, dtype) for port in inputs}
        ports |= {port: LavaPyType(PyOutPort.VEC_DENSE, dtype) for port in outputs}
        model_name = f"{model.__name__}With{len(inputs)}Ports"
        marked = tag("floating_pt", "fixed_pt")(type(model_name, (model,), {**place, **ports}))
        module[model_name] = implements(proc=made, protocol=LoihiProtocol)(requires(CPU)(marked))
        module[name] = made
    ported: type[Process] = module[name]
    return ported

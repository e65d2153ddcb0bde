"""The environment of the clients: one for all of them, for they get along, and PyTorch is large.

They do not get along with this package: sinabs pins nir to 1.0.4, and pip would take an older
sinabs rather than say so.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cos_export.clients import Client
from targets.workers.software import Package, Software

__all__ = ["CLIENTS_SOFTWARE", "TORCH"]

TORCH = Package("torch", "2.13.0")

_VERSIONS: Mapping[Client, tuple[str, str]] = {
    "sinabs": ("sinabs", "3.1.3"),
    "snntorch": ("snnTorch", "1.0.0"),
    "norse": ("norse", "1.1.0"),
    "spikingjelly": ("SpikingJelly", "2.0.0"),
}

CLIENTS_SOFTWARE: Mapping[str, Software] = {
    client: Software(
        name=client,
        title=title,
        folder="clients",
        variable="COS_EXPORT_CLIENTS_ENV",
        packages=(Package(client, version),),
        program=Path(__file__).parent / "worker",
    )
    for client, (title, version) in _VERSIONS.items()
}
"""By client: what it is called and which version is run. All have the same environment."""

"""How a turn of stacked members is run: eagerly, or on a GPU compiled and captured in a graph."""

import torch

from cgan_core import philox
from cgan_core.device_draws import DeviceDraws
from cgan_core.host_draws import Places
from cgan_core.lanes import Lanes

WARM_UP = 3  # turns of no active member, which move nothing


class TurnRunner:
    """Runs turns of lanes in the quickest way that works, and says which that is.

    On a GPU a turn is some hundred small kernels, so it is captured once and replayed. PyTorch's
    rules for that (documentation of `torch.cuda.graphs`) and how they are kept: inputs have fixed
    addresses (steps, seeds, rates, masks of lanes and epochs are written in place); the same work
    has been run on a side stream before; nothing in a turn waits for the device or draws from a
    generator on the host; and what the graph allocates stays in a pool of its own. Where a unit
    is dropped decides which kernels there are, so each set of places has a graph.

    Args:
        lanes: whose turns.
        eager: whether to do without.
    """

    def __init__(self, lanes: Lanes, *, eager: bool) -> None:
        self._lanes, self._eager = lanes, eager
        self._quickened, self._kernels = False, ""
        self._graph: torch.cuda.CUDAGraph | None = None
        self._places: Places | None = None
        self.execution = "eager"

    def ready(self) -> None:
        """Prepares for turns of the members that are in the lanes now; leaves none active."""
        if self._eager or self._places == self._lanes.places:
            return
        self._lanes.activate([])
        if not self._quickened:
            self._quicken()
        self._places, self._graph = self._lanes.places, None
        try:
            self._graph = self._captured()
            self.execution = f"graph, {self._kernels}"
        except RuntimeError as error:  # what a capture may not do, or memory
            self.wait()
            self._eager, self._graph = True, None
            self.execution = f"eager, {self._kernels} (no graph: {_first_line(error)})"

    def run(self) -> None:
        """Runs a turn, or queues it on the device."""
        if self._graph is None:
            self._lanes.turn()
        else:
            self._graph.replay()

    def wait(self) -> None:
        """Waits until all turns are made."""
        if self._lanes.device.type == "cuda":
            torch.cuda.synchronize(self._lanes.device)

    def _quicken(self) -> None:
        """Compiles what would be many passes over memory, unless this machine cannot."""
        lanes, draws = self._lanes, self._lanes.draws
        plain = lanes.update
        lanes.update = torch.compile(plain, dynamic=True)
        if isinstance(draws, DeviceDraws):
            draws.keep_masks = torch.compile(philox.keep_masks, dynamic=True)
        self._quickened, self._kernels = True, "compiled"
        try:
            lanes.turn()
        except Exception as error:  # of Triton or a C compiler that is missing, of any class
            lanes.update = plain
            if isinstance(draws, DeviceDraws):
                draws.keep_masks = philox.keep_masks
            self._kernels = f"not compiled ({_first_line(error)})"

    def _captured(self) -> torch.cuda.CUDAGraph:
        device = self._lanes.device
        with torch.cuda.device(device):
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(WARM_UP):
                    self._lanes.turn()
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            # Threads that write checkpoints meanwhile may do on the device what they like.
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                self._lanes.turn()
        return graph


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"

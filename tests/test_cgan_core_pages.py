import torch
from torch import nn

from cgan_core.pages import ALIGNMENT, gather, zeros


def test_tensors_of_a_block_are_zero_aligned_and_apart() -> None:
    shapes = [torch.Size(shape) for shape in [(3, 5), (), (7,), (2, 3, 4)]]
    tensors = zeros(shapes)
    assert [tensor.shape for tensor in tensors] == shapes
    assert not any(tensor.any() for tensor in tensors)
    first = tensors[0].data_ptr()
    assert all((tensor.data_ptr() - first) % (4 * ALIGNMENT) == 0 for tensor in tensors)
    for number, tensor in enumerate(tensors):
        tensor.fill_(number)
    assert [set(tensor.flatten().tolist()) for tensor in tensors] == [{0.0}, {1.0}, {2.0}, {3.0}]


def test_no_shapes_need_no_memory() -> None:
    assert zeros([]) == []


def test_a_gathered_network_is_the_same_network() -> None:
    network = nn.Linear(4, 3)
    x, before = torch.rand(5, 4), {k: v.clone() for k, v in network.state_dict().items()}
    y = network(x)
    parameters = list(network.parameters())
    gather(network)
    assert all(a is b for a, b in zip(parameters, network.parameters(), strict=True))
    assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())
    assert torch.equal(network(x), y)

import torch
from torch.nn import functional as F


def proximal_step(layer, step):
    """Group sparsity: each neuron shorter by the step; zero if it was no longer."""
    weight, bias = layer.weight.data, layer.bias.data
    norms = torch.hypot(torch.linalg.vector_norm(weight, dim=tuple(range(1, weight.dim()))), bias)
    factors = torch.where(norms <= step, 0, 1 - step / norms)
    weight *= factors.view(-1, *[1] * (weight.dim() - 1))
    bias *= factors


def train(network, batches, hidden, learning_rate, tau):
    optimizer = torch.optim.SGD(network.parameters(), learning_rate, momentum=0.9)
    for images, labels in batches:
        optimizer.zero_grad()
        F.cross_entropy(network(images), labels).backward()
        optimizer.step()  # forward: the loss
        for layer in hidden:
            proximal_step(layer, learning_rate * tau)  # backward: the constraint
            dead = (layer.weight.data.flatten(1) == 0).all(1) & (layer.bias.data == 0)
            for parameter in (layer.weight, layer.bias):
                optimizer.state[parameter]["momentum_buffer"][dead] = 0

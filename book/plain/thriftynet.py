import torch
from torch import nn
from torch.nn import functional as F


class PlainThriftyNet(nn.Module):
    def __init__(self, f=64, T=20, h=5, classes=10):
        super().__init__()
        self.f, self.T, self.h = f, T, h
        depthwise = nn.Conv2d(f, f, 3, padding=1, groups=f, bias=False)
        self.W = nn.Sequential(depthwise, nn.Conv2d(f, f, 1, bias=False))  # the only convolution
        self.BN = nn.ModuleList(nn.BatchNorm2d(f) for t in range(T))
        self.alpha = nn.Parameter(torch.tensor([[0.1, 0.9] + [0.0] * (h - 1)]).repeat(T, 1))
        self.head = nn.Linear(f, classes)

    def forward(self, image):
        states = [F.pad(image, (0, 0, 0, 0, 0, self.f - image.shape[1]))]  # x_0, padded with zero channels
        for t in range(self.T):
            mixed = self.alpha[t, 0] * torch.tanh(self.W(states[-1]))
            for i, state in enumerate(states, start=self.h + 1 - len(states)):
                mixed = mixed + self.alpha[t, i] * state
            states = [*states, self.BN[t](mixed)][-self.h :]
            if (t + 1) % (self.T // 5) == 0:  # D_t
                states = [F.max_pool2d(state, 2) for state in states]
        return self.head(states[-1].amax((2, 3)))

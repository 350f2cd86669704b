from torch import nn
from torch.nn import functional as F


class PlainDacnn18(nn.Module):
    def __init__(self, channels=128, classes=100):
        super().__init__()
        self.first = nn.Conv2d(3, channels, 3, padding=1, bias=False)
        self.W = nn.Conv2d(channels, channels, 3, padding=1, bias=False)  # of all 16 other layers
        self.BN = nn.ModuleList(nn.BatchNorm2d(channels) for use in range(17))
        self.head = nn.Linear(channels, classes)

    def forward(self, x):
        x = F.relu(self.BN[0](self.first(x)))
        for k in range(1, 17, 2):  # eight residual blocks, two in each stage
            y = F.relu(self.BN[k](self.W(x)))
            x = F.relu(self.BN[k + 1](self.W(y)) + x)
            if k % 4 == 3:
                x = F.max_pool2d(x, 2)
        return self.head(x.mean((2, 3)))

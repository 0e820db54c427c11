"""A network of a user's own, with everything that networks in use have: convolutions called as functions, attention."""

import math

import torch
import torch.nn.functional as F
from torch import nn


class Squeeze(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.down, self.up = nn.Conv2d(channels, channels // 4, 1), nn.Conv2d(channels // 4, channels, 1)

    def forward(self, x):
        return x * torch.sigmoid(self.up(F.relu(self.down(F.adaptive_avg_pool2d(x, 1)))))


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, act=nn.Hardswish):
        super().__init__()
        wide = 2 * inputs
        self.expand, self.norm1 = nn.Conv2d(inputs, wide, 1, bias=False), nn.BatchNorm2d(wide)
        self.depthwise = nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False)
        self.norm2, self.squeeze = nn.BatchNorm2d(wide), Squeeze(wide)
        self.project, self.norm3 = nn.Conv2d(wide, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
        self.act, self.adds = act(), stride == 1 and inputs == outputs

    def forward(self, x):
        y = self.act(self.norm2(self.depthwise(self.act(self.norm1(self.expand(x))))))
        y = self.norm3(self.project(self.squeeze(y)))
        return x + y if self.adds else y


class Net(nn.Module):
    def __init__(self, channels: int = 1, classes: int = 10, width: int = 16):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.one, self.two = Block(width, width, 1), Block(width, 2 * width, 2)
        self.mix = nn.Parameter(torch.randn(2 * width, 2 * width, 3, 3) / math.sqrt(18 * width))
        self.layer_norm = nn.LayerNorm(2 * width)
        self.attention = nn.MultiheadAttention(2 * width, 4, batch_first=True)
        self.head = nn.Linear(2 * width, classes)

    def forward(self, x):
        x = self.two(self.one(F.relu(self.norm(self.stem(x)))))
        x = x + F.relu(F.conv2d(x, self.mix, padding=1))
        tokens = self.layer_norm(x.flatten(2).transpose(1, 2))
        tokens = tokens + self.attention(tokens, tokens, tokens, need_weights=False)[0]
        return self.head(tokens.mean(1))

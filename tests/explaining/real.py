"""Networks that others trained, rebuilt in plain PyTorch for the weights that `scripts/models.sh` fetches."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

import aiaas_sdk as aiaas
from tests.peers import ROOT, weights

DATA = ROOT / "tests" / "data"


def golden(name: str) -> dict[str, np.ndarray]:
    with np.load(DATA / f"{name}.npz", allow_pickle=False) as file:
        return dict(file)


class Plain(nn.Module):
    config: dict[str, Any] = {}  # noqa: RUF012


@aiaas.architecture("explained-crepe")
class Crepe(Plain):
    """Pitch: frames (B, 1024) at 16 kHz, each of mean 0 and deviation 1, to 360 bins of 20 cents."""

    def __init__(self) -> None:
        super().__init__()
        channels = (1, 128, 16, 16, 16, 32, 64)
        for place in range(6):
            high, step = (512, 4) if place == 0 else (64, 1)
            layer = nn.Conv2d(channels[place], channels[place + 1], (high, 1), (step, 1))
            setattr(self, f"conv{place + 1}", layer)
            setattr(self, f"conv{place + 1}_BN", nn.BatchNorm2d(channels[place + 1], eps=0.0010000000474974513))
        self.classifier = nn.Linear(256, 360)

    def forward(self, frames: Any) -> Any:
        x = frames[:, None, :, None]
        for place in range(1, 7):
            x = functional.pad(x, (0, 0, 254, 254) if place == 1 else (0, 0, 31, 32))
            x = getattr(self, f"conv{place}_BN")(torch.relu(getattr(self, f"conv{place}")(x)))
            x = functional.max_pool2d(x, (2, 1))
        return torch.sigmoid(self.classifier(x.permute(0, 2, 1, 3).flatten(1)))


@aiaas.architecture("explained-onet")
class Onet(Plain):
    """Faces, 48 x 48: where in the picture, five points of it, and whether it is one."""

    def __init__(self) -> None:
        super().__init__()
        for place, (before, after, size) in enumerate(((3, 32, 3), (32, 64, 3), (64, 64, 3), (64, 128, 2)), 1):
            setattr(self, f"conv{place}", nn.Conv2d(before, after, size))
            setattr(self, f"prelu{place}", nn.PReLU(after))
        self.dense5, self.prelu5 = nn.Linear(1152, 256), nn.PReLU(256)
        self.dense6_1, self.dense6_2, self.dense6_3 = nn.Linear(256, 2), nn.Linear(256, 4), nn.Linear(256, 10)

    def forward(self, image: Any) -> dict[str, Any]:
        x = functional.max_pool2d(self.prelu1(self.conv1(image)), 3, 2, ceil_mode=True)
        x = functional.max_pool2d(self.prelu2(self.conv2(x)), 3, 2, ceil_mode=True)
        x = functional.max_pool2d(self.prelu3(self.conv3(x)), 2, 2, ceil_mode=True)
        x = self.prelu4(self.conv4(x)).permute(0, 3, 2, 1).flatten(1)
        x = self.prelu5(self.dense5(x))
        prob = torch.softmax(self.dense6_1(x), 1)
        return {"box": self.dense6_2(x), "points": self.dense6_3(x), "prob": prob}


@aiaas.architecture("explained-pnet")
class Pnet(Plain):
    """Faces anywhere in a picture of any size: maps of where, and of whether."""

    def __init__(self) -> None:
        super().__init__()
        for place, (before, after) in enumerate(((3, 10), (10, 16), (16, 32)), 1):
            setattr(self, f"conv{place}", nn.Conv2d(before, after, 3))
            setattr(self, f"prelu{place}", nn.PReLU(after))
        self.conv4_1, self.conv4_2 = nn.Conv2d(32, 2, 1), nn.Conv2d(32, 4, 1)

    def forward(self, image: Any) -> dict[str, Any]:
        x = functional.max_pool2d(self.prelu1(self.conv1(image)), 2, 2, ceil_mode=True)
        x = self.prelu3(self.conv3(self.prelu2(self.conv2(x))))
        prob = torch.softmax(self.conv4_1(x), 1)
        return {"box": self.conv4_2(x), "prob": prob}


@aiaas.architecture("explained-silero")
class Silero(Plain):
    """Speech or not: 64 samples from before and 512 new ones at 16 kHz, and the state (h and c, B, 128) so far."""

    def __init__(self) -> None:
        super().__init__()
        self.stft_conv = nn.Conv1d(1, 258, 256, 128, bias=False)
        for place, (before, after, step) in enumerate(((129, 128, 1), (128, 64, 2), (64, 64, 2), (64, 128, 1)), 1):
            setattr(self, f"conv{place}", nn.Conv1d(before, after, 3, step, 1))
        self.lstm_cell, self.final_conv = nn.LSTMCell(128, 128), nn.Conv1d(128, 1, 1)

    def forward(self, x: Any, state: Any) -> dict[str, Any]:
        waves = self.stft_conv(functional.pad(x[:, None], (0, 64), mode="reflect"))
        found = torch.sqrt(waves[:, :129] ** 2 + waves[:, 129:] ** 2)
        for place in range(1, 5):
            found = torch.relu(getattr(self, f"conv{place}")(found))
        h, c = self.lstm_cell(found[:, :, 0], (state[0], state[1]))
        speech = torch.sigmoid(self.final_conv(torch.relu(h)[:, :, None]))[:, :, 0]
        return {"speech": speech, "next_state": torch.stack((h, c))}


@aiaas.architecture("explained-voice")
class Voice(Plain):
    """A speaker as a vector: mel bands (B, T, 40) to 256 numbers of length 1."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.linear = nn.LSTM(40, 256, 3, batch_first=True), nn.Linear(256, 256)

    def forward(self, mel: Any) -> Any:
        found = torch.relu(self.linear(self.lstm(mel)[1][0][-1]))
        return found / found.norm(dim=1, keepdim=True)


@aiaas.architecture("explained-g2p")
class Sounds(Plain):
    """From spelling to sounds: letters (B, L), and the sounds so far (B, M), to the next of 74 (B, M, 74)."""

    def __init__(self) -> None:
        super().__init__()
        self.enc_emb, self.dec_emb = nn.Embedding(29, 256), nn.Embedding(74, 256)
        self.enc, self.dec = nn.GRU(256, 256, batch_first=True), nn.GRU(256, 256, batch_first=True)
        self.fc = nn.Linear(256, 74)

    def forward(self, letters: Any, sounds: Any) -> Any:
        return self.fc(self.dec(self.dec_emb(sounds), self.enc(self.enc_emb(letters))[1])[0])


# ---------------------------------------------------------------- with their weights
def crepe() -> Crepe:
    return _filled(Crepe(), _pickled(weights("crepe") / "tiny.pth"))


def onet() -> Onet:
    return _filled(Onet(), _pickled(weights("mtcnn") / "onet.pt"))


def pnet() -> Pnet:
    return _filled(Pnet(), _pickled(weights("mtcnn") / "pnet.pt"))


def silero() -> Silero:
    return _filled(Silero(), load_file(weights("silero") / "silero_vad_16k.safetensors"))


def voice() -> Voice:
    state = _pickled(weights("voice") / "pretrained.pt")["model_state"]
    return _filled(Voice(), {key: value for key, value in state.items() if not key.startswith("similarity")})


def sounds() -> Sounds:
    with np.load(weights("g2p") / "checkpoint20.npz", allow_pickle=False) as given:
        state = {f"{name}.weight": given[name] for name in ("enc_emb", "dec_emb")}
        state |= {"fc.weight": given["fc_w"], "fc.bias": given["fc_b"]}
        for part in ("enc", "dec"):
            state |= {f"{part}.weight_{kind}_l0": given[f"{part}_w_{kind}"] for kind in ("ih", "hh")}
            state |= {f"{part}.bias_{kind}_l0": given[f"{part}_b_{kind}"] for kind in ("ih", "hh")}
    return _filled(Sounds(), {key: torch.from_numpy(value) for key, value in state.items()})


def _pickled(path: Path) -> Any:
    return torch.load(path, weights_only=True, map_location="cpu")


def _filled(module: Any, state: Mapping[str, Any]) -> Any:
    module.load_state_dict(state)
    return module.eval()

"""Claim: what a language model loses on crossbars, what training on the chip wins back, and on which layers it hangs.

Model: a causal transformer on bytes (4 blocks of width 128, 4 heads, 128 bytes of context, 0.9 million parameters),
trained here on the source of Python's standard library, which every machine that runs this has (PSF licence; the
version is in the result). Of its modules, in the order of their names, every tenth is held out to choose by, and the
next one to measure on; test text is looked at once. Chip: rram-22nm with programming error of --sigma, at 8, 6 and 5
ADC bits, offset columns and pairs, ranges of each slice and digit, with and without training on the chip; --chips
programmed chips. Perplexity is per byte. Products of queries, keys and values stay digital.

    python experiments/language_model.py            # goes on where it was interrupted
"""

import argparse
import hashlib
import itertools
import math
import platform
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

import bitline
from bitline.files import read_json, write_json
from bitline.train.hardware import describe, git_commit

RESULT = Path(__file__).parent / "results" / "language_model.json"
WEIGHTS = Path(__file__).parent / "data" / "bytes_lm.safetensors"
WIDTH, BLOCKS, HEADS, CONTEXT, BATCH = 128, 4, 4, 128, 32
STEPS, TUNED_STEPS, RATE, TUNED_RATE = 2500, 300, 3e-3, 3e-4
BITS = (8, 6, 5)
ENCODINGS = {"offset": "weights.encoding={kind='offset'}", "pair": "weights.encoding={kind='pair'}"}


class Attention(nn.Module):
    """Causal attention; its four projections are layers, the products of what they give are not."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, length, width) to the same."""
        q, k, v = (each(x).unflatten(-1, (HEADS, -1)).transpose(1, 2) for each in (self.query, self.key, self.value))
        return self.out(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Attention, then a perceptron of one hidden layer, each added to what it read."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.attention, self.norm2 = nn.LayerNorm(WIDTH), Attention(), nn.LayerNorm(WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, length, width) to the same."""
        x = x + self.attention(self.norm1(x))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class LanguageModel(nn.Module):
    """Scores of the next byte at every place, (batch, length) int64 to (batch, length, 256)."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes, self.places = nn.Embedding(256, WIDTH), nn.Embedding(CONTEXT, WIDTH)
        self.blocks, self.norm = nn.Sequential(*(Block() for _ in range(BLOCKS))), nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, 256)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Score."""
        return self.head(self.norm(self.blocks(self.bytes(x) + self.places.weight[: x.shape[1]])))


class Text:
    """Bytes of the standard library: to train on, to choose by, and to measure on."""

    def __init__(self) -> None:
        folder = Path(sysconfig.get_path("stdlib"))
        modules = [path for path in sorted(folder.rglob("*.py")) if not _foreign(path.relative_to(folder))]
        parts: list[list[bytes]] = [[], [], []]
        for number, path in enumerate(modules):
            parts[{8: 1, 9: 2}.get(number % 10, 0)].append(path.read_bytes())
        joined = [b"".join(part) for part in parts]
        self.hash = hashlib.sha256(b"".join(joined)).hexdigest()
        self.train, self.validation, self.test = (
            torch.frombuffer(bytearray(part), dtype=torch.uint8) for part in joined
        )

    def batch(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw a batch to train on: bytes, and those that follow."""
        starts = torch.randint(0, len(self.train) - CONTEXT - 1, (BATCH, 1), generator=generator)
        rows = self.train[starts + torch.arange(CONTEXT + 1)].long()
        return rows[:, :-1], rows[:, 1:]


def windows(text: Tensor, count: int) -> list[tuple[Tensor, Tensor]]:
    """Cut so many windows, evenly over a text, into batches of 32."""
    starts = torch.linspace(0, len(text) - CONTEXT - 1, count).long()[:, None]
    rows = text[starts + torch.arange(CONTEXT + 1)].long()
    return [(part[:, :-1], part[:, 1:]) for part in rows.split(32)]


def _foreign(path: Path) -> bool:
    """Whether a module is no part of the library itself: installed packages, tests, generated tables."""
    return bool({"site-packages", "test", "tests", "idlelib", "lib2to3", "pydoc_data", "encodings"} & set(path.parts))


def trained(model: nn.Module, text: Text, steps: int, rate: float, seed: int) -> Iterator[int]:
    """Train on random windows, cosine to zero after a short warm-up; gives the number of each step."""
    generator = torch.Generator().manual_seed(seed)
    matrices = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.95))
    warm = max(1, steps // 25)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda n: min((n + 1) / warm, 0.5 + 0.5 * math.cos(math.pi * n / steps))
    )
    for step in range(steps):
        yield step
        x, y = text.batch(generator)
        with torch.autocast("cpu", torch.bfloat16):
            scores = model(x)
        loss = F.cross_entropy(scores.float().flatten(0, 1), y.flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 0:
            print(f"step {step}/{steps}: loss {loss.item():.3f}", flush=True)


def tuned(model: nn.Module, chip: bitline.Chip, text: Text) -> nn.Module:
    """Train on the chip, a chip of other errors at every step; returns the plain network with the weights found."""
    converted, _ = bitline.to_crossbar(model, chip, example=text.validation[None, :CONTEXT].long())
    bitline.calibrate(converted, windows(text.train, 64))
    for step in trained(converted.train(), text, TUNED_STEPS, TUNED_RATE, seed=1):
        bitline.program(converted, 10_000 + step)
    state = {key: value for key, value in converted.state_dict().items() if key in model.state_dict()}
    new = LanguageModel().eval()
    new.load_state_dict(state)
    return new


def measured(model: nn.Module, chip: bitline.Chip, text: Text, args: argparse.Namespace) -> dict[str, Any]:
    """Perplexity of programmed chips on the test text, and of the network itself."""
    found = bitline.evaluate(
        model,
        chip,
        windows(text.test, args.windows),
        calibration=windows(text.train, 64),
        metric="perplexity",
        chips=args.chips,
        cause_chips=1,
        data_name="Python's standard library",
    )
    return {
        "float": found.accuracy.float,
        "ideal": found.accuracy.ideal_integer,
        "chips": list(found.accuracy.chips),
        "energy_J": found.cost.energy_J,
        "digital_share": sum(each.macs for each in found.digital) / found.cost.macs,
    }


def chip_of(encoding: str, bits: int, sigma: float) -> bitline.Chip:
    """The chip of a row."""
    return bitline.load_chip(
        "rram-22nm", [encoding, f"adc.bits={bits}", f"cell.programming={{kind='lognormal', sigma={sigma}}}"]
    )


def main() -> None:
    """Measure what the result does not have yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chips", type=int, default=5)
    parser.add_argument("--windows", type=int, default=128, help="of 128 bytes, of the test text")
    parser.add_argument("--sigma", type=float, default=0.05)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    text = Text()
    result: dict[str, Any] = read_json(RESULT) if RESULT.is_file() else {}
    result |= {
        "text": f"standard library of Python {platform.python_version()}, sha256 {text.hash}",
        "bytes": {"train": len(text.train), "validation": len(text.validation), "test": len(text.test)},
        "sigma": args.sigma,
        "windows": args.windows,
        "commit": git_commit(),
        "hardware": describe(),
    }
    model = LanguageModel()
    if WEIGHTS.is_file():
        model.load_state_dict({key: value.float() for key, value in load_file(WEIGHTS).items()})
    else:
        torch.manual_seed(0)
        model, began = LanguageModel(), time.process_time()
        for _ in trained(model, text, STEPS, RATE, seed=0):
            pass
        WEIGHTS.parent.mkdir(parents=True, exist_ok=True)
        save_file({key: value.bfloat16().contiguous() for key, value in model.state_dict().items()}, WEIGHTS)
        model.load_state_dict({key: value.float() for key, value in load_file(WEIGHTS).items()})
        result["training_cpu_s"] = time.process_time() - began
    model.eval()
    if "sensitivity" not in result:
        chip = chip_of(ENCODINGS["offset"], 6, args.sigma)
        result["sensitivity"] = bitline.sensitivity(model, chip, windows(text.validation, 64), chips=3)
        write_json(RESULT, result)
    for training, encoding, bits in itertools.product(("none", "on the chip"), ENCODINGS, BITS):
        key = f"{encoding}, {bits} bits, {training}"
        if key in result.get("rows", {}):
            continue
        chip = chip_of(ENCODINGS[encoding], bits, args.sigma)
        began = time.process_time()
        network = model if training == "none" else tuned(model, chip, text)
        row = measured(network, chip, text, args) | {"cpu_s": time.process_time() - began}
        result.setdefault("rows", {})[key] = row
        print(key, {k: v for k, v in row.items() if k != "chips"}, row["chips"], flush=True)
        write_json(RESULT, result)


if __name__ == "__main__":
    main()

"""Chip files: every number of a chip at and beyond its ends and in every wrong form, and files that are none.

To add a case: a line in `TEXTS` (a whole file), `OVERRIDES` (one key), or nothing, for a new number with a range.
"""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from fuzz_cases import Accepted, Outcome, Refused, Remarked, bitline, holds, label
from pydantic import BaseModel

from bitline.chip.description import Chip
from bitline.chip.files import source
from bitline.chip.plausible import Plausible, kinds_of, plausible, records_of

BASE = source("example-128")

# key=value for --set on example-128, and what comes of it
OVERRIDES: list[tuple[str, Outcome]] = [
    ("node=22", Refused('node = 22 has no unit; write "22 nm"')),
    ("node=22 m", Refused("did you mean 22 nm?")),
    ("node=22e-9", Refused('write "22 nm"')),
    ("node=1 fm", Refused("node = 1 fm is outside")),
    ("node=２２ nm", Refused("is not a number with a unit")),
    ("node=22 nm\n", Accepted()),
    ("node='22 nm\n'", Refused("is not a number with a unit")),
    ('node="22 nm\\n"', Refused("'22 nm\\n' is not a number with a unit")),
    ("node=1 um", Remarked("node = 1 um is unusual")),
    ("vdd=4.9 V", Remarked("vdd = 4.9 V is unusual")),
    ("vdd=1e9999999 V", Refused("is beyond what a number can be")),
    ("vdd=1e-9999999 V", Refused("is beyond what a number can be")),
    ("vdd=1e200", Refused("has no unit")),
    ("vdd=nan", Refused("vdd = nan has no unit")),
    ("vdd=inf V", Refused("is not a number with a unit")),
    ("vdd=", Refused("'' is not a number with a unit")),
    ("vdd=true", Refused("vdd = True: input should be a valid number")),
    ("vdd=[]", Refused("vdd = []")),
    ("vdd={}", Refused("vdd = {}")),
    (f"vdd={'1' * 5000}", Refused("is not in V")),
    (f"vdd=0x{'f' * 5000}", Refused("has no unit")),
    (f"vdd={'[' * 900}{']' * 900}", Refused("is not a number with a unit")),
    ("cell.g_max=50", Refused('write "50 uS"')),
    ("cell.g_max=50 S", Refused("did you mean 50 uS?")),
    ("cell.g_min=100 uS", Refused("must be less than g_max")),
    ("cell.g_min=99.9 uS", Refused("cannot be told apart")),
    ("cell.programming={kind='lognormal', sigma=10}", Refused("sigma = 10.0 is outside 0 to 2")),
    ("cell.programming={kind='lognormal', sigma=1}", Remarked("sigma = 1.0 is unusual")),
    ("cell.programming={kind='lognormal'}", Refused("sigma is missing")),
    ("cell.programming={kind='gaussian_absolute', sigma=1}", Refused('sigma = 1 has no unit; write "1 uS"')),
    ("cell.programming=lognormale", Refused("did you mean 'lognormal'")),
    ("cell.programming=3", Refused("cell.programming")),
    ("cell.programming={kind=3}", Refused("cell.programming")),
    ("cell.programming={kind=[]}", Refused("cell.programming")),
    ("cell.faults.stuck_off=0.9", Remarked("stuck_off = 0.9 is unusual")),
    ("cell.faults={stuck_off=0.6, stuck_on=0.6}", Refused("exceeds 1")),
    ("timing.read=100", Refused('write "100 ns"')),
    ("timing.read=100 s", Refused("did you mean 100 ns?")),
    ("timing.pulse=1 s", Refused("timing.pulse = 1 s is outside")),
    ("timing.read=5 ns", Refused("pulse = 10 ns exceeds read = 5 ns")),
    ("adc.sample_rate=1", Refused('write "1 GHz"')),
    ("adc.bits=17", Refused("adc.bits = 17")),
    ("adc.bits=6.0", Refused("adc.bits = 6.0: input should be a valid integer")),
    ("adc.bits=six", Refused("adc.bits = 'six'")),
    ("adc.bit=6", Refused("did you mean 'bits'?")),
    ("adc.policy=calibrate", Refused("did you mean 'calibrated'?")),
    ("adc={bits=6, policy='fixed', range={low=0, high=1}}", Refused('adc.range.high = 1 has no unit; write "1 mA"')),
    ("adc={bits=6, policy='fixed', range={low=0, high='1 fA'}}", Refused("is less than 1 pA")),
    ("adc={bits=6, policy='fixed', range={low='2 uA', high='1 uA'}}", Refused("must be less than high")),
    ("system.tiles=1000000000000", Refused("is outside 1 to 1048576")),
    ("system.hops=1e308", Refused("is outside 0 to 2048")),
    ("system.hops=inf", Refused("system.hops = inf: input should be a finite number")),
    ("system.hops=nan", Refused("system.hops = nan: input should be a finite number")),
    ("system.bus_bits=100000", Refused("is outside 1 to 65536")),
    ("crossbar.rows=1073741824", Refused("is outside 1 to 16384")),
    ("crossbar.cols=0", Refused("greater than or equal to 1")),
    ("weights.slices=33", Refused("weights.slices = 33 is outside")),
    ("weights.encoding=pairs", Refused("did you mean 'pair'?")),
    (f"name={'x' * 101}", Refused("name = 'xxxx")),
    ('name="two\\nlines"', Refused("string should match pattern")),
    ('name="\\u001b[31m"', Refused("string should match pattern")),
    ("name=[bold]x[/]", Accepted()),
    (f"about={'x' * 2001}", Refused("about = 'xxxx")),
    ("cost_table=", Refused("cost_table")),
    ("deviations=[1, 2]", Refused("deviations.0 = 1: input should be a valid string")),
    ("mitigation.verify=2", Refused("mitigation.verify = 2.0 is outside 0 to 1")),
    ("nonsense", Refused("is not KEY=VALUE")),
    ("=", Refused("is not KEY=VALUE")),
    ("..=1", Refused("is not KEY=VALUE")),
    ("a.b.c.d=1", Refused("unknown key a")),
    (f"{'a.' * 5000}a=1", Refused("unknown key a")),
    ("adc.bits.x=1", Refused("bits is a value, not a section")),
    ("name.x=1", Refused("name = {'kind': 'example-128', 'x': 1}: input should be a valid string")),
    ("cell=1", Refused("cell = 1")),
    ("__class__=1", Refused("unknown key __class__")),
    ("model_config=1", Refused("unknown key model_config")),
]

# whole files
TEXTS: dict[str, tuple[str | bytes, Outcome]] = {
    "as it ships": (BASE, Accepted()),
    "byte order mark": (b"\xef\xbb\xbf" + BASE.encode(), Accepted()),
    "windows lines": (BASE.replace("\n", "\r\n"), Accepted()),
    "empty": ("", Refused("name is missing")),
    "comment": ("# nothing\n", Refused("name is missing")),
    "no toml": ("name = \n", Refused("is not TOML")),
    "json": ('{"name": "x"}', Refused("is not TOML")),
    "twice": (BASE + "\n[cell]\nbits = 2\n", Refused("is not TOML")),
    "not text": (b"\xff\xfe\x00\x01", Refused("cannot read")),
    "zeros": (bytes(1000), Refused("is not TOML")),
    "utf-16": (BASE.encode("utf-16"), Refused("cannot read")),
    "deep list": ("x = " + "[" * 900 + "]" * 900, Refused("is nested too deeply")),
    "deep table": ("x = " + "{a = " * 900 + "1" + "}" * 900, Refused("is nested too deeply")),
    "deep key": ("a." * 5000 + "a = 1", Refused("name is missing")),
    "long integer": ("vdd = " + "1" * 5000, Refused("is not TOML: Exceeds the limit")),
    "long hexadecimal": (BASE.replace("bits = 6", "bits = 0x" + "f" * 5000), Refused("a number of about 6021 digits")),
    "ten megabytes": ('name = "' + "x" * 10**7 + '"', Refused("bytes; a chip file has 262144 at most")),
    "long name": (BASE.replace('"example-128"', '"' + "x" * 10**5 + '"'), Refused("name = 'xxx")),
    "long key": (BASE + "\n" + "x" * 10**5 + " = 1", Refused("unknown key timing.xxx")),
    "many keys": ("\n".join(f"key{i} = 1" for i in range(5000)), Refused("and ")),
    "many tables": ("\n".join(f"[t{i}]" for i in range(5000)), Refused("and ")),
    "many deviations": (BASE.replace("deviations = [", 'deviations = ["x", ' + '"x", ' * 200), Refused("at most 100")),
    "date": (BASE.replace('node = "32 nm"', "node = 2020-01-01"), Refused("node = datetime.date(2020, 1, 1)")),
    "bare numbers": (BASE.replace('"32 nm"', "32").replace('"1 V"', "1"), Refused("node = 32 has no unit")),
}


def numbers(model: type[BaseModel], where: str = "") -> Iterator[tuple[str, Plausible, bool]]:
    """Every number of a record that a preset has: key, range, and whether it is whole."""
    for key, field in model.model_fields.items():
        limits, below = plausible(field), records_of(field.annotation)
        for record in below:
            if not kinds_of(record):
                yield from numbers(record, f"{where}{key}.")
        if limits is not None and not below and where != "adc.range.":
            yield f"{where}{key}", limits, "int" in str(field.annotation)


def around(key: str, limits: Plausible, whole: bool) -> Iterator[tuple[str, Outcome]]:
    """Values of one number beyond its ends and in wrong forms."""

    def text(value: float) -> str:
        return f"{key}={value:.17g} {limits.unit}" if limits.unit else f"{key}={int(value) if whole else value}"

    yield text(limits.high * 1.001 + whole), Refused(f"{key} = ")
    yield text(limits.high * 1e6), Refused(f"{key} = ")
    yield text(limits.low / 1.001 - whole if limits.low > 0 else limits.low - 1), Refused(f"{key} = ")
    yield f"{key}=-5", Refused(key)
    yield f"{key}=inf", Refused(key)
    yield f"{key}=nan", Refused(key)
    yield f"{key}=true", Refused(f"{key} = True")
    yield f"{key}=text", Refused(key)
    yield f"{key}=[1]", Refused(key)
    yield f"{key}={{a=1}}", Refused(key)
    if limits.unit:
        yield f"{key}=3", Refused(f"{key} = 3 has no unit")
        yield f"{key}=3 xyz", Refused("is not in")
        yield f"{key}=3 {limits.unit} {limits.unit}", Refused("is not a number with a unit")


NUMBERS = [case for key, limits, whole in numbers(Chip) for case in around(key, limits, whole)]


def test_there_are_some_hundred_cases():
    assert len(NUMBERS) > 250
    assert len(OVERRIDES) + len(TEXTS) > 90


@pytest.mark.parametrize(("override", "expected"), [*OVERRIDES, *NUMBERS], ids=label)
def test_a_changed_key(override: str, expected: Outcome):
    holds(expected, "chips", "show", "example-128", "--json", "-", "--set", override)


@pytest.mark.parametrize("name", TEXTS)
def test_a_chip_file(tmp_path: Path, name: str):
    content, expected = TEXTS[name]
    file = tmp_path / "mine.toml"
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    holds(expected, "chips", "show", file, "--json", "-")


@pytest.mark.parametrize("place", ["/dev/null", "/", "/proc/self/mem", "x" * 5000, "nowhere.toml", "", "a\nb"])
def test_a_place_where_no_chip_is(place: str):
    holds(Refused("error: "), "chips", "check", place)


def test_any_byte_of_a_chip_file_may_be_wrong(tmp_path: Path):
    """One byte at a time: a chip, or one line."""
    draw, file = random.Random(0), tmp_path / "mine.toml"
    for _ in range(60):
        content = bytearray(BASE.encode())
        for _ in range(draw.randint(1, 3)):
            content[draw.randrange(len(content))] = draw.randrange(256)
        file.write_bytes(content)
        done = bitline("chips", "show", file, "--json", "-")
        assert done.status in (0, 1), content
        assert len(done.err.splitlines()) <= 21

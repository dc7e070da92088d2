"""What does one instruction cost as an object, and as a line of text, beside iced-x86 from Python?"""

import pytest

import hvcore as hv
from benchmarks.corpus import corpus
from benchmarks.measure import report, run_rounds, timed

ROUNDS = 7


def objects(code, offsets):
    decode_one = hv.decode_one
    for offset in offsets:
        decode_one(code, offset)


def iced_objects(iced_x86, code):
    for _ in iced_x86.Decoder(64, code):
        pass


def test_objects_and_text(benchmark, smoke):
    iced_x86 = pytest.importorskip("iced_x86")
    code = corpus(1 << 15, 1 << 15) if smoke else corpus(1 << 20)
    if not code:
        pytest.skip("no x86-64 programs to decode")
    offsets = [instruction.ip for instruction in iced_x86.Decoder(64, code)]
    count = len(offsets)
    table, instructions = hv.decode(code), list(iced_x86.Decoder(64, code))
    formatter = iced_x86.Formatter(iced_x86.FormatterSyntax.INTEL)
    measures = {
        "hvcore decode_one": lambda: timed(lambda: objects(code, offsets), count),
        "iced-x86 object": lambda: timed(lambda: iced_objects(iced_x86, code), count),
        "hvcore line of text": lambda: timed(lambda: hv.format(table), count),
        "iced-x86 line of text": lambda: timed(lambda: [formatter.format(one) for one in instructions], count),
    }
    report(benchmark, run_rounds(benchmark, measures, ROUNDS), "hvcore decode_one")

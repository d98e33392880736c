"""What a recorded result says of the machine that it was measured on."""

import platform

from benchmarks import machine


def test_a_record_says_which_instructions_int8_could_use(monkeypatch):
    facts = {"model name": "AMD EPYC", "flags": "fpu avx avx2 avx512f sha_ni"}
    monkeypatch.setattr(machine, "fact", lambda name: facts.get(name, ""))
    assert "(AMD EPYC, avx2, avx512f)" in machine.describe_machine()


def test_a_machine_that_does_not_say_what_it_is_goes_by_its_kind(monkeypatch):
    monkeypatch.setattr(machine, "fact", lambda _: "")
    assert f"({platform.machine()})" in machine.describe_machine()

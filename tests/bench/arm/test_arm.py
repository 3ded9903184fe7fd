"""Tests of the benchmark's pure parts: no emulator, no peer.

Run: python3 -m unittest discover tests/bench/arm
"""

import tempfile
import unittest
from pathlib import Path

import laps
import main
import table
from processors import DEFAULT, PROCESSORS, cpuinfo


def measured(family: str, name: str, instructions: int, differing: int = 0) -> dict:
    """A program's entry, all of whose multiplications are SDOT."""
    memory = {"simd_load_store": 3_000_000, "load_store": 1_000_000}
    counts = {"dot": instructions // 2, "mlal": 7, "all": instructions} | memory
    entry = {"name": name, "family": family, "counts": counts, "differing_bytes": differing}
    if family == "ours":
        entry["steps"] = [{"step": "a", "kernel": "k", "instructions": 1_500_000}]
    return entry


def results(ours: int) -> dict:
    """One processor with all programs."""
    programs = [
        measured("ours", "Roentgen", ours),
        measured("xnnpack", "XNNPACK", 200_000_000),
        measured("xnnpack", "XNNPACK, core unknown", 100_000_000),
        measured("tract", "tract", 400_000_000, 5),
    ]
    stages = [("weights", 9_000_000), ("input", 1_000_000), ("multiply", 2_000_000)]
    layers = {"neon": [{"layer": "a", "kernel": "F4", "stage": stage, "instructions": n} for stage, n in stages]}
    processor = {"name": "p", "stands_for": "boards", "bar": 0.6, "measured": programs, "layers": layers}
    return {"date": "2026-01-01", "model": "m", "versions": {"QEMU": "7"}, "processors": [processor]}


class Laps(unittest.TestCase):
    """Lines and counts."""

    def test_lines_are_paired_with_what_was_counted_before_them(self) -> None:
        counted = laps.parse("a\tx\ninference\n", "dot=1 all=2\ndot=3 all=4\ndot=0 all=1\n")
        self.assertEqual([(lap.line, lap.counts["all"]) for lap in counted], [("a\tx", 2), ("inference", 4)])

    def test_lines_that_were_not_flushed_one_by_one_are_an_error(self) -> None:
        with self.assertRaises(laps.Failed):
            laps.parse("a\nb\n", "all=2\nall=1\n")

    def test_the_last_inference_is_what_stands_between_its_line_and_the_one_before(self) -> None:
        lines = ["a", "inference", "a", "b", "inference"]
        counted = [laps.Lap(line, {"all": 10**index}) for index, line in enumerate(lines)]
        self.assertEqual(laps.total(laps.last_inference(counted)), {"all": 11100})
        with self.assertRaises(laps.Failed):
            laps.last_inference(counted[:3])


class Processors(unittest.TestCase):
    """What programs may know."""

    def test_a_core_is_named_by_the_fields_of_its_register(self) -> None:
        text = cpuinfo(0x414FD0B1, 2)
        self.assertEqual(text.count("processor\t"), 2)
        for line in ("implementer\t: 0x41", "variant\t: 0x4", "part\t: 0xd0b", "revision\t: 1"):
            self.assertIn(f"CPU {line}\n", text)

    def test_the_processors_of_a_plain_run_are_known(self) -> None:
        self.assertLessEqual(set(DEFAULT), {processor.name for processor in PROCESSORS})


class State(unittest.TestCase):
    """What is measured."""

    def test_outside_a_git_checkout_the_packages_version_stands_for_the_state(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "Cargo.toml").write_text('[package]\nname = "x"\nversion = "1.2.3"\n')
            self.assertEqual(main.described(Path(folder)), "1.2.3 (no git checkout)")


class Table(unittest.TestCase):
    """The page."""

    def test_ours_is_held_against_the_lesser_of_xnnpacks_figures(self) -> None:
        self.assertEqual(table.ratios(results(50_000_000)["processors"][0]), (0.5, 0.125))
        self.assertIn("| p (boards) | **0.50** (bar 0.60) | **0.12** (bar 0.30) |", table.markdown(results(50_000_000)))

    def test_a_missed_bar_and_bytes_that_differ_are_said(self) -> None:
        page = table.markdown(results(80_000_000))
        self.assertIn("**0.80** (bar 0.60, **missed**)", page)
        self.assertIn("| p | tract | 400 | 200 SDOT or UDOT | 4 | **5** |", page)

    def test_what_was_not_measured_is_said(self) -> None:
        alone = results(1_000_000)
        alone["processors"][0]["measured"] = alone["processors"][0]["measured"][:1]
        self.assertIn("| not measured | not measured |", table.markdown(alone))

    def test_steps_and_kernels_are_listed_and_weights_not_added(self) -> None:
        self.assertIn("| a | k | 1.5 |", table.steps(results(1)))
        self.assertIn("| a | F4 | weights 9.0, input 1.0, multiply 2.0 | 3.0 |", table.kernels(results(1)))


if __name__ == "__main__":
    unittest.main()

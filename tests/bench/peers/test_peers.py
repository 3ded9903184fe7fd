"""Tests of the benchmark's pure parts: no peer, no package, no timing.

Run: python3 -m unittest discover tests/bench/peers
"""

import os
import struct
import tempfile
import unittest
from pathlib import Path
from xml.etree import ElementTree

import bars
import ceiling
import contenders
import energy
import held
import machine
import ncnn_form
import plot
import summary
import table
from layers import Conv, Network, Pool


def tiny_network() -> Network:
    """Two convolutions, a pooling, a head; one weight short of a multiple of four bytes."""
    first = Conv("a", "image", "a", (3, 1, 3, 3), bytes(range(27)), (0.5, 0.25, 2.0), (4, -8, 0), 1.0, 2.0, 0)
    second = Conv("b", "a", "b", (4, 3, 3, 3), bytes(108), (1.0,) * 4, (0,) * 4, 2.0, 0.5, 0)
    head = Conv("head", "features", "evidence", (2, 4, 1, 1), bytes(8), (1.0, 0.5), (1, 2), 0.5, 0.1, 7)
    return Network(4, (first, second, Pool("pool", "b", "features"), head))


def sample(contender: str, threads: int, median: float, **more: object) -> dict:
    """What a process printed, and who it was."""
    fixed = {"contender": contender, "threads": threads, "median_ms": median, "min_ms": median - 1.0, "ours": False}
    return fixed | {"peak_rss_mb": 50.0, "cold_start_ms": 100.0} | more


SAMPLES = [
    sample("slow", 1, 90.0, differing_bytes=5, largest_difference=2, compared_bytes=99),
    sample("quick", 1, 50.0, differing_bytes=0),
    sample("quick", 1, 60.0, differing_bytes=0),
    sample("quick", 1, 40.0, differing_bytes=0),
    sample("mine", 1, 25.0, ours=True),
    sample("mine", 2, 10.0, ours=True, joules=0.5),
]


class Statistics(unittest.TestCase):
    def test_speed_is_against_the_best_peer_of_as_many_threads_by_medians(self) -> None:
        rows = summary.rows(SAMPLES, macs=10**9, ceilings={1: 100.0})
        self.assertEqual(
            [(row.name, row.threads) for row in rows], [("mine", 1), ("quick", 1), ("slow", 1), ("mine", 2)]
        )
        mine, quick, slow, alone = rows
        self.assertEqual((quick.median_ms, quick.min_ms, quick.processes), (50.0, 39.0, 3))
        self.assertEqual((mine.speed, quick.speed, alone.speed), (2.0, 1.0, None))
        self.assertAlmostEqual(slow.speed, 5 / 9)

    def test_the_share_of_the_ceiling_counts_all_threads(self) -> None:
        # 10^9 multiplications in 25 ms are 40 GMAC/s: of 100 a thread 40 % of one and 20 % of two.
        self.assertAlmostEqual(summary.share_of_ceiling(10**9, 25.0, 1, 100.0), 0.4)
        self.assertAlmostEqual(summary.share_of_ceiling(10**9, 25.0, 2, 100.0), 0.2)
        rows = summary.rows(SAMPLES, macs=10**9, ceilings={1: 100.0})
        self.assertAlmostEqual(rows[0].share, 0.4)
        self.assertIsNone(rows[3].share)

    def test_the_ceiling_is_the_highest_measured_and_the_fastest_exact_instruction(self) -> None:
        rates = ceiling.highest([{"vpdpbusd zmm": 200.0, "vpmaddwd+vpaddd ymm": 95.0}, {"vpdpbusd zmm": 233.0}])
        self.assertEqual(ceiling.int8(rates, avx2=False), ("vpdpbusd zmm", 233.0))
        self.assertEqual(ceiling.int8(rates, avx2=True), ("vpmaddwd+vpaddd ymm", 95.0))
        self.assertIsNone(ceiling.int8({}, avx2=False))

    def test_the_multiplications_follow_the_poolings(self) -> None:
        self.assertEqual(tiny_network().macs(), 16 * 27 + 16 * 108 + 4 * 8)


class Bars(unittest.TestCase):
    def rows(self, kernel: str = "avx512vnni") -> list[summary.Row]:
        def ours(options: str, threads: int, median: float, **more: object) -> dict:
            return sample("roentgend native" + options, threads, median, ours=True, kernel=kernel, **more)

        return summary.rows(
            [
                sample("exact", 1, 40.0, differing_bytes=0),
                sample("inexact", 1, 30.0, differing_bytes=3),
                sample("exact", 2, 20.0, differing_bytes=0),
                ours("", 1, 20.0, peak_rss_mb=75.0),
                ours("", 2, 12.5, peak_rss_mb=75.1),
                ours(" --direct-only", 1, 31.0),
                ours(" --cache", 2, 12.5, cold_start_ms=99.0),
                ours(" --kernel avx2", 1, 14.9),
            ],
            macs=10**9,
            ceilings={},
        )

    def test_every_figure_is_held_against_its_own_bar(self) -> None:
        found = {verdict.what: (verdict.found, verdict.met) for verdict in bars.verdicts(self.rows(), avx2=False)}
        self.assertEqual(found.pop("speed, direct only, 1 thread"), (30.0 / 31.0, False))  # 0.968, the bar is 0.98
        self.assertEqual(
            found,
            {
                "speed, 1 thread": (1.5, True),
                "speed, 2 threads": (1.6, False),
                "speed, direct only, 2 threads": (None, None),
                "scaling from 1 to 2 threads": (1.6, False),
                "cold start from packed weights, 2 threads": (99.0, True),
                "memory --memory small, 1 thread": (None, None),
                "memory --memory small, 2 threads": (None, None),
                "memory, default, 1 thread": (75.0, True),
                "memory, default, 2 threads": (75.1, False),
                "memory --memory fast, 1 thread": (None, None),
                "memory --memory fast, 2 threads": (None, None),
            },
        )
        held = {verdict.what: verdict.met for verdict in bars.verdicts(self.rows(), avx2=True)}
        expected = {"speed, AVX2, 1 thread": True, "speed, AVX2, 2 threads": None, "scaling from 1 to 2 threads": None}
        self.assertEqual(held, expected)

    def test_other_kernels_are_not_held_against_bars_for_the_best(self) -> None:
        found = {verdict.what: verdict for verdict in bars.verdicts(self.rows("avx2"), avx2=False)}
        self.assertIsNone(found["speed, 1 thread"].met)
        self.assertIn("avx512vnni", found["speed, 1 thread"].remark)
        self.assertIs(found["memory, default, 1 thread"].met, True)

    def test_a_fastest_peer_that_computes_something_else_is_called_so(self) -> None:
        remarks = {verdict.what: verdict.remark for verdict in bars.verdicts(self.rows(), avx2=False)}
        expected = "against inexact, whose outputs differ; 2.00× against exact, whose do not"
        self.assertEqual(remarks["speed, 1 thread"], expected)
        self.assertEqual(remarks["speed, 2 threads"], "against exact")


class Output(unittest.TestCase):
    def setUp(self) -> None:
        self.rows = summary.rows(SAMPLES, macs=10**9, ceilings={1: 100.0})
        self.results = {
            "machine": {"cpu": "X", "cores": 2, "kernel": "K", "system": "S", "date": "2026-01-02"},
            "mode": "native", "bundle": "b 1", "macs": 10**9, "rounds": 3, "runs": 7, "instruction": "i",
            "python_mb": 30.0, "energy": "no counters", "ceilings": {"1": {"i": 100.0}},
            "missing": [{"contender": "gone", "threads": 1, "reason": "why"}],
        }  # fmt: skip

    def test_the_table_calls_a_peer_that_computes_something_else_so(self) -> None:
        text = table.markdown(self.results, self.rows, [])
        self.assertIn("| slow | 90.0 | 89.0 | 0.56× | 11 % |", text)
        self.assertIn("**5 of 99**, by up to 2", text)
        self.assertIn("| **mine** | 25.0 | 24.0 | 2.00× | 40 % |", text)
        self.assertIn("| not checked |", text)
        self.assertIn("gone, 1 thread: not there: why", text)
        self.assertIn("No joules: no counters.", text)

    def test_a_missed_bar_is_said_and_what_just_missed_does_not_look_met(self) -> None:
        verdicts = [
            bars.Verdict("a", 1.449, 1.45, False, "×", "against b"),
            bars.Verdict("c", 39.9, 40.0, True, " MB"),
            bars.Verdict("d", None, 100.0, True, " ms"),
        ]
        text = table.markdown(self.results, self.rows, verdicts)
        self.assertIn("| a | at least 1.45× | **1.449×**, **missed** | against b |", text)
        self.assertIn("| c | at most 40 MB | **39.9 MB** |  |", text)
        self.assertIn("| d | at most 100 ms | not measured |  |", text)

    def test_all_rows_of_a_table_have_as_many_cells_as_its_head(self) -> None:
        for joules in (False, True):
            lines = table._table(self.rows, joules)
            self.assertEqual({line.count("|") for line in lines}, {10 if joules else 9})

    def test_the_plot_is_xml_with_a_bar_a_row_and_cuts_what_is_far_too_long(self) -> None:
        document = ElementTree.fromstring(plot.svg(self.rows, 'a < b & "c"', "x"))
        marks = [element.get("class") for element in document.iter() if element.get("class")]
        self.assertEqual((marks.count("peer"), marks.count("ours")), (2, 2))
        self.assertEqual((marks.count("cut"), marks.count("least")), (1, 3))  # 90 ms is nine times 10 ms
        widths = [float(bar.get("width")) for bar in document.iter("{http://www.w3.org/2000/svg}rect")][1:]
        edge = {bar.get("x") for bar in document.iter("{http://www.w3.org/2000/svg}rect") if bar.get("x")}
        self.assertEqual([float(left) + max(widths) + plot.RIGHT for left in edge], [plot.WIDTH])
        plot.svg([], "nothing", "ran")


class Ncnn(unittest.TestCase):
    def test_int8_is_handed_on_between_convolutions_only(self) -> None:
        magic, counts, *lines = ncnn_form.param(tiny_network()).splitlines()
        self.assertEqual((magic, counts), ("7767517", "6 7"))
        self.assertEqual(len(lines), 6)
        self.assertIn("Convolution a 1 1 image a 0=3 1=3 11=3 4=1 14=1 5=1 6=27 8=102 9=1", lines)
        self.assertIn("Convolution b 1 1 a b 0=4 1=3 11=3 4=1 14=1 5=1 6=108 8=2 9=1", lines)
        self.assertIn("Convolution head 1 1 features_1 evidence 0=2 1=1 11=1 4=0 14=0 5=1 6=8 8=2 9=0", lines)
        blobs = {name for line in lines for name in line.split()[4 + int(line.split()[2]) :] if "=" not in name}
        self.assertEqual(len(blobs), 7)

    def test_the_weights_are_the_bundles_own_padded_to_words(self) -> None:
        data = ncnn_form.binary(tiny_network())
        self.assertEqual(data[:4], struct.pack("<I", 0x000D4B38))
        self.assertEqual(data[4:32], bytes(range(27)) + b"\0")
        floats = struct.unpack_from("<8f", data, 32)
        self.assertEqual(floats[:6], (2.0, -2.0, 0.0, 2.0, 4.0, 0.5))
        self.assertAlmostEqual(floats[6], 127 / 255, places=6)
        self.assertAlmostEqual(floats[7], 127 / 510, places=6)
        self.assertEqual(len(data), (4 + 28 + 8 * 4) + (4 + 108 + 9 * 4) + (4 + 8 + 5 * 4))


class Processes(unittest.TestCase):
    def test_a_contender_that_used_other_threads_is_not_there(self) -> None:
        self.assertEqual(contenders.parse('noise\n{"threads": 2, "median_ms": 1}\n', 2)["median_ms"], 1)
        for printed in ('{"threads": 1}', "", "no JSON"):
            with self.assertRaises(contenders.NotThere):
                contenders.parse(printed, 2)

    def test_ours_is_verified_with_the_configuration_of_its_options_where_there_is_one(self) -> None:
        small = contenders.ours(Path("p"), Path("b"), "native", ["--memory", "small", "--kernel", "avx2"])
        self.assertEqual(small.name, "roentgend native --memory small --kernel avx2")
        self.assertEqual(small.command(2, 7)[-4:], ["--memory", "small", "--kernel", "avx2"])
        self.assertEqual(small.verify, (("backend", "native"), ("memory", "small"), ("kernel", "avx2")))
        text = contenders.configured('# memory = x\nbackend = "auto"\n[engine]\nmemory = "fast"\n', small.verify)
        self.assertEqual(text, '# memory = x\nbackend = "native"\n[engine]\nmemory = "small"\n')
        self.assertEqual(contenders.settings("native", ["--direct-only"]), ())
        self.assertEqual(contenders.settings("onnx", []), (("backend", "onnx"),))

    def stub(self, folder: Path, pack: str) -> contenders.Contender:
        """Ours with packed weights, and in the program's place a script that packs as it is told."""
        program = folder / "roentgend"
        program.write_text(
            "#!/bin/sh\nfor cache; do :; done\n" + pack + "\n" + """echo '{"threads": 2, "median_ms": 1.0}'\n"""
        )
        program.chmod(0o755)
        return contenders.ours(program, Path("b"), "native", keeps=folder / "packed")

    def test_packed_weights_are_kept_before_anybody_measures_and_then_taken(self) -> None:
        with tempfile.TemporaryDirectory() as name:
            folder, environ = Path(name), dict(os.environ)
            one = self.stub(folder, '[ -d "$cache" ] || { mkdir "$cache" && touch "$cache/a.packed"; }')
            self.assertEqual(one.name, "roentgend native --cache")
            self.assertEqual(one.command(2, 7)[-2:], ["--cache", str(folder / "packed/2")])
            self.assertEqual((one.kept(2), one.verify), (set(), ()))
            contenders.fill(one, 2, environ)
            kept = one.kept(2)
            self.assertEqual((len(kept), len(one.kept(1))), (1, 0))
            self.assertEqual(contenders.run(one, 2, 7, environ)["median_ms"], 1.0)
            self.assertEqual(one.kept(2), kept)
            (folder / "packed/2/older.packed").touch()
            contenders.fill(one, 2, environ)
            self.assertEqual(len(one.kept(2)), 1)

    def test_a_cold_start_that_packs_is_not_taken_for_one_from_packed_weights(self) -> None:
        with tempfile.TemporaryDirectory() as name:
            nothing = self.stub(Path(name), ":")
            with self.assertRaisesRegex(contenders.NotThere, "kept no packed weights"):
                contenders.fill(nothing, 2, dict(os.environ))
            anew = self.stub(Path(name), 'mkdir -p "$cache" && mktemp "$cache/XXXXXX.packed" >/dev/null')
            contenders.fill(anew, 2, dict(os.environ))
            with self.assertRaisesRegex(contenders.NotThere, "packed them again"):
                contenders.run(anew, 2, 7, dict(os.environ))

    def test_a_refusal_is_told_in_the_programs_own_words(self) -> None:
        self.assertEqual(contenders.refusal(2, "error: no such backend\n\nFor more, try --help\n"), "no such backend")
        self.assertEqual(contenders.refusal(1, "Traceback\n  line\nRuntimeError: why\n"), "RuntimeError: why")
        self.assertIn("-9", contenders.refusal(-9, ""))


class Energy(unittest.TestCase):
    def test_joules_of_a_span_are_interpolated(self) -> None:
        samples = [(0.0, 0.0), (1.0, 10.0), (2.0, 30.0)]
        self.assertAlmostEqual(energy.between(samples, 0.5, 1.5), 15.0)
        for start, end in ((-1.0, 1.0), (1.0, 3.0), (1.0, 1.0)):
            self.assertIsNone(energy.between(samples, start, end))
        self.assertIsNone(energy.between([], 0.0, 1.0))

    def test_counters_that_start_anew_go_on(self) -> None:
        self.assertEqual((energy.unwrapped(10, 30, 100), energy.unwrapped(90, 5, 100)), (20, 15))

    def test_packages_are_read_and_their_parts_are_not(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            self.assertIn("no RAPL", energy.unavailable(root))
            for zone in ("intel-rapl:0", "intel-rapl:0:0", "intel-rapl:1"):
                (root / zone).mkdir()
                (root / zone / "energy_uj").write_text("5\n")
                (root / zone / "max_energy_range_uj").write_text("100\n")
            self.assertIsNone(energy.unavailable(root))
            self.assertEqual([zone.name for zone in energy.packages(root)], ["intel-rapl:0", "intel-rapl:1"])
            with energy.Meter(root) as meter:
                pass
            self.assertEqual({joules for _, joules in meter.samples}, {0.0})
            self.assertGreaterEqual(len(meter.samples), 2)


class Held(unittest.TestCase):
    def elf(self) -> bytes:
        """A file with one loaded segment: 16 bytes at offset 128, loaded at 0x1000."""
        header = bytearray(128)
        struct.pack_into("<Q", header, 32, 64)
        struct.pack_into("<HH", header, 54, 56, 1)
        struct.pack_into("<IIQQQQ", header, 64, 1, 5, 128, 0x1000, 0, 16)
        return bytes(header) + b"\x90" * 4 + b"\x0f\xa2" + b"\x90" * 10

    def test_a_trap_takes_the_place_of_cpuid_and_of_nothing_else(self) -> None:
        self.assertEqual(held.file_offset(self.elf(), 0x1004), 132)
        changed = held.patched(self.elf(), [0x1004])
        self.assertEqual(changed, self.elf().replace(b"\x0f\xa2", b"\xcd\x03"))
        for address in (0x1005, 0x2000):
            with self.assertRaises(held.HoldError):
                held.patched(self.elf(), [address])


class AboutTheMachine(unittest.TestCase):
    def test_the_processor_is_named_with_family_and_model(self) -> None:
        cpuinfo = "cpu family\t: 26\nmodel\t\t: 2\nmodel name\t: AMD EPYC\n\nprocessor\t: 1\nmodel name\t: Y\n"
        self.assertEqual(machine.cpu_model(cpuinfo), "AMD EPYC (family 26, model 2)")
        self.assertEqual(machine.cpu_model("Model : Raspberry Pi 4\n"), "Raspberry Pi 4")


if __name__ == "__main__":
    unittest.main()

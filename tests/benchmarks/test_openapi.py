"""What schemathesis counted is found in what it says."""

from benchmarks.openapi import totals

SAID = """
===== FAILURES =====
1. Test Case ID: 4Cwv58
    Documented: 200, 400, 401
===== SUMMARY ======

API Operations:
  Selected: 9/9
  Tested: 9

Test Phases:
  \u274c Fuzzing

Failures:
  \u274c ST101 Server error: 3

For more information, run `st explain <code>` for ST101.

Test cases:
  750 generated, 3 found 3 unique failures

Seed: 1

===== 3 failures in 85.07s =====
"""


def test_the_totals_are_the_lines_of_the_summary_that_count_something() -> None:
    assert totals(SAID) == ["Selected: 9/9", "Tested: 9", "ST101 Server error: 3", "750 generated, 3 found 3 unique failures"]
    assert totals("it did not run") == []

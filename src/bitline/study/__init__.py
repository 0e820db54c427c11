"""Many settings of one network, and what they teach."""

from bitline.study.findings import Finding, findings
from bitline.study.partial_sums import Runs, partial_sums
from bitline.study.plan import Plan

__all__ = ["Finding", "Plan", "Runs", "findings", "partial_sums"]

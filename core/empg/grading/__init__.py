"""Verifiable rewards: rules that compare answers with gold answers, and processes to run them that can be killed."""

from empg.grading.base import Grader
from empg.grading.make import make_grader
from empg.grading.pool import GradePool

__all__ = ["GradePool", "Grader", "make_grader"]

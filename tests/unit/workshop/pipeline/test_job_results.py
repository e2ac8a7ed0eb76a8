"""The results of the jobs that a CI job depends on."""

from __future__ import annotations

import json

import pytest

from deploy.errors import GateRefused, UsageError
from workshop.pipeline.job_results import require_success


def test_jobs_that_all_succeeded_pass():
    require_success('{"lint": {"result": "success"}, "unit": {"result": "success"}}')


@pytest.mark.parametrize("result", ["failure", "cancelled", "skipped"])
def test_any_other_result_is_refused(result: str):
    needs = {"lint": {"result": "success"}, "unit": {"result": result}}
    with pytest.raises(GateRefused, match="unit"):
        require_success(json.dumps(needs))


@pytest.mark.parametrize("needs", ["", "[]", '{"lint": 1}'])
def test_malformed_needs_are_wrong_usage(needs: str):
    with pytest.raises(UsageError, match="NEEDS"):
        require_success(needs)


def test_needs_without_a_job_are_refused():
    with pytest.raises(GateRefused, match="no job"):
        require_success("{}")

import pytest

from halve.core import Objective
from halve.gate import ErrorBudget


@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.999])
def test_the_certificate_may_spend_all_of_alpha(confidence):
    budget = ErrorBudget.of(Objective(confidence=confidence))
    assert budget.certificate == pytest.approx(1 - confidence)
    assert budget.search_decision == budget.certificate

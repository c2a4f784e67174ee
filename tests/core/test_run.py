from halve.core import Comparison, Verdict


def test_a_verdict_reads_as_a_statement() -> None:
    assert Verdict(decision="keep", reason="").keep
    assert not Verdict(decision="reject", reason="").keep


def test_the_error_of_a_prediction_is_relative_to_what_happened() -> None:
    assert Comparison(predicted=1.1, replayed=1.0).error_rate == 1.1 - 1.0

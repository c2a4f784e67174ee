from halve.core.progress import Silent


def test_silence_prints_nothing_and_counts_nothing(capsys):
    with Silent().task("long work", total=3) as advance:
        assert advance() is None
        assert advance(2) is None
    assert capsys.readouterr() == ("", "")

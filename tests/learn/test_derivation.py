from halve.learn import Derivation, Step, as_text

DERIVATION = Derivation(
    topic="halves",
    title="Half of 3",
    given={"number": 3},
    steps=(
        Step(
            title="Divide",
            reason="Half is a division by 2. " * 5,
            lines=("h = n / 2", "  = 1.5"),
            figures={"half": 1.5},
        ),
        Step(title="Check", reason="Twice the half is the whole.", lines=("2 h = 3",), figures={"whole": 3}),
    ),
    sources=("Euclid, book I",),
)


def test_text_is_steps_with_reasons_and_lines():
    assert as_text(DERIVATION) == (
        "Half of 3\n"
        "\n"
        "1. Divide\n"
        "    Half is a division by 2. Half is a division by 2. Half is a division by 2.\n"
        "    Half is a division by 2. Half is a division by 2.\n"
        "\n"
        "    h = n / 2\n"
        "      = 1.5\n"
        "\n"
        "2. Check\n"
        "    Twice the half is the whole.\n"
        "\n"
        "    2 h = 3\n"
        "\n"
        "Sources: Euclid, book I.\n"
    )
